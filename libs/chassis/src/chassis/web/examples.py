"""Examples of requests and responses for the OpenAPI document, composed from one example for each name of a field."""

from collections.abc import Mapping
from typing import Any, Final

_BY_FORMAT: Final[Mapping[str, str]] = {
    "uuid": "8522d6b8-a7a8-5035-9121-0c738edd57b0",
    "date": "2026-01-05",
    "date-time": "2026-01-05T09:30:00+08:00",
}
_CURSOR: Final = "WzEyXQ"
_OF_PAGES: Final[Mapping[str, Any]] = {"after": _CURSOR, "next": _CURSOR}
_TYPES: Final[Mapping[str, type]] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}
_JSON: Final = frozenset({"application/json", "application/problem+json"})
_COMPONENT: Final = "#/components/schemas/"

Json = dict[str, Any]


class NoExample(LookupError):
    """A text has neither a format nor an example for its name."""


class Examples:
    """Composes examples of the schemas of a document.

    `by_name` has an example for each name of a field whose schema does not give one: a name means one thing.
    """

    def __init__(self, schemas: Mapping[str, Json], by_name: Mapping[str, Any]) -> None:
        self._schemas = schemas
        self._by_name = {**_OF_PAGES, **by_name}

    def of(self, schema: Json, name: str = "") -> Any:
        """An example of a schema, which is the one of a field `name`; raises NoExample."""
        if "$ref" in schema:
            return self.of(self._schemas[schema["$ref"].removeprefix(_COMPONENT)], name)
        if "examples" in schema:
            return schema["examples"][0]
        if "enum" in schema:
            named = self._by_name.get(name)
            return named if named in schema["enum"] else schema["enum"][0]
        alternatives = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        if alternatives:
            return self.of(alternatives[0], name)
        return self._of_type(schema, name)

    def _of_type(self, schema: Json, name: str) -> Any:
        kind = schema.get("type", "object")
        named = self._by_name.get(name)
        if named is not None and type(named) is _TYPES.get(kind):
            return named
        if kind == "object":
            return {each: self.of(field, each) for each, field in schema.get("properties", {}).items()}
        if kind == "array":
            return [self.of(schema["items"], name)]
        plain = {"integer": max(1, schema.get("minimum", 1)), "boolean": True, "null": None}
        if kind in plain:
            return plain[kind]
        if schema.get("format") in _BY_FORMAT:
            return _BY_FORMAT[schema["format"]]
        raise NoExample(name)


def add_examples(document: Json, by_name: Mapping[str, Any]) -> None:
    """Adds an example to each parameter and to each JSON body of requests and responses.

    One that cannot be composed is left out.
    """
    examples = Examples(document["components"]["schemas"], by_name)
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                _add(parameter, examples, parameter["name"])
            for body in (operation.get("requestBody", {}), *operation["responses"].values()):
                for media_type, content in body.get("content", {}).items():
                    if media_type in _JSON:
                        _add(content, examples)


def _add(described: Json, examples: Examples, name: str = "") -> None:
    try:
        described.setdefault("example", examples.of(described["schema"], name))
    except NoExample:
        return
