"""What the page for branch systems says works as it stands, with the client that it names."""

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chassis.clock import SystemClock
from chassis.messaging.dead_letters import KeyCustody
from chassis.messaging.transport import ensure_topics, group_lag
from contracts.topics import COREBANK_POSTINGS, dead_letters
from sync_ingest.listening import GROUP, BranchFeed, FeedRole
from sync_ingest.opening import IngestPool, opened_keys
from sync_ingest.settings import SyncIngestSettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "branch.md"
SECONDS_MAX = 100
SOURCE, ACCOUNT, TRANSACTION = "branch-bj-0101", "6222021234566789", "2026-01-05/000017"


@dataclass
class Time:
    """A clock whose windows end when the test says so."""

    at: datetime = datetime(2026, 3, 2, 10, 7, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def pool(postgres_url, data):
    pool = IngestPool(SyncIngestSettings(postgres_url=postgres_url, data=data))
    yield pool
    pool.close()


def example() -> str:
    """The one Python block of the page."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.mark.requirement("D07")
async def test_the_example_of_the_page_is_booked_once_under_its_source(
    postgres_url, data, kafka_url, pool, ingest
):
    await ensure_topics(kafka_url, [COREBANK_POSTINGS, dead_letters(GROUP)])
    time, settings = Time(), SyncIngestSettings(postgres_url=postgres_url, data=data)
    feed = BranchFeed(
        pool.opened, default_source=settings.topic_source, window=timedelta(minutes=15), now=time.now
    )
    custody = KeyCustody(GROUP, lambda: opened_keys(settings, SystemClock()))
    role, stopping = FeedRole(feed, kafka_url, SystemClock(), custody), asyncio.Event()
    running = asyncio.create_task(role.run(stopping))
    posting = ingest.ids.posting(SOURCE, ACCOUNT, TRANSACTION, 1)
    try:
        for _ in range(2):
            sent = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", example()],
                env=os.environ | {"KAFKA_URL": kafka_url},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert sent.returncode == 0, sent.stderr
        async with asyncio.timeout(SECONDS_MAX):
            while not ingest.ledger.known([posting]):  # noqa: ASYNC110 - the feed is another thread's doing
                await asyncio.sleep(0.05)
            while sum((await group_lag(kafka_url, GROUP, [COREBANK_POSTINGS.name])).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)
        custody.close()
    time.at += timedelta(minutes=15)
    [closed] = [one.findings for one in feed.close_windows() if one.source == SOURCE]
    assert (closed.posted, closed.duplicates, closed.quarantined) == (1, 1, 0)
