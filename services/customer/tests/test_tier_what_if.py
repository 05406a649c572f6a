"""What-if over HTTP: what a candidate for the rules of tiers comes to over what was assessed, who moves, and why."""

import asyncio
import json
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from uuid import UUID, uuid5

import pytest
from chassis.web import cursor
from chassis.write.deciding import CommandContext
from customer.domain.commands import AssessTier, EndTierOverride, EraseCustomer, OverrideTier
from customer.domain.state import Customer, TierOverride
from customer.domain.tier_replaying import Move, Replayed, Trial, as_if
from customer.domain.tier_rules import (
    RULES,
    STREAM,
    TIERS,
    AdoptTierRules,
    Threshold,
    TierRules,
    TierRuleVersions,
    month_before,
)
from customer.months import month_after
from customer.tier_what_if import COST_MINOR_MAX, Asked, Sums
from msgspec import structs

from .test_api import api
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, once, registered, shown

__all__ = ["api", "bank", "once", "queries", "shown"]

MILLION = 100_000_000
LAST = month_before(NOW.date().isoformat())
MONTHS = [LAST]
while len(MONTHS) < 24:
    MONTHS.insert(0, month_before(MONTHS[0]))
EIGHT = {
    "from_month": MONTHS[0],
    "currency": "CNY",
    "grace_months": 1,
    "wealth": "500000.00",
    "private": "8000000.00",
}
COSTS = {"cost_mass": 100, "cost_wealth": 20_000, "cost_private": 900_000}
COSTS_OF_TIERS = {"wealth": 1, "private": 2}
EIGHT_MILLION = TierRules(0, "CNY", (Threshold("private", 8 * MILLION), RULES.thresholds[1]), 1, MONTHS[0])
BRANCHES = ("浦东", "徐汇", 'a "branch"', None)


async def done(api, customer, command, on):
    at = NOW.replace(year=on.year, month=on.month, day=on.day, hour=4)
    id = uuid5(UUID(customer), f"{command}{on}")
    context = CommandContext(actor="lin", now=at, command_id=id, effective_at=at)
    return await api.service.handler.handle(UUID(customer), command, context, asked=str(command))


async def assessed(api, customer, averages, months=MONTHS):
    """Assesses these months with these averages, each on the first day of the next one."""
    before = None
    for month, average in zip(months, averages, strict=True):
        on = date.fromisoformat(month_after(f"{month}-01"))
        await done(api, customer, AssessTier(month, average, before), on)
        before = average


async def result(api, **asked):
    """The result of a candidate, and the progress that was told before it."""
    answer = await api.get("/tier-rules/what-if", params=EIGHT | COSTS | asked)
    assert answer.status_code == 200, answer.text
    events = [part.splitlines() for part in answer.text.split("\n\n")]
    named = [(one[0][7:], json.loads(one[1][6:])) for one in events if one and one[0].startswith("event: ")]
    assert [name for name, _ in named if name != "progress"] == ["result", "end"], named
    assert named[-1][1] == {"code": "done"}
    return named[-2][1]


async def moves(api, **asked):
    """All moves, page by page."""
    found, after = [], {}
    while True:
        answer = await api.get("/tier-rules/what-if/moves", params=EIGHT | asked | after)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= asked.get("limit", 50)
        found += page["items"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


async def tier_on(api, customer, day):
    return (await api.get(f"/customers/{customer}/tier", params={"as_of": day})).json()["tier"]


@pytest.fixture
async def lived(api):
    """Customers of some branches who were assessed for two years, some of them overridden meanwhile."""
    chance, customers = Random(7), []
    for number in range(12):
        customer = await registered(api, BRANCHES[number % len(BRANCHES)])
        customers.append(customer)
        level, averages = chance.choice([3, 7, 9]) * MILLION, []
        for _ in MONTHS:
            level = max(0, level + chance.randint(-2, 2) * MILLION)
            averages.append(level)
        half = len(MONTHS) // 2
        await assessed(api, customer, averages[:half], MONTHS[:half])
        if number % 3 == 0:
            on = date.fromisoformat(month_after(f"{MONTHS[half - 1]}-01")) + timedelta(days=9)
            until = on + timedelta(days=90)
            await done(api, customer, OverrideTier(chance.choice(TIERS), until, on, until, True), on)
        await assessed(api, customer, averages[half:], MONTHS[half:])
        if number % 3 == 0 and number % 2 == 0:
            await done(api, customer, EndTierOverride("lapsed"), until)
    return customers


@pytest.mark.requirement("M07")
async def test_the_sums_the_pages_and_the_explanations_say_the_same(api, lived, shown):
    whole = await result(api)
    found = await moves(api)
    assert found, "there are movers"
    assert [one["customer_id"] for one in found] == sorted(one["customer_id"] for one in found)
    for limit in (1, 3, 200):
        assert await moves(api, limit=limit) == found
    rank = {None: -1} | {tier: at for at, tier in enumerate(TIERS)}
    ways = [(one, "up" if rank[one["candidate_tier"]] > rank[one["tier"]] else "down") for one in found]
    bank = whole["whole_bank"]
    assert bank["customers"] == len(lived)
    assert bank["moved"] == len({one["customer_id"] for one in found})
    for way in ("up", "down"):
        assert bank[way] == len({one["customer_id"] for one, each in ways if each == way})
        assert {one["month"]: one[way] for one in whole["months"] if one[way]} == {
            month: count
            for month in [*MONTHS, NOW.date().isoformat()[:7]]
            if (count := sum(one["month"] == month and each == way for one, each in ways))
        }
    for name in ("customers", "moved", "up", "down", "yearly_cost_minor"):
        assert sum(one[name] for one in whole["branches"]) == bank[name], name
    assert {one["branch"] for one in whole["branches"]} == set(BRANCHES)
    assert whole["branch_count"] == len(BRANCHES)
    shares = [one["moved_hundredths"] for one in whole["branches"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 10_000 * whole["branches"][0]["moved"] // whole["branches"][0]["customers"]
    for name in ("customers", "candidate_customers"):
        assert sum(one[name] for one in whole["tiers"]) == len(lived)
    assert whole["assessments"] == len(lived) * len(MONTHS)
    costs = {tier: COSTS.get(f"cost_{tier}", 0) for tier in TIERS} | {None: 0}
    now, other = (
        sum(one[name] * costs[one["tier"]] for one in whole["tiers"])
        for name in ("customers", "candidate_customers")
    )
    assert (whole["yearly_cost_minor"], whole["candidate_yearly_cost_minor"]) == (now, other)
    assert bank["yearly_cost_minor"] == other - now < 0
    for customer in lived:
        one = (await api.get(f"/customers/{customer}/tier/what-if", params=EIGHT)).json()
        assert one["moves"] == [each for each in found if each["customer_id"] == customer]
        assert [each["month"] for each in one["months"]] == MONTHS
        assert one["position"] == whole["position"]
        for each in one["moves"]:
            last = date.fromisoformat(each["until"]) - timedelta(days=1) if each["until"] else NOW.date()
            assert await tier_on(api, customer, each["since"]) == each["tier"]
            assert await tier_on(api, customer, str(last)) == each["tier"]


@pytest.mark.requirement("M07")
@pytest.mark.parametrize("at_once", [1, 7, 26, 27, 1_000])
async def test_however_much_is_read_at_once_it_comes_to_the_same(api, lived, at_once):
    usual = api.service.what_if
    asked = await usual.asked(EIGHT_MILLION, None)
    other = replace(usual, events_at_once=at_once, events_looked_at_max=2 * at_once)
    found, after, progress = [], None, []
    while True:
        page = await other.moves(asked, after, 2)
        assert len(page.moves) <= 2
        found += page.moves
        after = page.after
        if after is None:
            break
    assert found == (await usual.moves(asked, None, 200)).moves != []
    sums = await other.summed(asked, COSTS_OF_TIERS, progress.append)
    assert sums.digest() == (await usual.summed(asked, COSTS_OF_TIERS, progress.append)).digest()
    assert progress == sorted(progress)
    assert 0 <= progress[-1].hundredths < 10_000


@pytest.mark.requirement("M07")
async def test_a_raised_limit_lists_the_mover_with_its_dates_and_says_why(api, shown):
    below, above = await registered(api, "浦东"), await registered(api, "浦东")
    await assessed(api, below, [7 * MILLION] * 24)
    await assessed(api, above, [8 * MILLION] * 24)
    since = month_after(f"{MONTHS[0]}-01")
    [one] = await moves(api)
    assert one == {
        "customer_id": below,
        "branch": "浦东",
        "month": since[:7],
        "since": since,
        "until": None,
        "tier": "private",
        "candidate_tier": "wealth",
    }
    whole = await result(api)
    assert whole["branches"] == [
        {
            **{"branch": "浦东", "customers": 2, "moved": 1, "moved_hundredths": 5_000, "up": 0, "down": 1},
            "yearly_cost_minor": 20_000 - 900_000,
        }
    ]
    assert whole["months"] == [{"month": since[:7], "up": 0, "down": 1}]
    why = (await api.get(f"/customers/{below}/tier/what-if", params=EIGHT)).json()
    assert why["months"][0] == {
        **{"month": MONTHS[0], "since": since, "currency": "CNY", "average_minor": 7 * MILLION},
        **{"rules": 1, "assessed": "private", "because": "met", "tier": "private"},
        **{"candidate_rules": 2, "candidate_assessed": "wealth", "candidate_because": "met"},
        "candidate_tier": "wealth",
    }
    assert why["candidate"]["thresholds"][-1]["amount"] == "8000000.00"
    assert await moves(api, private="6000000.00") == [], "these are the rules that there are"


@pytest.mark.requirement("M07")
async def test_the_same_question_has_the_same_digest_whatever_is_stored_meanwhile(api, lived):
    first = await result(api)
    position = first["position"]
    pages = await moves(api)
    later = await registered(api, "浦东")
    await assessed(api, later, [7 * MILLION] * 24)
    await done(
        api,
        lived[0],
        OverrideTier("mass", NOW.date() + timedelta(9), NOW.date(), NOW.date() + timedelta(9)),
        NOW.date(),
    )
    begins = TierRules(2, "CNY", (Threshold("wealth", 1),), 0, month_after(str(NOW.date()))[:7])
    rulebook = api.service.rulebook.handler
    context = CommandContext(actor="lin", now=NOW, command_id=uuid5(STREAM, "2"))
    await rulebook.handle(STREAM, AdoptTierRules(begins, NOW.date()), context)
    assert await result(api, position=position) == first
    assert await moves(api, position=position) == pages
    now = await result(api)
    assert now["position"] > position
    assert now["whole_bank"]["customers"] == len(lived) + 1
    others = [
        now,
        await result(api, position=position, private="8000000.01"),
        await result(api, position=position, cost_wealth=20_001),
        await result(api, position=position, grace_months=2),
        await result(api, position=position, from_month=MONTHS[1]),
    ]
    assert len({one["digest"] for one in [first, *others]}) == 6


@pytest.mark.requirement("M07")
async def test_the_pages_after_the_first_one_are_of_its_position(api):
    for _ in range(3):
        await assessed(api, await registered(api), [7 * MILLION] * 24)
    first = (await api.get("/tier-rules/what-if/moves", params=EIGHT | {"limit": 2})).json()
    for _ in range(5):
        await assessed(api, await registered(api), [7 * MILLION] * 24)
    following = {"after": first["next"]}
    second = (await api.get("/tier-rules/what-if/moves", params=EIGHT | following)).json()
    assert (len(second["items"]), second["next"]) == (1, None)
    assert second["position"] == first["position"]
    for another in ({"private": "8000000.01"}, {"grace_months": 2}, {"from_month": MONTHS[1]}):
        answer = await api.get("/tier-rules/what-if/moves", params=EIGHT | following | another)
        assert await code_of_refusal(answer) == (400, "cursor-invalid"), another
    other = await api.get("/tier-rules/what-if/moves", params=EIGHT | following | {"position": 1})
    assert await code_of_refusal(other) == (400, "cursor-invalid")


@pytest.mark.requirement("M07", "M22")
async def test_who_is_erased_or_overridden_is_no_mover(api, shown):
    erased, held = await registered(api, "浦东"), await registered(api, "浦东")
    for customer in (erased, held):
        await assessed(api, customer, [7 * MILLION] * 23, MONTHS[:-1])
    on, until = NOW.date() - timedelta(days=40), NOW.date() + timedelta(days=90)
    await done(api, held, OverrideTier("mass", until, on, until), on)
    await assessed(api, held, [7 * MILLION], MONTHS[-1:])
    await done(api, erased, EraseCustomer((), (), NOW.date()), NOW.date())
    whole = await result(api)
    assert (whole["whole_bank"]["customers"], whole["held"]) == (1, 1)
    assert whole["whole_bank"]["yearly_cost_minor"] == 0
    assert {one["customer_id"] for one in await moves(api)} == {held}
    assert [one["until"] for one in await moves(api)] == [str(on)]
    assert [one["customers"] for one in whole["tiers"] if one["tier"] == "mass"] == [1]


@pytest.mark.requirement("M07", "M22")
async def test_who_is_erased_after_the_position_is_counted_and_not_explained(api, store):
    customer = await registered(api, "浦东")
    await assessed(api, customer, [7 * MILLION] * 24)
    first = await result(api)
    await done(api, customer, EraseCustomer((), (), NOW.date()), NOW.date())
    assert await result(api, position=first["position"]) == first
    path = f"/customers/{customer}/tier/what-if"
    why = (await api.get(path, params=EIGHT | {"position": first["position"]})).json()
    assert (why["months"], why["moves"], why["branch"]) == ([], [], None)


@pytest.mark.requirement("M07", "R082")
@pytest.mark.parametrize(
    "path", ["/tier-rules/what-if", "/tier-rules/what-if/moves", "/customers/{}/tier/what-if"]
)
async def test_who_may_ask(api, shown, path):
    customer = await registered(api, "浦东")
    await shown()
    path = path.format(customer)
    for role, status in (
        *(("administrator", 200), ("analyst", 200), ("compliance", 200)),
        *(("teller", 403), ("relationship-manager", 403), ("marketer", 403), ("auditor", 403)),
    ):
        acting(api, role, "浦东/desk")
        assert (await api.get(path, params=EIGHT)).status_code == status, role


@pytest.mark.requirement("M07")
async def test_a_customer_that_is_not_there_is_not_explained(api):
    unknown = await api.get(f"/customers/{UUID(int=9)}/tier/what-if", params=EIGHT)
    assert await code_of_refusal(unknown) == (404, "customer-not-registered")
    new = await registered(api)
    answer = await api.get(f"/customers/{new}/tier/what-if", params=EIGHT)
    assert (answer.json()["months"], answer.json()["moves"]) == ([], [])


@pytest.mark.requirement("M07")
@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"from_month": NOW.date().isoformat()[:7]}, (422, "what-if-out-of-range")),
        ({"from_month": f"{NOW.year - 4}-01"}, (422, "what-if-out-of-range")),
        ({"from_month": "2025-13"}, (422, "request-invalid")),
        ({"from_month": "2025-01\n"}, (422, "request-invalid")),
        ({"from_month": "２０２５-01"}, (422, "request-invalid")),
        ({"from_month": "0000-01"}, (422, "what-if-out-of-range")),
        ({"position": 10_000_000}, (422, "what-if-out-of-range")),
        ({"position": 2**63}, (422, "request-invalid")),
        ({"private": "1.00"}, (422, "tier-rules-invalid")),
        ({"private": "8000000.001"}, (422, "request-invalid")),
        ({"private": "0"}, (422, "tier-rules-invalid")),
        ({"private": 'x"'}, (422, "request-invalid")),
        ({"private": "8000000.00\x00"}, (400, "request-malformed")),
        ({"private": "8000000.00\n"}, (422, "request-invalid")),
        ({"private": "10000000000000.01"}, (422, "request-invalid")),
        ({"private": None, "wealth": None}, (422, "tier-rules-invalid")),
        ({"currency": "XXX"}, (422, "request-invalid")),
        ({"grace_months": 12}, (422, "request-invalid")),
    ],
)
async def test_what_is_refused(api, asked, refused):
    params = {name: value for name, value in (EIGHT | asked).items() if value is not None}
    for path in ("/tier-rules/what-if", "/tier-rules/what-if/moves"):
        assert await code_of_refusal(await api.get(path, params=params)) == refused


@pytest.mark.requirement("M07")
async def test_a_cursor_that_no_page_gave_is_refused(api):
    digest, one = (await api.service.what_if.asked(EIGHT_MILLION, None)).digest, UUID(int=1)
    assert (await moves(api, after=cursor(digest, 0, one, 1))) == []
    for after in (
        "WzFd",
        cursor(digest, -1, one, 1),
        cursor(digest, 0, one, -1),
        cursor(digest, 0, one, 2**31),
    ):
        answer = await api.get("/tier-rules/what-if/moves", params=EIGHT | {"after": after})
        assert await code_of_refusal(answer) == (400, "cursor-invalid"), after


@pytest.mark.requirement("M07")
async def test_two_at_once_get_the_same(api, lived):
    first, second = await asyncio.gather(result(api), result(api))
    assert first == second


@pytest.mark.requirement("M07")
@pytest.mark.parametrize("ending", ["done", "cancelled", "failed"])
async def test_the_next_sum_begins_when_the_one_before_has_ended(api, lived, ending):
    what_if = replace(api.service.what_if, events_at_once=26)
    asked = await what_if.asked(EIGHT_MILLION, None)
    begun, order = asyncio.Event(), []

    def told(_):
        begun.set()
        if ending == "failed":
            raise ZeroDivisionError

    first = asyncio.create_task(what_if.summed(asked, {}, told))
    first.add_done_callback(lambda _: order.append("ended"))
    second = asyncio.create_task(what_if.summed(asked, {}, lambda _: order.append("told")))
    async with asyncio.timeout(60):
        await begun.wait()
        if ending == "cancelled":
            first.cancel()
        _, sums = await asyncio.gather(first, second, return_exceptions=True)
    assert order[:2] == ["ended", "told"]
    assert sums.all.customers == len(lived)


@pytest.mark.requirement("M07")
async def test_a_customer_is_explained_up_to_the_position(api):
    customer = await registered(api, "浦东")
    path = f"/customers/{customer}/tier/what-if"
    await assessed(api, customer, [7 * MILLION] * 12, MONTHS[:12])
    first = (await api.get(path, params=EIGHT)).json()
    assert [one["month"] for one in first["months"]] == MONTHS[:12]
    await assessed(api, customer, [9 * MILLION] * 12, MONTHS[12:])
    assert (await api.get(path, params=EIGHT | {"position": first["position"]})).json() == first
    assert len((await api.get(path, params=EIGHT)).json()["months"]) == 24


@pytest.mark.requirement("M07")
def test_the_digest_names_the_question_each_move_and_each_figure():
    def digest(
        customer=1, branch="浦东", position=9, costs=COSTS_OF_TIERS, adopted=(RULES,), held=False, **move
    ):
        trial = Trial(TierRuleVersions(adopted), as_if(TierRuleVersions(adopted), candidate), "2024-01")
        sums = Sums(Asked(trial, candidate, position), costs)
        real = Customer(tier="private", values={} if branch is None else {"branch": branch})
        if held:
            real = structs.replace(real, tier_override=TierOverride("private", date(2027, 1, 1)))
        moved = Move(date(2024, 2, 1), date(2024, 3, 5), "private", "wealth")._replace(**move)
        sums.add(UUID(int=customer), Replayed([], [moved], real, structs.replace(real, tier="wealth")))
        return sums.digest()

    candidate = structs.replace(EIGHT_MILLION, version=2, from_month="2024-01")
    assert digest() == "cc2e28557e7dbe91798e1ef1f8f06d7a3141d2d21492a287c0563d7861e87089"
    others = [
        digest(customer=2),
        digest(branch="徐汇"),
        digest(branch=None),
        digest(position=10),
        digest(costs={"wealth": 1, "private": 3}),
        digest(adopted=(RULES, structs.replace(EIGHT_MILLION, version=2, from_month="2023-01"))),
        digest(held=True),
        digest(since=date(2024, 2, 2)),
        digest(until=None),
        digest(candidate_tier="potential"),
    ]
    assert len({digest(), *others}) == len(others) + 1


@pytest.mark.requirement("M07")
async def test_the_cost_of_the_largest_bank_is_exact_for_every_reader_of_json(api):
    assert COST_MINOR_MAX * 900_000 < 2**53
    largest = {"cost_private": COST_MINOR_MAX}
    await assessed(api, await registered(api), [8 * MILLION] * 24)
    assert (await result(api, **largest))["yearly_cost_minor"] == COST_MINOR_MAX
    answer = await api.get("/tier-rules/what-if", params=EIGHT | {"cost_private": COST_MINOR_MAX + 1})
    assert await code_of_refusal(answer) == (422, "request-invalid")
