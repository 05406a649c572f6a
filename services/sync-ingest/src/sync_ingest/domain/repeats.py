"""What a certificate says of the master data of a run: the subjects that somebody has to look at, and where. Pure.

The same bytes are described once, so that a folder that is read again puts no older master data in the place of newer.
A source that sends such a file to say something anew would lose it silently: so the certificate tells it.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

import msgspec

from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums

REPEATS_NAMED_MAX: Final = 100
"""Places that a certificate names; it counts all."""


class FeedPlace(msgspec.Struct, frozen=True):
    """A record of a feed: its intake, and its line from 1. The name of the file may be personal."""

    intake: UUID
    line: int


class ReadAt(NamedTuple):
    """A record of a run: the number of its file in the run, and its line."""

    file: int
    line: int


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """What was last noted of a subject when it was stored for the n-th time."""

    stored: int
    at: ReadAt | None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Stored).decode


class OlderRepeats:
    """The subjects of one run whose last record is of a file that was read before, and differs from what stands.

    It keeps `kept_max` subjects in memory. Beyond that it stores them in `partial_sums`, if there is such a place.
    """

    kind: ClassVar[str] = "repeated"
    """The kind of partial sums that it stores."""

    def __init__(self, partial_sums: PartialSums | None = None, kept_max: int = ACCOUNTS_KEPT_MAX) -> None:
        self._partial_sums = partial_sums
        self._kept_max = kept_max
        self._noted: dict[UUID, ReadAt | None] = {}
        self._times_stored = 0

    @property
    def any(self) -> bool:
        """Whether anything was noted that a later record may take back."""
        return bool(self._noted or self._times_stored)

    def note(self, subject: UUID, at: ReadAt | None) -> None:
        """The next record of a subject: its place where something is said of it, else None."""
        if at is None and not self._times_stored:
            self._noted.pop(subject, None)
            return
        self._noted[subject] = at
        if len(self._noted) >= self._kept_max:
            self._store()

    def found(self) -> tuple[int, list[ReadAt]]:
        """The number of subjects of which something is said at the end, and the first REPEATS_NAMED_MAX places of
        them in order."""
        count, places = 0, set[ReadAt]()
        for at in self._last():
            if at is not None:
                count += 1
                places.add(at)
                if len(places) > 2 * REPEATS_NAMED_MAX:
                    places = set(sorted(places)[:REPEATS_NAMED_MAX])
        return count, sorted(places)[:REPEATS_NAMED_MAX]

    def _last(self) -> Iterable[ReadAt | None]:
        if self._partial_sums is None or not self._times_stored:
            return self._noted.values()
        self._store()
        return self._last_stored(self._partial_sums)

    def _last_stored(self, partial_sums: PartialSums) -> Iterator[ReadAt | None]:
        for _, rows in groupby(partial_sums.stored(self.kind), key=itemgetter(0)):
            yield max((_decode(body) for _, body in rows), key=lambda stored: stored.stored).at

    def _store(self) -> None:
        if self._partial_sums is None:
            return
        self._times_stored += 1
        rows = [(subject, _encode(_Stored(self._times_stored, at))) for subject, at in self._noted.items()]
        self._partial_sums.store(self.kind, rows)
        self._noted.clear()
