"""Every route takes its caller from here."""

from collections.abc import Collection, Mapping
from typing import Annotated, Final

from fastapi import Depends
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import Request
from typing_extensions import override

from chassis.privacy.rights import Rights, roles_of
from chassis.privacy.tokens import Caller
from chassis.web.described import Described
from chassis.web.problems import Forbidden, Unauthenticated

SCHEME: Final = "token"
CALLER_KEY: Final = "chassis.caller"
"""The key in a request's scope under which the edge puts the verified caller."""


HIGH_KEY: Final = "chassis.high"
"""The key in a request's scope that says whether its route is of high privilege."""


class _TakesCaller(HTTPBearer):
    """Security scheme and dependency in one object, because every dependency costs time in every request."""

    @override
    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Returns the caller. The edge has verified the token before it read any of the body."""
        found = request.scope.get(CALLER_KEY)
        if not isinstance(found, Caller):
            raise Unauthenticated
        return found


DESCRIPTION: Final = "a token of the access context; `crm token` issues one for development"
caller: Final = _TakesCaller(bearerFormat="JWT", scheme_name=SCHEME, description=DESCRIPTION)
"""The dependency that gives a route its `Caller`."""

Asking = Annotated[Caller, Depends(caller)]


class Permitted(_TakesCaller):
    """The guard of a router: the roles that may call each route, by its name.

    It also refuses undescribed parameters.

    No role may call a route that the table does not name, and `create_app` refuses to start with one.
    """

    def __init__(self, routes: Mapping[str, Rights], high: Collection[str] = ()) -> None:
        """`routes`: the rights of each. `high` names those whose events are marked as of high privilege."""
        super().__init__(bearerFormat="JWT", scheme_name=SCHEME, description=DESCRIPTION)
        self.high = frozenset(high)
        self.routes = dict(routes)
        self.roles = roles_of(routes)
        self._described: dict[str, Described] = {}

    @override
    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Returns the caller; raises Forbidden where none of its roles may call the route."""
        asking = await super().__call__(request)
        route = request.scope.get("route")
        if asking.roles.isdisjoint(self.roles.get(getattr(route, "name", ""), ())):
            raise Forbidden
        if self.high:
            request.scope[HIGH_KEY] = getattr(route, "name", "") in self.high
        if isinstance(route, APIRoute):
            described = self._described.get(route.name)
            if described is None:
                described = self._described[route.name] = Described.of(route)
            described.check(request)
        return asking
