"""[panorama_read] panoramas over HTTP against an empty route on the same server: one line of JSON.

Customers with accounts of several products and a year of outflows lie in MongoDB with sealed values; a server process
answers over loopback, and the same client asks for panoramas and for nothing in turn, several times.

    python benchmarks/panorama_read.py [--customers N] [--seconds S] [--in-flight N]
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import uvicorn
from chassis.clock import SystemClock
from chassis.documents import Change
from chassis.mongo import Mongo, MongoDocuments
from chassis.privacy import FileKeyEncryption, KeyRing, Origin, seal
from customer.api import create_router
from customer.catalogue import SCHEMA, catalogue
from customer.desk import Desk
from customer.domain.customer import customer_decider
from customer.reading import Reading
from customer.views import asset_panorama, customers
from devservers import servers
from fastapi import FastAPI

LIMIT = 0.40
ROUNDS = 3
PRODUCTS = ("deposit", "deposit", "wealth", "card")
DATABASE = "crm_benchmark"
NOW = "2026-01-05T08:00:00+00:00"


class Live:
    """Every view in its first generation."""

    async def collection(self, view: str, name: str) -> str:
        """The collection."""
        return f"{view}_v1_{name}"


@dataclass(frozen=True)
class Place:
    """What the server process needs to know."""

    mongo_url: str
    postgres_url: str
    keys_url: str
    kek: Path
    port: int


def filled(number: int, ring: KeyRing, chance: Random) -> list[tuple[str, str, dict[str, Any]]]:
    """A customer and its accounts as the views keep them."""
    customer, party = UUID(int=number + 1), f"party-{number}"
    accounts = [UUID(int=(number + 1) << 32 | at) for at in range(len(PRODUCTS))]
    keys = ring.keys_for([customer, *accounts])

    def sealed(context: str, subject: UUID, field: str, plain: str) -> dict[str, Any]:
        origin = Origin(context, subject, 1, "benchmark")
        return {"t": seal(keys[subject], origin.aad(field, keys[subject]), plain), "v": 1, "n": "benchmark"}

    documents: list[tuple[str, str, dict[str, Any]]] = [
        (
            customers.VIEW.name,
            customers.CUSTOMERS,
            {
                "_id": str(customer),
                "_seq": 2,
                "kind": "person",
                "name": sealed("customer", customer, "name", "张伟"),
                "parties": [{"party_id": party, "source": "core", "sequence": 2}],
            },
        )
    ]
    for account, product in zip(accounts, PRODUCTS, strict=True):
        balance = {
            "minor": chance.randrange(-10_000, 10**9),
            "movements": 400,
            "booked_through": "2025-12-31",
        }
        months = {f"2025-{month:02d}": {"card": 10_000, "household": 5_000} for month in (10, 11, 12)}
        document = {
            "_id": str(account),
            "_seq": 402,
            "source": "core",
            "account": sealed("ingest", account, "account", "6222021234566789"),
            "name": None,
            "product": product,
            "opened_on": "2020-01-01",
            "currency": "CNY",
            "branch": "BJ-0101",
            "holders": [{"party_id": party, "role": "owner", "sequence": 2}],
            "cards": [],
            "loans": [],
            "orders": [],
            "balances": {"CNY": balance},
            "outflows": {"CNY": months},
            "repaid": {},
            "movements": 400,
            "booked_through": "2025-12-31",
            "changed_at": NOW,
            "position": 1,
        }
        documents.append((asset_panorama.VIEW.name, asset_panorama.ACCOUNTS, document))
    return documents


async def fill(place: Place, many: int) -> None:
    """Writes the documents and the indexes of the views."""
    mongo = Mongo.connect(place.mongo_url, database=DATABASE)
    ring = ring_of(place)
    chance = Random(7)
    for view in (customers.VIEW, asset_panorama.VIEW):
        for collection in view.collections:
            for index in collection.indexes:
                await mongo.index(f"{view.name}_v1_{collection.name}", index.fields)
    for first in range(0, many, 500):
        by: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(first, min(first + 500, many)):
            for view_name, collection_name, document in filled(number, ring, chance):
                by.setdefault((view_name, collection_name), []).append(document)
        for (view_name, collection_name), found in by.items():
            documents = MongoDocuments(mongo, f"{view_name}_v1_")
            changes = [Change(one["_id"], None, one["_seq"], documents.freeze(one)) for one in found]
            await documents.write(collection_name, changes)
    await mongo.close()
    ring.close()


def ring_of(place: Place) -> KeyRing:
    """The keys."""
    return KeyRing.open(place.keys_url, FileKeyEncryption.at(place.kek), SystemClock().monotonic)


def serve(place: Place) -> None:
    """The server process: the routes of customer and one that does nothing."""
    from chassis.handling import CommandHandler
    from chassis.store import EventStore, prepare

    class Doors:
        @staticmethod
        def caller() -> None:
            return None

        commanding = expected_version = at_least = caller

    async def run() -> None:
        prepare(place.postgres_url, SCHEMA)
        store, ring = EventStore(place.postgres_url, SCHEMA), ring_of(place)
        reading = Reading(Mongo.connect(place.mongo_url, database=DATABASE), Live(), ring)
        handler = CommandHandler(customer_decider, store, catalogue(), ring)
        desk = Desk(handler, store, catalogue(), reading, SystemClock())
        app = FastAPI()
        app.include_router(create_router(desk, Doors()))  # type: ignore[arg-type]

        @app.get("/empty")
        async def empty() -> dict[str, str]:
            return {}

        config = uvicorn.Config(app, port=place.port, log_level="warning", access_log=False)
        await uvicorn.Server(config).serve()

    import uvloop

    uvloop.run(run())


async def ask(port: int, paths: list[str], seconds: float, in_flight: int) -> float:
    """Answers per second; every answer must be 200."""
    clock = SystemClock()
    end = clock.monotonic() + seconds
    counts = [0] * in_flight

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        chance = Random(number)
        while clock.monotonic() < end:
            path = paths[chance.randrange(len(paths))]
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            counts[number] += 1
        writer.close()

    began = clock.monotonic()
    await asyncio.gather(*(client(number) for number in range(in_flight)))
    return sum(counts) / (clock.monotonic() - began)


def until_open(port: int) -> None:
    """Waits for the server."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measured(place: Place, many: int, seconds: float, in_flight: int) -> tuple[float, float]:
    """Panoramas and empty answers per second, medians of rounds in turn."""
    import uvloop

    paths = [f"/customers/{UUID(int=number + 1)}/panorama" for number in range(many)]
    uvloop.run(ask(place.port, paths, 1.0, in_flight))
    rounds = [
        [uvloop.run(ask(place.port, wanted, seconds, in_flight)) for wanted in (paths, ["/empty"])]
        for _ in range(ROUNDS)
    ]
    return statistics.median(one[0] for one in rounds), statistics.median(one[1] for one in rounds)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--in-flight", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with servers(data, {"mongo", "postgres"}, lambda _: None, durable=False) as running:
            place = prepared_place(running.urls, data)
            asyncio.run(fill(place, given.customers))
            server = multiprocessing.get_context("spawn").Process(target=serve, args=(place,))
            server.start()
            try:
                until_open(place.port)
                panoramas, empty = measured(place, given.customers, given.seconds, given.in_flight)
            finally:
                server.terminate()
                server.join(20)
    ratio = panoramas / empty
    line = {"name": "panorama_read", "value": round(panoramas, 1), "unit": "panoramas/s"}
    print(json.dumps({**line, "limit": round(empty, 1), "ratio": round(ratio, 3), "wanted": LIMIT}))


def prepared_place(urls: Any, data: Path) -> Place:
    """The database of the keys, and a port."""
    import psycopg

    postgres_url = urls["POSTGRES_URL"]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create database crm_benchmark_keys")
    keys_url = psycopg.conninfo.make_conninfo(postgres_url, dbname="crm_benchmark_keys")
    return Place(urls["MONGO_URL"], postgres_url, keys_url, data / "kek", free_port())


if __name__ == "__main__":
    main()
