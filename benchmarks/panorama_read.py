"""[panorama_read] panoramas over HTTP against an empty route on the same server: one line of JSON.

Customers with accounts of several products, outflows and a year of month sums lie in MongoDB with sealed values; a server process
answers over loopback, and the same client asks for panoramas and for nothing in turn, several times.

    python benchmarks/panorama_read.py [--customers N] [--seconds S] [--in-flight N]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import uvloop
from chassis.clock import SystemClock
from chassis.privacy.keys import KeyRing, Origin, seal
from chassis.privacy.rights import WHOLE, Rights
from chassis.privacy.tokens import development_token
from chassis.process.roles import begun
from chassis.read.documents import Change
from chassis.read.generations import Generations
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.web import create_app, listening_socket
from chassis.web import serve as serve_app
from chassis.web.callers import Permitted
from contracts.roles import ADMINISTRATOR
from crm_cli.migrate import migrated
from customer.bootstrap import routes
from customer.months import whole_months
from customer.settings import CustomerSettings
from customer.views import VIEWS, asset_panorama, customers
from devservers import servers
from fastapi import APIRouter, Depends

CLOCK = SystemClock()
ROUNDS = 3
READ_WANTED = 0.45
PRODUCTS = ("deposit", "deposit", "wealth", "card")
NOW = "2026-01-05T08:00:00+00:00"


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
        sums = {
            one.month: [chance.randrange(10**9), chance.randrange(10**10)] for one in whole_months(NOW[:10])
        }
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
            "months": {"CNY": sums},
            "repaid": {},
            "movements": 400,
            "booked_through": "2025-12-31",
            "changed_at": NOW,
            "position": 1,
        }
        documents.append((asset_panorama.VIEW.name, asset_panorama.ACCOUNTS, document))
    return documents


async def fill(settings: CustomerSettings, many: int) -> None:
    """Writes the documents into the first generation of the views, and shows it."""
    mongo = Mongo.connect(settings.mongo_url)
    ring = KeyRing.of(settings, CLOCK.monotonic)
    chance = Random(7)
    places: dict[str, MongoDocuments] = {}
    for view in VIEWS:
        generations = Generations(mongo, view, "customer", CLOCK)
        generation = await generations.begin()
        await generations.switch(generation)
        places[view.name] = generations.documents(generation)
    for first in range(0, many, 500):
        by: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(first, min(first + 500, many)):
            for view_name, collection_name, document in filled(number, ring, chance):
                by.setdefault((view_name, collection_name), []).append(document)
        for (view_name, collection_name), found in by.items():
            documents = places[view_name]
            changes = [Change(one["_id"], None, one["_seq"], documents.freeze(one)) for one in found]
            await documents.write(collection_name, changes)
    await mongo.close()
    ring.close()


def serve(settings: CustomerSettings) -> None:
    """The server process: customer as it is served, and a route that does nothing."""
    for stream in (1, 2):  # log lines are written, and read by nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    router = APIRouter(dependencies=[Depends(Permitted({"empty": Rights({ADMINISTRATOR}, WHOLE)}))])

    @router.get("/empty")
    async def empty() -> dict[str, str]:
        return {}

    async def run() -> None:
        async with routes(settings) as served:
            app = create_app("benchmark", [served.router, router], settings)
            listening = listening_socket(settings.host, settings.port)
            await serve_app(app, listening, asyncio.Event())

    with begun("customer", settings):
        uvloop.run(run())


async def ask(port: int, token: str, paths: list[str], seconds: float, in_flight: int) -> float:
    """Answers per second; every answer must be 200."""
    end = CLOCK.monotonic() + seconds
    counts = [0] * in_flight

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        chance = Random(number)
        while CLOCK.monotonic() < end:
            path = paths[chance.randrange(len(paths))]
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: crm\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            counts[number] += 1
        writer.close()

    began = CLOCK.monotonic()
    await asyncio.gather(*(client(number) for number in range(in_flight)))
    return sum(counts) / (CLOCK.monotonic() - began)


def until_open(port: int) -> None:
    """Waits for the server."""
    for _ in range(1_200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")


def measured(settings: CustomerSettings, many: int, seconds: float, in_flight: int) -> tuple[float, float]:
    """Panoramas and empty answers per second, medians of rounds in turn."""
    token = development_token(settings, CLOCK.now())
    paths = [f"/customers/{UUID(int=number + 1)}/panorama" for number in range(many)]
    uvloop.run(ask(settings.port, token, paths, 2.0, in_flight))
    rounds = [
        [uvloop.run(ask(settings.port, token, wanted, seconds, in_flight)) for wanted in (paths, ["/empty"])]
        for _ in range(ROUNDS)
    ]
    return statistics.median(one[0] for one in rounds), statistics.median(one[1] for one in rounds)


def settings_for(urls: Mapping[str, str], data: Path) -> CustomerSettings:
    """Settings of the server, its databases migrated."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    settings = CustomerSettings(
        postgres_url=urls["POSTGRES_URL"],
        mongo_url=urls["MONGO_URL"],
        data=data,
        environment="development",
        port=port,
    )
    migrated(settings)
    return settings


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--in-flight", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with servers(data, {"mongo", "postgres"}, lambda _: None, durable=False) as running:
            settings = settings_for(running.urls, data)
            asyncio.run(fill(settings, given.customers))
            server = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,))
            server.start()
            try:
                until_open(settings.port)
                panoramas, empty = measured(settings, given.customers, given.seconds, given.in_flight)
            finally:
                server.terminate()
                server.join(20)
    figure = {"name": "panorama_read", "value": round(panoramas, 1), "unit": "panoramas/s"}
    print(json.dumps({**figure, "limit": round(empty, 1), "ratio": round(panoramas / empty, 3)}))
    return 0 if panoramas / empty >= READ_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
