"""Questions to the views, over documents folded from sealed events into a real MongoDB."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.conditions import from_text
from chassis.lists import Question, Scope
from chassis.privacy.keys import Origin, is_token, seal
from chassis.read.blind import BlindIndex
from chassis.read.deriving import InputGeneration, MongoInputs
from chassis.read.documents import Change
from chassis.read.mongo import MongoDocuments
from chassis.read.projecting import DocumentKey
from chassis.read.summing import Summing
from chassis.write.events import event_id
from contracts.identity import ExternalIds
from customer.derived import customer_facts
from customer.facts import FIELDS
from customer.measuring import UNLINKED, measuring, unlinked_accounts
from customer.queries import UNLINKED_WALKED_MAX, AccountInScope, MovementsWanted, Queries
from customer.queries.holdings import HoldingsTooLarge
from customer.shapes import CustomerShown
from customer.views import VIEWS, asset_panorama, customers, tags
from customer.views.asset_panorama import ACCOUNTS, PARTIES

from .told import START, Teller

NOW = START + timedelta(days=2)
TODAY, TOMORROW = (str((NOW + timedelta(days=days)).date()) for days in (0, 1))
IDS = ExternalIds(bytes(32))
ZHANG, LI = UUID(int=1001), UUID(int=1002)
PERSONAL = {"account", "name", "party", "card", "counterparty_account", "counterparty_name", "text", "phone"}


async def still():
    return True


class Live:
    """Every view in its first generation."""

    async def collection(self, view, name):
        return f"{view}_v1_{name}"


class Bank(Teller):
    """Tells events with sealed values, and keeps the documents that the views make of them."""

    def __init__(self, ring):
        super().__init__()
        self.ring = ring
        self.folded = {}

    def tell(self, subject, type, **data):
        event = super().tell(subject, type, **data)
        context = "customer" if type.startswith(("customer.", "tag.")) else "ingest"
        key = self.ring.keys_for([subject])[subject]
        origin = Origin(context, subject, event.sequence, event.stored_name)
        for field in PERSONAL & data.keys():
            if data[field] is not None:
                event.data[field] = seal(key, origin.aad(field, key), data[field])
        view = {"customer": customers, "tag": tags}.get(type.partition(".")[0], asset_panorama)
        for name in view.keys(event):
            before = self.folded.get((view, name))
            self.folded[view, name] = {
                **view.project(name, before, event),
                "_id": name.id,
                "_seq": event.sequence,
            }
        return event

    def account(self, source, number, product, *holders):
        account = IDS.account(source, number)
        self.tell(account, "account.seen", source=source, account=number)
        if product is not None:
            self.tell(
                account,
                "account.opened",
                source=source,
                account=number,
                opened_on="2020-01-01",
                product=product,
                name=None,
            )
        for holder, role in holders:
            party = str(IDS.party(source, holder))
            self.tell(account, "account.holder_named", source=source, party_id=party, role=role)
        return account

    def customer(self, customer, name, *references):
        self.tell(
            customer, "customer.registered", kind="person", origin="staff", name=name, phone="13800001234"
        )
        for source, key in references:
            party = str(IDS.party(source, key))
            self.tell(customer, "customer.reference_linked", source=source, party_id=party)

    async def keep(self, mongo):
        for (view, key), document in self.folded.items():
            documents = MongoDocuments(mongo, f"{view.VIEW.name}_v1_")
            change = Change(key.id, None, document["_seq"], documents.freeze(document))
            assert not (await documents.write(key.collection, [change])).conflicts

    async def keep_facts(self, mongo, day=None):
        """What is derived of the documents that `keep` has written."""
        pinned = [InputGeneration(view, f"{view.name}_v1_", f"{view.name}.v1") for view in VIEWS]
        inputs = MongoInputs(mongo, pinned, lambda: day or NOW.date(), BlindIndex(self.ring))
        ids = await customer_facts.everything(inputs, None, 100)
        view = customer_facts.VIEW
        documents = MongoDocuments(mongo, f"{view.name}_v1_")
        for id, document in (await customer_facts.derive(inputs, ids)).items():
            placed = view.placed(id, document)
            change = Change(id, None, 1, documents.freeze({**placed, "_id": id, "_seq": 1}))
            assert not (await documents.write(customer_facts.FACTS, [change])).conflicts
        summing = Summing(view.sums, documents, customer_facts.FACTS)
        await summing.mark(ids)
        await summing.sum_marked(still)


@pytest.fixture
def bank(key_ring):
    bank = Bank(key_ring)
    bank.customer(ZHANG, "张伟", ("core", "P1"), ("fund", "7"))
    bank.customer(LI, "李娜", ("core", "P2"))
    bank.tell(
        IDS.party("core", "P2"), "party.described", source="core", kind="person", party="P2", name="李娜"
    )
    bank.mine = bank.account("core", "6222021234566789", "deposit", ("P1", "owner"))
    bank.ours = bank.account("core", "6222020000000001", "deposit", ("P2", "owner"), ("P1", "joint"))
    bank.fund = bank.account("fund", "F-1", "wealth", ("7", "owner"))
    bank.lost = bank.account("core", "999", None)
    bank.strangers = bank.account("core", "888", "deposit", ("P9", "owner"))
    for number in range(25):
        bank.posting(bank.mine, -100 - number, kind="card", text="secret text", counterparty_name="王五")
    bank.posting(bank.mine, 50_000, "2026-01-10", kind="transfer")
    bank.tell(
        bank.ours,
        "loan.granted",
        source="core",
        loan="L1",
        granted_on="2026-01-01",
        amount_minor=12_000,
        currency="CNY",
        duration_months=12,
        payment_minor=1_000,
    )
    bank.posting(bank.ours, -1_000, kind="loan_repayment")
    bank.posting(bank.mine, 700, currency="USD", kind="transfer")
    bank.posting(bank.ours, 20_000, kind="cash")
    bank.posting(bank.fund, 90_000, source="fund", kind="wealth")
    bank.posting(bank.lost, 5)
    bank.tell(
        UUID(int=5),
        "feed.certified",
        source="core",
        certificate="c1",
        status="GREEN",
        booked_through="2026-01-31",
    )
    return bank


@pytest.fixture
async def queries(bank, mongo, key_ring):
    await bank.keep(mongo)
    return Queries(mongo, Live(), key_ring, today=NOW.date)


@pytest.mark.requirement("R002", "R087", "M05")
async def test_a_panorama_of_several_sources_with_masked_values(queries):
    shown = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None)
    assert (shown["name"], shown["month"], shown["as_of"]) == ("张*", "2026-01", "2026-01-05")
    cny, usd = shown["currencies"]
    spent = sum(100 + number for number in range(25))
    assert cny["deposits"]["amount_minor"] == 50_000 - spent + 19_000
    assert (cny["deposits"]["joint_minor"], cny["deposits"]["sources"]) == (19_000, ["core"])
    assert cny["deposits"]["as_of"] == "2026-01-31"
    assert (cny["wealth"]["amount_minor"], cny["wealth"]["as_of"]) == (90_000, "2026-01-05")
    assert (usd["currency"], usd["aum"]["amount_minor"]) == ("USD", 700)
    assert cny["spending"]["by_kind"] == [
        {"kind": "card", "amount_minor": spent, "amount": f"{spent / 100:.2f}"}
    ]
    assert {a["account"] for a in shown["accounts"]} == {
        "622202******6789",
        "622202******0001",
        "**1",
    }
    assert "6222021234566789" not in json.dumps(shown)


async def test_a_joint_account_shows_with_both_and_in_full(queries):
    shown = await queries.holdings.panorama(Scope.all(), LI, NOW, None)
    assert [a["role"] for a in shown["accounts"]] == ["owner"]
    assert shown["currencies"][0]["deposits"]["amount_minor"] == 19_000
    [account] = await queries.holdings.accounts(Scope.all(), LI)
    assert account["joint"]
    assert [(h["role"], h["is_this_customer"], h["customer_id"], h["name"]) for h in account["holders"]] == [
        ("owner", True, str(LI), "李*"),
        ("joint", False, str(ZHANG), None),
    ]


@pytest.mark.requirement("M02")
async def test_the_movements_behind_a_figure_sum_to_it_page_by_page(queries, bank):
    found, after = [], 0
    while page := await queries.movements.page(
        AccountInScope(ZHANG, bank.mine), MovementsWanted(currency="CNY"), after, 10
    ):
        assert len(page) <= 10
        found += page
        after = page[-1]["sequence"]
    shown = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None)
    [account] = [a for a in shown["accounts"] if a["account_id"] == str(bank.mine)]
    balances = {b["currency"]: b for b in account["balances"]}
    assert sum(one["amount_minor"] for one in found) == balances["CNY"]["balance_minor"]
    assert len(found) == balances["CNY"]["movements"] == 26
    assert len({one["event_id"] for one in found}) == 26
    assert found[0]["event_id"] == str(event_id(bank.mine, found[0]["sequence"]))
    assert (found[0]["text"], found[0]["counterparty_name"]) == ("***", "王*")
    spent = await queries.movements.sums(
        AccountInScope(ZHANG, bank.mine), MovementsWanted("CNY", "2026-01", None, spending=True)
    )
    assert spent == [
        {
            "currency": "CNY",
            "movements": 25,
            "amount_minor": -shown["currencies"][0]["spending"]["amount_minor"],
            "outflow_minor": shown["currencies"][0]["spending"]["amount_minor"],
        }
    ]


async def test_a_month_that_documents_no_longer_keep_is_summed_from_the_movements(bank, mongo, key_ring):
    for month in range(1, 7):
        bank.posting(bank.mine, -month, f"2025-{month:02d}-28", kind="card")
    bank.posting(bank.mine, 2, "2025-02-28", kind="card", reverses=str(UUID(int=1)))
    await bank.keep(mongo)
    queries = Queries(mongo, Live(), key_ring, today=NOW.date)
    for month, spent in (("2025-01", 1), ("2025-02", 0), ("2025-03", 3), ("2025-06", 6), ("2024-01", 0)):
        shown = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, month)
        assert shown["currencies"][0]["spending"]["amount_minor"] == spent, month


async def test_a_reversed_posting_of_a_month_that_documents_no_longer_keep_is_no_spending(
    bank, mongo, key_ring
):
    bought = bank.posting(bank.mine, -700, "2025-02-10", kind="card")
    for month in range(3, 8):
        bank.posting(bank.mine, -month, f"2025-{month:02d}-28", kind="card")
    bank.reversal(bought, "2026-01-30", kind="transfer")
    await bank.keep(mongo)
    queries = Queries(mongo, Live(), key_ring, today=NOW.date)
    spent = sum(100 + number for number in range(25))
    for month, expected in (("2025-02", 0), ("2025-03", 3), ("2026-01", spent)):
        [block, _] = (await queries.holdings.panorama(Scope.all(), ZHANG, NOW, month))["currencies"]
        assert block["spending"]["amount_minor"] == expected, month
        sums = await queries.movements.sums(
            AccountInScope(ZHANG, bank.mine), MovementsWanted("CNY", month, None, spending=True)
        )
        assert sum(one["outflow_minor"] for one in sums) == expected, month
    [both] = await queries.movements.sums(
        AccountInScope(ZHANG, bank.mine), MovementsWanted("CNY", "2025-02", "card", spending=True)
    )
    assert (both["movements"], both["amount_minor"]) == (2, 0)
    [booked] = await queries.movements.sums(
        AccountInScope(ZHANG, bank.mine), MovementsWanted("CNY", "2025-02")
    )
    assert (booked["movements"], booked["amount_minor"]) == (1, -700)


async def test_a_customer_is_found_by_the_number_of_a_source_and_shown_masked(queries):
    [found] = await queries.customers.of_party(Scope.all(), IDS.party("fund", "7"))
    assert (found["customer_id"], found["name"], found["phone"]) == (str(ZHANG), "张*", "138****1234")
    assert [one["source"] for one in found["references"]] == ["core", "fund"]
    assert await queries.customers.of_party(Scope.all(), IDS.party("core", "7")) == []


async def test_a_customer_whose_oldest_references_are_left_out_says_from_which_day_they_are_complete(
    queries, mongo
):
    assert (await queries.customers.one(Scope.all(), ZHANG))["references_since"] is None
    changed = {"$set": {"parties_since": "2026-01-02"}}
    await mongo.update("customers_v1_customers", {"_id": str(ZHANG)}, changed)
    assert (await queries.customers.one(Scope.all(), ZHANG))["references_since"] == "2026-01-02"


async def test_accounts_that_wait_are_seen_and_counted_until_they_are_linked(queries, bank, mongo):
    waiting, reached = await queries.unlinked.page(Scope.all(), None, 10)
    assert reached is None
    assert {one["account_id"] for one in waiting} == {str(bank.lost), str(bank.strangers)}
    assert {one["holders_named"] for one in waiting} == {0, 1}
    assert await queries.unlinked.count(Scope.all()) == (2, None)
    first, reached = await queries.unlinked.page(Scope.all(), None, 1)
    assert reached == first[0]["account_id"]
    rest, reached = await queries.unlinked.page(Scope.all(), reached, 10)
    assert (len(rest), reached) == (1, None)
    where = {"_id": str(LI)}
    party = {"party_id": str(IDS.party("core", "P9")), "source": "core", "sequence": 3}
    await mongo.update("customers_v1_customers", where, {"$push": {"parties": party}})
    assert await queries.unlinked.count(Scope.all()) == (1, None)


async def test_accounts_that_wait_are_found_however_many_are_linked_before_them(queries, bank, mongo):
    """What one question costs does not grow with the bank."""
    collection = "asset_panorama_v1_accounts"
    linked = await mongo.find_one(collection, {"_id": str(bank.mine)})
    waiting = await mongo.find_one(collection, {"_id": str(bank.lost)})
    many = 2 * UNLINKED_WALKED_MAX + 300
    for at in range(0, many, 1_000):
        documents = [
            {**(waiting if number % 1_000 == 999 else linked), "_id": str(UUID(int=number + 1))}
            for number in range(at, min(at + 1_000, many))
        ]
        await mongo.command({"insert": collection, "documents": documents})
    count, after = await queries.unlinked.count(Scope.all())
    assert (count, after) == (UNLINKED_WALKED_MAX // 1_000, str(UUID(int=UNLINKED_WALKED_MAX)))
    found, after, calls = [], None, 0
    while calls == 0 or after is not None:
        page, after = await queries.unlinked.page(Scope.all(), after, 3)
        found += page
        calls += 1
    wanted = [str(UUID(int=number)) for number in range(1_000, many, 1_000)]
    expected = sorted([*wanted, str(bank.lost), str(bank.strangers)])
    assert [one["account_id"] for one in found] == expected
    assert calls <= len(expected) + many // UNLINKED_WALKED_MAX + 1
    assert await unlinked_accounts(queries, SystemClock(), counting_seconds_max=0.0) == (count, False)
    assert await unlinked_accounts(queries, SystemClock(), counting_seconds_max=600.0) == (
        len(expected),
        True,
    )
    UNLINKED.set(0)
    measure, askings = measuring(queries, SystemClock(), counting_seconds_max=0.0), 0
    while UNLINKED.collect()[0].samples[0].value == 0:
        await measure()
        askings += 1
    assert UNLINKED.collect()[0].samples[0].value == len(expected), "all are counted"
    assert askings == many // UNLINKED_WALKED_MAX + 1, "and none of the askings counts them all"


@pytest.mark.requirement("M22")
async def test_an_erased_customer_has_figures_and_no_name(queries, bank, key_ring):
    assert (await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None))["name"] == "张*"
    key_ring.erase([ZHANG, bank.mine])
    shown = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None)
    assert shown["name"] == "***"
    [account] = [a for a in shown["accounts"] if a["account_id"] == str(bank.mine)]
    assert account["account"] == "***"
    assert account["balances"][0]["balance_minor"] != 0


@pytest.mark.requirement("R087")
async def test_nothing_personal_stands_in_the_documents(bank):
    for document in bank.folded.values():
        text = json.dumps(document, ensure_ascii=False)
        for plain in ("张伟", "李娜", "王五", "secret text", "6222021234566789", "13800001234"):
            assert plain not in text
    assert is_token(
        next(d for (_, k), d in bank.folded.items() if k.collection == "accounts")["account"]["t"]
    )


async def test_an_unknown_customer_is_not_found_and_holds_no_account_of_another(queries, bank):
    assert await queries.holdings.panorama(Scope.all(), UUID(int=3), NOW, None) is None
    assert await queries.holdings.accounts(Scope.all(), UUID(int=3)) is None
    assert await queries.customers.one(Scope.all(), UUID(int=3)) is None
    assert await queries.holdings.held_account(Scope.all(), ZHANG, bank.ours)
    assert not await queries.holdings.held_account(Scope.all(), LI, bank.mine)


async def right(bank, mongo, account, holder, type="account.holder_removed", **data):
    party = str(IDS.party("core", holder))
    bank.tell(account, type, source="core", party_id=party, **data)
    document = bank.folded[asset_panorama, DocumentKey(ACCOUNTS, str(account))]
    where = {"_id": str(account)}
    await mongo.update("asset_panorama_v1_accounts", where, {"$set": {"holders": document["holders"]}})


@pytest.mark.parametrize("until", [TODAY, TOMORROW])
async def test_a_former_holder_no_longer_sees_the_account(queries, bank, mongo, until):
    before = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None)
    await right(bank, mongo, bank.ours, "P1", role="joint", held_until=until)
    stands = until > TODAY
    shown = await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None)
    assert (str(bank.ours) in {one["account_id"] for one in shown["accounts"]}) is stands
    assert (shown == before) is stands
    assert (
        str(bank.ours) in {one["account_id"] for one in await queries.holdings.accounts(Scope.all(), ZHANG)}
    ) is stands
    assert (await queries.holdings.held_account(Scope.all(), ZHANG, bank.ours) is not None) is stands
    [account] = [
        one for one in await queries.holdings.accounts(Scope.all(), LI) if one["account_id"] == str(bank.ours)
    ]
    assert account["joint"] is stands
    assert await queries.holdings.held_account(Scope.all(), LI, bank.ours)


async def test_an_account_whose_last_holder_left_waits_for_its_customer(queries, bank, mongo):
    await right(bank, mongo, bank.mine, "P1", role="owner", held_until=TODAY)
    waiting, _ = await queries.unlinked.page(Scope.all(), None, 10)
    assert str(bank.mine) in {one["account_id"] for one in waiting}
    await right(bank, mongo, bank.mine, "P1", "account.holder_named", role="owner", held_from=TOMORROW)
    assert await queries.unlinked.count(Scope.all()) == (3, None)
    await right(bank, mongo, bank.mine, "P1", "account.holder_named", role="owner", held_from=TODAY)
    assert await queries.unlinked.count(Scope.all()) == (2, None)


async def test_one_person_under_two_party_numbers_is_not_joint_with_himself(queries, bank, mongo):
    for number, role in (("P2", "owner"), ("P1", "owner"), ("P8", "joint")):
        await right(bank, mongo, bank.ours, number, "account.holder_named", role=role)
    both = {"party_id": str(IDS.party("core", "P8")), "source": "core", "sequence": 4}
    await mongo.update("customers_v1_customers", {"_id": str(LI)}, {"$push": {"parties": both}})
    [shown] = [
        a
        for a in (await queries.holdings.panorama(Scope.all(), ZHANG, NOW, None))["accounts"]
        if a["holders"] > 1
    ]
    assert (shown["account_id"], shown["holders"]) == (str(bank.ours), 2)
    await right(bank, mongo, bank.ours, "P1", role="owner", held_until="2026-01-01")
    [account] = await queries.holdings.accounts(Scope.all(), LI)
    [held] = (await queries.holdings.panorama(Scope.all(), LI, NOW, None))["accounts"]
    assert (account["joint"], held["joint"], held["holders"]) == (False, False, 1)


async def test_numbers_of_cards_and_of_others_and_a_contradicted_name_are_masked(bank, mongo, key_ring):
    number, other = "6217000000001234", "6225880000005678"
    bank.tell(bank.fund, "card.issued", source="fund", card=number, issued_on="2026-01-01", kind="debit")
    order = {"order": "S1", "amount_minor": 5, "currency": "CNY", "counterparty_account": other}
    bank.tell(bank.fund, "standing_order.set", source="fund", **order)
    bank.posting(bank.fund, -5, source="fund", counterparty_account=other)
    core = {"source": "core", "party_id": str(IDS.party("core", "P1"))}
    bank.tell(ZHANG, "customer.details_contradicted", name="张伟明", **core)
    await bank.keep(mongo)
    queries = Queries(mongo, Live(), key_ring, today=NOW.date)
    [account] = [
        one
        for one in await queries.holdings.accounts(Scope.all(), ZHANG)
        if one["account_id"] == str(bank.fund)
    ]
    assert [one["card"] for one in account["cards"]] == ["621700******1234"]
    assert [one["counterparty_account"] for one in account["standing_orders"]] == ["622588******5678"]
    moved = await queries.movements.page(AccountInScope(ZHANG, bank.fund), MovementsWanted(), 0, 10)
    assert moved[-1]["counterparty_account"] == "622588******5678"
    [contradiction] = (await queries.customers.one(Scope.all(), ZHANG))["contradictions"]
    assert contradiction["stated"] == "张*"


@pytest.mark.requirement("M47")
async def test_a_contradiction_is_shown_masked_until_a_person_decides(bank, mongo, key_ring):
    party = str(IDS.party("core", "P1"))
    core = {"source": "core", "party_id": party}
    bank.tell(ZHANG, "customer.details_contradicted", phone="+8613900005678", **core)
    bank.tell(LI, "customer.reference_claimed", source="fund", party_id=str(IDS.party("fund", "8")))
    bank.tell(LI, "customer.reference_disputed", source="fund", party_id=str(IDS.party("fund", "8")))
    await bank.keep(mongo)
    queries = Queries(mongo, Live(), key_ring, today=NOW.date)
    shown = await queries.customers.one(Scope.all(), ZHANG)
    [contradiction] = shown["contradictions"]
    assert (shown["phone"], contradiction["stated"]) == ("138****1234", "139****5678")
    assert {name: contradiction[name] for name in ("field", "source", "party_id")} == {
        "field": "phone",
        **core,
    }
    assert (shown["provenance"]["phone"]["source"], contradiction["sequence"]) == (None, 4)
    CustomerShown(**shown)
    waiting = await queries.customers.one(Scope.all(), LI)
    assert [one["status"] for one in waiting["references"]] == ["confirmed", "disputed"]
    for question, found in (
        ("contradiction", [ZHANG]),
        ("reference", [LI]),
        ("any (contradiction, reference)", [ZHANG, LI]),
        ("invalid", []),
    ):
        asked = Question(from_text(f"questions has {question}", FIELDS))
        listed = await queries.list.page(Scope.all(), asked, "me", limit=10)
        assert [one["_id"] for one in listed.documents] == [str(one) for one in found]


async def test_a_value_of_a_source_that_a_person_accepts_is_the_current_one(bank, mongo, key_ring):
    core = {"source": "core", "party_id": str(IDS.party("core", "P1"))}
    bank.tell(ZHANG, "customer.details_contradicted", phone="+8613900005678", **core)
    bank.tell(ZHANG, "customer.contradiction_resolved", field="phone", accepted=True, **core)
    await bank.keep(mongo)
    shown = await Queries(mongo, Live(), key_ring, today=NOW.date).customers.one(Scope.all(), ZHANG)
    assert (shown["phone"], shown["contradictions"]) == ("139****5678", [])
    assert shown["provenance"]["phone"]["source"] == "core"


async def test_a_link_that_ended_shows_nothing_and_its_successor_everything(bank, mongo, key_ring):
    party = str(IDS.party("core", "P1"))
    bank.tell(ZHANG, "customer.reference_unlinked", source="core", party_id=party, until=TOMORROW)
    bank.tell(LI, "customer.reference_linked", source="core", party_id=party, linked_from=TOMORROW)
    await bank.keep(mongo)
    tomorrow = NOW.date() + timedelta(days=1)
    for day, holder, other in ((NOW.date(), ZHANG, LI), (tomorrow, LI, ZHANG)):
        queries = Queries(mongo, Live(), key_ring, today=lambda day=day: day)
        [found] = await queries.customers.of_party(Scope.all(), IDS.party("core", "P1"))
        assert found["customer_id"] == str(holder)
        assert await queries.holdings.held_account(Scope.all(), holder, bank.mine)
        assert not await queries.holdings.held_account(Scope.all(), other, bank.mine)
        assert str(bank.mine) in {
            one["account_id"] for one in await queries.holdings.accounts(Scope.all(), holder)
        }
        shown = (await queries.holdings.panorama(Scope.all(), other, NOW, None))["accounts"]
        assert str(bank.mine) not in {one["account_id"] for one in shown}


async def test_a_customer_with_more_than_one_answer_holds_fails_alone(mongo, queries, bank):
    documents = MongoDocuments(mongo, f"{asset_panorama.VIEW.name}_v1_")
    document = bank.folded[asset_panorama, DocumentKey(ACCOUNTS, str(bank.mine))]
    for number in range(0, 1_100, 100):
        many = [
            {**document, "_id": str(UUID(int=5_000 + number + each)), "_seq": 1, "padding": "x" * 16_000}
            for each in range(100)
        ]
        changes = [Change(one["_id"], None, 1, documents.freeze(one)) for one in many]
        assert not (await documents.write(ACCOUNTS, changes)).conflicts
    asked = [queries.holdings.panorama(Scope.all(), one, NOW, None) for one in (ZHANG, LI)]
    zhang, li = await asyncio.gather(*asked, return_exceptions=True)
    assert li["customer_id"] == str(LI), li
    assert isinstance(zhang, HoldingsTooLarge), zhang
    with pytest.raises(HoldingsTooLarge):
        await queries.holdings.accounts(Scope.all(), ZHANG)


async def test_an_account_with_more_holders_than_one_answer_holds_is_refused(mongo, queries, bank):
    documents = MongoDocuments(mongo, f"{asset_panorama.VIEW.name}_v1_")
    parties = [str(UUID(int=70_000 + number)) for number in range(1_100)]
    account = bank.folded[asset_panorama, DocumentKey(ACCOUNTS, str(bank.mine))]
    holders = [{**account["holders"][0], "party_id": party} for party in parties]
    many = {**account, "_id": str(UUID(int=6_000)), "_seq": 1, "holders": [*account["holders"], *holders]}
    assert not (
        await documents.write(ACCOUNTS, [Change(many["_id"], None, 1, documents.freeze(many))])
    ).conflicts
    for at in range(0, len(parties), 100):
        changes = [
            Change(party, None, 1, documents.freeze({"_id": party, "_seq": 1, "padding": "x" * 16_000}))
            for party in parties[at : at + 100]
        ]
        assert not (await documents.write(PARTIES, changes)).conflicts
    with pytest.raises(HoldingsTooLarge):
        await queries.holdings.accounts(Scope.all(), ZHANG)
