"""The two documents with what others wrote: OpenAPI's and AsyncAPI's validators, and clients driven by the documents alone."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from chassis.conditions.language import CLAUSE_TYPES
from chassis.connections.settings import Settings
from chassis.messaging.asyncapi import described
from chassis.service import services
from chassis.web import create_app, dependencies
from contracts.examples import examples
from customer.panorama.schema import MONTH_PATTERN, TransactionTypeKnown
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import ValidationError
from sync_ingest.domain.records import Kind

PARSE = """
const {Parser} = require('@asyncapi/parser');
new Parser().parse(require('fs').readFileSync(0, 'utf8')).then(({document, diagnostics}) => {
  const errors = diagnostics.filter(each => each.severity === 0).map(each => each.path.join('/') + each.message);
  console.log(errors.join('\\n'));
  process.exit(document && !errors.length ? 0 : 1);
});
"""


async def _never(context: str, position: int, seconds_max: float) -> bool:
    return True


@pytest.fixture(scope="module")
def openapi(tmp_path_factory) -> dict[str, Any]:
    """The document of all routes; nothing is behind them, because none is asked."""
    settings = Settings(environment="development", data=tmp_path_factory.mktemp("documents"))
    nothing: Any = None
    routers = [each.router(nothing, dependencies(_never, each.rights)) for each in services()]
    return create_app("CRM", routers, settings).openapi()


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    taken = [each for service in services() for each in service.taken]
    return described(taken, brokers="one:9092,two:9092")


@pytest.mark.requirement("D06")
def test_the_openapi_document_is_valid(openapi):
    OpenAPIV31SpecValidator(openapi).validate()
    assert [each["url"] for each in openapi["servers"]] == ["/"]


def test_an_operation_is_named_once_and_by_its_route(openapi):
    names = [operation["operationId"] for _, _, operation in operations(openapi)]
    assert len(set(names)) == len(names) > 25
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


def test_every_operation_has_a_summary_and_one_tag_that_is_described(openapi):
    described_tags = {each["name"] for each in openapi["tags"] if each["description"]}
    assert described_tags == {each.context.name for each in services()}
    for _, _, operation in operations(openapi):
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= described_tags
        assert operation["description"]


def test_every_response_declares_its_headers_and_every_edit_428(openapi):
    for _, method, operation in operations(openapi):
        answers = operation["responses"]
        lasts = "text/event-stream" in answers.get("200", {}).get("content", {})
        assert ("304" in answers) == (method == "get" and not lasts)
        assert ("415" in answers) == ("requestBody" in operation)
        assert "415" not in answers or "Accept-Encoding" in answers["415"]["headers"]
        edits = any(each["name"] == "If-Match" for each in operation.get("parameters", ()))
        assert ({"412", "428"} <= answers.keys()) == edits
        assert all({"X-Request-ID", "X-Trace-ID"} <= each["headers"].keys() for each in answers.values())
        assert "WWW-Authenticate" in answers["401"]["headers"]
        assert "Retry-After" in answers["503"]["headers"]
        taken = [each["headers"] for status, each in answers.items() if status.startswith("2")]
        assert taken
        if lasts:
            assert not any("ETag" in each for each in taken)
        elif method == "get":
            assert all("ETag" in each for each in taken)
        elif operation["operationId"] != "acknowledge":
            assert all("Consistency-Token" in each for each in taken)


def test_every_instant_day_month_and_id_has_its_format(openapi):
    without = [
        f"{schema}.{name}"
        for schema, name, field in fields(openapi)
        for wanted in [_format_of(schema, name)]
        if wanted is not None
        if any(kind.get("format", kind.get("pattern")) != wanted for kind in texts(field))
    ]
    assert without == []


def _format_of(schema: str, name: str) -> str | None:
    """The format that a text must have by the name of its field."""
    if (schema, name) == ("CustomerShown", "born_on") or name in {"core_transaction_id", "trace_id"}:
        return None  # masked, or another system's
    if name.endswith("_at") or name == "at":
        return "date-time"
    if name.endswith("_on") or name in {"as_of", "booked_through", "linked_from", "until"}:
        return "date"
    if name.endswith("month"):
        return MONTH_PATTERN
    return "uuid" if name == "id" or name.endswith("_id") else None


def test_every_field_of_few_words_lists_them(openapi):
    few = {"product", "kind", "role", "section", "status", "origin", "certificate", "source_status", "field"}
    # What a bank calls its cards and the states of its loans, and the validator's own names of errors.
    open_words = {("HeldCard", "kind"), ("HeldLoan", "status"), ("InvalidPart", "kind")}
    open_words |= {(clause.__name__, "field") for clause in CLAUSE_TYPES}  # each list declares its own
    without = [
        f"{schema}.{name}"
        for schema, name, field in fields(openapi)
        if name.endswith(tuple(few)) and (schema, name) not in open_words
        if any("enum" not in kind and kind.get("format") != "uuid" for kind in texts(field))
    ]
    assert without == []


def test_the_transaction_types_are_those_of_the_canonical_schema():
    assert get_args(TransactionTypeKnown) == get_args(Kind)


def test_each_alternative_of_a_union_is_named(openapi):
    """A generator makes a class of each; values of a free record are texts, numbers and truth values."""
    unnamed = [
        f"{schema}.{name}"
        for schema, name, field in fields(openapi)
        for alternatives in [[one for one in field.get("anyOf", ()) if one.get("type") != "null"]]
        if len(alternatives) > 1
        if not all("$ref" in one or "title" in one for one in alternatives)
    ]
    assert unnamed == []


def test_every_parameter_and_every_body_has_an_example_that_its_schema_takes(openapi):
    components = {"components": openapi["components"]}
    checked = 0
    for path, method, operation in operations(openapi):
        exemplified = [(each["name"], each) for each in operation.get("parameters", ())]
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        exemplified += [
            (media_type, content)
            for body in bodies
            for media_type, content in body.get("content", {}).items()
            if media_type in {"application/json", "application/problem+json"}
        ]
        for name, each in exemplified:
            assert "example" in each, f"{method} {path}: {name}"
            Draft202012Validator({**each["schema"], **components}).validate(each["example"])
            checked += 1
    assert checked > 200


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of all that a document describes."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def fields(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Schema, name and schema of every field of a document's schemas."""
    for name, schema in document["components"]["schemas"].items():
        for field, of_field in schema.get("properties", {}).items():
            yield name, field, of_field


def texts(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a field that are texts."""
    return [one for one in field.get("anyOf", [field]) if one.get("type") == "string"]


@pytest.mark.requirement("D06")
def test_the_asyncapi_document_is_valid(asyncapi):
    """By FastStream's model of AsyncAPI 3.0.0, which knows every field but one of the binding for Kafka."""
    read = ApplicationSchema.model_validate(asyncapi)
    known = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert {path[-1] for path in missing(asyncapi, known)} == {"topicConfiguration"}
    assert list(missing(asyncapi | {"chanels": {}}, known))
    for broken in ({"channels": []}, {"operations": {"read": {"action": "push"}}}, {"info": {}}):
        with pytest.raises(ValidationError):
            ApplicationSchema.model_validate(asyncapi | broken)


def missing(document: Any, known: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of fields of a document that another one does not have."""
    match document:
        case dict():
            for name, value in document.items():
                if name in known:
                    yield from missing(value, known[name], (*path, name))
                else:
                    yield (*path, name)
        case list():
            for value, other in zip(document, known, strict=True):
                yield from missing(value, other, path)


def test_every_message_has_headers_and_a_payload_that_is_named(asyncapi):
    components = asyncapi["components"]
    for name, message in components["messages"].items():
        assert message["headers"]["properties"], name
        of_payload = message["payload"]["$ref"].removeprefix("#/components/schemas/")
        assert re.fullmatch(r"([A-Z][A-Za-z]*)(V[0-9]+)?", of_payload), name
        assert components["schemas"][of_payload]
    assert len({message["payload"]["$ref"] for message in components["messages"].values()}) == len(
        components["messages"]
    )


def test_a_reader_driven_by_the_asyncapi_document_reads_every_example(asyncapi):
    """A generic client: it knows the document and JSON Schema, and nothing of us."""
    checked = 0
    for message in asyncapi["components"]["messages"].values():
        validator = Draft202012Validator({**message["payload"], "components": asyncapi["components"]})
        for example in message.get("examples", ()):
            validator.validate(example["payload"])
            checked += 1
        assert list(validator.iter_errors("no body of ours"))
    assert checked == sum(map(len, examples().values())) + 1
    assert {each["host"] for each in asyncapi["servers"].values()} == {"one:9092", "two:9092"}


def test_the_asyncapi_parser_reads_the_document(asyncapi):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: @asyncapi/parser is not tried as well")
    found = subprocess.run(
        [node, "-e", "require.resolve('@asyncapi/parser')"], capture_output=True, timeout=30, check=False
    )
    if found.returncode != 0:
        pytest.skip("@asyncapi/parser is not installed (NODE_PATH): it is not tried as well")
    said = subprocess.run(
        [node, "-e", PARSE],
        input=json.dumps(asyncapi),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
