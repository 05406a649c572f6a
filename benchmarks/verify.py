"""[verify] stored events that `crm verify` checks per second: store against Kafka against views; one line of JSON.

The limit is the rate that is wanted of it: a bank with some millions of events is verified in minutes.

    python benchmarks/verify.py [--postings N]
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from chassis import heap
from crm_cli.migrate import migrated
from crm_cli.verify import verified
from devservers import servers
from panorama_projection import CLOCK, roles, say, sustained
from sync_ingest.settings import SyncIngestSettings

EVENTS_WANTED = 20_000


def main() -> int:
    """Measures and prints; 1 where the limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--postings", type=int, default=200_000)
    given = parser.parse_args()
    heap.for_batches()  # as `crm` does
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres", "mongo", "kafka"}, lambda _: None) as running,
    ):
        settings = SyncIngestSettings(
            postgres_url=running.urls["POSTGRES_URL"],
            mongo_url=running.urls["MONGO_URL"],
            kafka_url=running.urls["KAFKA_URL"],
            data=Path(folder),
            environment="development",
        )
        migrated(settings)
        sustained(settings, given.postings)
        with roles(
            settings,
            ("customer", "views"),
            ("customer", "derived"),
            ("customer", "policies"),
            ("customer", "relay"),
        ):
            asyncio.run(verified(settings, wait_seconds=60.0))  # everything has been read, and is in memory
            began = CLOCK.monotonic()
            report = asyncio.run(verified(settings))
            seconds = CLOCK.monotonic() - began
    assert report.green, report.readable()
    events = report.figures["contexts"]["ingest"]["events"]
    assert events >= given.postings, events
    rate = events / seconds
    say("verify", rate, "events/s", EVENTS_WANTED, rate / EVENTS_WANTED)
    return 0 if rate >= EVENTS_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
