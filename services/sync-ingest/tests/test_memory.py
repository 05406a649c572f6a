"""What a run keeps of every account of its feed, which is all of it that grows with accounts (docs/runbooks/memory.md)."""

import gc
import tracemalloc
from datetime import date
from uuid import UUID

from sync_ingest.domain.controls import FeedRead
from sync_ingest.domain.records import Posting
from sync_ingest.domain.totals import ControlTotals, Purse

ACCOUNTS = 20_000
ACCOUNT_BYTES_MAX = 800


def test_what_a_run_keeps_of_an_account_is_small_and_does_not_grow_with_its_postings():
    read, totals = FeedRead(), ControlTotals()

    def book(round_: int) -> int:
        for at in range(0, ACCOUNTS, 2_000):
            postings = [
                Posting(
                    account=f"6210{number:015d}",
                    core_transaction_id=f"{round_}-{number}",
                    amount_minor=10**9 + number if number % 2 else -(10**9) - number,
                    currency="CNY",
                    booked_on=date(2026, 1, 1),
                )
                for number in range(at, at + 2_000)
            ]
            read.count_postings(0, postings)
            moved = []
            for number, posting in enumerate(postings, at):
                tally = totals.tally(Purse(UUID(int=2**127 + number), "CNY"))
                tally.balance_minor += posting.amount_minor
                tally.turnover_minor += abs(posting.amount_minor)
                moved.append((tally, posting.amount_minor))
            totals.count_posted(moved)
        del postings, moved, tally
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        once = book(1) - before
        again = book(2) - before
    finally:
        tracemalloc.stop()
    assert totals.accounts == ACCOUNTS
    assert once < ACCOUNT_BYTES_MAX * ACCOUNTS, once / ACCOUNTS
    assert again < 1.05 * once
