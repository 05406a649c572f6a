"""What several tests of commands over the stores share: a bank's feed in real servers, and a relay to carry it out."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

import msgspec
import psycopg
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from crm_cli.migrate import migrated
from sync_ingest.domain.records import AccountRecord, HolderRecord, PartyRecord, Posting
from sync_ingest.opening import opened
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

NAME, PHONE, TEXT = "王小明", "13800138000", "房租三月"
CLOCK = SystemClock()
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Bank:
    """Servers of one test, and a data folder."""

    postgres_url: str
    kafka_url: str
    mongo_url: str
    data: Path

    def settings(self) -> SyncIngestSettings:
        return SyncIngestSettings(
            postgres_url=self.postgres_url,
            keys_url=self.keys_url,
            kafka_url=self.kafka_url,
            mongo_url=self.mongo_url,
            data=self.data,
            environment="development",
        )

    @property
    def keys_url(self) -> str:
        """The database of this bank's keys."""
        name = psycopg.conninfo.conninfo_to_dict(self.postgres_url)["dbname"]
        return psycopg.conninfo.make_conninfo(self.postgres_url, dbname=f"{name}_keys")

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "CRM_ENVIRONMENT": "development",
            "POSTGRES_URL": self.postgres_url,
            "CRM_KEYS_URL": self.keys_url,
            "KAFKA_URL": self.kafka_url,
            "MONGO_URL": self.mongo_url,
            "CRM_DATA": str(self.data),
        }

    def take(self, source: str, *records: msgspec.Struct) -> None:
        """Takes records in through the real ingest."""
        content = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        with opened(self.settings()) as ingest:
            ingest.run(source, [FeedContent("feed.jsonl", lambda: io.BytesIO(content))], format="canonical")

    def crm(self, *arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
        """Runs a command of these tests."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [sys.executable, "-c", PROGRAM, *arguments],
            env=self.environment(),
            capture_output=True,
            timeout=120,
            check=False,
            **options,
        )


PROGRAM = """
import typer
from crm_cli import panorama, rebuild, replay, sagas, status, unlinked, verify
app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
for each in (panorama, rebuild, replay, sagas, status, unlinked, verify): each.register(app)
app()
"""


def new_database(url: str) -> str:
    """The URL of a new database on the server, and one for its keys beside it."""
    name = f"bank_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        connection.execute(f"create database {name}_keys")
    made = psycopg.conninfo.make_conninfo(url, dbname=name)
    migrated(Settings(postgres_url=made, keys_url=psycopg.conninfo.make_conninfo(url, dbname=f"{name}_keys")))
    return made


def a_small_feed(source: str = "branch") -> list[msgspec.Struct]:
    """Three accounts of two people and their postings."""
    people = [PartyRecord(party=f"P{n}", kind="person", name=NAME, phone=PHONE) for n in (1, 2)]
    accounts = [
        AccountRecord(account=f"A{n}", opened_on=date(2026, 1, 1), product="deposit", currency="CNY")
        for n in (1, 2, 3)
    ]
    holders = [
        HolderRecord(account="A1", party="P1", role="owner"),
        HolderRecord(account="A2", party="P2", role="owner"),
        HolderRecord(account="A3", party="P2", role="owner"),
    ]
    return [*people, *accounts, *holders, *(posting(f"T{n}", f"A{n % 3 + 1}", 100 * n) for n in range(1, 40))]


def posting(transaction: str, account: str, amount_minor: int) -> Posting:
    return Posting(
        account=account,
        core_transaction_id=transaction,
        amount_minor=amount_minor,
        currency="CNY",
        booked_on=date(2026, 3, 2),
        text=TEXT,
        counterparty_name=NAME,
    )
