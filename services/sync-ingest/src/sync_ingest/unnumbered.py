"""Identities of postings without a transaction id: what is money and nothing else, and an ordinal among equals.

A mapping says what another file of the source means by an equal posting. `whole-days`: each file has all postings of its
days, so an equal one is the same one, and the n-th of a file is the n-th of every other. `parts`: each file has postings
that no other has, so an equal one is a new one, whose ordinal continues after those of the other files; the same bytes
bring the same ones again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from contracts.identity import ExternalIds

from sync_ingest.domain.identities import equals_id, ordinal_id
from sync_ingest.domain.records import Covers, Posting

EQUALS_MAX: Final = 2_000_000
"""Postings of one file that have no id and differ in their money: so many are told apart."""
ORDINALS_LOOKED_UP: Final = 8


@dataclass(slots=True)
class _Held:
    """Ordinals of equal postings: those that these bytes brought before, the first free one, how many were read."""

    own: list[int]
    free: int = 1
    read: int = 0


class Unnumbered:
    """Gives identities to the postings of a run, file by file. `stored`: which intake brought each of some identities."""

    def __init__(
        self, ids: ExternalIds, source: str, stored: Callable[[Sequence[UUID]], Mapping[UUID, UUID]]
    ) -> None:
        self._ids = ids
        self._source = source
        self._stored = stored
        self._file = -1
        self._read: dict[int, int] = {}
        self._held: dict[int, _Held] = {}

    def identities(
        self, file: int, postings: Sequence[Posting], covers: Covers | None, readings: Collection[UUID]
    ) -> list[UUID | None]:
        """Identities of postings that come one after the other in a file; None beyond EQUALS_MAX.

        `readings` are the intakes of the same bytes. With `parts` everything that was planned has to be stored already.
        """
        if file != self._file:
            self._file = file
            self._read.clear()
            self._held.clear()
        equals = [equals_id(self._ids, self._source, posting) for posting in postings]
        if covers == "parts":
            self._look_up([one for one in dict.fromkeys(equals) if one.int not in self._held], readings)
        return [self._identity(one, covers) for one in equals]

    def _identity(self, equals: UUID, covers: Covers | None) -> UUID | None:
        if covers == "parts":
            held = self._held.get(equals.int)
            if held is None:
                return None
            held.read += 1
            if held.read <= len(held.own):
                ordinal = held.own[held.read - 1]
            else:
                ordinal = held.free
                held.free += 1
        else:
            ordinal = self._read.get(equals.int, 0) + 1
            if ordinal == 1 and len(self._read) >= EQUALS_MAX:
                return None
            self._read[equals.int] = ordinal
        return ordinal_id(self._ids, self._source, equals, ordinal)

    def _look_up(self, equals: Sequence[UUID], readings: Collection[UUID]) -> None:
        """Which ordinals are stored, and which of them these bytes brought; a few at a time, until none is."""
        asked = list(equals[: max(0, EQUALS_MAX - len(self._held))])
        for one in asked:
            self._held[one.int] = _Held([])
        first = 1
        while asked:
            ordinals = range(first, first + ORDINALS_LOOKED_UP)
            named = {
                ordinal_id(self._ids, self._source, one, ordinal): (one, ordinal)
                for one in asked
                for ordinal in ordinals
            }
            found = self._stored(list(named))
            going_on = dict[UUID, None]()
            for identity, (one, ordinal) in named.items():
                intake = found.get(identity)
                if intake is not None:
                    held = self._held[one.int]
                    held.free = ordinal + 1
                    if intake in readings:
                        held.own.append(ordinal)
                    going_on[one] = None
            asked = list(going_on)
            first = ordinals.stop
