"""The facts of a customer: the panorama's figures, on the day of today, without what is not its own."""

from datetime import UTC, date, datetime, timedelta

import bson
import pytest
from chassis.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX
from customer.derived.customer_facts import CHANGES_ON, VIEW, facts
from customer.holdings import held
from customer.panorama.composing import panorama
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 6, 30, tzinfo=UTC)
DAY = "2026-06-30"
ME = "party-me"
DAYS = st.sampled_from([None, "2020-01-01", DAY, "2026-07-01", "2030-01-01"])


def customer(**changed):
    link = {"party_id": ME, "source": "core", "from": None, "until": None}
    return {
        "_id": "c1",
        "name": None,
        "kind": "person",
        "origin": "staff",
        "branch": "b",
        "questions": [],
        "parties": [link | changed],
    }


@st.composite
def accounts(draw):
    found = []
    for number in range(draw(st.integers(0, 4))):
        balances = draw(
            st.dictionaries(
                st.sampled_from(["CNY", "USD"]),
                st.integers(-BALANCE_MINOR_MAX, BALANCE_MINOR_MAX),
                max_size=2,
            )
        )
        holder = {"party_id": ME, "role": draw(st.sampled_from(["owner", "joint", "signatory"]))}
        found.append(
            {
                "_id": f"00000000-0000-0000-0000-{number:012d}",
                "source": "core",
                "account": None,
                "product": draw(st.sampled_from(["deposit", "wealth", "card", "loan", None])),
                "opened_on": draw(DAYS),
                "closed_on": draw(DAYS),
                "currency": "CNY",
                "holders": [holder | {"from": draw(DAYS), "until": draw(DAYS)}],
                "cards": [],
                "loans": [],
                "orders": [],
                "outflows": {},
                "months": {},
                "repaid": {},
                "balances": {
                    currency: {"minor": minor, "movements": 1, "booked_through": DAY}
                    for currency, minor in balances.items()
                },
                "booked_through": DAY,
                "changed_at": NOW.isoformat(),
                "position": 1,
            }
        )
    return found


@given(accounts())
def test_amounts_are_those_of_the_panorama_and_fit_the_database(there):
    of_it = facts(customer(), there, DAY)
    shown = panorama(customer(), held(there, {ME}, DAY), [], now=NOW, today=DAY)["currencies"]
    for name in ("aum", "liabilities", "net_worth", "deposits", "wealth"):
        wanted = {one["currency"]: one[name]["amount_minor"] for one in shown if one[name]["amount_minor"]}
        assert of_it[name] == wanted
    assert bson.decode(bson.encode(of_it)) == of_it


@given(accounts(), st.integers(0, 1_500))
def test_the_same_inputs_give_the_same_facts_until_the_day_on_which_they_change(there, days):
    of_it = facts(customer(until="2029-01-01"), there, DAY)
    later = (date.fromisoformat(DAY) + timedelta(days=days)).isoformat()
    if of_it[CHANGES_ON] is None or later < of_it[CHANGES_ON]:
        assert facts(customer(until="2029-01-01"), there, later) == of_it


def test_a_sum_of_the_largest_amounts_is_kept_as_an_integer():
    of_it = facts(customer(), [], DAY)
    assert of_it["aum"] == {}
    assert AMOUNT_MINOR_MAX < BALANCE_MINOR_MAX < 2**53


@pytest.mark.parametrize("index", VIEW.collection.indexes, ids=str)
def test_no_index_is_unique(index):
    assert not index.unique
