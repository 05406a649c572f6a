"""Compares running numbers with those that were read before: gaps, and numbers that two postings have."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.contradictions import Contradiction, Contradictions
from sync_ingest.checking.feed import ACCOUNTS_AT_ONCE
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.controls.file_read import FileRead, Scope, scopes_of
from sync_ingest.domain.controls.running_numbers import NumberSeries, shared
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import ControlRecord, shown
from sync_ingest.folding import contradiction_id

CHECKED_SERIES: Final = "series"
"""The kind of partial sums that hold the running numbers to be kept with the certificate."""
SERIES: Final = "running-number"
REPEATED: Final = "running-number-again"
"""Only a person resolves these: no later feed says which of two postings is right."""
NUMBER_GAP: Final = "running-number-gap"
NUMBER_REPEATED: Final = "running-number-repeated"
GAPS_NAMED_MAX: Final = 1_000

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_pack: Final = msgspec.msgpack.Encoder().encode
_series: Final = msgspec.msgpack.Decoder(NumberSeries)


class _CheckedSeries(msgspec.Struct, array_like=True):
    scope: str
    body: bytes


_checked: Final = msgspec.json.Decoder(_CheckedSeries)


@dataclass(slots=True)
class RunningNumbers:
    """The running numbers of one booking of a source."""

    archive: Archive
    source: str
    partial_sums: PartialSums
    kept_max: int = ACCOUNTS_KEPT_MAX
    _series_now: dict[str, bytes] = field(default_factory=dict)
    _series_stored: bool = False
    _read_so_far: dict[Scope, bytes] = field(default_factory=dict)

    @property
    def any_series(self) -> bool:
        """Whether running numbers changed, which are to be kept with the certificate."""
        return self._series_stored or bool(self._series_now)

    def series(self) -> Iterator[Mapping[str, bytes]]:
        """The running numbers that changed, some scopes at a time."""
        if not self._series_stored:
            yield self._series_now
            return
        self._store_series()
        rows = self.partial_sums.stored(CHECKED_SERIES)
        while some := list(islice(rows, ACCOUNTS_AT_ONCE)):
            yield {checked.scope: checked.body for checked in (_checked.decode(body) for _, body in some)}

    def _store_series(self) -> None:
        """Stores the running numbers that changed and forgets them. Which account they are of does not matter."""
        rows = [
            (contradiction_id(self.source, SERIES, scope), _encode(_CheckedSeries(scope, body)))
            for scope, body in self._series_now.items()
        ]
        self.partial_sums.store(CHECKED_SERIES, rows)
        self._series_now.clear()
        self._series_stored = True

    def check(self, read: FeedRead) -> None:
        """Compares what was read of some accounts, or what was read and is of none."""
        self._read_so_far.clear()
        every = read.series()
        scopes = list(every)
        for at in range(0, len(scopes), ACCOUNTS_AT_ONCE):
            self._series({scope: every[scope] for scope in scopes[at : at + ACCOUNTS_AT_ONCE]}, read)
        if len(self._series_now) >= self.kept_max:
            self._store_series()

    def read_so_far(self, reads: Sequence[FileRead], control: ControlRecord) -> dict[Scope, NumberSeries]:
        """The series that a control record speaks of, with what was read now."""
        return {scope: _series.decode(self._read_so_far[scope]) for scope in scopes_of(reads, control)}

    def _scope(self, scope: Scope) -> str:
        on = "" if scope.day is None else f"{scope.day}:"
        if scope.account is not None:
            return f"account:{on}{scope.account}"
        # Counted before it is refused: a database cannot store the character.
        branch = (scope.branch or "").replace("\0", "\ufffd")
        return f"branch:{on}{branch}"

    def _series(self, some: Mapping[Scope, NumberSeries], read: FeedRead) -> None:
        names = {scope: self._scope(scope) for scope in some}
        held = self.archive.series.of(self.source, list(names.values()))
        found: dict[UUID, Contradiction] = {}
        repeats: dict[UUID, Contradiction] = {}
        for scope, numbers in some.items():
            name = names[scope]
            series = _series.decode(held[name]) if name in held else NumberSeries([])
            booked, twice = read.booked.get(scope), read.repeated.get(scope)
            again = [
                *(shared(booked.booked, series.booked) if booked else ()),
                *(twice.intervals if twice else ()),
            ]
            series.include(numbers)
            self._read_so_far[scope] = body = _pack(series)
            if body != held.get(name):
                self._series_now[name] = body
            for each, kind, code, intervals, how in (
                (found, SERIES, NUMBER_GAP, series.gaps(), "missing"),
                (repeats, REPEATED, NUMBER_REPEATED, again, "used by another posting before"),
            ):
                named = islice(self._told(scope, name, kind, code, intervals, how), GAPS_NAMED_MAX)
                each |= {one.id: one for one in named}
        standing = self.archive.contradictions.standing(self.source, SERIES, scopes=list(names.values()))
        gone = [identity for identity in standing if identity not in found]
        if found or repeats or gone:
            self.archive.contradictions.note(
                self.source, Contradictions([*found.values(), *repeats.values()], gone)
            )

    def _told(
        self,
        scope: Scope,
        name: str,
        kind: str,
        code: str,
        intervals: Iterable[tuple[int, int]],
        how: str,
    ) -> Iterator[Contradiction]:
        of_branch = f"branch {shown(scope.branch or '')}: " if scope.account is None else ""
        on = f" on {scope.day}" if scope.day else ""
        account = UUID(scope.account) if scope.account is not None else None
        for first, last in intervals:
            identity = contradiction_id(self.source, kind, name, first, last)
            numbers = f"number {first}" if first == last else f"numbers {first} to {last}"
            detail = f"{of_branch}{numbers}{on} {how}"
            yield Contradiction(identity, kind, name, code, account, None, first, last, detail)
