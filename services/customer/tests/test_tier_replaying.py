"""Laws of what-if: rules of tiers over the history of a customer, for all versions, figures and overrides."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from chassis.write.events import Metadata, RecordedEvent
from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import EndTierOverride, OverrideTier
from customer.domain.customer import customer_decider
from customer.domain.events import (
    BranchAssigned,
    ContradictionResolved,
    CustomerContactErased,
    CustomerErased,
    DetailsContradicted,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.tier_replaying import Move, Trial, as_if, replayed
from customer.domain.tier_rules import RULES, TIERS, Threshold, TierRules, TierRuleVersions
from customer.months import month_after
from customer.tiers import assessing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from .test_tier_laws import CORRECTIONS, MONTHS, REGISTERED, YEARS, versions

CUSTOMER = UUID(int=1)
NOTHING = UUID(int=0)
OVERRIDES = st.dictionaries(
    st.sampled_from(MONTHS[1:]),
    st.tuples(st.sampled_from([*TIERS, None]), st.integers(0, 27)),
    max_size=4,
)
"""By month, the override that is given in it, or None where the one that stands is withdrawn, and on which of its days."""


def recorded(event, effective_on, version=1):
    at = datetime(effective_on.year, effective_on.month, effective_on.day, 1, tzinfo=UTC)
    metadata = Metadata(
        effective_at=at,
        recorded_at=at,
        actor="a",
        command_id=NOTHING,
        correlation_id=NOTHING,
        causation_id=NOTHING,
    )
    return RecordedEvent(version, CUSTOMER, version, "", event, metadata)


def business_date(at):
    return at.date()


def lived(rules, year, corrections=(), passed_over=frozenset(), overrides=None):
    """The history of a customer: each month assessed as by the timer on the first day of the next one, or, with an override in that month,
    after it was given."""
    had, history, customer = dict(zip(MONTHS, year, strict=True)), [], customer_decider.fold([])

    def add(event, on):
        nonlocal customer
        customer = customer_decider.fold([event], customer)
        history.append(recorded(event, on, len(history) + 1))

    def command(command, on):
        for event in customer_decider.decide(command, customer):
            add(event, on)

    add(REGISTERED, date(2025, 1, 1))
    for month in MONTHS:
        had.update({of: figures for when, of, figures in corrections if when == month and of <= month})
        first = date.fromisoformat(month_after(f"{month}-01"))
        if month in (overrides or {}):
            tier, days = overrides[month]
            on = first + timedelta(days=days)
            given = EndTierOverride("withdrawn")
            if tier is not None:
                given = OverrideTier(tier, on + timedelta(days=100), on, on + timedelta(days=100), True)
            command(given, on)
        if month in passed_over:
            continue
        known = {of: figures for of, figures in had.items() if of <= month and figures is not None}
        facts = {"aum_month_average": known, CHANGES_ON: month_after(first.isoformat())}
        command(assessing(facts, first.isoformat(), rules), first)
    return history


@st.composite
def candidates(draw):
    """A version that is adopted by nobody, for any month."""
    found = draw(versions().filter(lambda one: len(one.versions) > 1)).versions[1]
    return structs.replace(found, version=99, from_month=draw(st.sampled_from(MONTHS)))


def of_months(history):
    """The assessments of a history."""
    return [one.event for one in history if isinstance(one.event, TierAssessed)]


def in_force_on(history, day):
    """The tier in force at the end of a day, by what is effective until then."""
    effective = [one.event for one in history if one.metadata.effective_at.date() <= day]
    return customer_decider.fold(effective).tier_in_force


@pytest.mark.requirement("M07")
@settings(max_examples=300)
@given(
    versions(),
    YEARS,
    CORRECTIONS,
    st.sets(st.sampled_from(MONTHS[1:])),
    OVERRIDES,
    st.sampled_from(MONTHS),
)
def test_the_rules_that_are_in_force_give_the_history_that_there_is(
    rules, year, corrections, passed_over, overrides, begins
):
    history = lived(rules, year, corrections, passed_over, overrides)
    found = replayed(history, Trial(rules, rules, begins), business_date)
    whole = [one for one in of_months(history) if one.month >= begins]
    if not whole:
        assert found is None
        return
    assert [one.real for one in found.months] == [one.candidate for one in found.months] == whole
    assert found.moves == []
    assert found.real == found.candidate


@pytest.mark.requirement("M07")
@settings(max_examples=300)
@given(versions(), candidates(), YEARS, OVERRIDES)
def test_a_candidate_gives_the_history_that_there_had_been_with_it(rules, candidate, year, overrides):
    """Where no month was corrected afterwards and none passed over: else the facts of a later day know more than was recorded."""
    trial = Trial(rules, as_if(rules, candidate), candidate.from_month)
    history = lived(rules, year, overrides=overrides)
    with_it = lived(trial.versions, year, overrides=overrides)
    found = replayed(history, trial, business_date)
    own = {one.month: trial.comparable(one.month) for one in of_months(history)}
    if not all(own.values()):
        return
    expected = [one for one in of_months(with_it) if one.month >= candidate.from_month]
    assert [one.candidate for one in found.months] == expected
    first, last = date(2026, 1, 1), date(2027, 6, 1)
    for day in (first + timedelta(days=each) for each in range((last - first).days)):
        real, other = in_force_on(history, day), in_force_on(with_it, day)
        on_day = [one for one in found.moves if one.since <= day and (one.until is None or day < one.until)]
        assert [(one.tier, one.candidate_tier) for one in on_day] == (
            [(real, other)] if real != other else []
        )


def assessed_by(rules, *averages, since="2026-01"):
    """A history of months in a row with these averages, in minor units."""
    year = [None] * len(MONTHS)
    at = MONTHS.index(since)
    year[at : at + len(averages)] = [None if one is None else {"CNY": one, "USD": 0} for one in averages]
    return lived(rules, year, passed_over={*MONTHS[:at], *MONTHS[at + len(averages) :]})


EIGHT_MILLION = TierRules(
    2, "CNY", (Threshold("private", 800_000_000), Threshold("wealth", 50_000_000)), 1, "2026-02"
)
ADOPTED = TierRuleVersions()
RAISED = Trial(ADOPTED, as_if(ADOPTED, EIGHT_MILLION), "2026-02")


@pytest.mark.requirement("M07")
def test_who_is_below_a_raised_limit_moves_when_the_grace_is_over_until_the_limit_is_reached():
    million = 100_000_000
    history = assessed_by(ADOPTED, *(each * million for each in (6, 6, 7, 7, 8, 7)))
    found = replayed(history, RAISED, business_date)
    # January is assessed by the rules that there were, and is the month of grace by them.
    assert [one.candidate.because for one in found.months] == ["grace", "met", "met", "met", "grace"]
    assert found.moves == [Move(date(2026, 4, 1), date(2026, 6, 1), "private", "wealth")]


@pytest.mark.requirement("M07", "R022")
def test_while_an_override_stands_nobody_moves_and_afterwards_the_candidate_holds():
    year = [{"CNY": 700_000_000, "USD": 0}] * len(MONTHS)
    history = lived(ADOPTED, year, overrides={"2026-04": ("mass", 9), "2026-06": (None, 4)})
    found = replayed(history, RAISED, business_date)
    given, ended = date(2026, 5, 10), date(2026, 7, 5)
    assert found.moves == [
        Move(date(2026, 4, 1), given, "private", "wealth"),
        Move(ended, None, "private", "wealth"),
    ]


@pytest.mark.requirement("M07", "M22")
@pytest.mark.parametrize(
    "erased",
    [CustomerErased((), ()), CustomerContactErased((), date(2036, 1, 1))],
    ids=lambda one: type(one).__name__,
)
def test_who_is_erased_is_not_replayed(erased):
    history = assessed_by(ADOPTED, 700_000_000, 700_000_000)
    assert replayed(history, RAISED, business_date) is not None
    assert replayed([*history, recorded(erased, date(2026, 9, 1))], RAISED, business_date) is None


@pytest.mark.requirement("M07")
def test_the_branch_is_the_one_that_the_customer_has_at_the_end():
    registered = recorded(structs.replace(REGISTERED, branch="浦东"), date(2025, 1, 1))
    stated = DetailsContradicted("core", CUSTOMER, branch="徐汇", name="k1.sealed")
    accepted = ContradictionResolved("core", CUSTOMER, "branch", True)
    history = [registered, *assessed_by(ADOPTED, 1, 1)[1:]]
    assert replayed(history, RAISED, business_date).real.values["branch"] == "浦东"
    for moved in ([BranchAssigned("徐汇")], [stated, accepted]):
        later = [recorded(each, date(2026, 9, 1)) for each in moved]
        assert replayed([*history, *later], RAISED, business_date).real.values["branch"] == "徐汇"


@pytest.mark.requirement("M07")
def test_a_month_that_was_compared_in_another_currency_is_unknown_to_the_candidate():
    in_dollars = TierRules(2, "USD", (Threshold("private", 100_000_000),), 1, "2026-02")
    trial = Trial(ADOPTED, as_if(ADOPTED, in_dollars), "2026-02")
    found = replayed(assessed_by(ADOPTED, 700_000_000, 700_000_000, 1), trial, business_date)
    assert [one.candidate.because for one in found.months] == ["unknown", "unknown"]
    assert [one.candidate.tier for one in found.months] == ["private", "private"]


@pytest.mark.requirement("M07")
def test_a_longer_grace_is_known_from_the_assessments_of_the_months_before():
    longer = TierRules(
        2, "CNY", (Threshold("private", 600_000_000), Threshold("wealth", 50_000_000)), 3, "2026-02"
    )
    trial = Trial(ADOPTED, as_if(ADOPTED, longer), "2026-02")
    found = replayed(assessed_by(ADOPTED, 600_000_000, 0, 0, 0, 0, 0), trial, business_date)
    assert [one.real.tier for one in found.months] == ["private", "mass", "mass", "mass", "mass"]
    assert [one.candidate.tier for one in found.months] == ["private", "private", "private", "mass", "mass"]
    assert found.months[-1].candidate.averages_earlier_minor == (0, 0)


@pytest.mark.requirement("M07")
def test_a_candidate_takes_the_place_of_the_versions_that_begin_with_its_first_month_or_later():
    def begins(number, month):
        return structs.replace(EIGHT_MILLION, version=number, from_month=month)

    adopted = TierRuleVersions((RULES, begins(2, "2026-03"), begins(3, "2026-05"), begins(4, "2026-04")))
    candidate = begins(5, "2026-04")
    found = as_if(adopted, candidate)
    assert [found.of(month).version for month in ("2026-02", "2026-03", "2026-04", "2026-06")] == [1, 2, 5, 5]


@pytest.mark.requirement("M07")
def test_a_move_that_ends_on_its_day_is_none():
    history = assessed_by(ADOPTED, 700_000_000, 700_000_000, 700_000_000)
    day = date(2026, 5, 20)
    over = TierOverridden("mass", date(2026, 9, 1))
    given = [recorded(over, date(2026, 5, 3)), recorded(TierOverrideEnded("withdrawn", "private"), day)]
    assert replayed([*history, *given], RAISED, business_date).moves[1:] == [
        Move(day, None, "private", "wealth")
    ]
    again = recorded(over, day)
    assert replayed([*history, *given, again], RAISED, business_date).moves[1:] == []
