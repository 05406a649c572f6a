"""A network between two processes that can be broken: a TCP proxy on loopback, in a thread of its own.

`stall` holds back everything in both directions, as a partition does: what was sent arrives when it heals. `cut` does the same,
and connections are reset when it heals. `reset` ends all connections at once and refuses new ones.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any

CHUNK_BYTES = 1 << 16
LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)
"""Closing a socket then sends a reset."""
STARTED_SECONDS_MAX = 10.0


class Proxy:
    """Forwards connections to `target`: the path of a socket, or a host and a port.

    Where `kafka`, answers that name the broker's address name the proxy's instead, so that clients stay on it.
    """

    def __init__(self, target: str | tuple[str, int], *, kafka: bool = False) -> None:
        self._target = target
        self._kafka = kafka
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = self._called(self._start())

    def stall(self) -> None:
        """Nothing passes, and nobody is told."""
        self._told(self._open.clear)

    def reset(self) -> None:
        """All connections break, and no new one is made."""

        def broken() -> None:
            self._refusing = True
            self._break_all()

        self._told(broken)

    def heal(self, *, cut: bool = False) -> None:
        """All passes again; where `cut`, what was under way is lost with its connections."""

        def healed() -> None:
            if cut:
                self._break_all()
            self._refusing = False
            self._open.set()

        self._told(healed)

    def close(self) -> None:
        """Ends it."""

        async def over() -> None:
            self._break_all()
            if self._server is not None:
                self._server.close()
            await asyncio.gather(*self._connections, return_exceptions=True)

        self._called(over())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STARTED_SECONDS_MAX)
        self._loop.close()

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        self._writers.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            await self._open.wait()
            answers, beyond = await self._reached()
            self._writers.add(beyond)
            await asyncio.gather(self._pump(reader, beyond), self._answers(answers, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for one in (writer, beyond):
                if one is not None:
                    self._writers.discard(one)
                    _reset(one)

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._passed(data, writer)
        writer.write_eof()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._kafka or isinstance(self._target, str):
            await self._pump(reader, writer)
            return
        host, port = self._target
        behind, shown = (host.encode() + struct.pack(">i", each) for each in (port, self.port))
        while True:
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head))
            await self._passed(head + body.replace(behind, shown), writer)

    async def _passed(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        writer.write(data)
        await writer.drain()

    def _break_all(self) -> None:
        for task in self._connections:
            task.cancel()
        for writer in list(self._writers):
            _reset(writer)

    def _told(self, what: Callable[[], Any]) -> None:
        async def doing() -> None:
            what()

        self._called(doing())

    def _called(self, work: Any) -> Any:
        waiting: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return waiting.result(STARTED_SECONDS_MAX)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT_AT_ALL)
    writer.transport.abort()
