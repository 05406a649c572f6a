"""One booking that is under way: what its parts share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from chassis.business_dates import BusinessDates
from contracts.identity import ExternalIds

from sync_ingest.adapters.port import Item
from sync_ingest.domain.records import BookingDays, Unreadable
from sync_ingest.domain.totals import ControlTotals
from sync_ingest.pipeline.ports import Entry, FeedIntake, LedgerPort, NotBookable, QuarantineBook


@dataclass(slots=True)
class Quarantined:
    """A record that could not be booked; `awaited` is the posting that a reversal waits for."""

    item: Item
    unreadable: Unreadable
    awaited: UUID | None = None


@dataclass(slots=True)
class Run:
    """A booking of one source. `whole` and `trial` are those of `Pipeline`."""

    source: str
    ids: ExternalIds
    ledger: LedgerPort
    book: QuarantineBook
    now: Callable[[], datetime]
    dates: BusinessDates
    days: BookingDays
    totals: ControlTotals
    reached: Callable[[str], None]
    day_starts: Callable[[date], datetime]
    whole: bool = False
    trial: bool = False
    intakes: Sequence[FeedIntake] = ()
    appended: int = 0

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Stores in one transaction; the positions. Raises AppendConflict."""
        if not entries:
            return []
        positions = self.ledger.append(self.ledger.sealed(entries))
        self.appended += len(entries)
        return positions

    def heads_of(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream; 0 where it has none."""
        found = self.ledger.heads(list(dict.fromkeys(streams)))
        return {stream: found.get(stream, 0) for stream in streams}

    def refuse(self, found: Sequence[Quarantined]) -> None:
        """Raises NotBookable where something of a whole cannot be booked."""
        if self.whole and found:
            raise NotBookable(found[0].unreadable)

    def today(self) -> date:
        """The bank's business date now."""
        return self.dates.business_date(self.now())
