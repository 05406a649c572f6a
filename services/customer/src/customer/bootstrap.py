"""Builds the processes of customer from their settings."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from chassis.bulk import following
from chassis.clock import Clock, SystemClock
from chassis.connections.answering import ReadinessCheck, checking_readiness
from chassis.exports import making
from chassis.exports.routes import body_limits as export_limits
from chassis.files import sweeping
from chassis.notices import NoticesRole
from chassis.process.roles import Role, WebRole
from chassis.reactions.policies import PoliciesRole
from chassis.read.derived_following import DerivedRole
from chassis.read.viewing import ViewsRole
from chassis.relay import RelayRole
from chassis.sagas import SagasRole
from chassis.timers import TimersRole
from chassis.watching import hearing
from chassis.web import Routes, create_app, dependencies
from chassis.web.consistency import Heads
from starlette.types import ASGIApp

from customer import permissions
from customer.api import create_router
from customer.catalogue import CONTEXT, SCHEMA, catalogue
from customer.connections import TABLES, both_sides, opened_notices, write_side
from customer.derived import DERIVED
from customer.file_routes import body_limits
from customer.measuring import measuring
from customer.policies import POLICIES
from customer.publishing import published
from customer.sagas import opened
from customer.settings import CustomerSettings
from customer.timers import timers
from customer.views import VIEWS

__all__ = ["TABLES", "roles", "routes", "web_app"]

SERVICE_NAME: Final = "customer"
TITLE: Final = "CRM customer"


@asynccontextmanager
async def routes(
    settings: CustomerSettings, clock: Clock | None = None, *, others: Heads | None = None
) -> AsyncIterator[Routes]:
    """The routes of customer with their connections.

    `others` are the stores of other contexts that can be read.
    """
    clock = clock or SystemClock()
    async with both_sides(settings, clock) as (service, write, read):
        checks: dict[str, ReadinessCheck] = {
            "the store does not answer": write.store.head_position,
            "MongoDB does not answer": read.mongo.ping,
            **{
                f"the view {view.name} is not built yet": partial(read.views.live, view.name)
                for view in VIEWS
            },
        }
        async with (
            checking_readiness(checks, clock) as not_ready,
            following(service.bulk, clock),
            making(service.exports, clock),
            hearing(service.hub),
            sweeping(service.files.keeper, write.ring, settings.postgres_url, SCHEMA, clock),
        ):
            heads = {CONTEXT: write.store.head_position, **(others or {})}
            facts = partial(read.views.wait_for, views=[view.name for view in DERIVED])
            entered = dependencies(
                read.views.wait_for,
                permissions.ROUTES,
                heads=heads,
                wait_for_derived=facts,
                high=permissions.HIGH_PRIVILEGE,
            )
            limits = body_limits(settings.files_bytes_max) | export_limits(CONTEXT)
            yield Routes(
                create_router(service, entered),
                limits,
                not_ready,
                [measuring(read.queries, clock), service.exports.measure],
            )


@asynccontextmanager
async def web_app(settings: CustomerSettings) -> AsyncIterator[ASGIApp]:
    """The application of a process that serves customer alone."""
    async with routes(settings) as served:
        yield create_app(
            TITLE,
            [served.router],
            settings,
            body_limits=served.body_limits,
            readiness=[served.not_ready],
            measures=served.measures,
        )


def roles(settings: CustomerSettings) -> dict[str, Callable[[], Role]]:
    """The roles of this service by name."""
    return {
        "api": lambda: WebRole("customer-api", lambda: web_app(settings)),
        "relay": lambda: RelayRole(
            CONTEXT,
            SCHEMA,
            published,
            catalogue(),
            postgres_url=settings.postgres_url,
            kafka_url=settings.kafka_url,
            commands_kept_days=settings.commands_kept_days,
        ),
        "views": lambda: ViewsRole(SERVICE_NAME, VIEWS, settings),
        "derived": lambda: DerivedRole(SERVICE_NAME, DERIVED, settings),
        "timers": lambda: TimersRole(SERVICE_NAME, CONTEXT, SCHEMA, partial(timers, settings), settings),
        "sagas": lambda: SagasRole(SERVICE_NAME, CONTEXT, SCHEMA, partial(opened, settings), settings),
        "notices": lambda: NoticesRole(
            SERVICE_NAME, CONTEXT, SCHEMA, partial(opened_notices, settings), settings
        ),
        "policies": lambda: PoliciesRole(SERVICE_NAME, POLICIES, partial(write_side, settings), settings),
    }
