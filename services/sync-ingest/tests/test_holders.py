"""Who holds an account: what single records and complete lists change, in any order and said again."""

from datetime import date, timedelta
from itertools import permutations

import pytest
from contracts.identity import ExternalIds
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.events import HolderNamed, HolderRemoved
from sync_ingest.domain.holders import Holders, Right, changed_rights, holders_of, written
from sync_ingest.domain.records import HolderRecord, HoldersRecord, ListedHolder

TODAY = date(2026, 3, 1)
LATER = date(2026, 4, 1)
IDS = ExternalIds(bytes(32))
ADA, BO = IDS.party("s", "ada"), IDS.party("s", "bo")


def one(party, role="owner", **days):
    return HolderRecord(account="A", party=party, role=role, **days)


def all_of(*holders, **days):
    return HoldersRecord(account="A", holders=tuple(ListedHolder(*one) for one in holders), **days)


def told(*records, today=TODAY):
    holders, events = Holders(), []
    for record in records:
        holders, changes = changed_rights(IDS, "s", record, holders, today)
        assert holders_of(written(holders)) == holders
        events.append(changes)
    return holders.rights, events


def standing(rights, day=TODAY):
    return {
        party
        for party, right in rights.items()
        if (right.held_from is None or right.held_from <= day)
        and (right.held_until is None or day < right.held_until)
    }


def test_a_holder_that_is_named_again_changes_nothing():
    _, (first, second) = told(one("ada"), one("ada"))
    assert [type(event) for event in first] == [HolderNamed]
    assert second == []


def test_a_right_ends_on_its_day_and_can_be_named_again():
    rights, (_, ended, again) = told(one("ada"), one("ada", held_until=LATER), one("ada"))
    assert ended == [HolderRemoved(source="s", party_id=ADA, role="owner", held_from=None, held_until=LATER)]
    assert again == [HolderNamed(source="s", party_id=ADA, role="owner")]
    assert rights == {ADA: Right("owner")}


def test_a_complete_list_removes_whom_it_leaves_out():
    rights, (*_, listed) = told(one("ada"), one("bo", "joint"), all_of(("ada", "owner")))
    assert listed == [HolderRemoved(source="s", party_id=BO, role="joint", held_from=None, held_until=TODAY)]
    assert rights[ADA] == Right("owner")


def test_who_was_left_out_of_a_list_comes_back_by_a_single_record_and_by_a_list():
    _, (*_, single) = told(one("ada"), all_of(), one("ada"))
    assert [type(event) for event in single] == [HolderNamed]
    _, (*_, listed) = told(one("ada"), all_of(), all_of(("ada", "owner")))
    assert listed == [HolderNamed(source="s", party_id=ADA, role="owner", held_from=TODAY)]


def test_the_same_list_tomorrow_changes_nothing():
    before, _ = told(one("ada"), one("bo"), all_of(("ada", "owner")))
    again = changed_rights(IDS, "s", all_of(("ada", "owner")), Holders(before, TODAY), LATER)
    assert again == (Holders(before, LATER), [])


def test_lists_say_the_same_in_any_order():
    """A list that comes late gives nobody back a right that ended, and ends none that began since."""
    days = [TODAY - timedelta(30), TODAY - timedelta(20), TODAY]
    lists = [
        all_of(("ada", "owner"), ("ex", "joint"), listed_on=days[0]),
        all_of(("ada", "owner"), ("cy", "owner"), listed_on=days[1]),
        all_of(("ada", "owner"), ("bo", "joint"), listed_on=days[2]),
    ]
    for order in permutations(lists):
        rights, _ = told(*order)
        assert standing(rights) == {ADA, BO}, order


def test_a_list_of_a_day_to_come_does_not_make_that_of_today_an_old_one():
    announced = all_of(("ada", "owner"), listed_on=LATER)
    rights, _ = told(one("ada"), one("bo"), announced, all_of(("bo", "owner")))
    assert standing(rights) == {BO}


def test_a_list_leaves_a_right_that_begins_later_and_an_end_that_was_announced():
    begins, ends = one("bo", held_from=LATER), one("ada", held_until=LATER)
    rights, _ = told(ends, begins, all_of(("ada", "owner")))
    assert (standing(rights), standing(rights, LATER)) == ({ADA}, {BO})
    rights, _ = told(ends, all_of(("ada", "joint")))
    assert rights == {ADA: Right("joint", None, LATER)}


def test_who_is_listed_twice_has_the_stronger_role():
    for order in permutations([("ada", "owner"), ("ada", "joint"), ("ada", "signatory")]):
        assert told(all_of(*order))[0] == {ADA: Right("owner")}


def test_who_is_listed_before_the_right_was_to_begin_holds_the_account():
    rights, (_, listed) = told(one("bo", held_from=LATER), all_of(("bo", "owner")))
    assert listed == [HolderNamed(source="s", party_id=BO, role="owner", held_from=TODAY)]
    assert standing(rights) == {BO}


def test_holders_that_were_stored_before_lists_had_a_day_are_read():
    stored = f'{{"{ADA}":["owner",null,"2026-04-01"]}}'
    assert holders_of(stored) == Holders({ADA: Right("owner", None, LATER)})
    assert holders_of("") == Holders()


def test_a_role_that_changes_is_named_again():
    _, (_, events) = told(one("ada", "joint"), all_of(("ada", "signatory")))
    assert events == [HolderNamed(source="s", party_id=ADA, role="signatory")]


parties = st.sampled_from(["ada", "bo", "cy"])
roles = st.sampled_from(["owner", "joint", "signatory"])
records = st.one_of(
    st.builds(
        one,
        parties,
        roles,
        held_from=st.none() | st.sampled_from([TODAY, LATER]),
        held_until=st.none() | st.sampled_from([TODAY, LATER]),
    ),
    st.lists(parties, unique=True).flatmap(
        lambda found: st.builds(lambda role: all_of(*((party, role) for party in found)), roles)
    ),
)


@given(st.lists(records, max_size=8))
def test_the_last_list_says_who_holds_the_account_and_events_tell_all_of_it(found):
    rights, events = told(*found)
    folded = {}
    for event in (event for changes in events for event in changes):
        until = event.held_until if isinstance(event, HolderRemoved) else None
        folded[event.party_id] = Right(event.role, event.held_from, until)
    assert folded == rights
    if found and isinstance(found[-1], HoldersRecord):
        assert standing(rights) == {IDS.party("s", holder.party) for holder in found[-1].holders}


@pytest.mark.parametrize("until", [date(2026, 1, 1), date(2025, 12, 31)])
def test_a_right_that_ends_before_it_begins_is_told_apart(until):
    record = one("ada", held_from=date(2026, 1, 1), held_until=until)
    assert record.ends_before_it_begins is (until < date(2026, 1, 1))
