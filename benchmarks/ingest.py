"""Ingest against its limit: one line of JSON (name, value, unit, limit, ratio).

[ingest] feed bytes, validated, to durable postings in PostgreSQL, with identity check and personal fields sealed;
the limit is COPY of the very same rows into a table with the same indexes, in the same run.

    python benchmarks/ingest.py [--postings N]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from chassis import heap
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing
from chassis.write.store import Recorder, prepare
from contracts.identity import EXTERNAL_IDS, ExternalIds
from devservers import servers
from devservers.made import MadeFile
from sync_ingest.adapters.canonical import CanonicalAdapter
from sync_ingest.adapters.port import FeedFile
from sync_ingest.domain.records import Posting
from sync_ingest.ledger import SCHEMA, StoreLedger
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import FeedIntake
from sync_ingest.runs.choices import IN_UTC

ACCOUNTS = 2_000
INGEST_WANTED = 0.50
TURNS = 5


@contextmanager
def databases() -> Iterator[str]:
    """A PostgreSQL of its own that flushes what it commits, with the key database beside it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None) as running,
    ):
        url = running.urls["POSTGRES_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database crm_keys")
        yield url


class MadeFeed(MadeFile):
    """A feed made while it is read: so many postings from number `first` on."""

    def __init__(self, postings: int, first: int = 0) -> None:
        super().__init__(partial(self._make, postings, first))

    @staticmethod
    def _make(postings: int, first: int) -> Iterator[bytes]:
        chance, encode = Random(first), msgspec.json.Encoder().encode
        for number in range(first, first + postings):
            day = date(2026, 1, 1) + timedelta(days=number * 28 // max(postings, 1) % 28)
            yield (
                encode(
                    Posting(
                        account=f"6210{chance.randrange(ACCOUNTS):010d}",
                        core_transaction_id=f"{day:%Y%m%d}-{number:09d}",
                        amount_minor=chance.randrange(-1_000_000, 1_000_000),
                        currency="CNY",
                        booked_on=day,
                        value_on=day,
                        product="deposit",
                        channel="app",
                        kind="transfer",
                        branch="BJ-0101",
                        counterparty_bank="102100000021",
                        counterparty_account=f"6222{chance.randrange(10**12):012d}",
                        counterparty_name="王小明",
                        text="转账",
                    )
                )
                + b"\n"
            )


class Bench:
    """One store to run against."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        prepare(url, SCHEMA)
        clock = SystemClock()
        encryption = FileKeyEncryption.at(folder / "kek", create=True)
        keys_url = psycopg.conninfo.make_conninfo(url, dbname="crm_keys")
        migrate(keys_url, [KEYS])
        self.keys = KeyRing.open(keys_url, encryption, clock.monotonic)
        self.ids = ExternalIds(self.keys.secret(EXTERNAL_IDS))
        self.reader, self.writer = Recorder(url, SCHEMA), Recorder(url, SCHEMA)
        self.clock = clock

    def book(self, source: str, opener: Callable[[], Any]) -> float:
        """Books a feed and returns the seconds it took."""
        ledger = StoreLedger(self.reader, self.writer, self.keys, now=self.clock.now)
        pipeline = Pipeline(source, self.ids, ledger, _NoBook(), now=self.clock.now, dates=IN_UTC)
        files = [FeedFile("feed", 1, opener)]
        batches = (batch.items for batch in CanonicalAdapter().read(files))
        started = time.perf_counter()
        for _ in pipeline.book(batches, [FeedIntake(UUID(int=1), "feed", open=True)]):
            pass
        return time.perf_counter() - started

    def copy_limit(self, after: int) -> tuple[int, float]:
        """Last position and seconds of a COPY of what is stored beyond `after`, to the same columns and indexes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("create schema if not exists bench")
            connection.execute(
                f"create table if not exists bench.events (like {SCHEMA}.events including all)"
            )
            columns = "stream_id, version, name, body, identity"
            rows = connection.execute(
                f"select {columns} from {SCHEMA}.events where position > %s order by position",
                (after,),
                binary=True,
            ).fetchall()
            started = time.perf_counter()
            into = f"copy bench.events ({columns}) from stdin (format binary)"
            with connection.transaction(), connection.cursor() as cursor, cursor.copy(into) as copy:
                copy.set_types(["uuid", "int4", "text", "bytea", "uuid"])
                for row in rows:
                    copy.write_row(row)
            return self.reader.head_position(), time.perf_counter() - started


class _NoBook:
    """A feed without anything to set aside, into a ledger that holds nothing, needs no book."""

    def ledger_totals(self, accounts: object) -> dict[Any, Any]:
        """Nothing is held."""
        return {}

    def turnovers(self) -> dict[str, int]:
        """Nothing was moved."""
        return {}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the made feed needs no {name}")


def say(name: str, value: float, unit: str, limit: float, ratio: float) -> None:
    """One figure."""
    figure = {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "limit": round(limit, 2),
        "ratio": round(ratio, 3),
    }
    print(json.dumps(figure), flush=True)


def ingest(postings: int) -> float:
    """[ingest] as a share of its limit: a slice of the feed and a COPY of its rows in turns, because machines get slower and faster."""
    size = postings // TURNS
    with databases() as url, tempfile.TemporaryDirectory() as folder:
        bench = Bench(url, Path(folder))
        bench.book("warm", lambda: MadeFeed(2_000, 10**8))
        first, _ = bench.copy_limit(0)
        last, seconds, limit_seconds = first, 0.0, 0.0
        for turn in range(TURNS):
            content = MadeFeed(size, turn * size).read(1 << 40)
            seconds += bench.book("bench", lambda content=content: BytesIO(content))
            last, of_copy = bench.copy_limit(last)
            limit_seconds += of_copy
    rate, limit = size * TURNS / seconds, (last - first) / limit_seconds
    say("ingest", rate, "postings/s", limit, rate / limit)
    return rate / limit


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    heap.for_batches()  # as `crm` and every role do
    parser.add_argument("--postings", type=int, default=500_000)
    return 0 if ingest(parser.parse_args().postings) >= INGEST_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
