"""The holders of an account: the changes by a record to the rights that its source stated before. Pure."""

from collections.abc import Mapping
from datetime import date
from typing import Final, assert_never
from uuid import UUID

import msgspec
from contracts.identity import ExternalIds

from sync_ingest.domain.events import HolderNamed, HolderRemoved
from sync_ingest.domain.records import HolderRecord, HoldersRecord, HoldingRecord, Role

HolderEvent = HolderNamed | HolderRemoved


class Right(msgspec.Struct, frozen=True, array_like=True):
    """A party's right over an account, from `held_from` on and before `held_until`."""

    role: Role
    held_from: date | None = None
    held_until: date | None = None


Rights = Mapping[UUID, Right]

_decode: Final = msgspec.json.Decoder(dict[UUID, Right]).decode


def rights_of(text: str) -> dict[UUID, Right]:
    """The rights that `written` gave; none of an empty text."""
    return _decode(text) if text else {}


def written(rights: Rights) -> str:
    """The rights as one text, the same whatever order they were stated in."""
    return msgspec.json.encode({str(party): rights[party] for party in sorted(rights)}).decode()


def changed_rights(
    ids: ExternalIds, source: str, record: HoldingRecord, before: Rights, today: date
) -> tuple[dict[UUID, Right], list[HolderEvent]]:
    """Returns the rights after a record, and the events of the changes; none where the record repeats known
    rights."""
    after = dict(before)
    match record:
        case HolderRecord():
            after[ids.party(source, record.party)] = Right(record.role, record.held_from, record.held_until)
        case HoldersRecord():
            listed: dict[UUID, Role] = {ids.party(source, one.party): one.role for one in record.holders}
            _replace(after, listed, record.listed_on or today)
        case _:
            assert_never(record)
    changed = [party for party, right in after.items() if before.get(party) != right]
    return after, [_event(source, party, after[party]) for party in changed]


def _replace(rights: dict[UUID, Right], listed: Mapping[UUID, Role], day: date) -> None:
    for party, role in listed.items():
        known = rights.get(party)
        if known is None or known.role != role:
            rights[party] = Right(role)
        elif known.held_until is not None and known.held_until <= day:
            rights[party] = Right(role, held_from=day)
    for party, known in rights.items():
        if party not in listed and (known.held_until is None or known.held_until > day):
            rights[party] = Right(known.role, known.held_from, day)


def _event(source: str, party: UUID, right: Right) -> HolderEvent:
    if right.held_until is None:
        return HolderNamed(source=source, party_id=party, role=right.role, held_from=right.held_from)
    return HolderRemoved(
        source=source,
        party_id=party,
        role=right.role,
        held_from=right.held_from,
        held_until=right.held_until,
    )
