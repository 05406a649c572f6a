"""What a route takes, and the refusal of query parameters and media types that it does not take."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_origin

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute

from chassis.web.problems import MediaTypeUnsupported

_JSON: Final = "application/json"
_SORT_OF_JSON: Final = re.compile(r"application/[a-z0-9.-]+\+json")
BYTES: Final = "application/octet-stream"
_ANY_BYTES: Final = frozenset({"", "application/x-www-form-urlencoded"})
"""The media type that clients send by default for bytes."""


@dataclass(frozen=True, slots=True)
class Described:
    """The names of a route's query parameters, and the media types of its body; none where it takes no body.

    `lists` are the parameters that may be given more than once.
    """

    parameters: frozenset[str]
    lists: frozenset[str]
    media_types: frozenset[str]

    @classmethod
    def of(cls, route: APIRoute) -> "Described":
        """The description of a route with its dependencies."""
        own = route.openapi_extra or {}
        names = _names(route.dependant) | {
            one["name"] for one in own.get("parameters", ()) if one["in"] == "query"
        }
        lists = frozenset(_lists(route.dependant))
        if route.body_field is not None:
            return cls(frozenset(names), lists, frozenset({_JSON}))
        content = own.get("requestBody", {}).get("content", {})
        taken = frozenset(content) | (_ANY_BYTES if BYTES in content else frozenset())
        return cls(frozenset(names), lists, taken)

    def check(self, request: Request) -> None:
        """Raises RequestValidationError, naming the parameters that nobody reads or that come more than once, or
        MediaTypeUnsupported."""
        if request.scope["query_string"]:
            stated = request.query_params
            wrong = dict.fromkeys(sorted(stated.keys() - self.parameters), "no parameter of this route")
            if len(stated.multi_items()) > len(stated):
                # Of two values of what is no list one would be taken silently.
                times = Counter(name for name, _ in stated.multi_items() if name not in self.lists)
                wrong.update(
                    dict.fromkeys((name for name in times if times[name] > 1), "given more than once")
                )
            if wrong:
                raise RequestValidationError(
                    [
                        {"type": "extra_forbidden", "loc": ("query", name), "msg": message}
                        for name, message in wrong.items()
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


def routes_of(router: APIRouter) -> Iterator[BaseRoute]:
    """All routes of a router, those of the routers in it included."""
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            yield from routes_of(inner)
        else:
            yield route


def dependants_of(dependant: Dependant) -> Iterator[Dependant]:
    """A route's description in the framework, and those of everything that it depends on."""
    yield dependant
    for inner in dependant.dependencies:
        yield from dependants_of(inner)


def parameters_of(dependant: Dependant) -> list[Mapping[str, Any]]:
    """The query parameters that dependencies read themselves, as OpenAPI describes them (`parameter`)."""
    found = (getattr(each.call, "parameter", None) for each in dependants_of(dependant))
    return [parameter for parameter in found if parameter is not None]


def _names(dependant: Dependant) -> set[str]:
    read = {field.alias for each in dependants_of(dependant) for field in each.query_params}
    return read | {parameter["name"] for parameter in parameters_of(dependant)}


def _lists(dependant: Dependant) -> Iterator[str]:
    for each in dependants_of(dependant):
        for field in each.query_params:
            if get_origin(field.field_info.annotation) is list:
                yield field.alias
