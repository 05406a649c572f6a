"""Refuses query parameters and media types that a route does not describe."""

import re
from dataclasses import dataclass
from typing import Final

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request

from chassis.web.problems import MediaTypeUnsupported

_JSON: Final = "application/json"
_SORT_OF_JSON: Final = re.compile(r"application/[a-z0-9.-]+\+json")
BYTES: Final = "application/octet-stream"
_ANY_BYTES: Final = frozenset({"", "application/x-www-form-urlencoded"})
"""The media type that clients send by default for bytes."""


@dataclass(frozen=True, slots=True)
class Described:
    """The names of a route's query parameters, and the media types of its body; none where it takes no body."""

    parameters: frozenset[str]
    media_types: frozenset[str]

    @classmethod
    def of(cls, route: APIRoute) -> "Described":
        """The description of a route with its dependencies."""
        if route.body_field is not None:
            return cls(frozenset(_names(route.dependant)), frozenset({_JSON}))
        content = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
        taken = frozenset(content) | (_ANY_BYTES if BYTES in content else frozenset())
        return cls(frozenset(_names(route.dependant)), taken)

    def check(self, request: Request) -> None:
        """Raises RequestValidationError, naming the parameters that nobody reads, or MediaTypeUnsupported."""
        if request.scope["query_string"]:
            unknown = request.query_params.keys() - self.parameters
            if unknown:
                raise RequestValidationError(
                    [
                        {
                            "type": "extra_forbidden",
                            "loc": ("query", name),
                            "msg": "no parameter of this route",
                        }
                        for name in sorted(unknown)
                    ]
                )
        if self.media_types:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in self.media_types and not (
                _JSON in self.media_types and _SORT_OF_JSON.fullmatch(kind)
            ):
                raise MediaTypeUnsupported(
                    f"this route takes {', '.join(sorted(self.media_types - _ANY_BYTES))}"
                )


def _names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_names(inner) for inner in dependant.dependencies))
