"""The FastAPI application of every service."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from chassis import heap
from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import Transient
from chassis.observability import metrics
from chassis.privacy.tokens import Verifier, verifier_of
from chassis.web.callers import Permitted
from chassis.web.commands import command_context
from chassis.web.described import dependants_of, routes_of
from chassis.web.edge import Edge
from chassis.web.openapi import describe
from chassis.web.pages import pages
from chassis.web.problems import MethodNotAllowed, NotReady, RequestMalformed, of_invalid, of_status, problem
from chassis.web.streams import LAST_EVENT_ID, Streams
from chassis.write.deciding import Refusal

PUBLIC: Final = (
    "/",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/docs",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
    "/docs/start.js",
    "/openapi.json",
    "/asyncapi",
    "/asyncapi.json",
)
FILE_NAME: Final = "File-Name"
"""The name of a file that is the body of a request, percent-encoded UTF-8: names are personal, and addresses are logged."""
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
CORS_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    FILE_NAME,
    "Idempotency-Key",
    "If-Match",
    LAST_EVENT_ID,
    "X-Request-ID",
)
CORS_RESPONSE_HEADERS: Final = (
    "Consistency-Token",
    "Content-Disposition",
    "ETag",
    "Location",
    "Retry-After",
    "X-Request-ID",
    "X-Trace-ID",
)
UNAVAILABLE: Final[tuple[type[Exception], ...]] = (
    ConnectionError,
    TimeoutError,
    Transient,
    psycopg.OperationalError,
)
"""Transient errors are answered with 503; the caller may try again. A refusal that is also transient stays a
refusal."""

NotReadyReasons = Callable[[], Sequence[str]]


class RouteWithoutRoles(Exception):
    """A route that no table of roles names, or a table that names a route that does not exist."""

    own_words = True


class RouteHidden(Exception):
    """A route that no request reaches, because an earlier one takes its paths: `/boxes/{id}` before `/boxes/open`."""

    own_words = True


class CommandWithoutReason(Exception):
    """A route that gives a command and takes no reason for it."""


class CommandUndated(Exception):
    """A command that neither takes an effective time nor says why not, or does both."""

    own_words = True


def create_app(
    title: str,
    routers: Iterable[APIRouter],
    settings: Settings,
    *,
    version: str = "1",
    clock: Clock | None = None,
    verifier: Verifier | None = None,
    body_limits: Mapping[str, int] | None = None,
    readiness: Iterable[NotReadyReasons] = (),
    measures: Iterable[metrics.Measure] = (),
    public: Collection[str] | None = PUBLIC,
) -> FastAPI:
    """An application with our conventions around `routers`; each of their routes must be in a table of permissions.

    `body_limits` are bytes by path where a route takes more than `BODY_BYTES_MAX`, `{}` for a parameter in it; such a
    route also has longer time. `readiness` says why the process is not ready, if so; `measures` refresh gauges when
    `/metrics` is asked. Both can be added to later, in `app.state`. `public` are the paths that need no token, None for
    all of them.
    """
    clock = clock or SystemClock()
    verifier = verifier or verifier_of(settings, clock.now)
    app = FastAPI(
        title=title,
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: (
            route.name
        ),  # what clients are generated from, and permissions name
    )
    app.state.clock = clock
    app.state.verifier = verifier
    app.state.streams = Streams()
    taken = list(routers)
    app.state.readiness = [*([verifier.not_ready] if taken else []), *readiness]
    app.state.measures = list(measures)
    for router in taken:
        require_roles(router)
        app.include_router(router)
    refuse_hidden(route for router in taken for route in routes_of(router))
    app.include_router(_operations())
    app.include_router(pages(title))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(
        Edge,
        verifier=verifier,
        clock=clock,
        public=public,
        body_limits=body_limits,
        unavailable=UNAVAILABLE,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(","),
            allow_methods=list(METHODS),
            allow_headers=list(CORS_REQUEST_HEADERS),
            expose_headers=list(CORS_RESPONSE_HEADERS),
        )
    describe(app, taken)
    return app


def require_roles(router: APIRouter) -> None:
    """Raises CommandWithoutReason or CommandUndated where a command lacks what it must say, and RouteWithoutRoles
    where a route of `router` is in no table of roles, or where a table names a route that `router` does not have."""
    named: dict[Permitted, set[str]] = {}
    for route in routes_of(router):
        place = getattr(route, "path", repr(route))
        tables = _tables(route.dependant) if isinstance(route, APIRoute) else set()
        if not tables:
            raise RouteWithoutRoles(f"{place} takes no caller")
        for table in tables:
            name = getattr(route, "name", "")
            if not table.roles.get(name):
                raise RouteWithoutRoles(
                    f"the table of permissions does not say who may call {name} ({place})"
                )
            named.setdefault(table, set()).add(name)
            if isinstance(route, APIRoute):
                require_reason(route, high=name in table.high)
                require_effect(route, table.routes[name].undated)
    for table, names in named.items():
        if stale := (table.roles.keys() | table.high) - names:
            raise RouteWithoutRoles(f"the table of permissions names no route: {', '.join(sorted(stale))}")


def refuse_hidden(routes: Iterable[BaseRoute]) -> None:
    """Raises RouteHidden where an earlier route takes the path and a method of a later one."""
    before: list[APIRoute] = []
    for route in routes:
        if isinstance(route, APIRoute):
            for earlier in before:
                if (earlier.methods or set()) & (route.methods or set()) and earlier.path_regex.match(
                    route.path
                ):
                    raise RouteHidden(f"{route.path} comes after {earlier.path}, which takes its requests")
            before.append(route)


class CommandRoute(NamedTuple):
    """What a route takes of a command; `effective` is the name of the field that says from when it is so."""

    takes_reason: bool
    reason_required: bool
    effective: str | None


def command_of(route: APIRoute) -> CommandRoute | None:
    """What a route takes of a command; None where it gives none."""
    if all(each.call is not command_context for each in dependants_of(route.dependant)):
        return None
    model = None if route.body_field is None else route.body_field.field_info.annotation
    fields = getattr(model, "model_fields", {})
    queries = {field.alias: field.field_info for field in route.dependant.query_params}
    reason = fields.get("reason") or queries.get("reason")
    effective = [name for name in ("effective_at", "effective_on") if name in fields]
    required = reason is not None and reason.is_required()
    return CommandRoute(reason is not None, required, effective[0] if effective else None)


def require_reason(route: APIRoute, *, high: bool) -> None:
    """Raises CommandWithoutReason where a command takes no reason, or one of high privilege may leave it out."""
    command, place = command_of(route), f"{route.name} ({route.path})"
    if command is None:
        if high:
            raise CommandWithoutReason(f"{place} is of high privilege and no command")
    elif not command.takes_reason:
        raise CommandWithoutReason(f"{place} takes no reason")
    elif high and not command.reason_required:
        raise CommandWithoutReason(f"{place} is of high privilege and may give no reason")


def require_effect(route: APIRoute, undated: str) -> None:
    """Raises CommandUndated where a command neither takes an effective time nor says why not (`undated`), or does both."""
    command, place = command_of(route), f"{route.name} ({route.path})"
    if command is None or command.effective is not None:
        if undated:
            raise CommandUndated(
                f"{place} says why it takes no effective time, and takes one or is no command"
            )
    elif not undated.strip():
        raise CommandUndated(f"{place} neither takes an effective time nor says why not")


def _tables(dependant: Dependant) -> set[Permitted]:
    return {each.call for each in dependants_of(dependant) if isinstance(each.call, Permitted)}


def _operations() -> APIRouter:
    """The routes of health and metrics."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        """The process responds, so its event loop runs."""
        return {"status": "live"}

    @router.get("/health/ready", response_model=None)
    async def ready(request: Request) -> Response | dict[str, str]:
        """Whether the process takes requests, and the reasons if it does not."""
        reasons = [reason for why in request.app.state.readiness for reason in why()]
        if reasons:
            return problem(NotReady, request.headers.get("accept-language"), reasons=reasons)
        return {"status": "ready"}

    @router.get("/metrics", response_model=None)
    async def shown(request: Request) -> Response:
        """The metrics of this process."""
        return Response(await metrics.measured(request.app.state.measures), media_type=metrics.CONTENT_TYPE)

    return router


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 (registered for it)
    return problem(refusal, request.headers.get("accept-language"), **refusal.more)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it)
    heap.let_go(error)
    return of_invalid(request, error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it)
    accepted = request.headers.get("accept-language")
    if error.status_code == 405:
        allowed = {"Allow": ", ".join(_allowed(request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allowed)
        return problem(MethodNotAllowed, accepted, headers=allowed)
    found = of_status(error.status_code)
    detail = "the body cannot be parsed" if found is RequestMalformed else ""
    return problem(found, accepted, status=error.status_code, detail=detail, headers=error.headers)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at this path. The framework names only those of the first route."""
    routes = request.app.router.routes

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return method == "OPTIONS" or any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in METHODS if taken(method)]


def operations_app(settings: Settings, readiness: Iterable[NotReadyReasons], clock: Clock) -> FastAPI:
    """An application with health and metrics alone, for a process without other routes."""
    nobody = Verifier((), settings.token_audience, clock.now)
    return create_app(
        "operations", (), settings, clock=clock, verifier=nobody, readiness=readiness, public=None
    )
