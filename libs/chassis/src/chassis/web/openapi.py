"""The OpenAPI document, which describes every response."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from fastapi import APIRouter, FastAPI, params
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from chassis.web.described import parameters_of, routes_of
from chassis.web.examples import add_examples
from chassis.web.problems import (
    MEDIA_TYPE,
    ContentCodingUnsupported,
    MediaTypeUnsupported,
    PreconditionMissing,
    Problem,
)

_REFERENCE: Final = {"schema": {"$ref": "#/components/schemas/Problem"}}
_NO_NULL: Final = r"^[^\u0000]*$"
_SAID: Final = frozenset(("pattern", "format", "enum", "const", "contentMediaType"))
STREAM: Final = "text/event-stream"
"""The media type of an answer that lasts: it has no ETag."""
_TEMPLATE: Final = "#/components/schemas/{model}"
_TEXT: Final = {"schema": {"type": "string"}}
_ON_EVERY_ANSWER: Final = {
    "X-Request-ID": _TEXT | {"description": "the request's own, or one that it was given"},
    "X-Trace-ID": _TEXT | {"description": "to be named when asking for help"},
}
_EVERYWHERE: Final = {
    "400": "The request cannot be read, or a command lacks its Idempotency-Key",
    "401": "No valid token",
    "403": "The caller has no role that may call the route",
    "422": "The request is not what the route takes",
    "500": "An unexpected error in this process",
    "503": "A server behind this one does not answer, or the view is behind",
    "default": "A problem; its `code` says which",
}


def located(status: int, where: str) -> dict[int | str, dict[str, Any]]:
    """The part of `responses` for an answer whose `Location` is `where`."""
    return {status: {"headers": {"Location": _TEXT | {"description": where}}}}


def tagged(of: str, *, at: str | None = None) -> dict[int | str, dict[str, Any]]:
    """The part of `responses` for an answer whose `ETag` is the version of `of`. What was made has a `Location` too, which is `at`."""
    tag = {"ETag": _TEXT | {"description": f"the version of the {of}"}}
    if at is None:
        return {200: {"headers": tag}}
    [made] = located(201, at).values()
    return {201: {"headers": tag | made["headers"]}}


class DescribedRouter(APIRouter):
    """Routes under one tag, with what the document says of them: the tag's description, an example for each name of
    a field (see `chassis.web.examples`), and the components of `schemas` beside those of its bodies."""

    def __init__(
        self,
        tag: str,
        description: str,
        examples: Mapping[str, Any],
        *,
        prefix: str = "",
        dependencies: Sequence[params.Depends] = (),
        schemas: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        super().__init__(prefix=prefix, tags=[tag], dependencies=list(dependencies))
        self.tag = {"name": tag, "description": description}
        self.examples = examples
        self.schemas = schemas


def describe(app: FastAPI, routers: Sequence[APIRouter] = ()) -> None:
    """Makes the document of `app` name its problems, on every operation, and describe and exemplify `routers`."""
    described = [router for router in routers if isinstance(router, DescribedRouter)]
    by_name = {name: example for router in described for name, example in router.examples.items()}

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version="3.1.0",
                routes=app.routes,
                tags=[router.tag for router in described],
            )
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            for one in described:
                schemas.update(deepcopy(dict(one.schemas())))
            app.openapi_schema = _with_problems(found)
            for router in routers:
                _with_parameters(app.openapi_schema, router)
            add_examples(app.openapi_schema, by_name)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _with_parameters(document: dict[str, Any], router: APIRouter) -> None:
    """Adds the parameters that dependencies read themselves."""
    for route in routes_of(router):
        if isinstance(route, APIRoute) and (parameters := parameters_of(route.dependant)):
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                operation.setdefault("parameters", []).extend(deepcopy(parameters))


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    own = Problem.model_json_schema(ref_template=_TEMPLATE, mode="serialization")
    schemas.update(own.pop("$defs", {}))
    schemas["Problem"] = own
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in document.get("paths", {}).values():
        for method, operation in path.items():
            _with_answers(operation, method)
            for parameter in operation.get("parameters", ()):
                _without_null(parameter)
    _without_null(schemas)
    document.setdefault("servers", [{"url": "/", "description": "where this document is served"}])
    return document


def _without_null(schema: Any) -> None:
    """States for every free text the rule that the edge enforces: no null character."""
    if isinstance(schema, list):
        for each in schema:
            _without_null(each)
        return
    if not isinstance(schema, dict):
        return
    for each in schema.values():
        _without_null(each)
    if schema.get("type") == "string" and not _SAID.intersection(schema):
        schema["pattern"] = _NO_NULL
    if schema.get("additionalProperties") is True:
        schema.setdefault("propertyNames", {"pattern": _NO_NULL})


def _with_answers(operation: dict[str, Any], method: str) -> None:
    answers: dict[str, Any] = operation.setdefault("responses", {})
    streams = STREAM in answers.get("200", {}).get("content", {})
    sent = {each["name"]: each for each in operation.get("parameters", ()) if each["in"] == "header"}
    if "requestBody" in operation:
        unsupported = f"{MediaTypeUnsupported.title}; {ContentCodingUnsupported.title}"
        refused = answers.setdefault("415", {"description": unsupported})
        refused["headers"] = {"Accept-Encoding": _TEXT, **refused.get("headers", {})}
    if "If-Match" in sent:
        answers.setdefault("412", {"description": "`If-Match` names another version than the stream's"})
        answers.setdefault("428", {"description": PreconditionMissing.title})
    for status, answer in answers.items():
        if status.startswith("2"):
            headers = answer.setdefault("headers", {})
            if status == "200" and not streams:
                headers.setdefault("ETag", _TEXT)
            if "Idempotency-Key" in sent:
                headers.setdefault("Consistency-Token", _TEXT)
    if method == "get" and not streams:
        answers["304"] = {
            "description": "The caller has it already: `If-None-Match` names its ETag",
            "headers": {"ETag": _TEXT},
        }
    for status, text in _EVERYWHERE.items():
        known = answers.get(status, {})
        description = known.get("description") if _is_ours(known) else None
        answers[status] = {"description": description or text, "content": {MEDIA_TYPE: _REFERENCE}}
    for status, answer in answers.items():
        if status.isdigit() and int(status) >= 400:
            answer["content"] = {MEDIA_TYPE: _of_its_own(answer) or _REFERENCE}
    answers["401"]["headers"] = {"WWW-Authenticate": _TEXT}
    answers["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    for answer in answers.values():
        answer["headers"] = {**_ON_EVERY_ANSWER, **answer.get("headers", {})}


def _is_ours(answer: dict[str, Any]) -> bool:
    content = answer.get("content", {}).get("application/json", {})
    return bool(content.get("schema", {}).get("$ref", "").endswith("/Problem"))


def _of_its_own(answer: dict[str, Any]) -> dict[str, Any] | None:
    """What a route says itself of the content of a refusal: a problem that has more; None where it says nothing."""
    content: dict[str, Any] = answer.get("content", {}).get("application/json", {})
    named = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return content if named not in {"", "HTTPValidationError"} else None
