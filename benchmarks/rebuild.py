"""[rebuild] a view folded anew beside the live one, compared with it and switched: records per second.

The limit is the rate at which the same records came to be shown the first time, in the same run, over the same roles
(see panorama_projection). The live view goes on following meanwhile, as it does in production.

    python benchmarks/rebuild.py [--postings N]
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from chassis import heap
from chassis.messaging.broker import Kafka
from chassis.messaging.transport import KafkaPublisher
from chassis.read.generations import Generations
from chassis.read.mongo import Mongo
from chassis.read.rebuilding import Rebuilt, rebuild
from crm_cli.migrate import migrated
from customer.bootstrap import SERVICE_NAME
from customer.views import asset_panorama
from devservers import servers
from panorama_projection import CLOCK, roles, say, sustained
from sync_ingest.settings import SyncIngestSettings

REBUILD_WANTED = 0.5


async def rebuilt(settings: SyncIngestSettings) -> Rebuilt:
    """As `crm rebuild` does it."""
    mongo, publisher = Mongo.connect(settings.mongo_url), KafkaPublisher(settings.kafka_url)
    try:
        generations = Generations(mongo, asset_panorama.VIEW, SERVICE_NAME, CLOCK)
        return await rebuild(generations, broker=Kafka(settings.kafka_url), publisher=publisher, clock=CLOCK)
    finally:
        await publisher.close()
        await mongo.close()


def main() -> int:
    """Measures and prints; 1 where the limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--postings", type=int, default=200_000)
    given = parser.parse_args()
    heap.for_batches()  # as `crm` and every role do
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
        limit = sustained(settings, given.postings)
        with roles(settings, ("customer", "views")):
            result = asyncio.run(rebuilt(settings))
    assert result.comparison is not None
    assert result.comparison.equal, result.comparison
    assert result.records >= given.postings, result
    rate = result.records / result.seconds
    say("rebuild", rate, "records/s", limit, rate / limit)
    return 0 if rate / limit >= REBUILD_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
