"""A server that freezes instead of dying: the roles that need it say so, end in time, and go on when it answers again."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock, uuid7
from chassis.connections.settings import Settings
from chassis.messaging.answering import NO_KAFKA, NO_MONGODB
from chassis.process.roles import STOP_SECONDS_MAX
from chassis.read.documents import ID
from chassis.read.generations import live_generation
from chassis.read.mongo import Mongo
from chassis.write.deciding import CommandContext
from crm_cli.migrate import migrated
from customer.connections import write_side
from customer.derived.customer_facts import FACTS, VIEW
from customer.domain.commands import Details, RegisterCustomer
from customer.settings import CustomerSettings
from devservers import Servers, servers
from psycopg.conninfo import make_conninfo

from tests.support.freezing import frozen
from tests.support.processes import Environment, Role, until

CLOCK = SystemClock()
RED_SECONDS_MAX = 20.0
"""10 s, and as much again on a machine that does other things too."""
SILENT = "no answer within 5 s"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A broker and a database of views that nobody else uses."""
    folder = tmp_path_factory.mktemp("servers")
    with servers(folder, {"kafka", "mongo"}, print, durable=False) as started:
        yield started


@pytest.fixture(scope="module")
def environment(postgres_url: str, up: Servers, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    names = ("frozen_peers", "frozen_peers_keys")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"create database {name}")  # type: ignore[arg-type, unused-ignore]
    events, keys = (make_conninfo(postgres_url, dbname=name) for name in names)
    migrated(Settings(postgres_url=events, keys_url=keys))
    return {
        "POSTGRES_URL": events,
        "CRM_KEYS_URL": keys,
        "MONGO_URL": up.urls["MONGO_URL"],
        "KAFKA_URL": up.urls["KAFKA_URL"],
        "CRM_DATA": str(tmp_path_factory.mktemp("data")),
        "CRM_ENVIRONMENT": "development",
    }


def register(environment: Environment, count: int) -> set[str]:
    """Registers customers; their ids."""

    async def give() -> set[str]:
        names = ("postgres_url", "keys_url", "data", "environment")
        places = [
            environment[name] for name in ("POSTGRES_URL", "CRM_KEYS_URL", "CRM_DATA", "CRM_ENVIRONMENT")
        ]
        settings, ids = CustomerSettings(**dict(zip(names, places, strict=True))), set[UUID]()
        async with write_side(settings, CLOCK) as write:
            for _ in range(count):
                id, now = uuid7(CLOCK.now()), CLOCK.now()
                context = CommandContext(actor="test", now=now, command_id=uuid7(now))
                await write.handler.handle(id, RegisterCustomer(Details(name="王小明")), context)
                ids.add(id)
        return {str(id) for id in ids}

    return asyncio.run(give())


def shown(environment: Environment) -> set[str]:
    """The customers whose facts are derived: relay, views and derived views have done their work."""

    async def ask() -> set[str]:
        mongo = Mongo.connect(environment["MONGO_URL"])
        try:
            live = await live_generation(mongo, VIEW.name)
            return set() if live is None else {str(one[ID]) for one in await mongo.find(live.prefix + FACTS)}
        finally:
            await mongo.close()

    return asyncio.run(ask())


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("server", "said", "roles"),
    [("mongo", NO_MONGODB, 4), ("kafka", NO_KAFKA, 4)],  # web, views, derived, policies; relay instead of web
)
def test_roles_of_a_server_that_freezes_are_not_ready_lose_nothing_and_end_in_time(
    environment: Environment, up: Servers, server: str, said: str, roles: int
) -> None:
    role = Role(environment, "customer", "all")
    with ExitStack() as stack:
        stack.callback(role.process.kill)
        before = register(environment, 5)
        until("it is ready", role.ready)
        until("all are shown", lambda: shown(environment) >= before)
        with frozen(up.pids[server]):
            meanwhile = register(environment, 5)
            reason = f"{said}: {SILENT}"
            until(
                "each role says why", lambda: (role.reasons() or []).count(reason) == roles, RED_SECONDS_MAX
            )
            assert all(SILENT in each for each in role.reasons() or []), "the others do their work"
        until("it is ready again", role.ready)
        until("nothing is lost", lambda: shown(environment) >= before | meanwhile)
        with frozen(up.pids[server]):
            register(environment, 5)
            role.process.send_signal(signal.SIGTERM)
            assert role.process.wait(timeout=2 * STOP_SECONDS_MAX) == 0, "1 where a role did not stop in time"
