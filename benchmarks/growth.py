"""What does not grow with the feed: the cost of a posting, and the memory of each role; one line of JSON per figure.

[growth] microseconds per posting of the same ingest at a large size against a small one; limit is the small one's, to
be kept within 10 %. [growth_memory_<role>] what each process holds over the second half of the postings against over the
first, medians in MB, with every posting through Kafka to the views: batches come and go, so it swings.

    python benchmarks/growth.py [--sizes SMALL LARGE] [--postings N]
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from chassis import heap
from crm_cli.migrate import migrated
from devservers import servers
from ingest import Bench, MadeFeed, databases, say
from panorama_projection import head, shown
from sync_ingest.opening import opened
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

SLICES = 20
GROWTH_MAX = 1.10
ROLES = (("sync_ingest", "relay"), ("customer", "views"), ("customer", "policies"))


def microseconds(postings: int) -> float:
    """Of one posting, booked into an empty store."""
    with databases() as url, tempfile.TemporaryDirectory() as folder:
        bench = Bench(url, Path(folder))
        bench.book("warm", lambda: MadeFeed(2_000, 10**8))
        return bench.book("bench", partial(MadeFeed, postings)) / postings * 1e6


def cost(small: int, large: int) -> float:
    """[growth], as a multiple: the small size before and after the large one, because machines get slower and faster."""
    before, value, after = (microseconds(postings) for postings in (small, large, small))
    limit = (before + after) / 2
    say("growth", value, "us/posting", limit, value / limit)
    return value / limit


def resident_mb(pid: int) -> float:
    """What a process holds in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kilobytes) / 1024


@contextmanager
def roles(settings: SyncIngestSettings) -> Iterator[dict[str, int]]:
    """Every role that a posting passes, as a process of its own: name -> process id."""
    environment = os.environ | {
        "POSTGRES_URL": settings.postgres_url,
        "MONGO_URL": settings.mongo_url,
        "KAFKA_URL": settings.kafka_url,
        "CRM_DATA": str(settings.data),
        "CRM_PORT": "0",
        "CRM_LOG_LEVEL": "warning",
    }
    with ExitStack() as stack:
        found = {}
        for package, role in ROLES:
            child = subprocess.Popen([sys.executable, "-m", package, role], env=environment)
            stack.callback(child.wait, 30)
            stack.callback(child.terminate)
            found[f"{package}_{role}"] = child.pid
        yield found


def wait(settings: SyncIngestSettings, position: int) -> None:
    """Until the panorama shows everything up to a position."""
    asyncio.run(shown(settings, position))


def memory(postings: int) -> float:
    """[growth_memory_<role>]; the largest multiple among the roles."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        running = stack.enter_context(servers(Path(folder), {"postgres", "mongo", "kafka"}, lambda _: None))
        settings = SyncIngestSettings(
            postgres_url=running.urls["POSTGRES_URL"],
            mongo_url=running.urls["MONGO_URL"],
            kafka_url=running.urls["KAFKA_URL"],
            data=Path(folder),
            environment="development",
        )
        migrated(settings)
        # Waiting for the views has clients of its own, whose memory is none of ingest's.
        spawning = multiprocessing.get_context("spawn")
        waiting = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawning))
        processes = stack.enter_context(roles(settings)) | {"ingest": os.getpid()}
        held: list[dict[str, float]] = []
        size = postings // SLICES
        for number in range(SLICES):
            content = FeedContent(f"slice-{number}", lambda at=number: _stream(size, at * size))
            with opened(settings) as ingest:
                ingest.keep("bench", content, format="canonical")
            waiting.submit(wait, settings, head(settings)).result()
            held.append({name: resident_mb(pid) for name, pid in processes.items()})
            print(f"{(number + 1) * size} postings: {held[-1]}", file=sys.stderr)
        multiples = []
        for name in processes:
            first, second = (
                statistics.median(each[name] for each in half)
                for half in (held[: SLICES // 2], held[SLICES // 2 :])
            )
            say(f"growth_memory_{name}", second, "MB", first, second / first)
            multiples.append(second / first)
        return max(multiples)


def _stream(size: int, first: int) -> Any:
    return cast("Any", MadeFeed(size, first))


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(100_000, 1_000_000))
    parser.add_argument("--postings", type=int, default=1_000_000)
    given = parser.parse_args()
    heap.for_batches()  # as `crm` and every role do
    multiples = [cost(*given.sizes), memory(given.postings)]
    return 0 if max(multiples) <= GROWTH_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
