"""Checks one booking of a feed against what the feed states of itself.

What is of accounts is checked some accounts at a time, and then what is of whole files and of branches.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.contradictions import Contradiction, Contradictions
from sync_ingest.checking.control_totals import Stated, StatedTotals
from sync_ingest.checking.coverage import Coverage
from sync_ingest.checking.feed import ACCOUNTS_AT_ONCE, CheckedFeed, Held
from sync_ingest.checking.running_numbers import RunningNumbers
from sync_ingest.domain.certificate import Problem
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.totals import AccountCurrency, ControlTotals
from sync_ingest.folding import Movements, contradiction_id

LEDGER: Final = "ledger"


class Checking:
    """Checks one booking of a source; the caller holds the source's lock, and everything is folded."""

    def __init__(
        self,
        archive: Archive,
        ledger: Movements,
        source: str,
        partial_sums: PartialSums,
        kept_max: int = ACCOUNTS_KEPT_MAX,
    ) -> None:
        self._archive = archive
        self._source = source
        self._numbers = RunningNumbers(archive, source, partial_sums, kept_max)
        self._totals = StatedTotals(archive, ledger, source, self._numbers)
        self._coverage = Coverage(archive)

    @property
    def unchecked(self) -> bool:
        """Whether a posting could be missing unseen."""
        return self._coverage.unchecked

    @property
    def any_series(self) -> bool:
        """Whether running numbers changed, which are to be kept with the certificate."""
        return self._numbers.any_series

    def series(self) -> Iterator[Mapping[str, bytes]]:
        """The running numbers that changed, some scopes at a time."""
        return self._numbers.series()

    def check(
        self,
        read: FeedRead,
        intakes: Sequence[UUID],
        contents: Sequence[UUID],
        beside: Sequence[ControlRecord],
        totals: ControlTotals,
        *,
        as_one: bool,
    ) -> None:
        """Checks what was read of `intakes`; `beside`: controls of all together; `as_one`: a stream is one
        file.

        `contents` are the bytes of each; those of a repair are the bytes that it repairs.
        """
        read.beside += beside
        self._totals.begin()
        feed = CheckedFeed(read, intakes, contents, as_one)
        for part in read.by_account(ACCOUNTS_AT_ONCE):
            self._check(part, feed)
            self._coverage.check(part, feed)
            self._sum_up(part, feed)
            self._totals.note_read(part)
        self._check(read, feed)
        self._totals.brought_later(feed, totals)

    def _check(self, read: FeedRead, feed: CheckedFeed) -> None:
        """Checks what was read of some accounts, or what was read and is of none."""
        self._numbers.check(read)
        beside = [Stated(control, "stated beside the feed") for control in read.beside]
        for part, some in [
            (feed.every(read), beside),
            *(
                (
                    part,
                    [
                        Stated(control, f"line {line} of intake {feed.intakes[at]}")
                        for at in files
                        for line, control in read.files[at].controls
                    ],
                )
                for part, files in feed.of_files(read)
            ),
        ]:
            self._totals.check(part, some)

    def _sum_up(self, part: FeedRead, feed: CheckedFeed) -> None:
        """Adds up what the checks of whole files need of the accounts of a part."""
        places: dict[AccountCurrency, list[Held]] = {}
        for at, reads in [(None, [*part.files.values()]), *((at, [read]) for at, read in part.files.items())]:
            for currency, held in feed.balances(at).items():
                for name in {name for read in reads for name, of in read.accounts if of == currency}:
                    places.setdefault(AccountCurrency(UUID(name), currency), []).append(held)
        if places:
            totals = self._archive.totals.of([account_currency.account for account_currency in places])
            for account_currency, every in places.items():
                for held in every:
                    held.add(account_currency, totals.get(account_currency))

    def faults(self, problems: Sequence[Problem], intakes: Sequence[UUID]) -> None:
        """Keeps the differences between the ledger and the counts, which are faults of this system."""
        found = [
            Contradiction(
                contradiction_id(self._source, LEDGER, p.code, p.account_id, p.currency, *intakes),
                LEDGER,
                "",
                p.code,
                p.account_id,
                p.currency,
                p.expected,
                p.found,
                p.detail,
            )
            for p in problems
        ]
        if found:
            self._archive.contradictions.note(self._source, Contradictions(found))
