"""Master data: what a source says of parties, accounts and what belongs to them, as events where it is new."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import msgspec
from chassis.privacy.keys import ERASED
from chassis.privacy.personal import marked

from sync_ingest.adapters.port import Item
from sync_ingest.domain.booking import MasterEvent, days_of, described, stream_of, subject_of
from sync_ingest.domain.descriptions import NOT_DESCRIBED, Described, Description
from sync_ingest.domain.events import AccountClosed, AccountOpened, AccountSeen, RecordsMoved
from sync_ingest.domain.holders import changed_rights, holders_of, written
from sync_ingest.domain.identities import Digester, content_digest, described_id, seen_id
from sync_ingest.domain.records import (
    FIRST_DAY,
    LAST_DAY,
    AccountClosedRecord,
    AccountRecord,
    CardRecord,
    ControlRecord,
    HolderRecord,
    HoldersRecord,
    LoanRecord,
    MasterRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
    Unreadable,
    same_content,
    unseen,
)
from sync_ingest.domain.repeats import FeedPlace, OlderRepeats, ReadAt
from sync_ingest.pipeline.ports import Entry, tried_anew
from sync_ingest.pipeline.refusing import DAYS, hidden, refused, unfit
from sync_ingest.pipeline.run import Quarantined, Run

REVISIONS_MOVED_MAX: Final = 1_000
"""Descriptions of one thing that are looked at when another account is named for it: as many as a reader keeps of an account."""


class _Wanted(NamedTuple):
    """An event that describes a thing, for the `revision`-th time."""

    item: Item
    record: MasterRecord
    stream: UUID
    event: MasterEvent
    subject: UUID
    revision: int
    identity: UUID

    @property
    def before(self) -> list[UUID]:
        """The descriptions before this one, the last one first, of a thing that may be another account's now."""
        if not isinstance(self.record, (CardRecord, LoanRecord, StandingOrderRecord)):
            return []
        revisions = range(self.revision - 1, max(0, self.revision - 1 - REVISIONS_MOVED_MAX), -1)
        return [described_id(self.subject, revision) for revision in revisions]


class _At(NamedTuple):
    """Where an event is stored."""

    stream: UUID
    version: int


class MasterData:
    """The master data of one run."""

    def __init__(self, run: Run, repeats: OlderRepeats) -> None:
        self._run = run
        self._repeats = repeats
        self._through: dict[UUID, int] = {}

    def book(self, items: Sequence[Item]) -> list[Quarantined]:
        """Stores what the records describe anew; returns those that cannot be booked. Raises AppendConflict."""
        found: list[Quarantined] = []
        stated: list[tuple[Item, MasterRecord]] = []
        for item in items:
            record = item.content
            if isinstance(record, (Unreadable, Posting, ControlRecord)):
                continue
            if (refusal := self._refused(item, record)) is not None:
                found.append(refusal)
            else:
                stated.append((item, record))
        latest = [each for each in stated if self._is_new(each[0]) and not self._was_described(each[0])]
        self._run.refuse(found)
        named = {subject_of(self._run.ids, self._run.source, record) for _, record in latest}
        before = self._run.book.descriptions(list(named))

        def appended() -> Described:
            entries, subjects = self._describe(latest, before)
            by = next((entry.identity for entry in reversed(entries)), None)
            described = Described(subjects, self._lines(items), by)
            if described.lines:
                # Before the events, with what stood: whoever comes after a crash puts it back where they are not stored.
                self._run.book.describe(described, before)
                self._run.reached("before-append")
            self._run.append(entries)
            return described

        done = tried_anew(appended)
        self._through.update({intake: line for intake, (_, line) in done.lines.items()})
        self._run.reached("before-progress")
        self._run.totals.master_records += len(stated)
        if len(latest) < len(stated) or self._repeats.any:
            self._compare(stated)
        self._compare_days(stated)
        return found

    def count_findings(self) -> None:
        """Counts, after everything was read, what the certificate says of master data."""
        totals = self._run.totals
        totals.repeats_older, places = self._repeats.found()
        totals.repeats_older_at = tuple(map(self._place, places))

    def _place(self, at: ReadAt) -> FeedPlace:
        return FeedPlace(self._run.intakes[at.file].intake, at.line)

    def _refused(self, item: Item, record: MasterRecord) -> Quarantined | None:
        """Why a record cannot be booked; None where it can."""
        days, reason, detail = self._run.days, "", ""
        if record.source is not None and record.source != self._run.source:
            reason, detail = "source-mismatch", "the record names another source than its feed"
        elif (column := unseen(record)) is not None:
            return hidden(item, column)
        elif isinstance(record, AccountRecord) and not days.first <= record.opened_on <= days.last:
            reason, detail = "date-out-of-window", days.text
        elif not all(FIRST_DAY <= day <= LAST_DAY for day in days_of(record)):
            reason, detail = "date-impossible", DAYS
        elif isinstance(record, HolderRecord) and record.ends_before_it_begins:
            reason, detail = "dates-contradict", "a right that ends before it begins"
        elif self._waits(item):
            return unfit(self._run, item)
        return refused(item, reason, detail) if reason else None

    def _is_new(self, item: Item) -> bool:
        """Whether what a record says is described.

        Of an intake that was read before nothing is described again: a newer description may be there.
        """
        of_intake = self._run.intakes[item.file]
        return of_intake.open and of_intake.waited is None

    def _was_described(self, item: Item) -> bool:
        """Whether it was described when its intake, which no certificate covers yet, was read before."""
        return item.line <= self._run.intakes[item.file].described_line

    def _lines(self, items: Sequence[Item]) -> dict[UUID, tuple[int, int]]:
        """Of each intake that is described, up to which line it was before, and is with these."""
        found: dict[UUID, tuple[int, int]] = {}
        for item in items:
            of_intake = self._run.intakes[item.file]
            if of_intake.kept and self._is_new(item) and not self._was_described(item):
                stood = self._through.get(of_intake.intake, of_intake.described_line)
                found[of_intake.intake] = (stood, item.line)
        return found

    def _waits(self, item: Item) -> bool:
        of_intake = self._run.intakes[item.file]
        return of_intake.open and item.line in (of_intake.waited or ())

    def _compare(self, stated: Sequence[tuple[Item, MasterRecord]]) -> None:
        """Notes which records would change what stands if they were described; what is newly described stands."""
        ids = self._run.ids
        subjects = [subject_of(ids, self._run.source, record) for _, record in stated]
        streams = [stream_of(ids, self._run.source, record) for _, record in stated]
        keys = self._digest_keys(stated, streams)
        standing = self._run.book.descriptions(list(dict.fromkeys(subjects)))
        for (item, record), subject, stream in zip(stated, subjects, streams, strict=True):
            _, before = standing.get(subject, NOT_DESCRIBED)
            for part, differs in self._differing(record, subject, before, keys.get(stream)):
                at = ReadAt(item.file, item.line) if differs and not self._is_new(item) else None
                self._repeats.note(part, at)

    def _compare_days(self, stated: Sequence[tuple[Item, MasterRecord]]) -> None:
        """Notes which of the accounts that are opened or closed here stand with a closing before their opening.

        Of what stands, and not of a record: either day may be corrected by a later one, and an intake that is read
        once more says the same.
        """
        ids, source = self._run.ids, self._run.source
        last = {
            record.account: ReadAt(item.file, item.line)
            for item, record in stated
            if isinstance(record, (AccountRecord, AccountClosedRecord))
        }
        if not last:
            return
        pairs = {name: (ids.account(source, name), ids.of_source("closed", source, name)) for name in last}
        standing = self._run.book.descriptions([subject for pair in pairs.values() for subject in pair])
        told = {
            name: [described_id(subject, standing[subject].revision) for subject in pair]
            for name, pair in pairs.items()
            if standing.keys() >= set(pair)
        }
        events = self._run.ledger.stored_under([identity for pair in told.values() for identity in pair])
        found: dict[UUID, FeedPlace] = {}
        for name, at in last.items():
            match [each.event for identity in told.get(name, ()) if (each := events.get(identity))]:
                case [AccountOpened(opened_on=opened_on), AccountClosed(closed_on=closed_on)] if (
                    closed_on < opened_on
                ):
                    found[pairs[name][0]] = self._place(at)
                case _:
                    pass
        others = [account for account, _ in pairs.values() if account not in found]
        self._run.book.note_early_closings(found, others)

    def _differing(
        self, record: MasterRecord, subject: UUID, before: str, digest_key: bytes | None
    ) -> list[tuple[UUID, bool]]:
        """What a record is about, of holders each party by itself, with whether it would change what stands of it.

        A subject that was erased has nothing to compare with, and neither has one that was never described.
        """
        if isinstance(record, (HolderRecord, HoldersRecord)):
            ids, source = self._run.ids, self._run.source
            holders, changes = changed_rights(ids, source, record, holders_of(before), self._run.today())
            changed = {change.party_id for change in changes}
            named = [ids.party(source, record.party)] if isinstance(record, HolderRecord) else holders.rights
            return [(uuid5(subject, party.hex), party in changed) for party in named]
        if digest_key is None or not before:
            return [(subject, False)]
        return [(subject, content_digest(same_content(record), digest_key) != before)]

    def _describe(
        self, latest: Sequence[tuple[Item, MasterRecord]], told: Mapping[UUID, Description]
    ) -> tuple[list[Entry], dict[UUID, Description]]:
        """The events, and the last descriptions with them; `told` are those that stand."""
        ids = self._run.ids
        subjects = [subject_of(ids, self._run.source, record) for _, record in latest]
        streams = [stream_of(ids, self._run.source, record) for _, record in latest]
        keys = self._digest_keys(latest, streams)
        revisions: dict[UUID, Description] = {}
        wanted = []
        for (item, record), subject, stream in zip(latest, subjects, streams, strict=True):
            revision, before = revisions.get(subject) or told.get(subject, NOT_DESCRIBED)
            after, events = self._changes(record, before, keys.get(stream, b""))
            for event in events:
                revision += 1
                identity = described_id(subject, revision)
                wanted.append(_Wanted(item, record, stream, event, subject, revision, identity))
            if after != before:
                revisions[subject] = Description(revision, after)
        known = self._run.ledger.known([each.identity for each in wanted])
        places = self._places([before for each in wanted for before in each.before])
        heads = self._run.heads_of(
            [*(each.stream for each in wanted), *(at.stream for at in places.values())]
        )
        entries, now = [], self._run.now()
        for each in wanted:
            item, record, stream, event, identity = (
                each.item,
                each.record,
                each.stream,
                each.event,
                each.identity,
            )
            if identity in known:
                continue
            intake, effective_at = self._run.intakes[item.file].intake, self._since(record, now)
            left = [places[before] for before in each.before if before in places]
            if left and left[0].stream != stream:
                account = left[0].stream
                heads[account] += 1
                sequences = tuple(sorted(at.version for at in left if at.stream == account))
                moved = RecordsMoved(source=self._run.source, account_id=stream, sequences=sequences)
                entries.append(Entry(account, heads[account], moved, None, effective_at, intake, item.trace))
            head = heads[stream]
            if head == 0 and not isinstance(record, (AccountRecord, PartyRecord)):
                head += 1
                seen = AccountSeen(source=self._run.source, account=record.account)
                entries.append(Entry(stream, head, seen, seen_id(stream), effective_at, intake, item.trace))
            head += 1
            heads[stream] = head
            places[identity] = _At(stream, head)
            entries.append(Entry(stream, head, event, identity, effective_at, intake, item.trace))
        return entries, revisions

    def _digest_keys(
        self, stated: Sequence[tuple[Item, MasterRecord]], streams: Sequence[UUID]
    ) -> dict[UUID, bytes]:
        parties = {
            stream
            for (_, record), stream in zip(stated, streams, strict=True)
            if isinstance(record, PartyRecord)
        }
        return self._run.ledger.digest_keys(sorted(set(streams) - parties), sorted(parties))

    def _places(self, identities: Sequence[UUID]) -> dict[UUID, _At]:
        """Where those of the events are that are stored."""
        found = self._run.ledger.stored_under(list(dict.fromkeys(identities))) if identities else {}
        return {identity: _At(one.stream_id, one.version) for identity, one in found.items()}

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
        event = described(self._run.ids, self._run.source, record)
        after = content_digest(same_content(record), digest_key) if digest_key else _digest_of_erased(event)
        return after, [] if after == before else [event]

    def _since(self, record: MasterRecord, now: datetime) -> datetime:
        days = days_of(record)
        return self._run.day_starts(days[-1]) if days else now


def _digest_of_erased(event: MasterEvent) -> str:
    """The digest of what will be stored of an erased subject.

    There is no key for it, and a digest of the whole record would let its reader try names and phone numbers.
    """
    hidden = marked(type(event)).replaced(event, lambda *_: ERASED)
    return Digester(b"")(msgspec.json.encode(hidden))
