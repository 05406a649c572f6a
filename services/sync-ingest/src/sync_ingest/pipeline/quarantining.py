"""Records that cannot be booked, listed with their events in the quarantine of the source."""

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec

from sync_ingest.adapters.port import BATCH_RECORDS
from sync_ingest.domain.events import FeedRecordQuarantined
from sync_ingest.domain.identities import QuarantineId, feed_id, quarantine_id, row_id
from sync_ingest.domain.records import RECORD_KINDS, Place, Unreadable, shown
from sync_ingest.pipeline.ports import Entry, tried_anew
from sync_ingest.pipeline.run import Quarantined, Run

QUARANTINED_NAMED_MAX: Final = 100_000
"""Beyond this many a run still counts what it cannot read, but keeps no entry of its own for each."""
_NOT_WHOLE: Final = frozenset({"record-truncated", "record-oversized"})
"""Reasons for which a quarantine entry shows the beginning of a record, and not all of it."""


class Quarantining:
    """The records of one run that are quarantined."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._entered: set[QuarantineId] = set()
        self._ordinals: Counter[tuple[UUID, bytes]] = Counter()
        self._named = 0
        self.unnamed = 0
        """How many have no entry of their own."""

    def enter(self, found: Sequence[Quarantined]) -> None:
        """Stores and lists an entry for each; those that were resolved before count as released."""
        self._run.refuse(found)
        if self._run.trial:
            return
        for at in range(0, len(found), BATCH_RECORDS):
            self._enter_batch(found[at : at + BATCH_RECORDS])

    def _enter_batch(self, found: Sequence[Quarantined]) -> None:
        named: dict[QuarantineId, Quarantined] = {}
        rows: dict[QuarantineId, UUID | None] = {}
        stream = feed_id(self._run.source)
        for quarantined in found:
            if self._named >= QUARANTINED_NAMED_MAX:
                self.unnamed += 1
                self._run.totals.count_quarantined()
                continue
            intake = self._run.intakes[quarantined.item.file].intake
            identity = quarantine_id(self._run.ids, self._run.source, intake, quarantined.item.line)
            if identity in self._entered:
                self._run.totals.count_released()
                continue
            self._named += 1
            self._entered.add(identity)
            named[identity] = quarantined
            rows[identity] = self._row_of(intake, quarantined.unreadable)
        resolved = self._run.book.resolved_among(rows)
        waiting = {identity: each for identity, each in named.items() if identity not in resolved}

        def appended() -> list[tuple[FeedRecordQuarantined, bytes, UUID | None]]:
            known = self._run.ledger.known(list(waiting))
            head = self._run.heads_of([stream])[stream]
            entries, events, now = [], [], self._run.now()
            for identity, quarantined in waiting.items():
                event = self._event(identity, quarantined)
                events.append((event, quarantined.unreadable.raw, rows[identity]))
                if identity not in known:
                    head += 1
                    trace = quarantined.item.trace
                    entries.append(Entry(stream, head, event, identity, now, event.intake, trace))
            self._run.append(entries)
            return events

        entered = tried_anew(appended)
        self._run.reached("before-progress")
        self._run.book.enter(entered)
        awaited = {identity: q.awaited for identity, q in waiting.items() if q.awaited is not None}
        if awaited:
            self._run.book.await_originals(self._run.source, awaited)
        for identity in named:
            if identity in resolved:
                self._run.totals.count_released()
            else:
                self._run.totals.count_quarantined()

    def _row_of(self, intake: UUID, unreadable: Unreadable) -> UUID | None:
        """What tells the row from every other of the source; None where what is kept of it may not be all of it.

        A header or a row that is cut off looks like that of another file and says nothing of what it stands for.
        """
        if unreadable.whole_file or not unreadable.raw.strip() or unreadable.reason in _NOT_WHOLE:
            return None
        content = intake, blake2b(unreadable.raw, digest_size=8).digest()
        self._ordinals[content] += 1
        return row_id(self._run.ids, self._run.source, unreadable.raw, self._ordinals[content])

    def _event(self, identity: QuarantineId, quarantined: Quarantined) -> FeedRecordQuarantined:
        item, unreadable = quarantined.item, quarantined.unreadable
        of_intake = self._run.intakes[item.file]
        place = Place(of_intake.file, item.line, shown(unreadable.column) if unreadable.column else None)
        return FeedRecordQuarantined(
            source=self._run.source,
            quarantine=identity,
            intake=of_intake.intake,
            file=place.file,
            line=place.line,
            column=place.column,
            reason=unreadable.reason,
            detail=shown(unreadable.detail),
            raw=unreadable.raw.decode("latin-1"),
            kind=unreadable.kind or of_intake.kind or kind_of(unreadable.raw),
            whole_file=unreadable.whole_file or item.line == 0,
        )


class _Tagged(msgspec.Struct):
    record: str


_tagged: Final = msgspec.json.Decoder(_Tagged)
_TAG: Final = re.compile(rb'\s*\{\s*"record"\s*:\s*"([a-z-]{1,32})"')


def kind_of(raw: bytes) -> str | None:
    """The kind of record that a canonical line says it is, whatever else is wrong with it."""
    try:
        kind = _tagged.decode(raw).record
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _TAG.match(raw)
        kind = found[1].decode() if found else ""
    return kind if kind in RECORD_KINDS else None
