"""Every route takes its caller from here."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import Request
from typing_extensions import override

from chassis.auth import Caller
from chassis.web.problems import Forbidden, Unauthenticated

SCHEME: Final = "token"
CALLER_KEY: Final = "chassis.caller"
"""Where the edge puts into a request's scope whom it let in."""


class _TakesCaller(HTTPBearer):
    """Security scheme and dependency in one, because every dependency costs every request."""

    @override
    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Who asks. The edge has verified the token before anything of the request was read."""
        found = request.scope.get(CALLER_KEY)
        if not isinstance(found, Caller):
            raise Unauthenticated
        return found


caller: Final = _TakesCaller(
    bearerFormat="JWT",
    scheme_name=SCHEME,
    description="a token of the access context; `crm token` issues one for development",
)
"""The dependency that gives a route its `Caller`."""

Asking = Annotated[Caller, Depends(caller)]


def requires(*roles: str) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency that lets in callers with at least one of these roles; others get 403."""

    async def permitted(asking: Asking) -> Caller:
        if asking.roles.isdisjoint(roles):
            raise Forbidden
        return asking

    return permitted
