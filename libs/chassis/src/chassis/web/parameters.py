"""Parameters that a route reads itself. They are described and refused as those that the framework reads.

    _WANTED = OwnParameters(box_id=BoxPath, size=SizeWanted)

    @router.get("/boxes/{box_id}", openapi_extra=_WANTED.described)
    async def get_box(request: Request) -> Response:
        box_id, size = _WANTED.read(request)

For routes that are asked most: a parameter that the framework reads costs every request 15 us
(`benchmarks/panorama_read.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, get_args

from fastapi import params
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request


class _Parameter(NamedTuple):
    name: str
    where: str
    adapter: TypeAdapter[Any]
    described: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, kind: Any) -> "_Parameter":
        declared = next(each for each in get_args(kind) if isinstance(each, params.Path | params.Query))
        where, adapter = declared.in_.value, TypeAdapter[Any](kind)
        described = {
            "name": name,
            "in": where,
            "required": where == "path",
            "schema": {**adapter.json_schema(), "title": name.replace("_", " ").title()},
            "description": declared.description,
        }
        return cls(name, where, adapter, described)


class OwnParameters:
    """The parameters of a route by name, each an `Annotated` type with `Path` or `Query`. Those of the query may be
    left out, and are None then."""

    def __init__(self, **kinds: Any) -> None:
        self._parameters: Final = [_Parameter.of(name, kind) for name, kind in kinds.items()]
        self.described: Final = {"parameters": [one.described for one in self._parameters]}
        """For the route's `openapi_extra`."""

    def read(self, request: Request) -> Iterator[Any]:
        """The values, in order of the declaration; raises RequestValidationError, which names all that are wrong."""
        values: list[Any] = []
        errors: list[Any] = []
        for name, where, adapter, _ in self._parameters:
            if where == "path":
                given = request.path_params[name]
            else:
                given = request.query_params.get(name) if request.scope["query_string"] else None
            if given is None:
                values.append(None)
                continue
            try:
                values.append(adapter.validate_python(given))
            except ValidationError as error:
                errors += [
                    {**each, "loc": (where, name, *each["loc"])} for each in error.errors(include_url=False)
                ]
        if errors:
            raise RequestValidationError(errors)
        return iter(values)
