"""The rules of tiers: versions that begin with a month, what months come to under them, and how two persons adopt one."""

from datetime import UTC, date, datetime

import pytest
from chassis.money import AMOUNT_MINOR_MAX
from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import AssessTier, Details, RegisterCustomer
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerRegistered, TierAssessed
from customer.domain.tier_rules import (
    AHEAD_MONTHS_MAX,
    GRACE_MONTHS_MAX,
    RULES,
    VERSIONS_MAX,
    AdoptTierRules,
    Threshold,
    TierRules,
    TierRulesAdopted,
    TierRulesInvalid,
    TierRulesNotAhead,
    TierRulesOutdated,
    TierRuleVersions,
    TooManyTierRules,
    tier_rules_decider,
)
from customer.tiers import assessing

from tests.support.specification import Specification

from .test_api import api, key
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, once
from .test_tier_overrides import as_of
from .test_tiers import MASS, PRIVATE, WEALTH, Tiered, assessed
from .test_timers import ZHANG

__all__ = ["api", "bank", "once", "queries"]

rules = Specification(tier_rules_decider)
customer = Specification(customer_decider)
registered = CustomerRegistered(name="张伟", kind="person", origin="staff")
TODAY = date(2026, 1, 15)
HIGHER = (
    Threshold("private", 1_000_000_000),
    Threshold("wealth", 100_000_000),
    Threshold("potential", 20_000_000),
)


def version(number=2, from_month="2026-02", thresholds=HIGHER, grace=1, currency="CNY"):
    return TierRules(number, currency, thresholds, grace, from_month)


def adopted(one):
    return TierRulesAdopted(one.version, one.from_month, one.currency, one.thresholds, one.grace_months)


# given, when, then


@pytest.mark.requirement("R021", "M06")
def test_a_version_begins_with_a_later_month():
    for month in ("2026-02", "2028-01"):
        rules.given().when(AdoptTierRules(version(from_month=month), TODAY)).then(
            adopted(version(from_month=month))
        )
    for month in (None, "0001-01", "2025-12", "2026-01", "2028-02", "9999-12"):
        rules.given().when(AdoptTierRules(version(from_month=month), TODAY)).then_rejected(TierRulesNotAhead)
    assert AHEAD_MONTHS_MAX == 24


@pytest.mark.requirement("M06")
def test_a_version_follows_the_one_that_was_seen():
    for number in (0, 1, 3):
        rules.given().when(AdoptTierRules(version(number), TODAY)).then_rejected(TierRulesOutdated)
    after = rules.given(adopted(version()))
    after.when(AdoptTierRules(version(), TODAY)).then_rejected(TierRulesOutdated)
    after.when(AdoptTierRules(version(3), TODAY)).then(adopted(version(3)))
    full = rules.given(*(adopted(version(number)) for number in range(2, VERSIONS_MAX + 1)))
    full.when(AdoptTierRules(version(VERSIONS_MAX + 1), TODAY)).then_rejected(TooManyTierRules)


@pytest.mark.requirement("R021")
@pytest.mark.parametrize(
    "wrong",
    [
        version(thresholds=()),
        version(thresholds=(Threshold("mass", 1),)),
        version(thresholds=(Threshold("wealth", 2), Threshold("private", 1))),
        version(thresholds=(Threshold("private", 2), Threshold("private", 1))),
        version(thresholds=(Threshold("private", 1), Threshold("wealth", 1))),
        version(thresholds=(Threshold("private", 1), Threshold("wealth", 2))),
        version(thresholds=(Threshold("private", 1), Threshold("wealth", 0))),
        version(thresholds=(Threshold("private", AMOUNT_MINOR_MAX + 1),)),
        version(grace=-1),
        version(grace=GRACE_MONTHS_MAX + 1),
        version(currency="XAU"),
    ],
)
def test_thresholds_rise_with_the_tiers_within_their_limits(wrong):
    rules.given().when(AdoptTierRules(wrong, TODAY)).then_rejected(TierRulesInvalid)


@pytest.mark.requirement("R021")
def test_a_tier_may_be_left_without_a_rule():
    largest = version(thresholds=(Threshold("private", AMOUNT_MINOR_MAX),), grace=GRACE_MONTHS_MAX)
    rules.given().when(AdoptTierRules(largest, TODAY)).then(adopted(largest))
    assert [RULES.tier_of(amount) for amount in (49_999_999, 50_000_000)] == ["mass", "wealth"]


@pytest.mark.requirement("R021", "M06")
def test_a_month_is_assessed_by_the_version_that_began_last_until_its_end():
    second, third, fourth = version(2, "2026-03"), version(3, "2026-02"), version(4, "2026-03")
    known = TierRuleVersions((RULES, second, third))
    found = {
        month: known.of(month).version for month in ("2020-01", "2026-01", "2026-02", "2026-03", "2099-01")
    }
    assert found == {"2020-01": 1, "2026-01": 1, "2026-02": 3, "2026-03": 2, "2099-01": 2}
    corrected = TierRuleVersions((RULES, second, third, fourth))
    assert [corrected.of(month).version for month in ("2026-02", "2026-03", "2099-01")] == [3, 4, 4]


KNOWN = TierRuleVersions((RULES, version(2, "2026-02")))


@pytest.mark.requirement("R021", "M06")
@pytest.mark.parametrize(
    ("average", "tier"),
    [
        (19_999_999, "mass"),
        (20_000_000, "potential"),
        (99_999_999, "potential"),
        (100_000_000, "wealth"),
        (999_999_999, "wealth"),
        (1_000_000_000, "private"),
    ],
)
def test_an_adopted_version_has_limits_of_its_own_and_the_assessment_names_it(average, tier):
    [event] = customer_decider.decide(
        AssessTier("2026-02", average, rules=KNOWN), customer_decider.fold([registered])
    )
    assert (event.tier, event.rules, event.average_minor) == (tier, 2, average)
    [before] = customer_decider.decide(
        AssessTier("2026-01", average, rules=KNOWN), customer_decider.fold([registered])
    )
    assert (before.tier, before.rules) == (RULES.tier_of(average), 1)


@pytest.mark.requirement("R021", "M06")
def test_each_month_counts_by_the_rules_of_its_own_so_that_new_rules_leave_the_grace():
    """January reached 财富 by the rules of then: that February does not by the new ones is the first month below."""
    had = assessed("wealth", "met", WEALTH, month="2026-01")
    [grace] = customer_decider.decide(
        AssessTier("2026-02", WEALTH, WEALTH, rules=KNOWN), customer_decider.fold([registered, had])
    )
    assert (grace.tier, grace.because) == ("wealth", "grace")
    [left] = customer_decider.decide(
        AssessTier("2026-03", WEALTH, WEALTH, rules=KNOWN), customer_decider.fold([registered, had, grace])
    )
    assert (left.tier, left.because) == ("potential", "met")


def of_grace(months, averages, now="private"):
    """The tier of March 2026 by rules with so many months of grace, after these averages, the latest first."""
    known = TierRuleVersions((RULES, version(2, "2020-01", RULES.thresholds, months)))
    month, before, *earlier = averages
    had = assessed(now, "met", PRIVATE)
    command = AssessTier("2026-03", month, before, tuple(earlier), known)
    [event] = customer_decider.decide(command, customer_decider.fold([registered, had]))
    return event.tier, event.because


@pytest.mark.requirement("M06")
@pytest.mark.parametrize(
    ("months", "averages", "expected"),
    [
        (0, [MASS, PRIVATE], ("mass", "met")),
        (1, [MASS, PRIVATE], ("private", "grace")),
        (1, [MASS, MASS], ("mass", "met")),
        (2, [MASS, MASS, PRIVATE], ("private", "grace")),
        (2, [MASS, MASS, WEALTH], ("wealth", "grace")),
        (2, [MASS, WEALTH, MASS], ("wealth", "grace")),
        (2, [MASS, MASS, MASS], ("mass", "met")),
        (2, [MASS, MASS, None], ("private", "grace")),
        (2, [MASS, None, MASS], ("private", "grace")),
        (2, [MASS, MASS], ("private", "grace")),
        (3, [WEALTH, MASS, MASS, MASS], ("wealth", "met")),
        (GRACE_MONTHS_MAX, [MASS] * 11 + [PRIVATE], ("private", "grace")),
        (GRACE_MONTHS_MAX, [MASS] * 12, ("mass", "met")),
    ],
)
def test_a_tier_is_left_after_more_months_below_it_than_the_rules_give_grace(months, averages, expected):
    assert of_grace(months, averages) == expected


@pytest.mark.requirement("R021")
def test_as_many_months_are_read_of_the_facts_as_the_rules_compare_each_in_its_currency():
    averages = {f"2025-{month:02d}": {"CNY": month, "USD": 100 * month} for month in range(2, 13)}
    facts = {"aum_month_average": averages, CHANGES_ON: "2026-02-01"}
    long = TierRuleVersions((RULES, version(2, "2025-12", grace=GRACE_MONTHS_MAX, currency="USD")))
    found = assessing(facts, "2026-01-10", long)
    assert found == AssessTier("2025-12", 1200, 11, (10, 9, 8, 7, 6, 5, 4, 3, 2, None), long)
    none = TierRuleVersions((RULES, version(2, "2025-12", grace=0)))
    assert assessing(facts, "2026-01-10", none) == AssessTier("2025-12", 12, 11, (), none)


@pytest.mark.requirement("R021", "M06")
async def test_a_year_assesses_each_month_by_its_version_and_no_month_twice():
    year = Tiered(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    await year.pass_until(datetime(2026, 3, 15, tzinfo=UTC))
    year.rules = TierRuleVersions((RULES, version(2, "2026-04")))
    year.clock.advance(40 * 24 * 3600)  # the timer of March is late, and April has begun
    await year.pass_until(datetime(2026, 8, 2, tzinfo=UTC))
    found = [(event.month, event.rules, event.tier) for event, _ in year.happened(ZHANG, TierAssessed)]
    assert found == [
        ("2026-01", 1, "wealth"),
        ("2026-02", 1, "wealth"),
        ("2026-03", 1, "wealth"),
        ("2026-04", 2, "wealth"),
        ("2026-05", 2, "potential"),
        ("2026-06", 2, "potential"),
        ("2026-07", 2, "potential"),
    ]


# over HTTP


def body(month, **more):
    thresholds = [
        {"tier": "potential", "amount": "200000"},
        {"tier": "private", "amount": "10000000.00"},
        {"tier": "wealth", "amount": "1000000.0"},
    ]
    wanted = {"from_month": month, "currency": "CNY", "thresholds": thresholds, "grace_months": 2}
    return wanted | {"reason": "总行文件第7号"} | more


def month_ahead(months=1):
    at = 12 * NOW.year + NOW.month - 1 + months
    return f"{at // 12}-{at % 12 + 1:02d}"


async def propose(api, month, version=0, headers=None, **more):
    headers = (headers or once()) | {"If-Match": f'"{version}"'}
    return await api.post("/tier-rules", json=body(month, **more), headers=headers)


async def approve(api, waiting, headers=None):
    approving = {"digest": waiting.json()["digest"], "reason": "seen"}
    headers = (headers or once()) | as_of(api, "compliance", "chen")
    return await api.post(f"{waiting.headers['Location']}/approve", json=approving, headers=headers)


@pytest.mark.requirement("R021", "M06", "R091")
async def test_two_persons_adopt_a_version_of_the_rules_and_all_are_listed_with_their_months(api):
    before = await api.get("/tier-rules")
    assert (before.headers["ETag"], before.json()["next"]) == ('"0"', None)
    [built_in] = before.json()["items"]
    assert (built_in["version"], built_in["from_month"], built_in["in_force"]) == (1, None, True)
    assert built_in["thresholds"] == [
        {"tier": "wealth", "amount": "500000.00", "amount_minor": 50_000_000},
        {"tier": "private", "amount": "6000000.00", "amount_minor": 600_000_000},
    ]
    waiting = await propose(api, month_ahead(), headers=key("once"))
    assert (waiting.status_code, waiting.json()["proposes"]) == (202, "adopt-tier-rules"), waiting.text
    assert (await propose(api, month_ahead(), headers=key("once"))).json() == waiting.json()
    assert len((await api.get("/tier-rules")).json()["items"]) == 1, "nothing holds before it is approved"
    own = {"digest": waiting.json()["digest"], "reason": "mine"}
    alone = await api.post(
        f"{waiting.headers['Location']}/approve", json=own, headers=once() | as_of(api, "compliance", "Lin")
    )
    assert await code_of_refusal(alone) == (403, "second-person-needed")
    for _ in range(2):
        assert (await approve(api, waiting, key("approved"))).status_code == 200
    listed = await api.get("/tier-rules")
    new, old = listed.json()["items"]
    assert (listed.headers["ETag"], old) == ('"1"', built_in)
    assert (new["version"], new["from_month"], new["in_force"], new["grace_months"]) == (
        2,
        month_ahead(),
        False,
        2,
    )
    assert [(one["tier"], one["amount"]) for one in new["thresholds"]] == [
        ("potential", "200000.00"),
        ("wealth", "1000000.00"),
        ("private", "10000000.00"),
    ]
    assert (new["actor"], new["proposed_by"], new["reason"]) == ("chen", "lin", "总行文件第7号")
    known = await api.service.rulebook.versions()
    assert [known.of(month).version for month in (month_ahead(0), month_ahead())] == [1, 2]


@pytest.mark.requirement("R021", "M06")
async def test_of_two_versions_that_were_proposed_at_once_the_second_is_not_adopted(api):
    first, second = await propose(api, month_ahead()), await propose(api, month_ahead(2))
    assert (await approve(api, first)).status_code == 200
    assert await code_of_refusal(await approve(api, second)) == (409, "tier-rules-outdated")
    stale = await propose(api, month_ahead(2))
    assert await code_of_refusal(stale) == (412, "version-mismatch")
    assert (await approve(api, await propose(api, month_ahead(), 1))).status_code == 200, "a correction of it"
    assert [one["version"] for one in (await api.get("/tier-rules")).json()["items"]] == [3, 2, 1]


@pytest.mark.requirement("R021")
async def test_a_version_whose_month_began_while_it_waited_is_not_adopted(api):
    waiting = await propose(api, month_ahead())
    later = NOW.date().replace(year=NOW.year + 1)
    rulebook = api.service.rulebook
    today = rulebook.today
    object.__setattr__(rulebook, "today", lambda: later)
    assert await code_of_refusal(await approve(api, waiting)) == (422, "tier-rules-not-ahead")
    object.__setattr__(rulebook, "today", today)
    assert len((await api.get("/tier-rules")).json()["items"]) == 1


async def test_what_are_no_rules_is_refused_and_who_may_not_propose_some(api):
    def only(*amounts):
        tiers = ("wealth", "private")
        return [{"tier": tier, "amount": amount} for tier, amount in zip(tiers, amounts, strict=False)]

    for wrong, code in (
        ({"from_month": month_ahead(0)}, "tier-rules-not-ahead"),
        ({"from_month": month_ahead(AHEAD_MONTHS_MAX + 1)}, "tier-rules-not-ahead"),
        ({"from_month": "2027-13"}, "request-invalid"),
        ({"from_month": "2027-01\n"}, "request-invalid"),
        ({"thresholds": []}, "request-invalid"),
        ({"thresholds": [{"tier": "mass", "amount": "1"}]}, "request-invalid"),
        ({"thresholds": only("500000.001", "6000000")}, "request-invalid"),
        ({"thresholds": only("-1", "6000000")}, "request-invalid"),
        ({"thresholds": only("1", "9999999999999999")}, "request-invalid"),
        ({"thresholds": only("6000000", "6000000")}, "tier-rules-invalid"),
        ({"thresholds": only("6000001", "6000000")}, "tier-rules-invalid"),
        ({"thresholds": only("0", "6000000")}, "tier-rules-invalid"),
        ({"thresholds": [*only("1"), *only("2")]}, "tier-rules-invalid"),
        ({"thresholds": 4 * only("1")}, "request-invalid"),
        ({"grace_months": GRACE_MONTHS_MAX + 1}, "request-invalid"),
        ({"grace_months": -1}, "request-invalid"),
        ({"currency": "XAU"}, "request-invalid"),
        ({"reason": ""}, "request-invalid"),
    ):
        month = wrong.get("from_month", month_ahead())
        refused = await propose(
            api, month, **{name: each for name, each in wrong.items() if name != "from_month"}
        )
        assert await code_of_refusal(refused) == (422, code), wrong
    for role in ("relationship-manager", "compliance", "operator"):
        acting(api, role, "浦东/RM-1")
        assert await code_of_refusal(await propose(api, month_ahead())) == (403, "forbidden"), role
        assert (await api.get("/tier-rules")).status_code == 200
