"""Records become events, each exactly once: the one path that files, HTTP batches and the topic all go through."""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, Protocol, cast
from uuid import UUID

import msgspec
from chassis.money import BALANCE_MINOR_MAX, TURNOVER_MINOR_MAX
from chassis.write.events import Event, StoredEvent
from contracts.identity import ExternalIds
from msgspec import structs

from sync_ingest.adapters.port import BATCH_RECORDS, Item
from sync_ingest.domain.booking import (
    MasterEvent,
    Reversed,
    booked,
    days_of,
    described,
    differences,
    stream_of,
    subject_of,
)
from sync_ingest.domain.controls import FeedRead
from sync_ingest.domain.events import AccountSeen, FeedRecordQuarantined, PostingUndone
from sync_ingest.domain.holders import changed_rights, holders_of, written
from sync_ingest.domain.identities import (
    Digester,
    QuarantineId,
    content_digest,
    contents,
    described_id,
    feed_id,
    posting_ids,
    quarantine_id,
    row_id,
    seen_id,
    undone_id,
)
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import (
    FIRST_DAY,
    LAST_DAY,
    RECORD_KINDS,
    AccountRecord,
    AnyRecord,
    BookingDays,
    ControlRecord,
    Covers,
    HolderRecord,
    HoldersRecord,
    MasterRecord,
    PartyRecord,
    Place,
    Posting,
    Unreadable,
    legible,
    same_content,
    shown,
    unseen,
)
from sync_ingest.domain.totals import AccountTotal, ControlTotals, Purse, Tally
from sync_ingest.unnumbered import EQUALS_MAX, Unnumbered

CONFLICT_RETRIES_MAX: Final = 5
DEFERRED_MAX: Final = 50_000
GATHERED_BATCHES_MAX: Final = 4
"""So many batches wait at most for the transaction before theirs: a slow disk is waited for once, not for each."""
QUARANTINED_NAMED_MAX: Final = 100_000
"""Beyond this many a run still counts what it cannot read, but keeps no entry of its own for each."""


_NOT_WHOLE: Final = frozenset({"record-truncated", "record-oversized"})
"""Reasons for which a quarantine entry shows the beginning of a record, and not all of it."""


class Limits(NamedTuple):
    """How large the sums of one account and currency may be, and the turnover of a source's accounts in one."""

    balance_minor: int = BALANCE_MINOR_MAX
    turnover_minor: int = TURNOVER_MINOR_MAX


_SUMS: Final = "a balance or a turnover would be beyond what every reader holds exactly"
_DAYS: Final = f"not between {FIRST_DAY} and {LAST_DAY}"
_HIDDEN: Final = "a character that cannot be seen, or a blank at an end of a code or number"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the store."""

    stream_id: UUID
    version: int
    event: Event
    identity: UUID | None
    effective_at: datetime
    intake: UUID
    trace: str | None = None


class StoredPosting(NamedTuple):
    """What the store says about a posting that it holds."""

    position: int
    amount_minor: int
    currency: str
    booked_on: date
    digest: str
    intake: UUID
    line: int
    reversal: bool
    kind: str | None


class AppendConflict(Exception):
    """Somebody else appended to a stream or used an identity first: read again and decide again."""


class LedgerPort(Protocol):
    """What the pipeline asks of the event store. Every call is one bounded batch."""

    def postings(self, identities: Sequence[UUID]) -> dict[UUID, StoredPosting]:
        """The postings among `identities` that are stored."""
        ...

    def known(self, identities: Sequence[UUID]) -> set[UUID]:
        """The identities that are taken."""
        ...

    def heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream that has one."""
        ...

    def digest_keys(self, subjects: Sequence[UUID]) -> dict[UUID, bytes]:
        """A secret per subject under which contents are digested; none where the subject was erased."""
        ...

    def differences(self, postings: Mapping[UUID, Posting]) -> list[frozenset[str]]:
        """Of each stored posting, by identity, the fields in which it is described differently; none where erased."""
        ...

    def sealed(self, entries: Sequence[Entry]) -> list[StoredEvent]:
        """The entries as they will be stored, personal fields sealed."""
        ...

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """Stores in one transaction; returns the positions or raises AppendConflict. Another thread may call it."""
        ...


class QuarantineBook(Protocol):
    """Where quarantine entries are listed beside their events."""

    def resolved_among(self, rows: Mapping[QuarantineId, UUID | None]) -> set[QuarantineId]:
        """Entries that were released or dismissed since, or whose row (by `row_id`) was, in another file."""
        ...

    def enter(self, entries: Sequence[tuple[FeedRecordQuarantined, bytes, UUID | None]]) -> None:
        """Lists entries with their records and rows; a second time changes nothing."""
        ...

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, tuple[int, str]]:
        """Revision and digest of the last description of each subject."""
        ...

    def describe(self, revisions: Mapping[UUID, tuple[int, str]]) -> None:
        """Remembers last descriptions."""
        ...

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        """Remembers for which postings quarantined reversals wait; a second time changes nothing."""
        ...

    def ledger_totals(self, accounts: Sequence[UUID]) -> Mapping[Purse, AccountTotal]:
        """What the ledger holds of these accounts, everything that is stored included."""
        ...

    def turnovers(self) -> dict[str, int]:
        """The sum of absolute amounts of the source by currency."""
        ...


@dataclass(frozen=True, slots=True)
class FeedIntake:
    """The intake that a file of the feed came from.

    `open`: what it posted before counts as this run's. `closed`: a certificate covers it, so nothing new comes of it.
    `covers`: what the file has of a source without transaction ids, where that is stated. `readings`: all intakes of the
    same bytes.
    """

    intake: UUID
    file: str
    open: bool
    closed: bool = False
    covers: Covers | None = None
    readings: frozenset[UUID] = frozenset()
    kind: str | None = None
    """What every record of its format is, where that is known."""
    waited: frozenset[int] | None = None
    """Of an intake that is read once more, the lines that waited: other master data are as they were."""


class NotBookable(Exception):
    """Records that were to be booked as a whole or not at all, and one of them cannot be: the reason and the detail."""

    def __init__(self, unreadable: Unreadable) -> None:
        super().__init__(f"{unreadable.reason}: {unreadable.detail}")


class Positions:
    """A set of store positions, one bit each, so that a million records cost some hundred kilobytes."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, position: int) -> bool:
        """Whether `position` is new to the set."""
        page = self._pages.get(position >> 16)
        if page is None:
            page = self._pages[position >> 16] = bytearray(8192)
        at, bit = (position & 0xFFFF) >> 3, 1 << (position & 7)
        if page[at] & bit:
            return False
        page[at] |= bit
        return True

    def add_all(self, positions: Iterable[int]) -> None:
        """Adds all of them."""
        pages, number, page = self._pages, -1, bytearray()
        for position in positions:
            if position >> 16 != number:
                number = position >> 16
                page = pages.setdefault(number, bytearray(8192))
            page[(position & 0xFFFF) >> 3] |= 1 << (position & 7)


@dataclass(slots=True)
class _Quarantined:
    item: Item
    unreadable: Unreadable
    awaited: UUID | None = None


@dataclass(slots=True)
class _Account:
    """What a run remembers of an account: its stream, digester, head (tentative while a batch is under way)."""

    id: UUID
    digest: Digester | None
    head: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    held: Mapping[str, AccountTotal] | None = None


@dataclass(slots=True)
class _Plan:
    """What one batch will do; nothing is counted before its events are stored."""

    posted: list[tuple[Tally, Posting, int]] = field(default_factory=list)
    posted_before: list[tuple[Tally, Posting, int]] = field(default_factory=list)
    duplicates: list[tuple[Tally, int, int | None]] = field(default_factory=list)
    quarantined: list[_Quarantined] = field(default_factory=list)
    deferred: list[tuple[Item, UUID]] = field(default_factory=list)
    undone: set[UUID] = field(default_factory=set)
    differing: dict[UUID, Posting] = field(default_factory=dict)
    differing_in_feed: list[frozenset[str]] = field(default_factory=list)
    coverage_unstated: int = 0
    doubtful: bool = False
    """Whether a row is refused by a day or a sum."""
    entries: list[Entry] = field(default_factory=list)


class _Planned(NamedTuple):
    """A batch that only needs to be stored."""

    items: Sequence[Item]
    identities: Sequence[UUID]
    plan: _Plan
    distinct: frozenset[int]
    sealed: Sequence[StoredEvent]


class _InFlight(NamedTuple):
    """Batches whose transaction is under way while the next ones are planned."""

    batches: Sequence[_Planned]
    positions: "Future[list[int]]"


class _New(msgspec.Struct, frozen=True, gc=False):
    """A posting that the store does not hold yet."""

    item: Item
    posting: Posting
    identity: UUID
    digest: str
    original: UUID | None
    account: _Account
    tally: Tally
    reverses: Reversed | None = None


class Pipeline:
    """Books the records of one source. Not shared between threads; the caller holds the source's lock."""

    def __init__(
        self,
        source: str,
        ids: ExternalIds,
        ledger: LedgerPort,
        book: QuarantineBook,
        *,
        now: Callable[[], datetime],
        bank_time: tzinfo,
        certified_through: date | None = None,
        days: BookingDays | None = None,
        whole: bool = False,
        trial: bool = False,
        reached: Callable[[str], None] = lambda _: None,
        limits: Limits | None = None,
        partial_sums: PartialSums | None = None,
        accounts_kept_max: int = ACCOUNTS_KEPT_MAX,
    ) -> None:
        """`whole`: raise NotBookable where a record cannot be booked, before anything of its batch is stored.

        `trial`: only find out whether a posting could be booked; the ledger is asked to store the first one that can.
        `partial_sums`: where the sums of accounts go beyond `accounts_kept_max`; without it all stay in memory.
        """
        self.source = source
        self._whole = whole
        self._trial = trial
        self._limits = limits or Limits()
        self._turnovers = book.turnovers()
        self._days = days or BookingDays.around(now().astimezone(bank_time).date())
        self.totals = ControlTotals(
            booked_through=certified_through,
            business_date=self._days.today,
            partial_sums=partial_sums,
            kept_max=accounts_kept_max,
        )
        self.read = FeedRead(partial(ids.account, source), partial_sums, accounts_kept_max)
        self._accounts_kept_max = accounts_kept_max
        self.appended = 0
        self._ids = ids
        self._ledger = ledger
        self._book = book
        self._now = now
        self._certified_through = certified_through
        self._reached = reached
        self._accounts: dict[str, _Account] = {}
        self._repeating = True
        self._in_flight: _InFlight | None = None
        self._gathered: list[_Planned] = []
        self._seen = Positions()
        self._deferred: list[tuple[Item, UUID]] = []
        self._unnumbered = Unnumbered(ids, source, partial(_intakes, ledger))
        self._ordinals: Counter[tuple[UUID, bytes]] = Counter()
        self._entered: set[QuarantineId] = set()
        self._named = self._unnamed = 0
        self._feed_intakes: Sequence[FeedIntake] = ()
        # Not a method of its own: a run that refers to itself would be kept until somebody looks for cycles.
        self._bank_time = bank_time
        self._day_starts = lru_cache(maxsize=4_096)(partial(_day_start, bank_time))

    @property
    def names_all(self) -> bool:
        """Whether everything of the feed that could not be posted has an entry of its own."""
        return not self._unnamed

    def book(
        self, batches: Iterable[Sequence[Item]], intakes_read: Sequence[FeedIntake]
    ) -> Generator[int, None, None]:
        """Books batch by batch; yields how many records were read and stored so far."""
        self._feed_intakes = intakes_read
        with ThreadPoolExecutor(1, thread_name_prefix="ingest-writer") as self._writer:
            for batch in batches:
                if not self._trial:
                    self._read(batch)
                for at in range(0, len(batch), BATCH_RECORDS):
                    self._batch(batch[at : at + BATCH_RECORDS])
                yield self.totals.read
            self._settle()
            while self._deferred:
                self._again()
                yield self.totals.read
            yield self.totals.read

    def _read(self, batch: Sequence[Item]) -> None:
        """Counts what was read, before anything is decided about it."""
        for file, of_file in groupby(batch, key=attrgetter("file")):
            items = list(of_file)
            postings = [item.content for item in items if type(item.content) is Posting]
            self.read.count_postings(file, postings)
            if len(postings) < len(items):
                for item in items:
                    if type(item.content) is not Posting:
                        self.read.count(file, item.line, item.content)
        if self.read.full:
            self.read.store()

    def _again(self) -> None:
        """Reversals that came before their originals, once more; what still has none is set aside."""
        waiting, self._deferred = self._deferred, []
        for at in range(0, len(waiting), BATCH_RECORDS):
            some = waiting[at : at + BATCH_RECORDS]
            self._identified([item for item, _ in some], [identity for _, identity in some])
        self._settle()
        if len(self._deferred) == len(waiting):
            self._quarantine([self._orphan(item) for item, _ in self._deferred])
            self._deferred = []

    def _batch(self, items: Sequence[Item]) -> None:
        """Master data first: an account that is opened in the same batch as it is moved needs no mention of its own."""
        postings = [item for item in items if type(item.content) is Posting]
        if len(postings) < len(items):
            self._settle()
            others = [item for item in items if type(item.content) is not Posting]
            unreadable = [_Quarantined(i, i.content) for i in others if isinstance(i.content, Unreadable)]
            master = [i for i in others if not isinstance(i.content, (Unreadable, ControlRecord))]
            if master and not self._trial:
                unreadable += self._master(master)
            if unreadable:
                self._quarantine(unreadable)
        if postings:
            self._postings(self._legible(postings))

    # postings

    def _legible(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the postings whose codes, names and numbers can be seen; the others are quarantined."""
        if legible(cast("list[Posting]", [item.content for item in items])):
            return items
        faults = [(item, unseen(cast("Posting", item.content))) for item in items]
        hidden = [self._hidden(item, column) for item, column in faults if column is not None]
        if hidden:
            self._quarantine(hidden)
        return [item for item, column in faults if column is None]

    def _hidden(self, item: Item, column: str) -> _Quarantined:
        content = cast("Posting | MasterRecord", item.content)
        return _Quarantined(item, Unreadable("character-invisible", _HIDDEN, _raw(content), column))

    def _postings(self, items: Sequence[Item]) -> None:
        postings = cast("list[Posting]", [item.content for item in items])
        if all([posting.core_transaction_id is not None for posting in postings]):  # noqa: C419 - faster
            self._identified(items, posting_ids(self._ids, self.source, postings))
            return
        # Files one by one: an ordinal is counted in a file, and what another brought just now has to be stored.
        for file, of_file in groupby(items, key=attrgetter("file")):
            self._numbered(file, list(of_file))

    def _numbered(self, file: int, items: Sequence[Item]) -> None:
        """Postings of one file, some of which have no transaction id."""
        postings = cast("list[Posting]", [item.content for item in items])
        of_intake = self._feed_intakes[file]
        unnumbered = [posting for posting in postings if posting.core_transaction_id is None]
        if of_intake.covers == "parts" and unnumbered:
            self._settle()
        made = iter(self._unnumbered.identities(file, unnumbered, of_intake.covers, of_intake.readings))
        identities = [
            self._ids.posting(self.source, p.account, p.core_transaction_id, p.leg)
            if p.core_transaction_id is not None
            else next(made)
            for p in postings
        ]
        known = [(item, identity) for item, identity in zip(items, identities, strict=True) if identity]
        if len(known) < len(items):
            detail = f"more than {EQUALS_MAX} rows without ids of their own"
            lost = [item for item, identity in zip(items, identities, strict=True) if identity is None]
            self._quarantine([self._refused(item, "file-oversized", detail) for item in lost])
        if known:
            self._identified([item for item, _ in known], [identity for _, identity in known])

    def _identified(self, items: Sequence[Item], identities: Sequence[UUID]) -> None:
        """Plans a batch while those before it are being stored; what gathers meanwhile goes into one transaction."""
        postings = cast("list[Posting]", [item.content for item in items])
        # By integers: a UUID computes its hash in Python each time.
        distinct = frozenset([identity.int for identity in identities])
        reversing = any([p.reverses for p in postings])  # noqa: C419 - faster
        if reversing or self._touches(distinct):
            self._settle()
        look = (
            self._repeating
            or self._trial
            or reversing
            or any(of_intake.closed for of_intake in self._feed_intakes)
        )
        planned = self._planned(items, postings, identities, distinct, look=look)
        if planned.plan.doubtful and (not look or self._in_flight is not None or self._gathered):
            # A row is refused only by what is stored: it may be there itself, and what is under way may not get there.
            self._settle()
            self._forget(planned.plan)
            planned = self._planned(items, postings, identities, distinct, look=True)
        self._refuse_part(planned.plan)
        self._reached("mid-batch")
        self._gathered.append(planned)
        flight = self._in_flight
        if flight is not None and (flight.positions.done() or len(self._gathered) >= GATHERED_BATCHES_MAX):
            self._land()
        if self._in_flight is None and self._gathered:
            self._take_off()

    def _planned(
        self,
        items: Sequence[Item],
        postings: Sequence[Posting],
        identities: Sequence[UUID],
        distinct: frozenset[int],
        *,
        look: bool,
    ) -> _Planned:
        """Plans a batch, looking up what the store holds of it or not.

        Not looking is for feeds that bring news: the store refuses a batch with an identity that it holds, in the
        same transaction, and then the batch is planned again with a look.
        """
        known = self._ledger.postings(identities) if look else {}
        self._repeating = bool(known)
        plan = self._plan(items, postings, identities, known)
        return _Planned(items, identities, plan, distinct, self._ledger.sealed(plan.entries))

    def _touches(self, identities: frozenset[int]) -> bool:
        """Whether any of these is on its way into the store and could not be found there yet."""
        flight = self._in_flight
        under_way = [*(flight.batches if flight else ()), *self._gathered]
        return any(not planned.distinct.isdisjoint(identities) for planned in under_way)

    def _settle(self) -> None:
        """Waits until everything that was planned is stored and counted."""
        while self._in_flight is not None or self._gathered:
            if self._in_flight is None:
                self._take_off()
            self._land()

    def _take_off(self) -> None:
        batches, self._gathered = self._gathered, []
        sealed = [event for planned in batches for event in planned.sealed]
        positions = self._writer.submit(self._ledger.append, sealed) if sealed else _nothing()
        self._in_flight = _InFlight(batches, positions)

    def _land(self) -> None:
        """Waits for the transaction under way and counts what it stored; after a conflict, plans and stores anew."""
        flight, self._in_flight = self._in_flight, None
        if flight is None:
            return
        try:
            positions = flight.positions.result()
        except AppendConflict:
            batches, self._gathered = [*flight.batches, *self._gathered], []
            for planned in batches:
                self._forget(planned.plan)
            for planned in batches:
                self._store_anew(planned.items, planned.identities)
        else:
            self._stored(flight.batches, positions)

    def _store_anew(self, items: Sequence[Item], identities: Sequence[UUID]) -> None:
        """Plans on what the store says now, with nothing under way, as often as others are faster, bounded."""
        postings = cast("list[Posting]", [item.content for item in items])
        for attempt in range(CONFLICT_RETRIES_MAX):
            planned = self._planned(items, postings, identities, frozenset(), look=True)
            self._refuse_part(planned.plan)
            try:
                positions = self._ledger.append(planned.sealed) if planned.sealed else []
            except AppendConflict:
                if attempt + 1 == CONFLICT_RETRIES_MAX:
                    raise
                self._forget(planned.plan)
            else:
                self._stored([planned], positions)
                return

    def _forget(self, plan: _Plan) -> None:
        """Nothing of a plan was stored: it is planned anew, and what it counted is counted then."""
        self._accounts.clear()
        for _, posting, _ in plan.posted:
            self._turnovers[posting.currency] -= abs(posting.amount_minor)

    def _stored(self, batches: Sequence[_Planned], positions: Sequence[int]) -> None:
        self._reached("after-append")
        at = 0
        for planned in batches:
            end = at + len(planned.sealed)
            self.appended += len(planned.sealed)
            self._count(planned.plan, positions[at:end])
            at = end
        for planned in batches:
            if planned.plan.quarantined:
                self._quarantine(planned.plan.quarantined)

    def _plan(
        self,
        items: Sequence[Item],
        postings: Sequence[Posting],
        identities: Sequence[UUID],
        known: Mapping[UUID, StoredPosting],
    ) -> _Plan:
        plan = _Plan()
        source, intakes_read = self.source, self._feed_intakes
        accounts = self._accounts_of(postings)
        named = {posting.source for posting in postings} - {None}
        if named:
            postings = [structs.replace(p, source=None) if p.source else p for p in postings]
        foreign = named - {source}
        first_day, last_day = self._days.first, self._days.last
        new: dict[int, _New] = {}
        reversing: list[_New] = []
        for item, posting, identity, content in zip(
            items, postings, identities, contents(postings), strict=True
        ):
            if foreign and cast("Posting", item.content).source in foreign:
                detail = "the record names another source than its feed"
                plan.quarantined.append(self._refused(item, "source-mismatch", detail))
                continue
            account = accounts[posting.account]
            tally = account.tallies.get(posting.currency) or self._tally(account, posting.currency)
            digest = account.digest(content) if account.digest else ""
            stored = known.get(identity) if known else None
            if stored is not None:
                if stored[1:4] != (posting.amount_minor, posting.currency, posting.booked_on):
                    plan.quarantined.append(self._conflict(item))
                    continue
                self._plan_known(plan, item, posting, tally, stored)
                if digest and stored.digest and stored.digest != digest:
                    plan.differing[identity] = posting
                continue
            number = identity.int
            twin = new.get(number)
            if twin is not None:
                self._plan_twin(plan, item, posting, tally, twin)
                continue
            if not first_day <= posting.booked_on <= last_day:
                plan.doubtful = True
                plan.quarantined.append(self._refused(item, "date-out-of-window", self._days.text))
                continue
            if intakes_read[item.file].closed:
                plan.quarantined.append(self._unfit(item))
                continue
            original = self._original(posting) if posting.reverses else None
            new[number] = fresh = _New(item, posting, identity, digest, original, account, tally)
            if original is not None:
                reversing.append(fresh)
        if reversing:
            self._plan_reversals(plan, new, reversing)
        self._plan_entries(plan, new.values())
        return plan

    def _unfit(self, item: Item) -> _Quarantined:
        """Why a posting that is not there yet cannot come from an intake that a certificate covers."""
        if isinstance(item.content, Posting) and item.content.reverses is not None:
            return self._orphan(item)
        return self._refused(
            item, "intake-certified", "its intake is certified without it: release its entry"
        )

    def _original(self, posting: Posting) -> UUID:
        """Identity of the posting that a reversal names: on its own account and leg unless it says otherwise."""
        account = posting.reverses_account or posting.account
        leg = posting.leg if posting.reverses_leg is None else posting.reverses_leg
        return self._ids.posting(self.source, account, posting.reverses or "", leg)

    def _tally(self, account: _Account, currency: str) -> Tally:
        tally = account.tallies[currency] = self.totals.tally(Purse(account.id, currency))
        held = account.held.get(currency) if account.held else None
        tally.balance_minor = held.balance_minor if held else 0
        tally.turnover_minor = held.turnover_minor if held else 0
        return tally

    def _accounts_of(self, postings: Sequence[Posting]) -> dict[str, _Account]:
        accounts = self._accounts
        missing = {p.account for p in postings if p.account not in accounts}
        if (missing and len(accounts) + len(missing) > self._accounts_kept_max) or self.totals.full:
            self._settle()  # what is planned counts in the tallies that are stored now
            self.totals.store()
            accounts.clear()
            missing = {p.account for p in postings}
        if missing:
            ids, source = self._ids, self.source
            streams: dict[str, UUID] = {account: ids.account(source, account) for account in missing}
            keys = self._ledger.digest_keys(list(streams.values()))
            heads = self._ledger.heads(list(streams.values()))
            held: dict[UUID, dict[str, AccountTotal]] = {}
            for purse, total in self._book.ledger_totals(list(heads)).items() if heads else ():
                held.setdefault(purse.account, {})[purse.currency] = total
            for account, stream in streams.items():
                key = keys.get(stream)
                digest = Digester(key) if key else None
                accounts[account] = _Account(stream, digest, heads.get(stream, 0), held=held.get(stream))
        return accounts

    def _plan_known(
        self, plan: _Plan, item: Item, posting: Posting, tally: Tally, stored: StoredPosting
    ) -> None:
        of_intake = self._feed_intakes[item.file]
        if of_intake.open and stored.intake == of_intake.intake and stored.line == item.line:
            plan.posted_before.append((tally, posting, stored.position))
            return
        if posting.core_transaction_id is None and stored.intake not in of_intake.readings:
            if of_intake.covers == "parts":
                # Somebody else booked this ordinal meanwhile, without the lock of the source.
                plan.quarantined.append(self._conflict(item))
                return
            plan.coverage_unstated += of_intake.covers is None
        plan.duplicates.append((tally, posting.amount_minor, stored.position))

    def _plan_twin(self, plan: _Plan, item: Item, posting: Posting, tally: Tally, twin: _New) -> None:
        """A posting whose identity came before in the same batch."""
        held = twin.posting
        if (held.amount_minor, held.currency, held.booked_on) != (
            posting.amount_minor,
            posting.currency,
            posting.booked_on,
        ):
            plan.quarantined.append(self._conflict(item))
            return
        of_intake = self._feed_intakes[item.file]
        if (
            posting.core_transaction_id is None
            and self._feed_intakes[twin.item.file].intake not in of_intake.readings
        ):
            plan.coverage_unstated += of_intake.covers is None
        if held != posting:
            plan.differing_in_feed.append(differences(held, twin.original is not None, posting))
        plan.duplicates.append((tally, posting.amount_minor, None))

    def _plan_reversals(self, plan: _Plan, new: dict[int, _New], reversing: Sequence[_New]) -> None:
        originals = list({fresh.original for fresh in reversing if fresh.original})
        stored = self._ledger.postings(originals)
        undone_before = self._ledger.known([undone_id(original) for original in originals])
        for fresh in reversing:
            original = fresh.original
            if original is None:
                continue
            twin, held = new.get(original.int), stored.get(original)
            if held is not None:
                undone = (held.amount_minor, held.currency, held.reversal)
                reverses = Reversed(original, held.kind, held.booked_on)
            elif twin is not None:
                undone = (twin.posting.amount_minor, twin.posting.currency, twin.original is not None)
                reverses = Reversed(original, twin.posting.kind, twin.posting.booked_on)
            else:
                del new[fresh.identity.int]
                if len(self._deferred) + len(plan.deferred) < DEFERRED_MAX:
                    plan.deferred.append((fresh.item, fresh.identity))
                else:
                    plan.quarantined.append(self._orphan(fresh.item))
                continue
            if undone != (-fresh.posting.amount_minor, fresh.posting.currency, False):
                detail = "a reversal undoes exactly one posting, with the opposite amount in its currency"
                del new[fresh.identity.int]
                plan.quarantined.append(self._refused(fresh.item, "reversal-mismatch", detail))
            elif original in plan.undone or undone_id(original) in undone_before:
                del new[fresh.identity.int]
                plan.quarantined.append(self._refused(fresh.item, "already-reversed", "reversed before"))
            else:
                plan.undone.add(original)
                new[fresh.identity.int] = structs.replace(fresh, reverses=reverses)

    def _plan_entries(self, plan: _Plan, new: Iterable[_New]) -> None:
        """Entries of what is new, as far as every sum that it enters stays within its limit; what is under way counts."""
        source, entries, posted, intakes_read = self.source, plan.entries, plan.posted, self._feed_intakes
        turnovers, (balance_minor_max, turnover_minor_max) = self._turnovers, self._limits
        for fresh in new:
            item, posting, account, tally = fresh.item, fresh.posting, fresh.account, fresh.tally
            amount_minor, currency = posting.amount_minor, posting.currency
            size = abs(amount_minor)
            balance_minor, turnover_minor = tally.balance_minor + amount_minor, tally.turnover_minor + size
            of_source = turnovers.get(currency, 0) + size
            if (
                abs(balance_minor) > balance_minor_max
                or turnover_minor > turnover_minor_max
                or of_source > turnover_minor_max
            ):
                plan.doubtful = True
                plan.quarantined.append(self._refused(item, "sum-out-of-range", _SUMS))
                continue
            tally.balance_minor, tally.turnover_minor = balance_minor, turnover_minor
            turnovers[currency] = of_source
            intake = intakes_read[item.file].intake
            effective_at = self._day_starts(posting.booked_on)
            if account.head == 0:
                account.head = 1
                seen = AccountSeen(source=source, account=posting.account)
                entries.append(
                    Entry(account.id, 1, seen, seen_id(account.id), effective_at, intake, item.trace)
                )
            account.head += 1
            identity = fresh.identity
            event = booked(source, posting, identity, fresh.digest, intake, item.line, fresh.reverses)
            posted.append((tally, posting, len(entries)))
            entries.append(Entry(account.id, account.head, event, identity, effective_at, intake, item.trace))
            if fresh.reverses is not None:
                original = fresh.reverses.posting_id
                once, undone = undone_id(original), PostingUndone(source, original, identity)
                entries.append(Entry(once, 1, undone, once, effective_at, intake, item.trace))

    def _count(self, plan: _Plan, positions: Sequence[int]) -> None:
        totals, through, seen = self.totals, self._certified_through, self._seen
        for posted in (plan.posted, plan.posted_before):
            totals.count_posted([(tally, posting.amount_minor) for tally, posting, _ in posted])
            totals.count_days([(posting.booked_on, posting.value_on) for _, posting, _ in posted], through)
            self.read.count_booked(
                [posting for _, posting, _ in posted if posting.sequence_number is not None]
            )
        seen.add_all([positions[at] for _, _, at in plan.posted])
        seen.add_all([position for _, _, position in plan.posted_before])
        for tally, amount_minor, stored_at in plan.duplicates:
            first = stored_at is not None and seen.add(stored_at)
            totals.count_duplicate(tally, amount_minor, first_in_feed=first)
        self._deferred += plan.deferred
        totals.coverage_unstated += plan.coverage_unstated
        for fields in plan.differing_in_feed:
            totals.count_differing(fields)
        if plan.differing:
            for fields in self._ledger.differences(plan.differing):
                totals.count_differing(fields)

    # master data

    def _master(self, items: Sequence[Item]) -> list[_Quarantined]:
        refused, days = [], self._days
        latest: list[tuple[Item, MasterRecord]] = []
        for item in items:
            record = item.content
            if isinstance(record, (Unreadable, Posting, ControlRecord)):
                continue
            if record.source is not None and record.source != self.source:
                detail = "the record names another source than its feed"
                refused.append(self._refused(item, "source-mismatch", detail))
            elif (column := unseen(record)) is not None:
                refused.append(self._hidden(item, column))
            elif isinstance(record, AccountRecord) and not days.first <= record.opened_on <= days.last:
                refused.append(self._refused(item, "date-out-of-window", days.text))
            elif not all(FIRST_DAY <= day <= LAST_DAY for day in days_of(record)):
                refused.append(self._refused(item, "date-impossible", _DAYS))
            elif isinstance(record, HolderRecord) and record.ends_before_it_begins:
                detail = "a right that ends before it begins"
                refused.append(self._refused(item, "dates-contradict", detail))
            elif self._feed_intakes[item.file].open:
                latest.append((item, record))
            else:
                self.totals.master_records += 1
        # Of an intake that is read once more nothing is described again: a newer description may be there.
        again = [item for item, _ in latest if self._feed_intakes[item.file].waited is not None]
        latest = [each for each in latest if self._feed_intakes[each[0].file].waited is None]
        unfit = [
            self._unfit(item) for item in again if item.line in (self._feed_intakes[item.file].waited or ())
        ]
        refused += unfit
        self.totals.master_records += len(again) - len(unfit)
        self._refuse(refused)
        for attempt in range(CONFLICT_RETRIES_MAX):
            entries, revisions = self._describe(latest)
            self._accounts.clear()
            try:
                self._append(entries)
            except AppendConflict:
                if attempt + 1 == CONFLICT_RETRIES_MAX:
                    raise
                continue
            self._reached("before-progress")
            self._book.describe(revisions)
            break
        self.totals.master_records += len(latest)
        return refused

    def _describe(
        self, latest: Sequence[tuple[Item, MasterRecord]]
    ) -> tuple[list[Entry], dict[UUID, tuple[int, str]]]:
        ids = self._ids
        subjects = [subject_of(ids, self.source, record) for _, record in latest]
        streams = [stream_of(ids, self.source, record) for _, record in latest]
        keys = self._ledger.digest_keys(list(dict.fromkeys(streams)))
        told = self._book.descriptions(list(dict.fromkeys(subjects)))
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
        known = self._ledger.known([identity for *_, identity in wanted])
        heads = self._heads_of([stream for _, _, stream, _, _ in wanted])
        entries = []
        for item, record, stream, event, identity in wanted:
            if identity in known:
                continue
            intake, effective_at = self._feed_intakes[item.file].intake, self._since(record)
            head = heads[stream]
            if head == 0 and not isinstance(record, (AccountRecord, PartyRecord)):
                head += 1
                seen = AccountSeen(source=self.source, account=record.account)
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
            holders, changes = changed_rights(self._ids, self.source, record, holders, self._today())
            return written(holders), changes
        after = content_digest(same_content(record), digest_key)
        return after, [] if after == before else [described(self._ids, self.source, record)]

    def _since(self, record: MasterRecord) -> datetime:
        days = days_of(record)
        return self._day_starts(days[-1]) if days else self._now()

    def _today(self) -> date:
        return self._now().astimezone(self._bank_time).date()

    # quarantine

    def _quarantine(self, found: Sequence[_Quarantined]) -> None:
        self._refuse(found)
        if self._trial:
            return
        for at in range(0, len(found), BATCH_RECORDS):
            self._quarantine_batch(found[at : at + BATCH_RECORDS])

    def _refuse(self, found: Sequence[_Quarantined]) -> None:
        if self._whole and found:
            raise NotBookable(found[0].unreadable)

    def _refuse_part(self, plan: _Plan) -> None:
        """Nothing is booked of what has to be booked as a whole and cannot be."""
        if self._whole:
            self._refuse([*plan.quarantined, *(self._orphan(item) for item, _ in plan.deferred)])

    def _quarantine_batch(self, found: Sequence[_Quarantined]) -> None:
        named: dict[QuarantineId, _Quarantined] = {}
        rows: dict[QuarantineId, UUID | None] = {}
        stream = feed_id(self.source)
        for quarantined in found:
            if self._named >= QUARANTINED_NAMED_MAX:
                self._unnamed += 1
                self.totals.count_quarantined()
                continue
            intake = self._feed_intakes[quarantined.item.file].intake
            identity = quarantine_id(self._ids, self.source, intake, quarantined.item.line)
            if identity in self._entered:
                self.totals.count_released()
                continue
            self._named += 1
            self._entered.add(identity)
            named[identity] = quarantined
            rows[identity] = self._row_of(intake, quarantined.unreadable)
        resolved = self._book.resolved_among(rows)
        waiting = {identity: each for identity, each in named.items() if identity not in resolved}
        for attempt in range(CONFLICT_RETRIES_MAX):
            known = self._ledger.known(list(waiting))
            head = self._heads_of([stream])[stream]
            entries, events, now = [], [], self._now()
            for identity, quarantined in waiting.items():
                event = self._quarantine_event(identity, quarantined)
                events.append((event, quarantined.unreadable.raw, rows[identity]))
                if identity not in known:
                    head += 1
                    trace = quarantined.item.trace
                    entries.append(Entry(stream, head, event, identity, now, event.intake, trace))
            try:
                self._append(entries)
            except AppendConflict:
                if attempt + 1 == CONFLICT_RETRIES_MAX:
                    raise
                continue
            self._reached("before-progress")
            self._book.enter(events)
            awaited = {identity: q.awaited for identity, q in waiting.items() if q.awaited is not None}
            if awaited:
                self._book.await_originals(self.source, awaited)
            break
        for identity in named:
            if identity in resolved:
                self.totals.count_released()
            else:
                self.totals.count_quarantined()

    def _row_of(self, intake: UUID, unreadable: Unreadable) -> UUID | None:
        """What tells the row from every other of the source; None where what is kept of it may not be all of it.

        A header or a row that is cut off looks like that of another file and says nothing of what it stands for.
        """
        if unreadable.whole_file or not unreadable.raw.strip() or unreadable.reason in _NOT_WHOLE:
            return None
        content = intake, blake2b(unreadable.raw, digest_size=8).digest()
        self._ordinals[content] += 1
        return row_id(self._ids, self.source, unreadable.raw, self._ordinals[content])

    def _quarantine_event(self, identity: QuarantineId, quarantined: _Quarantined) -> FeedRecordQuarantined:
        item, unreadable = quarantined.item, quarantined.unreadable
        of_intake = self._feed_intakes[item.file]
        place = Place(of_intake.file, item.line, shown(unreadable.column) if unreadable.column else None)
        return FeedRecordQuarantined(
            source=self.source,
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

    def _refused(self, item: Item, reason: str, detail: str) -> _Quarantined:
        content = item.content
        raw = content.raw if isinstance(content, Unreadable) else _raw(content)
        kind = content.kind if isinstance(content, Unreadable) else content.__struct_config__.tag
        return _Quarantined(item, Unreadable(reason, detail, raw, kind=str(kind) if kind else None))

    def _orphan(self, item: Item) -> _Quarantined:
        detail = "it reverses a posting that is not there; it is booked when that one comes"
        orphan = self._refused(item, "reversal-without-original", detail)
        orphan.awaited = self._original(cast("Posting", item.content))
        return orphan

    def _conflict(self, item: Item) -> _Quarantined:
        detail = "the same transaction and leg with another amount, currency or booking date"
        return self._refused(item, "identity-conflict", detail)

    # store

    def _append(self, entries: Sequence[Entry]) -> list[int]:
        if not entries:
            return []
        positions = self._ledger.append(self._ledger.sealed(entries))
        self.appended += len(entries)
        return positions

    def _heads_of(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        found = self._ledger.heads(list(dict.fromkeys(streams)))
        return {stream: found.get(stream, 0) for stream in streams}


def _intakes(ledger: LedgerPort, identities: Sequence[UUID]) -> dict[UUID, UUID]:
    """Which intake brought each of these postings."""
    return {identity: stored.intake for identity, stored in ledger.postings(identities).items()}


def _day_start(bank_time: tzinfo, day: date) -> datetime:
    return datetime.combine(day, time(), bank_time).astimezone(UTC)


def _nothing() -> "Future[list[int]]":
    """What a batch without events waits for."""
    done: Future[list[int]] = Future()
    done.set_result([])
    return done


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


def _raw(record: AnyRecord) -> bytes:
    return msgspec.json.encode(record)
