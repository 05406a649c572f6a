"""Databases, logins and keys as a cluster's administrators make them, and every role started with them."""

import asyncio
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from chassis.service import services
from devservers import free_port
from joserfc.jwk import KeySet, OKPKey
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.deploy.kubelet import Pod, Secrets, cleared
from tests.deploy.kustomized import OVERLAYS, objects, of_kind

CONTEXTS = [service.context.name for service in services()]
DATABASES = (*(f"deployed_{context}" for context in CONTEXTS), "deployed_keys")
OWNER, SERVICE, AUDITOR = "deployed_owner", "deployed_service", "deployed_auditor"
ENDED_SECONDS_MAX = 10.0


@contextmanager
def reachable(url: str) -> Iterator[str]:
    """`host:port` on loopback of a PostgreSQL that listens on a socket of another user's folder."""
    known = conninfo_to_dict(url)
    host, port = str(known.get("host", "127.0.0.1")), known.get("port", 5432)
    if not host.startswith("/"):
        yield f"{host}:{port}"
        return
    loop = asyncio.new_event_loop()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            try:
                while content := await source.read(1 << 16):
                    to.write(content)
                    await to.drain()
            except OSError:
                pass
            finally:
                to.close()

        try:
            there, back = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async def end() -> None:
        server.close()
        open_tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(forward, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(ENDED_SECONDS_MAX)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def administered(url: str) -> None:
    """What a database administrator makes: the databases, and a login for their owner and one for services."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name in DATABASES:
            connection.execute(sql.SQL("drop database if exists {} (force)").format(sql.Identifier(name)))
        for name, rights in ((OWNER, "createrole"), (SERVICE, "nocreaterole"), (AUDITOR, "nocreaterole")):
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("create role {} login " + rights).format(sql.Identifier(name)))
        for (role,) in connection.execute(
            "select rolname from pg_roles where rolname ~ '^crm_(.*_(writer|reader)|auditor)$'"
        ).fetchall():
            connection.execute(
                sql.SQL("grant {} to {} with admin option").format(
                    sql.Identifier(role), sql.Identifier(OWNER)
                )
            )
        for name in DATABASES:
            connection.execute(
                sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(OWNER))
            )


@pytest.fixture(scope="module")
def secrets(postgres_url: str, mongo_url: str, kafka_url: str) -> Iterator[Secrets]:
    """What the cluster's secret store holds."""
    administered(postgres_url)
    with reachable(postgres_url) as place:

        def login(user: str, database: str) -> dict[str, bytes]:
            return {"url": f"postgresql://{user}@{place}/{database}".encode()}

        public = KeySet([OKPKey.generate_key("Ed25519")]).as_dict(private=False)
        yield {
            **{
                f"crm-{context}-postgres{end}": login(user, f"deployed_{context}")
                for context in CONTEXTS
                for end, user in (("", SERVICE), ("-owner", OWNER), ("-auditor", AUDITOR))
            },
            **{f"crm-{context}-service-token": {"token": b"a token"} for context in CONTEXTS},
            "crm-keys-postgres": login(SERVICE, "deployed_keys"),
            "crm-keys-postgres-owner": login(OWNER, "deployed_keys"),
            "crm-operator-postgres": login(SERVICE, "deployed_ingest"),
            "crm-mongo": {"url": mongo_url.encode()},
            "crm-kafka": {"url": kafka_url.encode()},
            "crm-files": {
                "url": b"s3+http://user:password@127.0.0.1:1/files"
            },  # away: the API serves all the same
            "crm-key-encryption-key": {"kek": os.urandom(32)},
            "crm-token-keys": {"keys.json": json.dumps(public).encode()},
        }


@pytest.fixture(scope="module")
def node() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="crm-pods-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(secrets: Secrets, node: Path) -> Iterator[dict[str, Pod]]:
    """Every Deployment and Job of the production overlay, one pod each, all started at once."""
    found = objects(OVERLAYS / "production")
    taken: list[int] = []
    pods = {}
    for name, workload in {**of_kind(found, "Deployment"), **of_kind(found, "Job")}.items():
        taken.append(free_port(taken))
        pods[name] = Pod(name, workload, found, secrets, node / name, taken[-1])
    with cleared(pods):
        for pod in pods.values():
            pod.lay()
            pod.start()
        yield pods
