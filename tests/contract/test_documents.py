"""The two documents with what others wrote: OpenAPI's and AsyncAPI's validators, and clients driven by the documents alone."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from chassis.connections.settings import Settings
from chassis.messaging.asyncapi import described
from chassis.service import services
from chassis.web import create_app, dependencies
from contracts.examples import examples
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

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


@pytest.fixture
def openapi(tmp_path) -> dict[str, Any]:
    """The document of all routes; nothing is behind them, because none is asked."""
    settings = Settings(environment="development", data=tmp_path)
    nothing: Any = None
    routers = [each.router(nothing, dependencies(_never, each.permissions)) for each in services()]
    return create_app("CRM", routers, settings).openapi()


@pytest.fixture
def asyncapi() -> dict[str, Any]:
    taken = [each for service in services() for each in service.taken]
    return described(taken, brokers="one:9092,two:9092")


@pytest.mark.requirement("D06")
def test_the_openapi_document_is_valid(openapi):
    OpenAPIV31SpecValidator(openapi).validate()
    names = [each["operationId"] for path in openapi["paths"].values() for each in path.values()]
    assert len(set(names)) == len(names)
    assert openapi["servers"]


def test_the_openapi_document_names_what_conditional_requests_answer(openapi):
    operations = [(m, each) for path in openapi["paths"].values() for m, each in path.items()]
    for method, operation in operations:
        answers = operation["responses"]
        assert ("304" in answers) == (method == "get")
        assert ("415" in answers) == ("requestBody" in operation)
        edits = any(each["name"] == "If-Match" for each in operation.get("parameters", ()))
        assert ({"412", "428"} <= answers.keys()) == edits
        assert all({"X-Request-ID", "X-Trace-ID"} <= each["headers"].keys() for each in answers.values())


def test_instants_and_days_have_formats(openapi):
    schemas = openapi["components"]["schemas"]
    for name, field, wanted in [
        ("CustomerShown", "registered_at", "date-time"),
        ("Movement", "booked_on", "date"),
        ("Certificate", "certified_at", "date-time"),
    ]:
        assert schemas[name]["properties"][field]["format"] == wanted


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
        pytest.skip("no node on this machine: the document is not tried with @asyncapi/parser")
    found = subprocess.run(
        [node, "-e", "require.resolve('@asyncapi/parser')"], capture_output=True, timeout=30, check=False
    )
    if found.returncode != 0:
        pytest.skip("@asyncapi/parser is not installed (NODE_PATH): the document is not tried with it")
    said = subprocess.run(
        [node, "-e", PARSE],
        input=json.dumps(asyncapi),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
