"""Plays seeds and prints what does not hold: `python -m tests.hostile.run FIRST LAST [POSTGRES_URL [FAILURES_MAX]]`.

Without a URL it starts a server of its own; with one it makes a database of its own there.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from chassis.process.roles import migrate_databases
from devservers import servers
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sync_ingest.opening import TABLES
from sync_ingest.settings import SyncIngestSettings

from tests.hostile.playing import hands, play

FAILURES_MAX = 5


def hostile_settings(url: str, keys_url: str, data: Path) -> SyncIngestSettings:
    """No tolerance, and one person releases: what the model has not."""
    return SyncIngestSettings(
        postgres_url=url,
        keys_url=keys_url,
        data=data,
        environment="development",
        release_approval_minor=None,
        printed_tolerance_minor=0,
    )


def main(first: int, last: int, url: str | None, failures_max: int) -> int:
    """How many seeds failed, at most `failures_max`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(url, Path(folder)) as server,
        databases(server, Path(folder).name.lower()) as (events, keys),
    ):
        settings = hostile_settings(events, keys, Path(folder))
        migrate_databases(settings, TABLES)
        failures, seeds, began = 0, 0, time.monotonic()
        with hands(settings) as ingests:
            while first + seeds < last and failures < failures_max:
                if failure := play(first + seeds, settings, ingests):
                    failures += 1
                    print(failure, flush=True)
                seeds += 1
        print(f"{seeds} seeds, {failures} failed, {time.monotonic() - began:.1f} s")
    return failures


@contextmanager
def _server(url: str | None, folder: Path) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with servers(folder, {"postgres"}, print, durable=False) as up:
        yield up.urls["POSTGRES_URL"]


@contextmanager
def databases(url: str, name: str) -> Iterator[tuple[str, str]]:
    """Two databases on a server, for the events and for the keys, which are gone afterwards."""
    names = (name, f"{name}_keys")
    with psycopg.connect(url, autocommit=True) as connection:
        for each in names:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(each)))
        yield make_conninfo(url, dbname=names[0]), make_conninfo(url, dbname=names[1])
        for each in names:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(each)))


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        main(
            int(given[0]),
            int(given[1]),
            given[2] if len(given) > 2 else None,
            int(given[3]) if len(given) > 3 else FAILURES_MAX,
        )
    )
