"""The holders of an account: the changes by a record to the rights that its source stated before. Pure."""

from collections.abc import Mapping, Sequence
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


class Holders(msgspec.Struct, frozen=True, array_like=True):
    """The rights over an account, and the business date of the newest complete list of them that was read."""

    rights: Mapping[UUID, Right] = {}
    listed_on: date | None = None


_STRONGEST: Final[Sequence[Role]] = ("owner", "joint", "signatory")
_decode: Final = msgspec.json.Decoder(Holders).decode
_decode_rights: Final = msgspec.json.Decoder(dict[UUID, Right]).decode


def holders_of(text: str) -> Holders:
    """The holders that `written` gave; none of an empty text. Texts from before lists had a day are an object."""
    if not text:
        return Holders()
    return Holders(_decode_rights(text)) if text.startswith("{") else _decode(text)


def written(holders: Holders) -> str:
    """The holders as one text, the same whatever order they were stated in."""
    rights = {str(party): holders.rights[party] for party in sorted(holders.rights)}
    return msgspec.json.encode((rights, holders.listed_on)).decode()


def changed_rights(
    ids: ExternalIds, source: str, record: HoldingRecord, before: Holders, today: date
) -> tuple[Holders, list[HolderEvent]]:
    """Returns the holders after a record, and the events of the changes; none where the record repeats known
    rights.

    A list of an earlier day than one that was read before changes nothing, so that lists can come in any order.
    """
    after, listed_on = dict(before.rights), before.listed_on
    match record:
        case HolderRecord():
            after[ids.party(source, record.party)] = Right(record.role, record.held_from, record.held_until)
        case HoldersRecord():
            day = record.listed_on or today
            if listed_on is None or day >= listed_on:
                # A party that is listed twice has the stronger role, which is written last.
                strongest_last = sorted(record.holders, key=lambda one: -_STRONGEST.index(one.role))
                listed: dict[UUID, Role] = {ids.party(source, one.party): one.role for one in strongest_last}
                _replace(after, listed, day)
                # A list of a day to come does not make that of today an old one.
                newest = min(day, today)
                listed_on = newest if listed_on is None else max(listed_on, newest)
        case _:
            assert_never(record)
    changed = [party for party, right in after.items() if before.rights.get(party) != right]
    return Holders(after, listed_on), [_event(source, party, after[party]) for party in changed]


def _replace(rights: dict[UUID, Right], listed: Mapping[UUID, Role], day: date) -> None:
    """A list says who holds the account on its day. An end that was announced for later stays announced, and
    so does a right that begins later."""
    for party, role in listed.items():
        known = rights.get(party)
        if known is None:
            rights[party] = Right(role)
        elif known.held_until is not None and known.held_until <= day:
            rights[party] = Right(role, held_from=day)
        else:
            since = known.held_from
            rights[party] = Right(role, since if since is None else min(since, day), known.held_until)
    for party, known in rights.items():
        begun = known.held_from is None or known.held_from <= day
        if party not in listed and begun and (known.held_until is None or known.held_until > day):
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
