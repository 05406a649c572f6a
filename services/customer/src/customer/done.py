"""What a command answers over HTTP: the version after it, and the position of its last event."""

from typing import Any

from chassis.web import consistency_token, entity_tag
from chassis.write.deciding import Outcome
from fastapi import Response

from customer.catalogue import CONTEXT
from customer.shapes import Done


def add_outcome(response: Response, outcome: Outcome[Any]) -> None:
    """Adds the headers of an outcome: the version (`ETag`) and the position (`Consistency-Token`)."""
    response.headers["ETag"] = entity_tag(outcome.version)
    response.headers["Consistency-Token"] = consistency_token(CONTEXT, outcome.position)


def done(response: Response, outcome: Outcome[Any]) -> Done:
    """The answer of a command to a customer, with its headers."""
    add_outcome(response, outcome)
    return Done(customer_id=outcome.stream_id, version=outcome.version, position=outcome.position)
