"""The FastAPI application as every service has it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import psycopg
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from chassis import metrics
from chassis.auth import Verifier, verifier_of
from chassis.clock import Clock, SystemClock
from chassis.deciding import Refusal
from chassis.settings import Settings
from chassis.store import StoreUnavailable
from chassis.store.appender import StoreOverloaded
from chassis.web.callers import caller
from chassis.web.edge import Edge
from chassis.web.openapi import describe
from chassis.web.problems import MethodNotAllowed, NotReady, RequestMalformed, of_invalid, of_status, problem

PUBLIC: Final = (
    "/health/live",
    "/health/ready",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/asyncapi",
    "/asyncapi.json",
)
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
UNAVAILABLE: Final[tuple[type[Exception], ...]] = (
    ConnectionError,
    TimeoutError,
    StoreUnavailable,
    StoreOverloaded,
    psycopg.OperationalError,
)
"""Errors that say a server behind this one does not answer: 503, and worth another try."""

NotReadyReasons = Callable[[], Sequence[str]]


class RouteWithoutCaller(Exception):
    """A route that would answer anybody."""


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
    public: Sequence[str] = PUBLIC,
) -> FastAPI:
    """An application with our conventions around `routers`; each of their routes must take its caller.

    `body_limits` are bytes by exact path where a route takes more than `BODY_BYTES_MAX`. `readiness` says why the
    process is not ready, if so; `measures` refresh gauges when `/metrics` is asked. Both can be added to later, in
    `app.state`. `public` are the paths that need no token.
    """
    clock = clock or SystemClock()
    verifier = verifier or verifier_of(settings, clock.now)
    app = FastAPI(title=title, version=version, redoc_url=None, redirect_slashes=False)
    app.state.clock = clock
    app.state.verifier = verifier
    taken = list(routers)
    app.state.readiness = [*([verifier.not_ready] if taken else []), *readiness]
    app.state.measures = list(measures)
    for router in taken:
        require_caller(router)
        app.include_router(router)
    app.include_router(_operations())
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
    describe(app)
    return app


def require_caller(router: APIRouter) -> None:
    """Raises RouteWithoutCaller where a route of `router` does not depend on `caller`."""
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            require_caller(inner)
        elif not isinstance(route, APIRoute) or not _depends(route.dependant):
            raise RouteWithoutCaller(getattr(route, "path", repr(route)))


def _depends(dependant: Dependant) -> bool:
    return dependant.call is caller or any(_depends(inner) for inner in dependant.dependencies)


def _operations() -> APIRouter:
    """Health and metrics, for whoever runs the process."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        """The process turns its loop."""
        return {"status": "live"}

    @router.get("/health/ready", response_model=None)
    async def ready(request: Request) -> Response | dict[str, str]:
        """Whether requests should come here, and if not, why not."""
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
    return problem(refusal, request.headers.get("accept-language"))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it)
    return of_invalid(request, error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it)
    accepted = request.headers.get("accept-language")
    if error.status_code == 405:
        return problem(MethodNotAllowed, accepted, headers={"Allow": ", ".join(_allowed(request))})
    found = of_status(error.status_code)
    detail = "the body cannot be parsed" if found is RequestMalformed else ""
    return problem(found, accepted, status=error.status_code, detail=detail, headers=error.headers)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at this path, where the framework names those of the first."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def operations_app(settings: Settings, readiness: Iterable[NotReadyReasons], clock: Clock) -> FastAPI:
    """An application with health and metrics alone: for a process that answers nobody else."""
    nobody = Verifier((), settings.token_audience, clock.now)
    return create_app(
        "operations", (), settings, clock=clock, verifier=nobody, readiness=readiness, public=("/", *PUBLIC)
    )
