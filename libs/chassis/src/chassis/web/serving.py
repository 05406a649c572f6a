"""Serves an application until it is told to stop: by default on loopback, with a bounded shutdown."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.web.problems import unreadable
from chassis.web.streams import ABORT_KEY

SHUTDOWN_SECONDS_MAX: Final = 10
KEEP_ALIVE_SECONDS: Final = 20
BACKLOG: Final = 1024


class PortTaken(Exception):
    """Another process listens on the port."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which `chassis.process.roles` does."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(HttpToolsProtocol):
    """Responds with a problem where the bytes are not a readable request, and lets a stream cut its connection."""

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT_KEY: self.transport.abort}  # type: ignore[dict-item]

    @override
    def send_400_response(self, msg: str) -> None:
        self.transport.write(unreadable())
        self.transport.close()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a taken port is known before anything else starts; raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise PortTaken(f"cannot listen on {host} port {port}: {error.strerror}") from error
    found.setblocking(False)
    return found


async def serve(
    app: ASGIApp,
    listening: socket.socket,
    stopping: asyncio.Event,
    *,
    trusted_proxies: str = "",
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serves until `stopping`, then lets requests end for up to `SHUTDOWN_SECONDS_MAX`."""
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or None,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    waiting = asyncio.create_task(stopping.wait())
    started()
    try:
        await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        waiting.cancel()
        server.should_exit = True
        if not serving.done():
            await asyncio.wait([serving], timeout=SHUTDOWN_SECONDS_MAX + 1)
