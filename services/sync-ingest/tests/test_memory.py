"""The memory of a run does not grow with the accounts of its feed (docs/runbooks/memory.md)."""

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest
from chassis.clock import SystemClock
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KeyRing
from devservers.made import MadeFile
from sync_ingest.domain.records import ControlRecord, Posting
from sync_ingest.opening import opened
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.results import FeedContent, RunResult
from sync_ingest.settings import SyncIngestSettings

KEPT_MAX = 500
ACCOUNTS = 2_000
TIMES = 4
GROWTH_BYTES_MAX = 1 << 20
"""Less than a tenth of what 6,000 accounts took when a run kept something of each."""


class Feed(MadeFile):
    """A numbered posting and a control record of each account. `names` are those of the accounts."""

    def __init__(self, names: str, accounts: int) -> None:
        self._names, self._accounts = names, accounts
        super().__init__(self._made)

    def _made(self) -> Iterator[bytes]:
        for number in range(self._accounts):
            account, amount_minor = f"{self._names}{number:012d}", number + 1
            posting = Posting(
                account=account,
                core_transaction_id=str(number),
                amount_minor=amount_minor,
                currency="CNY",
                booked_on=date(2026, 1, 5),
                balance_after_minor=amount_minor,
                sequence_number=1,
            )
            control = ControlRecord(
                account=account, records=1, credits_minor=amount_minor, debits_minor=0, currency="CNY"
            )
            numbers = ControlRecord(account=account, first_number=1, last_number=1)
            for record in (posting, control, numbers):
                yield msgspec.json.encode(record) + b"\n"


@pytest.fixture
def ingest(postgres_url: str, data: Path) -> Iterator[Ingest]:
    """An ingest that keeps so few accounts that a small feed has many."""
    settings = SyncIngestSettings(postgres_url=postgres_url, data=data, accounts_kept_max=KEPT_MAX)
    encryption = FileKeyEncryption.at(settings.key_encryption_file)
    keys = KeyRing(settings.keys_url, encryption, SystemClock().monotonic, cached_max=KEPT_MAX)
    try:
        with opened(settings, keys=keys) as running:
            yield running
    finally:
        keys.close()


def test_the_memory_of_a_run_is_the_same_for_four_times_as_many_accounts(ingest: Ingest, source: str) -> None:
    """From when everything is booked: what is kept of it, and what certifying it takes beside that.

    Until then batches are under way too, of which there are more or less, and never more than a few.
    """

    def booked(point: str) -> None:
        if point == "before-certificate":
            gc.collect()
            tracemalloc.reset_peak()

    def bytes_of(names: str, accounts: int) -> tuple[int, RunResult]:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        content = FeedContent("feed", lambda: Feed(names, accounts))  # type: ignore[arg-type, return-value]
        result = ingest.run(source, [content], format="canonical")
        return tracemalloc.get_traced_memory()[1] - before, result

    ingest.reached = booked
    tracemalloc.start()
    try:
        bytes_of("W", 2 * KEPT_MAX)
        few, _ = bytes_of("A", ACCOUNTS)
        many, result = bytes_of("B", TIMES * ACCOUNTS)
    finally:
        tracemalloc.stop()
    assert result.findings.status == "GREEN", result.findings
    assert (result.findings.posted, result.findings.accounts) == (TIMES * ACCOUNTS, TIMES * ACCOUNTS)
    assert many < few + GROWTH_BYTES_MAX, (few, many)


def test_partial_sums_are_gone_after_the_run_and_those_of_a_crash_count_no_more(
    ingest: Ingest, source: str
) -> None:
    class Crashed(BaseException):
        pass

    def crash(point: str) -> None:
        if point == "before-certificate":
            raise Crashed

    def run() -> RunResult:
        content = FeedContent("feed", lambda: Feed("C", 3 * KEPT_MAX))  # type: ignore[arg-type, return-value]
        return ingest.run(source, [content], format="canonical")

    def left() -> int:
        connection = ingest.archive._db.connection
        rows = connection.execute("select count(*) from ingest.partial_sums where source = %s", (source,))
        return int(rows.fetchall()[0][0])

    ingest.reached = crash
    with pytest.raises(Crashed):
        run()
    assert left() > 0
    ingest.reached = lambda _: None
    findings = run().findings
    assert (findings.status, findings.accounts, findings.problems) == ("GREEN", 3 * KEPT_MAX, ())
    assert [(line.credits_minor, line.stated_credits_minor) for line in findings.lines] == [
        (sum(range(3 * KEPT_MAX + 1)), sum(range(3 * KEPT_MAX + 1)))
    ]
    assert left() == 0
