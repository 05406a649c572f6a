"""Requests made from an OpenAPI document, good and bad ones, and what the answers must keep to.

No answer is a 5xx, and each has a documented status, media type, headers and body.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as some
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Err, Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_TRANSPORT = frozenset(
    {
        "allow",
        "cache-control",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "date",
        "server",
        "transfer-encoding",
        "vary",
        "x-content-type-options",
    }
)
"""Headers that HTTP itself gives a meaning; a document describes all others."""
ANSWER_SECONDS_MAX = 30
KNOWN_OF_TEN = 7
"""In how many of ten requests an id in the path is one that exists."""


Operation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[Any]


@dataclass(slots=True)
class Fuzzed:
    """Answers by operation and status, and the first wrong one of each operation."""

    requests: int = 0
    seconds: float = 0.0
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        for operation, counted in sorted(self.statuses.items()):
            yield f"{operation:60} " + "  ".join(f"{status}: {n}" for status, n in sorted(counted.items()))
        yield f"{self.requests} requests in {self.seconds:.0f} s, {len(self.failures)} failures"


def fuzz(
    url: str,
    token: str,
    requests_min: int,
    *,
    known: Mapping[str, Sequence[str]],
    seed: int = 1,
    told: Callable[[str], None] = lambda _: None,
) -> Fuzzed:
    """Sends at least so many requests, spread over all operations; half of them break the schema on purpose.

    `known` are values of path parameters that exist, by name; what is changed there is changed at the version it has.
    """
    result, began = Fuzzed(), time.monotonic()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [_operation(found) for found in schema.get_all_operations()]
    each = max(1, -(-requests_min // (2 * len(operations))))
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for round in count(seed):
            for operation in operations:
                for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
                    _fuzz_one(operation, mode, each, session, known, round, result)
                told(f"{result.requests:6} {operation.label}")
            if result.requests >= requests_min:
                break
    result.seconds = time.monotonic() - began
    return result


def _operation(found: Ok[Operation] | Err[InvalidSchema]) -> Operation:
    if isinstance(found, Err):
        raise found.err()
    return found.ok()


def _lasts(operation: Operation) -> bool:
    """Whether its answer is a stream of events, which lasts as long as its parameter `seconds` says."""
    content = operation.definition.raw["responses"].get("200", {}).get("content", {})
    return "text/event-stream" in content


def _fuzz_one(
    operation: Operation,
    mode: GenerationMode,
    examples: int,
    session: requests.Session,
    known: Mapping[str, Sequence[str]],
    seed: int,
    result: Fuzzed,
) -> None:
    statuses = result.statuses.setdefault(operation.label, Counter())

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), draw=some.integers(0, 9))
    def one(case: AnyCase, draw: int) -> None:
        for name, values in known.items():
            if values and draw < KNOWN_OF_TEN and name in (case.path_parameters or {}):
                case.path_parameters[name] = values[draw % len(values)]
                if "If-Match" in (case.headers or {}) and draw % 2:
                    case.headers["If-Match"] = _version(case, session)
        if _lasts(operation):
            case.query = {"seconds": 0, **(case.query or {})}
            if mode is GenerationMode.POSITIVE:
                case.query["seconds"] = 0
        answer = case.call(session=session, timeout=ANSWER_SECONDS_MAX)
        result.requests += 1
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)
        answers = operation.definition.raw["responses"]
        described = answers.get(str(answer.status_code), answers.get("default", {})).get("headers", {})
        undeclared = {name.lower() for name in answer.headers} - {name.lower() for name in described}
        assert undeclared <= OF_TRANSPORT, f"headers that the document lacks: {undeclared - OF_TRANSPORT}"

    def _version(case: AnyCase, session: requests.Session) -> str:
        above = case.as_transport_kwargs()["url"].rpartition("/")[0]
        return session.get(above, timeout=ANSWER_SECONDS_MAX).headers.get("ETag", '"0"')

    try:
        one()
    except hypothesis.errors.Unsatisfiable:
        return  # nothing about this operation can be wrong
    except BaseExceptionGroup as group:
        result.failures += [f"{operation.label} ({mode.value}): {error}" for error in group.exceptions]
    except AssertionError as error:
        result.failures.append(f"{operation.label} ({mode.value}): {error}")
