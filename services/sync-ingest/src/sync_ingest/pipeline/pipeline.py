"""Records become events, each exactly once: the one path that files, HTTP batches and the topic all go through."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, datetime
from functools import lru_cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, cast
from uuid import UUID

from chassis.business_dates import MIDNIGHT, BusinessDates
from chassis.write.events import StoredEvent
from contracts.identity import ExternalIds

from sync_ingest.adapters.port import BATCH_RECORDS, Item
from sync_ingest.domain.controls.feed_read import CONTROLS_PER_FILE_MAX, FeedRead
from sync_ingest.domain.identities import posting_ids
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import BookingDays, ControlRecord, Posting, Unreadable, legible, unseen
from sync_ingest.domain.repeats import OlderRepeats
from sync_ingest.domain.totals import ControlTotals
from sync_ingest.pipeline.master import MasterData
from sync_ingest.pipeline.planning import Limits, Plan, Planner
from sync_ingest.pipeline.ports import AppendConflict, FeedIntake, LedgerPort, QuarantineBook, tried_anew
from sync_ingest.pipeline.positions import Positions
from sync_ingest.pipeline.quarantining import Quarantining
from sync_ingest.pipeline.refusing import hidden, orphan, refused, surplus_control
from sync_ingest.pipeline.run import Quarantined, Run
from sync_ingest.unnumbered import EQUALS_MAX, Unnumbered

WAITING_BATCHES_MAX: Final = 4
"""So many batches wait at most for the transaction before theirs: a slow disk is waited for once, not for each."""


class _Planned(NamedTuple):
    """A batch that only needs to be stored."""

    items: Sequence[Item]
    identities: Sequence[UUID]
    plan: Plan
    distinct: frozenset[int]
    sealed: Sequence[StoredEvent]


class _InFlight(NamedTuple):
    """Batches whose transaction is under way while the next ones are planned."""

    batches: Sequence[_Planned]
    positions: "Future[list[int]]"


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
        dates: BusinessDates,
        certified_through: date | None = None,
        days: BookingDays | None = None,
        whole: bool = False,
        trial: bool = False,
        reached: Callable[[str], None] = lambda _: None,
        limits: Limits | None = None,
        partial_sums: PartialSums | None = None,
        accounts_kept_max: int = ACCOUNTS_KEPT_MAX,
        controls_per_file_max: int = CONTROLS_PER_FILE_MAX,
    ) -> None:
        """`whole`: raise NotBookable where a record cannot be booked, before anything of its batch is stored.

        `trial`: only find out whether a posting could be booked; the ledger is asked to store the first one that can.
        `partial_sums`: where the sums of accounts go beyond `accounts_kept_max`; without it all stay in memory.
        """
        days = days or BookingDays.around(dates.business_date(now()))
        self.source = source
        self.totals = ControlTotals(
            booked_through=certified_through,
            business_date=days.today,
            partial_sums=partial_sums,
            kept_max=accounts_kept_max,
        )
        self.read = FeedRead(
            partial(ids.account, source), partial_sums, accounts_kept_max, controls_per_file_max
        )
        self._run = Run(
            source,
            ids,
            ledger,
            book,
            now,
            dates,
            days,
            self.totals,
            reached,
            # Not a method of its own: a run that refers to itself would be kept until somebody looks for cycles.
            lru_cache(maxsize=4_096)(partial(_day_start, dates)),
            whole,
            trial,
        )
        self._planner = Planner(self._run, limits or Limits(), accounts_kept_max)
        self._master = MasterData(self._run, OlderRepeats(partial_sums, accounts_kept_max))
        self._quarantining = Quarantining(self._run)
        self._certified_through = certified_through
        self._repeating = True
        self._in_flight: _InFlight | None = None
        self._waiting: list[_Planned] = []
        self._seen = Positions()
        self._unnumbered = Unnumbered(ids, source, partial(_intakes, ledger))

    @property
    def appended(self) -> int:
        """How many events were stored."""
        return self._run.appended

    @property
    def names_all(self) -> bool:
        """Whether everything of the feed that could not be posted has an entry of its own."""
        return not self._quarantining.unnamed

    def book(
        self, batches: Iterable[Sequence[Item]], intakes_read: Sequence[FeedIntake]
    ) -> Generator[int, None, None]:
        """Books batch by batch; yields how many records were read and stored so far."""
        self._run.intakes = intakes_read
        with ThreadPoolExecutor(1, thread_name_prefix="ingest-writer") as self._writer:
            for batch in batches:
                if not self._run.trial:
                    self._read(batch)
                for at in range(0, len(batch), BATCH_RECORDS):
                    self._batch(batch[at : at + BATCH_RECORDS])
                yield self.totals.read
            self._settle()
            while self._planner.deferred:
                self._again()
                yield self.totals.read
            self._master.count_findings()
            yield self.totals.read

    def _read(self, batch: Sequence[Item]) -> None:
        """Counts what was read, before anything is decided about it. What cannot be counted is quarantined."""
        surplus: list[Quarantined] = []
        for file, of_file in groupby(batch, key=attrgetter("file")):
            items = list(of_file)
            postings = [item.content for item in items if type(item.content) is Posting]
            self.read.count_postings(file, postings)
            if len(postings) < len(items):
                for item in items:
                    if type(item.content) is not Posting:
                        counted = self.read.count(file, item.line, item.content)
                        if not counted:
                            surplus.append(surplus_control(item, self.read.controls_per_file_max))
        if surplus:
            self._quarantine(surplus)
        if self.read.full:
            self.read.store()

    def _again(self) -> None:
        """Reversals that came before their originals, once more; what still has none is set aside."""
        waiting, self._planner.deferred = self._planner.deferred, []
        for at in range(0, len(waiting), BATCH_RECORDS):
            some = waiting[at : at + BATCH_RECORDS]
            self._identified([item for item, _ in some], [identity for _, identity in some])
        self._settle()
        if len(self._planner.deferred) == len(waiting):
            self._quarantine([orphan(self._run, item) for item, _ in self._planner.deferred])
            self._planner.deferred = []

    def _batch(self, items: Sequence[Item]) -> None:
        """Master data first: an account that is opened in the same batch as it is moved needs no mention of its own."""
        postings = [item for item in items if type(item.content) is Posting]
        if len(postings) < len(items):
            self._settle()
            others = [item for item in items if type(item.content) is not Posting]
            unreadable = [Quarantined(i, i.content) for i in others if isinstance(i.content, Unreadable)]
            master = [i for i in others if not isinstance(i.content, (Unreadable, ControlRecord))]
            if master and not self._run.trial:
                unreadable += self._master.book(master)
                self._planner.forget_accounts()
            if unreadable:
                self._quarantine(unreadable)
        if postings:
            self._postings(self._legible(postings))

    def _legible(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the postings whose codes, names and numbers can be seen; the others are quarantined."""
        if legible(cast("list[Posting]", [item.content for item in items])):
            return items
        faults = [(item, unseen(cast("Posting", item.content))) for item in items]
        found = [hidden(item, column) for item, column in faults if column is not None]
        if found:
            self._quarantine(found)
        return [item for item, column in faults if column is None]

    def _quarantine(self, found: Sequence[Quarantined]) -> None:
        """Quarantines records when nothing is under way: the writing connection serves one thread at a time."""
        self._settle()
        self._quarantining.enter(found)

    def _postings(self, items: Sequence[Item]) -> None:
        postings = cast("list[Posting]", [item.content for item in items])
        if all([posting.core_transaction_id is not None for posting in postings]):  # noqa: C419 - faster
            self._identified(items, posting_ids(self._run.ids, self.source, postings))
            return
        # Files one by one: an ordinal is counted in a file, and what another brought just now has to be stored.
        for file, of_file in groupby(items, key=attrgetter("file")):
            self._numbered(file, list(of_file))

    def _numbered(self, file: int, items: Sequence[Item]) -> None:
        """Postings of one file, some of which have no transaction id."""
        postings = cast("list[Posting]", [item.content for item in items])
        of_intake = self._run.intakes[file]
        unnumbered = [posting for posting in postings if posting.core_transaction_id is None]
        if of_intake.covers == "parts" and unnumbered:
            self._settle()
        made = iter(self._unnumbered.identities(file, unnumbered, of_intake.covers, of_intake.readings))
        identities = [
            self._run.ids.posting(self.source, p.account, p.core_transaction_id, p.leg)
            if p.core_transaction_id is not None
            else next(made)
            for p in postings
        ]
        known = [(item, identity) for item, identity in zip(items, identities, strict=True) if identity]
        if len(known) < len(items):
            detail = f"more than {EQUALS_MAX} rows without ids of their own"
            lost = [item for item, identity in zip(items, identities, strict=True) if identity is None]
            self._quarantine([refused(item, "file-oversized", detail) for item in lost])
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
            or self._run.trial
            or reversing
            or any(of_intake.closed for of_intake in self._run.intakes)
        )
        planned = self._planned(items, postings, identities, distinct, look=look)
        if planned.plan.doubtful and (not look or self._in_flight is not None or self._waiting):
            # A row is refused only by what is stored: it may be there itself, and what is under way may not get there.
            self._settle()
            self._planner.forget(planned.plan)
            planned = self._planned(items, postings, identities, distinct, look=True)
        self._refuse_part(planned.plan)
        self._run.reached("mid-batch")
        self._waiting.append(planned)
        flight = self._in_flight
        if flight is not None and (flight.positions.done() or len(self._waiting) >= WAITING_BATCHES_MAX):
            self._land()
        if self._in_flight is None and self._waiting:
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
        if self._planner.overflows(postings):
            self._settle()  # what is planned counts in the run totals that are stored now
            self._planner.store()
        known = self._run.ledger.postings(identities) if look else {}
        self._repeating = bool(known)
        plan = self._planner.plan(items, postings, identities, known)
        return _Planned(items, identities, plan, distinct, self._run.ledger.sealed(plan.entries))

    def _touches(self, identities: frozenset[int]) -> bool:
        """Whether any of these is on its way into the store and could not be found there yet."""
        flight = self._in_flight
        under_way = [*(flight.batches if flight else ()), *self._waiting]
        return any(not planned.distinct.isdisjoint(identities) for planned in under_way)

    def _settle(self) -> None:
        """Waits until everything that was planned is stored and counted."""
        while self._in_flight is not None or self._waiting:
            if self._in_flight is None:
                self._take_off()
            self._land()

    def _take_off(self) -> None:
        batches, self._waiting = self._waiting, []
        sealed = [event for planned in batches for event in planned.sealed]
        positions = self._writer.submit(self._run.ledger.append, sealed) if sealed else _nothing()
        self._in_flight = _InFlight(batches, positions)

    def _land(self) -> None:
        """Waits for the transaction under way and counts what it stored; after a conflict, plans and stores anew."""
        flight, self._in_flight = self._in_flight, None
        if flight is None:
            return
        try:
            positions = flight.positions.result()
        except AppendConflict:
            batches, self._waiting = [*flight.batches, *self._waiting], []
            for planned in batches:
                self._planner.forget(planned.plan)
            for planned in batches:
                self._store_anew(planned.items, planned.identities)
        else:
            self._stored(flight.batches, positions)

    def _store_anew(self, items: Sequence[Item], identities: Sequence[UUID]) -> None:
        """Plans on what the store says now, with nothing under way, as often as others are faster, bounded."""
        postings = cast("list[Posting]", [item.content for item in items])

        def appended() -> tuple[_Planned, Sequence[int]]:
            planned = self._planned(items, postings, identities, frozenset(), look=True)
            self._refuse_part(planned.plan)
            try:
                return planned, self._run.ledger.append(planned.sealed) if planned.sealed else []
            except AppendConflict:
                self._planner.forget(planned.plan)
                raise

        planned, positions = tried_anew(appended)
        self._stored([planned], positions)

    def _stored(self, batches: Sequence[_Planned], positions: Sequence[int]) -> None:
        self._run.reached("after-append")
        at = 0
        for planned in batches:
            end = at + len(planned.sealed)
            self._run.appended += len(planned.sealed)
            self._count(planned.plan, positions[at:end])
            at = end
        for planned in batches:
            if planned.plan.quarantined:
                self._quarantining.enter(planned.plan.quarantined)

    def _refuse_part(self, plan: Plan) -> None:
        """Nothing is booked of what has to be booked as a whole and cannot be."""
        if self._run.whole:
            self._run.refuse([*plan.quarantined, *(orphan(self._run, item) for item, _ in plan.deferred)])

    def _count(self, plan: Plan, positions: Sequence[int]) -> None:
        totals, through, seen = self.totals, self._certified_through, self._seen
        for posted in (plan.posted, plan.posted_before):
            totals.count_posted([(run_total, posting.amount_minor) for run_total, posting, _ in posted])
            totals.count_days([(posting.booked_on, posting.value_on) for _, posting, _ in posted], through)
            self.read.count_booked(
                [posting for _, posting, _ in posted if posting.sequence_number is not None]
            )
        seen.add_all([positions[at] for _, _, at in plan.posted])
        seen.add_all([position for _, _, position in plan.posted_before])
        for run_total, amount_minor, stored_at in plan.duplicates:
            first = stored_at is not None and seen.add(stored_at)
            totals.count_duplicate(run_total, amount_minor, first_in_feed=first)
        self._planner.deferred += plan.deferred
        totals.coverage_unstated += plan.coverage_unstated
        for fields in plan.differing_in_feed:
            totals.count_differing(fields)
        if plan.differing:
            for fields in self._run.ledger.differences(plan.differing):
                totals.count_differing(fields)


def _intakes(ledger: LedgerPort, identities: Sequence[UUID]) -> dict[UUID, UUID]:
    """Which intake brought each of these postings."""
    return {identity: stored.intake for identity, stored in ledger.postings(identities).items()}


def _day_start(dates: BusinessDates, day: date) -> datetime:
    return dates.at(day, MIDNIGHT)


def _nothing() -> "Future[list[int]]":
    """What a batch without events waits for."""
    done: Future[list[int]] = Future()
    done.set_result([])
    return done
