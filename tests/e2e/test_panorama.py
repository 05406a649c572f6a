"""From a feed to a panorama over HTTP, on real servers, against what the bank that made the feed says itself."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.messaging.transport import end_offsets
from chassis.observability import telemetry
from chassis.privacy.tokens import Caller, development_token
from chassis.read.mongo import Mongo
from chassis.web import create_app
from chassis.write.deciding import CommandContext
from contracts.topics import EVENTS
from crm_cli import demo_bank, demo_consents, demo_needs, demo_profiles, demo_tags, demo_tiers, panorama
from crm_cli.demo_bank import DemoBank, DemoPlan
from crm_cli.migrate import migrated
from customer import bootstrap as customer_service
from customer.connections import both_sides
from customer.domain.commands import AssessTier
from customer.panorama.rules import ASSETS, LIABILITIES, SPENDING_KINDS
from customer.settings import CustomerSettings
from devservers import servers
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg import sql
from sync_ingest import bootstrap as ingest_service
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

from tests.support.roles import heads, hosted, roles_of_all
from tests.support.waiting import until

CLOCK = SystemClock()
PLAN = DemoPlan(
    customers=60, days=120, duplicates=30, late=20, reversals=15, malformed=len(demo_bank.SPOILERS)
)
PATIENCE_SECONDS = 60.0
BY_HAND: dict[str, Any] = {
    "phone": "13800001234",
    "stated_assets": [{"product": "fund", "amount": "100.00", "currency": "EUR"}],
}


class Told:
    """What the lines of the feed amount to: read by other code than the bank's ingest and views."""

    def __init__(self, bank: DemoBank) -> None:
        self.products: dict[str, str] = {}
        self.holders: dict[str, set[str]] = defaultdict(set)
        self.balances: dict[tuple[str, str], int] = defaultdict(int)
        self.spent: dict[tuple[str, str], int] = defaultdict(int)
        self.month = max(
            line["booked_on"][:7] for line in map(json.loads, good(bank)) if line["record"] == "posting"
        )
        seen = set()
        self.postings = {
            (line["account"], line["core_transaction_id"], line["leg"]): line
            for line in map(json.loads, good(bank))
            if line["record"] == "posting"
        }
        for line in map(json.loads, good(bank)):
            if line["record"] == "account":
                self.products[line["account"]] = line["product"]
            if line["record"] == "holder":
                self.holders[line["party"]].add(line["account"])
            if line["record"] == "posting":
                identity = (line["account"], line["core_transaction_id"], line["leg"])
                if identity not in seen:
                    seen.add(identity)
                    self._moved(line)

    def _moved(self, line: dict[str, Any]) -> None:
        purse, amount = (line["account"], line["currency"]), line["amount_minor"]
        self.balances[purse] += amount
        out = amount > 0 if "reverses" in line else amount < 0
        product = self.products.get(line["account"])
        # A reversal takes back under the transaction type and in the month of what it reverses.
        of = self.postings[line["account"], line["reverses"], line["leg"]] if "reverses" in line else line
        spends = product in {"deposit", "card"} and of.get("kind", "other") in SPENDING_KINDS
        if out and spends and of["booked_on"][:7] == self.month:
            self.spent[purse] -= amount

    def expected(self, party: str) -> dict[str, dict[str, int]]:
        """The figures of a party by currency."""
        sections = {"deposit": "deposits", "wealth": "wealth"}, {"loan": "loans", "card": "cards"}
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (account, currency), balance in self.balances.items():
            if account not in self.holders[party]:
                continue
            owned, owed = sections
            product = self.products[account]
            name = owned.get(product, "credit_balances") if balance >= 0 else owed.get(product, "overdrafts")
            found[currency][name] += abs(balance)
            found[currency]["spending"] += self.spent[account, currency]
        return found


def good(bank: DemoBank) -> list[bytes]:
    """The lines that are records of the schema."""
    found = []
    for line in bank.lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["record"] != "posting" or not record["core_transaction_id"].startswith("bad-"):
            found.append(line)
    return found


class Running:
    """The services in this process, every role a task."""

    def __init__(self, customer: CustomerSettings, ingest: SyncIngestSettings) -> None:
        self.customer = customer
        self.ingest = ingest
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Everything but HTTP and the branch feed."""
        roles = roles_of_all(self.customer).values()
        self.tasks = [asyncio.create_task(hosted(make, self.stopping)) for make in roles]

    async def stop(self) -> None:
        """Ends all of them; what one of them raised is raised."""
        self.stopping.set()
        await asyncio.gather(*self.tasks)

    def take_in(self, bank: DemoBank) -> Any:
        """The feed, through the real ingest."""
        content = FeedContent("bank.jsonl", lambda: BytesIO(bank.feed))
        with ingest_service.opened(self.ingest) as ingest:
            return ingest.run(bank.plan.source, [content], format="canonical")

    def heads(self) -> dict[str, int]:
        """The last position of each context."""
        return heads(self.ingest.postgres_url)


@pytest.fixture(scope="module")
def bank() -> DemoBank:
    return demo_bank.make(PLAN)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Servers of their own: the topics must hold nothing of other tests."""
    data: Path = tmp_path_factory.mktemp("panorama")
    with servers(data, {"postgres", "mongo", "kafka"}, lambda _: None, durable=False) as started:
        urls = started.urls
        places: dict[str, Any] = {
            "postgres_url": urls["POSTGRES_URL"],
            "mongo_url": urls["MONGO_URL"],
            "kafka_url": urls["KAFKA_URL"],
            "data": data,
            "environment": "development",
        }
        running = Running(CustomerSettings(**places), SyncIngestSettings(**places))
        migrated(running.ingest)
        running.start()
        yield running
        await running.stop()


@pytest.fixture(scope="module")
async def web(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with a token."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(customer_service.routes(running.customer))
        app = create_app("customer", [served.router], running.customer)
        token = development_token(running.customer, CLOCK.now())
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://crm",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        yield await stack.enter_async_context(client)


@pytest.fixture(scope="module")
async def taken_in(running: Running, web: httpx.AsyncClient, bank: DemoBank) -> Any:
    """The bank has been taken in, and every party of it is a customer."""
    result = await asyncio.to_thread(running.take_in, bank)

    def registered() -> bool:
        assert not any(task.done() for task in running.tasks), [task for task in running.tasks if task.done()]
        return running.heads()["customer"] >= 2 * bank.expected.parties

    await until(registered, what=running.heads)
    for context, position in running.heads().items():

        async def shown(token: str = f"{context}-{position}") -> bool:
            return (await web.get("/customers", params={"limit": 1, "at_least": token})).status_code == 200

        await until(shown, what=f"{context}-{position} is shown")
    return result


async def panorama_of(web: httpx.AsyncClient, party: str) -> dict[str, Any]:
    found = (await web.get("/customers", params={"reference": f"{PLAN.source}:{party}"})).json()
    [customer] = found["items"]
    answer = await web.get(f"/customers/{customer['customer_id']}/panorama")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


@pytest.mark.requirement("R018")
async def test_every_customers_figures_are_what_its_bank_says(
    taken_in: Any, web: httpx.AsyncClient, bank: DemoBank
) -> None:
    told = Told(bank)
    assert dict(told.balances) == bank.expected.closing_minor
    for party in told.holders:
        shown = await panorama_of(web, party)
        expected = told.expected(party)
        assert {block["currency"] for block in shown["currencies"]} == set(expected), party
        for block in shown["currencies"]:
            of_currency = expected[block["currency"]]
            for section in (*ASSETS, *LIABILITIES):
                assert block[section]["amount_minor"] == of_currency[section], (party, section)
            if shown["month"] == told.month:
                assert block["spending"]["amount_minor"] == of_currency["spending"], party
            net = sum(of_currency[s] for s in ASSETS) - sum(of_currency[s] for s in LIABILITIES)
            assert block["net_worth"]["amount_minor"] == net
            assert sum(share["hundredths"] for share in block["allocation"]) in {0, 10_000}


@pytest.mark.requirement("M02")
async def test_figures_lead_to_movements_that_sum_to_them(taken_in: Any, web: httpx.AsyncClient) -> None:
    shown = await panorama_of(web, "P000001")
    for account in shown["accounts"]:
        for balance in account["balances"]:
            total, params = 0, {"limit": "200"}
            while True:
                page = (await web.get(balance["events"], params=params)).json()
                total += sum(one["amount_minor"] for one in page["items"])
                if page["next"] is None:
                    break
                params["after"] = page["next"]
            assert total == balance["balance_minor"]


async def test_who_is_not_linked_waits_and_is_counted(
    taken_in: Any, web: httpx.AsyncClient, bank: DemoBank
) -> None:
    page = (await web.get("/accounts/unlinked")).json()
    assert page["counted"] == len(bank.expected.unknown_accounts) == 1
    [account] = page["items"]
    assert account["movements"] == PLAN.unknown_account_postings


async def test_one_customer_per_party_and_joint_accounts_with_both(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    assert running.heads()["customer"] == 2 * bank.expected.parties
    joint = [account for account, parties in bank.expected.holders.items() if len(parties) > 1]
    assert joint
    holders = bank.expected.holders[joint[0]]
    shown = [await panorama_of(web, party) for party in sorted(holders)]
    both = [{a["account_id"]: a for a in one["accounts"] if a["joint"]} for one in shown]
    shared = set(both[0]) & set(both[1])
    assert shared
    assert all(
        both[0][a]["balances"][0]["balance_minor"] == both[1][a]["balances"][0]["balance_minor"]
        for a in shared
    )


async def test_the_command_line_shows_the_same(
    taken_in: Any, web: httpx.AsyncClient, running: Running
) -> None:
    over_http = await panorama_of(web, "P000001")
    printed = await panorama.shown(running.customer, PLAN.source, "P000001")
    assert (
        printed["currencies"][0]["aum"]["amount_minor"] == over_http["currencies"][0]["aum"]["amount_minor"]
    )
    assert str(printed["name"]) in panorama.readable(printed)
    with pytest.raises(panorama.NotShown, match="has no customer under this number"):
        await panorama.shown(running.customer, PLAN.source, "P999999")


async def test_a_customer_entered_by_hand_gets_what_it_is_linked_to(
    taken_in: Any, web: httpx.AsyncClient, running: Running
) -> None:
    """Read-your-write: the answer of a command names what the question then waits for."""
    records = [
        {"record": "holder", "account": "A1", "party": "H1", "role": "owner"},
        {
            "record": "posting",
            "account": "A1",
            "core_transaction_id": "1",
            "amount_minor": 700,
            "currency": "EUR",
            "booked_on": "2026-01-02",
        },
    ]
    feed = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    content = FeedContent("by-hand.jsonl", lambda: BytesIO(feed))

    def take_in() -> None:
        with ingest_service.opened(running.ingest) as ingest:
            ingest.run("elsewhere", [content], format="canonical")

    await asyncio.to_thread(take_in)
    stored = {"at_least": f"ingest-{running.heads()['ingest']}"}
    waiting = (await web.get("/accounts/unlinked", params=stored)).json()["counted"]

    body = BY_HAND | {"name": "赵敏"}
    made = await web.post("/customers", json=body, headers={"Idempotency-Key": "by-hand"})
    at = made.headers["Location"]
    shown = await web.get(at, params={"at_least": made.headers["Consistency-Token"]})
    assert (shown.status_code, shown.json()["name"], shown.headers["ETag"]) == (200, "赵*", '"1"')
    assert (await web.get(f"{at}/panorama")).json()["currencies"] == []

    headers = {"Idempotency-Key": "link", "If-Match": shown.headers["ETag"]}
    linked = await web.post(f"{at}/references", json={"source": "elsewhere", "key": "H1"}, headers=headers)
    known = {"at_least": linked.headers["Consistency-Token"]}
    claimed = (await web.get(at, params=known)).json()
    [reference] = claimed["references"]
    assert (reference["status"], claimed["contradictions"]) == ("pending", [])
    assert (await web.get(f"{at}/panorama", params=known)).json()["currencies"] == []
    headers = {"Idempotency-Key": "confirm", "If-Match": linked.headers["ETag"]}
    confirm, why = f"{at}/references/{reference['party_id']}/confirm", {"reason": "the card was shown"}
    confirmed = await web.post(confirm, json=why, headers=headers)
    known = {"at_least": confirmed.headers["Consistency-Token"]}
    [block] = (await web.get(f"{at}/panorama", params=known)).json()["currencies"]
    assert (block["currency"], block["aum"]["amount_minor"]) == ("EUR", 700)
    assert (await web.get("/accounts/unlinked")).json()["counted"] == waiting - 1


@pytest.mark.requirement("R007", "R025", "R026")
async def test_a_tag_is_read_with_its_origin_as_soon_as_the_views_show_the_command(
    taken_in: Any, web: httpx.AsyncClient
) -> None:
    """Over the broker: the tag in the customer's document and in the facts, then a merge in the facts of who has it."""
    made = await web.post(
        "/customers", json=BY_HAND | {"name": "钱敏"}, headers={"Idempotency-Key": "tagged"}
    )
    at, customer = made.headers["Location"], made.json()["customer_id"]

    async def done(path: str, body: dict[str, Any], **headers: str) -> dict[str, str]:
        key = {"Idempotency-Key": str(uuid5(NAMESPACE_URL, f"{path} {body}"))}
        answer = await web.post(path, json=body, headers=key | headers)
        assert answer.status_code < 300, answer.text
        return {"at_least": answer.headers["Consistency-Token"]}

    async def has(where: str, known: dict[str, str]) -> bool:
        found = await web.get("/customers/selection", params={"where": f"{where} and accounts = 0", **known})
        assert found.status_code == 200, found.text
        return customer in {one["customer_id"] for one in found.json()["items"]}

    known = await done(f"{at}/tags", {"add": ["房贷客户", "学生"], "reason": "she said so"})
    [loan, student] = (await web.get(at, params=known)).json()["tags"]
    assert (loan["name"], loan["origin"], student["name"]) == ("房贷客户", "manual", "学生")
    assert await has("tags has all (房贷客户, 学生)", known)
    assert not await has("not tags has 学生", known)
    why = {"into": "房贷客户", "reason": "one meaning"}
    known = await done(f"/tags/{student['tag']}/merge", why, **{"If-Match": '"1"'})
    [told] = (await web.get(at, params=known)).json()["tags"]
    assert (told["tag"], await has(f"tags has {loan['tag']}", known)) == (loan["tag"], True)
    known = await done(f"{at}/tags", {"remove": ["学生"]})
    assert (await web.get(at, params=known)).json()["tags"] == []
    assert await has("not tags has 房贷客户", known)


async def test_the_demo_bank_has_a_dictionary_of_tags_and_customers_who_have_them(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    caller = Caller("crm-up")
    assert await demo_tags.tag(running.customer, bank, caller, CLOCK) == len(bank.tagged) > 0
    stored = running.heads()["customer"]
    assert await demo_tags.tag(running.customer, bank, caller, CLOCK) == len(bank.tagged)
    assert running.heads()["customer"] == stored, "once more changes nothing"
    for tag in demo_bank.TAGS:
        wanted = sum(tag in tags for _, tags in bank.tagged)
        asked = {"where": f"tags has {tag}", "at_least": f"customer-{stored}"}
        found = (await web.get("/customers/selection/count", params=asked)).json()
        assert found["count"] == wanted, tag


@pytest.mark.requirement("R022", "R024")
async def test_the_demo_bank_has_a_customer_whose_tier_one_person_overrode_and_others_by_a_run(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    caller = Caller("crm-up")
    done = await demo_tiers.override(running.customer, bank, caller, CLOCK)
    assert done == (1, len(bank.tagged) - 1)
    assert done.in_run > 0
    stored = running.heads()["customer"]
    assert await demo_tiers.override(running.customer, bank, caller, CLOCK) == done
    assert running.heads()["customer"] == stored, "once more changes nothing"
    for tier, wanted in (("mass", 1), ("potential", done.in_run)):
        asked = {"where": f"tier is {tier}", "at_least": f"customer-{stored}"}
        assert (await web.get("/customers/selection/count", params=asked)).json()["count"] == wanted, tier
    [first, *_] = (await web.get("/customers/selection", params={"where": "tier is mass"})).json()["items"]
    now = (await web.get(f"/customers/{first['customer_id']}/tier")).json()
    assert (now["tier"], now["given_by"]["change"], now["given_by"]["actor"]) == (
        "mass",
        "overridden",
        "crm-up",
    )


@pytest.mark.requirement("R065", "R011")
async def test_the_demo_bank_has_customers_whose_needs_are_read_over_the_broker(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    assert await demo_needs.note(running.customer, bank, Caller("crm-up"), CLOCK) == len(bank.tagged)
    stored = running.heads()["customer"]
    assert await demo_needs.note(running.customer, bank, Caller("crm-up"), CLOCK) == len(bank.tagged)
    assert running.heads()["customer"] == stored, "once more changes nothing"
    key, _ = bank.tagged[0]
    known = {"at_least": f"customer-{stored}"}
    found = await web.get("/customers", params={"reference": f"{bank.plan.source}:{key}", **known})
    at = f"/customers/{found.json()['items'][0]['customer_id']}/needs"
    [need] = (await web.get(at, params=known)).json()["items"]
    assert (need["kind"], need["text"], need["served_by"]) == (
        "study-abroad",
        demo_needs.NEEDS[0].text,
        "crm-up",
    )
    assert need["closed"]["outcome"] == "fulfilled"


@pytest.mark.requirement("M36", "R079")
async def test_the_demo_bank_has_customers_whose_consents_are_found_over_the_broker(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    assert await demo_consents.consent(running.customer, bank, Caller("crm-up"), CLOCK) == len(bank.tagged)
    stored = running.heads()["customer"]
    assert await demo_consents.consent(running.customer, bank, Caller("crm-up"), CLOCK) == len(bank.tagged)
    assert running.heads()["customer"] == stored, "once more changes nothing"
    known = {"at_least": f"customer-{stored}"}
    pairs = demo_consents.CONSENTS
    for number, (channel, purpose) in enumerate(pairs):
        signed = len(range(number, len(bank.tagged), len(pairs)))
        asked = {"where": f"consents has {channel}-{purpose}", **known}
        counted = (await web.get("/customers/selection/count", params=asked)).json()["count"]
        assert counted == signed - (number == 0), "one withdrew"
    key, _ = bank.tagged[0]
    found = await web.get("/customers", params={"reference": f"{bank.plan.source}:{key}", **known})
    at = f"/customers/{found.json()['items'][0]['customer_id']}/consents"
    [said] = [one for one in (await web.get(at)).json()["items"] if one["state"] != "unknown"]
    assert (said["channel"], said["purpose"], said["state"], said["valid"]) == (*pairs[0], "withdrawn", False)


@pytest.mark.requirement("R016", "R017")
async def test_the_demo_bank_has_customers_with_a_profile_who_are_selected_by_it(
    taken_in: Any, web: httpx.AsyncClient, running: Running, bank: DemoBank
) -> None:
    given = await demo_profiles.extend(running.customer, bank, Caller("crm-up"), CLOCK)
    assert given > 0
    stored = running.heads()["customer"]
    assert await demo_profiles.extend(running.customer, bank, Caller("crm-up"), CLOCK) == given
    assert running.heads()["customer"] == stored, "once more changes nothing"
    asked = {"where": "职业 is 离退休人员", "at_least": f"customer-{stored}"}
    [found] = (await web.get("/customers/selection", params=asked)).json()["items"]
    at = f"/customers/{found['customer_id']}/profile"
    shown = {one["field"]: one["value"] for one in (await web.get(at)).json()["items"]}
    assert shown["occupation"] == "retired"
    history = (await web.get(f"{at}/occupation/history")).json()["items"]
    assert [one["value"] for one in history] == ["teacher", "retired"]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Every span of this process."""
    exporter = InMemorySpanExporter()
    telemetry.configure_tracing("crm", exporter=exporter)
    yield exporter
    telemetry.configure_tracing("crm")


async def traced(spans: InMemorySpanExporter, trace: int, *names: str) -> list[str]:
    """Waits until the trace has a span for each of these names, twice where one is named twice; all names it has."""
    wanted = Counter(names)

    def found() -> list[str]:
        return [span.name for span in spans.get_finished_spans() if span.context.trace_id == trace]

    await until(lambda: wanted <= Counter(found()), what=lambda: f"{names} in {found()}")
    return found()


@pytest.mark.requirement("M44")
async def test_one_trace_leads_from_a_call_to_the_view(
    taken_in: Any, web: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    trace = 0x0AF7651916CD43DD8448EB211C80319C
    headers = {"Idempotency-Key": "traced", "traceparent": f"00-{trace:032x}-b7ad6b7169203331-01"}
    made = await web.post("/customers", json=BY_HAND | {"name": "钱进"}, headers=headers)
    found = await traced(spans, trace, "POST /customers", "view written")
    assert {"POST /customers", "view written"} <= set(found)
    events = (await web.get(f"{made.headers['Location']}/events")).json()["items"]
    assert [event["traceparent"].split("-")[1] for event in events] == [f"{trace:032x}"]


@pytest.mark.requirement("M44")
async def test_one_trace_leads_from_a_feed_over_the_policy_to_the_views(
    taken_in: Any, web: httpx.AsyncClient, running: Running, spans: InMemorySpanExporter
) -> None:
    line = b'{"record":"party","party":"T1","name":"\xe5\xad\x99\xe6\x82\x9f"}\n'
    content = FeedContent("one.jsonl", lambda: BytesIO(line))

    def take_in() -> None:
        with ingest_service.opened(running.ingest) as ingest:
            ingest.run("traced", [content], format="canonical")

    await asyncio.to_thread(take_in)
    [root] = [span for span in spans.get_finished_spans() if span.name == "ingest run"]
    policy = "when_party_described_then_register_customer"
    assert policy in await traced(spans, root.context.trace_id, policy)

    async def customers() -> list[Any]:
        items: list[Any] = (await web.get("/customers", params={"reference": "traced:T1"})).json()["items"]
        return items

    await until(customers, what="the customer traced:T1 is shown")
    [customer] = await customers()
    events = (await web.get(f"/customers/{customer['customer_id']}/events")).json()["items"]
    assert {event["traceparent"].split("-")[1] for event in events} == {f"{root.context.trace_id:032x}"}
    written = await traced(spans, root.context.trace_id, "view written", "view written")
    assert written.count("view written") >= 2


async def kept(running: Running) -> dict[str, int]:
    """The rows of each table of PostgreSQL, the ends of each topic of Kafka, and the documents of each collection of MongoDB."""
    found = dict[str, int]()
    async with await psycopg.AsyncConnection.connect(running.customer.postgres_url) as connection:
        tables = await connection.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
        )
        for table in await tables.fetchall():
            counted = await connection.execute(
                sql.SQL("select count(*) from {}").format(sql.Identifier(*table))
            )
            [found[".".join(table)]] = await counted.fetchone() or (0,)
    topics = [one.name for one in EVENTS.values()]
    for place, end in (await end_offsets(running.customer.kafka_url, topics)).items():
        found[f"{place}"] = end
    mongo = Mongo.connect(running.customer.mongo_url)
    for collection in await mongo.collections():
        found[collection] = await mongo.count(collection, {})
    await mongo.close()
    return found


@pytest.mark.requirement("M07")
async def test_a_what_if_over_the_demo_bank_leaves_no_trace_in_any_server(
    taken_in: Any, web: httpx.AsyncClient, running: Running
) -> None:
    customers = (await web.get("/customers", params={"limit": 20})).json()["items"]
    month = (CLOCK.now().astimezone(UTC) - timedelta(days=40)).date().isoformat()[:7]
    async with both_sides(running.customer) as (service, _, _):
        for one in customers:
            context = CommandContext(
                actor="test", now=CLOCK.now(), command_id=uuid5(NAMESPACE_URL, one["customer_id"])
            )
            await service.handler.handle(UUID(one["customer_id"]), AssessTier(month, 700_000_000), context)
    before: dict[str, int] = {}

    async def settled() -> bool:
        nonlocal before
        await asyncio.sleep(1)
        last, before = before, await kept(running)
        return before == last

    await until(settled, what="everything was published and shown")
    asked = {"from_month": month, "currency": "CNY", "grace_months": 0, "private": "8000000.00"}
    answer = await web.get("/tier-rules/what-if", params=asked)
    [result] = [each for each in answer.text.split("\n\n") if each.startswith("event: result")]
    held = json.loads(result.splitlines()[1].removeprefix("data: "))["held"]
    moves = (await web.get("/tier-rules/what-if/moves", params=asked)).json()
    assert len(moves["items"]) + held == len(customers), "who is overridden does not move"
    assert moves["items"]
    why = await web.get(f"/customers/{moves['items'][0]['customer_id']}/tier/what-if", params=asked)
    assert len(why.json()["moves"]) == 1
    await asyncio.sleep(2)
    assert await kept(running) == before
    assert before["store_customer.events"] > 0
    assert any(end for name, end in before.items() if "crm.customer.events" in name)
