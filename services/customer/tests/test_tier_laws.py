"""Laws of tiers that hold for all versions of the rules and whatever a customer has, over a year of assessments."""

import pytest
from customer.derived.customer_facts import CHANGES_ON
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerRegistered
from customer.domain.tier_rules import RULES, TIERS, Threshold, TierRules, TierRuleVersions
from customer.months import month_after, whole_months
from customer.tiers import assessing
from hypothesis import example, given, settings
from hypothesis import strategies as st

MONTHS = [month for month, _ in reversed(whole_months("2027-02-01"))]
AMOUNTS = [0, 1, 49_999_999, 50_000_000, 100_000_000, 599_999_999, 600_000_000, 9 * 10**15]
REGISTERED = CustomerRegistered(name="张伟", kind="person", origin="staff")


@st.composite
def versions(draw):
    """Up to three versions beside the built-in one; later ones may begin in the same month, or before others."""
    made = [RULES]
    for number in range(2, 2 + draw(st.integers(0, 3))):
        tiers = sorted(draw(st.sets(st.sampled_from(TIERS[1:]), min_size=1)), key=TIERS.index, reverse=True)
        amounts = draw(st.sets(st.sampled_from(AMOUNTS[1:]), min_size=len(tiers), max_size=len(tiers)))
        thresholds = tuple(map(Threshold, tiers, sorted(amounts, reverse=True)))
        grace, begins = draw(st.integers(0, 4)), draw(st.sampled_from(MONTHS))
        made.append(TierRules(number, draw(st.sampled_from(["CNY", "USD"])), thresholds, grace, begins))
    return TierRuleVersions(tuple(made))


POOR, RICH = {"CNY": 0, "USD": 0}, {"CNY": 600_000_000, "USD": 0}
HAD = st.one_of(st.none(), st.fixed_dictionaries({one: st.sampled_from(AMOUNTS) for one in ("CNY", "USD")}))
YEARS = st.lists(HAD, min_size=len(MONTHS), max_size=len(MONTHS))
CORRECTIONS = st.lists(st.tuples(st.sampled_from(MONTHS), st.sampled_from(MONTHS), HAD), max_size=6)


@pytest.mark.requirement("R021", "M06")
@settings(max_examples=500)
@example(TierRuleVersions(), [POOR] * len(MONTHS), [(MONTHS[5], MONTHS[4], RICH)], set())
@given(versions(), YEARS, CORRECTIONS, st.sets(st.sampled_from(MONTHS[1:])))
def test_a_tier_is_what_the_month_reaches_or_what_its_grace_keeps(rules, year, corrections, passed_over):
    had, customer = dict(zip(MONTHS, year, strict=True)), customer_decider.fold([REGISTERED])
    for month in [one for one in MONTHS if one not in passed_over]:
        had.update({of: figures for when, of, figures in corrections if when == month and of <= month})
        day = month_after(f"{month}-01")
        known = {of: figures for of, figures in had.items() if of <= month and figures is not None}
        facts = {"aum_month_average": known, CHANGES_ON: month_after(day)}
        before = customer.tier
        [event] = customer_decider.decide(assessing(facts, day, rules), customer)
        customer = customer_decider.fold([event], customer)
        version = rules.of(month)
        assert (event.month, event.rules, event.currency) == (month, version.version, version.currency)

        def reached(of, known=known):
            """The place of the tier that a month reaches by its own rules; None where nothing is known of it."""
            its = rules.of(of)
            if of not in known:
                return None
            return TIERS.index(its.tier_of(known[of].get(its.currency, 0)))

        now, met = None if before is None else TIERS.index(before), reached(month)
        if met is None:
            assert (event.tier, event.because) == (before, "unknown")
            continue
        after = TIERS.index(event.tier)
        assert event.because == ("met" if after == met else "grace")
        assert met <= after, "a tier is reached at once"
        if now is None:
            assert after == met
            continue
        assert after <= max(met, now), "no month before raises a tier"
        at = MONTHS.index(month)
        grace = [reached(of) for of in MONTHS[max(0, at - version.grace_months) : at]]
        whole = len(grace) == version.grace_months and None not in grace
        if after < now:
            assert whole, "a tier is left after all months of its grace, and these are known"
            assert max([met, *grace]) == after < now
        elif met < now:
            assert not whole or max(grace) >= now, "a tier that all months of the grace are below is left"
