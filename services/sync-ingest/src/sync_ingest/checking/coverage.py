"""Whether a posting could be missing unseen: no control total covers its account, and no running balance is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from sync_ingest.archive.archive import Archive
from sync_ingest.checking.feed import ACCOUNTS_AT_ONCE, CheckedFeed
from sync_ingest.domain.controls.coverage import unchecked
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.controls.file_read import FileRead
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.totals import AccountCurrency
from sync_ingest.folding import is_printed


@dataclass(slots=True)
class Coverage:
    """What of one booking is covered."""

    archive: Archive
    unchecked: bool = False
    """Whether an account was read of which a posting could be missing unseen."""

    def check(self, part: FeedRead, feed: CheckedFeed) -> None:
        """Looks for an account of a part in which a posting could be missing unseen."""
        for _, files in feed.of_files(part):
            controls = [*part.beside, *(control for at in files for _, control in part.files[at].controls)]
            for at in files:
                if not self.unchecked:
                    self._unchecked(part.files[at], [*controls, *feed.controls(at)], feed.read.files[at])

    def _unchecked(self, file: FileRead, controls: Sequence[ControlRecord], of_file: FileRead) -> None:
        """Whether an account of this file is neither covered by a control total nor printing running
        balances.

        A balance that the ledger has printed on the last day of the account in this file, or later, speaks
        for it too.
        """
        left = iter(sorted(unchecked(file, controls, of_file)))
        while not self.unchecked and (some := list(islice(left, ACCOUNTS_AT_ONCE))):
            silent = {
                AccountCurrency(UUID(name), currency): last_on
                for name, currency in some
                if not (counted := file.accounts[name, currency]).printed and (last_on := counted.last_on)
            }
            held = self.archive.totals.days(silent) if silent else {}
            self.unchecked = any(
                not any(
                    day >= last_on and is_printed(body)
                    for day, body in held.get(account_currency, {}).items()
                )
                for account_currency, last_on in silent.items()
            )
