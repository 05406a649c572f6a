"""Who holds an account: what single records and complete lists change, in any order and said again."""

from datetime import date

import pytest
from contracts.identity import ExternalIds
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.events import HolderNamed, HolderRemoved
from sync_ingest.domain.holders import Right, changed_rights, rights_of, written
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
    rights, events = {}, []
    for record in records:
        rights, changes = changed_rights(IDS, "s", record, rights, today)
        events.append(changes)
    return rights, events


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
    after, events = changed_rights(IDS, "s", all_of(("ada", "owner")), before, LATER)
    assert (after, events) == (before, [])


def test_a_role_that_changes_is_named_again():
    _, (_, events) = told(one("ada", "joint"), all_of(("ada", "signatory")))
    assert events == [HolderNamed(source="s", party_id=ADA, role="signatory")]


parties = st.sampled_from(["ada", "bo", "cy"])
roles = st.sampled_from(["owner", "joint", "signatory"])
records = st.one_of(
    st.builds(one, parties, roles, held_until=st.none() | st.sampled_from([TODAY, LATER])),
    st.lists(parties, unique=True).flatmap(
        lambda found: st.builds(lambda role: all_of(*((party, role) for party in found)), roles)
    ),
)


@given(st.lists(records, max_size=8))
def test_the_last_list_says_who_holds_the_account_and_events_tell_all_of_it(found):
    rights, events = told(*found)
    assert rights_of(written(rights)) == rights
    folded = {}
    for event in (event for changes in events for event in changes):
        until = event.held_until if isinstance(event, HolderRemoved) else None
        folded[event.party_id] = Right(event.role, event.held_from, until)
    assert folded == rights
    if found and isinstance(found[-1], HoldersRecord):
        standing = {
            party for party, right in rights.items() if right.held_until is None or right.held_until > TODAY
        }
        assert standing == {IDS.party("s", holder.party) for holder in found[-1].holders}


@pytest.mark.parametrize("until", [date(2026, 1, 1), date(2025, 12, 31)])
def test_a_right_that_ends_before_it_begins_is_told_apart(until):
    record = one("ada", held_from=date(2026, 1, 1), held_until=until)
    assert record.ends_before_it_begins is (until < date(2026, 1, 1))
