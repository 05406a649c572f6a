"""Puts the processes of customer together from their settings."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from chassis.clock import Clock, SystemClock
from chassis.relay import RelayRole
from chassis.roles import Role, WebRole
from chassis.web import create_app, doors
from fastapi import APIRouter
from starlette.types import ASGIApp

from customer.api import create_router
from customer.catalogue import CONTEXT, SCHEMA
from customer.connections import Read, Write, both_sides
from customer.following import PoliciesRole, ViewsRole
from customer.publishing import published
from customer.settings import CustomerSettings
from customer.views import VIEWS

LOOK_SECONDS: Final = 2.0
TITLE: Final = "CRM customer"


class Routes(NamedTuple):
    """What a web process needs to serve customer: a router, bytes by path beyond the usual, and why it is not ready."""

    router: APIRouter
    body_limits: Mapping[str, int]
    not_ready: Callable[[], list[str]]


@asynccontextmanager
async def routes(settings: CustomerSettings, clock: Clock | None = None) -> AsyncIterator[Routes]:
    """The routes of customer with the connections behind them."""
    clock = clock or SystemClock()
    async with both_sides(settings, clock) as (desk, write, read):
        look = _Look(write, read, clock)
        looking = asyncio.create_task(look.run())
        try:
            yield Routes(create_router(desk, doors(read.views.wait_for)), {}, look.not_ready)
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


@asynccontextmanager
async def web_app(settings: CustomerSettings) -> AsyncIterator[ASGIApp]:
    """The application of a process that serves customer alone."""
    async with routes(settings) as served:
        yield create_app(TITLE, [served.router], settings, readiness=[served.not_ready])


class _Look:
    """Asks the servers now and then whether they are there."""

    def __init__(self, write: Write, read: Read, clock: Clock) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._reasons: list[str] = ["customer: starting"]

    def not_ready(self) -> list[str]:
        """Why no question can be answered, as the last look said."""
        return list(self._reasons)

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            self._reasons = [
                *await _reason("the store does not answer", self._write.store.head_position),
                *await _reason("MongoDB does not answer", self._read.mongo.ping),
                *[reason for view in VIEWS for reason in await self._built(view.name)],
            ]
            await self._clock.sleep(LOOK_SECONDS)

    async def _built(self, view: str) -> list[str]:
        return await _reason(f"the view {view} is not built yet", lambda: self._read.views.live(view))


async def _reason(said: str, ask: Callable[[], Awaitable[object]]) -> list[str]:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why)
        return [f"{said}: {type(error).__name__}"]
    return []


def roles(settings: CustomerSettings) -> dict[str, Callable[[], Role]]:
    """The roles of this service by name."""
    return {
        "api": lambda: WebRole("customer-api", lambda: web_app(settings)),
        "relay": lambda: RelayRole(
            CONTEXT, SCHEMA, published, postgres_url=settings.postgres_url, kafka_url=settings.kafka_url
        ),
        "views": lambda: ViewsRole(settings),
        "policies": lambda: PoliciesRole(settings),
    }
