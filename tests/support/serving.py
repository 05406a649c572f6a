"""An application on loopback, over the server that its process has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.web.serving import listening_socket, serve
from starlette.types import ASGIApp


@asynccontextmanager
async def served(app: ASGIApp, stopping: asyncio.Event | None = None) -> AsyncIterator[int]:
    """Serves on a free port, which it gives, until `stopping` is set and what is served has ended."""
    stopping = stopping or asyncio.Event()
    listening = listening_socket("127.0.0.1", 0)
    serving = asyncio.create_task(serve(app, listening, stopping))
    try:
        yield listening.getsockname()[1]
    finally:
        stopping.set()
        await serving
