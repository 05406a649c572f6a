"""Master data: what a source says of parties, accounts and what belongs to them, as events where it is new."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sync_ingest.adapters.port import Item
from sync_ingest.domain.booking import MasterEvent, days_of, described, stream_of, subject_of
from sync_ingest.domain.events import AccountSeen
from sync_ingest.domain.holders import changed_rights, holders_of, written
from sync_ingest.domain.identities import content_digest, described_id, seen_id
from sync_ingest.domain.records import (
    FIRST_DAY,
    LAST_DAY,
    AccountRecord,
    ControlRecord,
    HolderRecord,
    HoldersRecord,
    MasterRecord,
    PartyRecord,
    Posting,
    Unreadable,
    same_content,
    unseen,
)
from sync_ingest.pipeline.ports import AppendConflict, Entry
from sync_ingest.pipeline.refusing import DAYS, hidden, refused, unfit
from sync_ingest.pipeline.run import CONFLICT_RETRIES_MAX, Quarantined, Run


class MasterData:
    """The master data of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def book(self, items: Sequence[Item]) -> list[Quarantined]:
        """Stores what the records describe anew; returns those that cannot be booked. Raises AppendConflict."""
        found, days = list[Quarantined](), self._run.days
        latest: list[tuple[Item, MasterRecord]] = []
        for item in items:
            record = item.content
            if isinstance(record, (Unreadable, Posting, ControlRecord)):
                continue
            if record.source is not None and record.source != self._run.source:
                detail = "the record names another source than its feed"
                found.append(refused(item, "source-mismatch", detail))
            elif (column := unseen(record)) is not None:
                found.append(hidden(item, column))
            elif isinstance(record, AccountRecord) and not days.first <= record.opened_on <= days.last:
                found.append(refused(item, "date-out-of-window", days.text))
            elif not all(FIRST_DAY <= day <= LAST_DAY for day in days_of(record)):
                found.append(refused(item, "date-impossible", DAYS))
            elif isinstance(record, HolderRecord) and record.ends_before_it_begins:
                detail = "a right that ends before it begins"
                found.append(refused(item, "dates-contradict", detail))
            elif self._run.intakes[item.file].open:
                latest.append((item, record))
            else:
                self._run.totals.master_records += 1
        # Of an intake that is read once more nothing is described again: a newer description may be there.
        again = [item for item, _ in latest if self._run.intakes[item.file].waited is not None]
        latest = [each for each in latest if self._run.intakes[each[0].file].waited is None]
        waiting = [
            unfit(self._run, item)
            for item in again
            if item.line in (self._run.intakes[item.file].waited or ())
        ]
        found += waiting
        self._run.totals.master_records += len(again) - len(waiting)
        self._run.refuse(found)
        for attempt in range(CONFLICT_RETRIES_MAX):
            entries, revisions = self._describe(latest)
            try:
                self._run.append(entries)
            except AppendConflict:
                if attempt + 1 == CONFLICT_RETRIES_MAX:
                    raise
                continue
            self._run.reached("before-progress")
            self._run.book.describe(revisions)
            break
        self._run.totals.master_records += len(latest)
        return found

    def _describe(
        self, latest: Sequence[tuple[Item, MasterRecord]]
    ) -> tuple[list[Entry], dict[UUID, tuple[int, str]]]:
        ids = self._run.ids
        subjects = [subject_of(ids, self._run.source, record) for _, record in latest]
        streams = [stream_of(ids, self._run.source, record) for _, record in latest]
        keys = self._run.ledger.digest_keys(list(dict.fromkeys(streams)))
        told = self._run.book.descriptions(list(dict.fromkeys(subjects)))
        revisions: dict[UUID, tuple[int, str]] = {}
        wanted = []
        for (item, record), subject, stream in zip(latest, subjects, streams, strict=True):
            revision, before = revisions.get(subject) or told.get(subject) or (0, "")
            after, events = self._changes(record, before, keys.get(stream, b""))
            for event in events:
                revision += 1
                identity = described_id(subject, revision)
                wanted.append((item, record, stream, event, identity))
            if after != before:
                revisions[subject] = (revision, after)
        known = self._run.ledger.known([identity for *_, identity in wanted])
        heads = self._run.heads_of([stream for _, _, stream, _, _ in wanted])
        entries = []
        for item, record, stream, event, identity in wanted:
            if identity in known:
                continue
            intake, effective_at = self._run.intakes[item.file].intake, self._since(record)
            head = heads[stream]
            if head == 0 and not isinstance(record, (AccountRecord, PartyRecord)):
                head += 1
                seen = AccountSeen(source=self._run.source, account=record.account)
                entries.append(Entry(stream, head, seen, seen_id(stream), effective_at, intake, item.trace))
            head += 1
            heads[stream] = head
            entries.append(Entry(stream, head, event, identity, effective_at, intake, item.trace))
        return entries, revisions

    def _changes(
        self, record: MasterRecord, before: str, digest_key: bytes
    ) -> tuple[str, Sequence[MasterEvent]]:
        """What is remembered of a thing after a record, and the events that tell what the record changes."""
        if isinstance(record, (HolderRecord, HoldersRecord)):
            holders = holders_of(before)
            holders, changes = changed_rights(
                self._run.ids, self._run.source, record, holders, self._run.today()
            )
            return written(holders), changes
        after = content_digest(same_content(record), digest_key)
        return after, [] if after == before else [described(self._run.ids, self._run.source, record)]

    def _since(self, record: MasterRecord) -> datetime:
        days = days_of(record)
        return self._run.day_starts(days[-1]) if days else self._run.now()
