"""What holds of every service that is installed, by its declaration."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
import pytest
from chassis.privacy.keys import DataKey, is_token
from chassis.service import Service, services
from chassis.write.catalogue import NewEvent
from chassis.write.events import Event, Metadata
from fastapi.routing import APIRoute

from tools.generate import roles_of, routes_of

SUBJECT = UUID(int=7)
KEY = DataKey(SUBJECT, UUID(int=8), b"k" * 32)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
METADATA = Metadata(
    effective_at=NOW,
    recorded_at=NOW,
    actor="t",
    command_id=SUBJECT,
    correlation_id=SUBJECT,
    causation_id=SUBJECT,
)
SAID = "said-by-a-person"
PLAIN = {str: SAID, bytes: b"b", int: 1, bool: True, UUID: SUBJECT, date: NOW.date(), datetime: NOW}
STORED = [
    pytest.param(service, name, event, id=f"{service.name}-{name}")
    for service in services()
    for name, event in service.context.stored_names.items()
]


def sample(hint: Any) -> Any:  # noqa: PLR0911 (one return for each kind of type)
    """A value of a type: nothing in it is left out or empty."""
    if hint in PLAIN:
        return PLAIN[hint]
    arguments = get_args(hint)
    match get_origin(hint):
        case None if hasattr(hint, "__supertype__"):
            return sample(hint.__supertype__)
        case None if issubclass(hint, msgspec.Struct):
            return hint(**{field.name: sample(field.type) for field in msgspec.structs.fields(hint)})
        case origin if origin is Annotated:
            return sample(arguments[0])
        case origin if origin is Literal:
            return arguments[0]
        case origin if origin in {Union, UnionType}:
            return sample(next(each for each in arguments if each is not NoneType))
        case origin if origin in {tuple, list}:
            return origin([sample(arguments[0])])
        case origin if origin is dict:
            return {sample(arguments[0]): sample(arguments[1])}
    raise TypeError(f"no sample of {hint}")


def tokens(value: Any) -> Iterator[str]:
    """The sealed values within a value."""
    match value:
        case str() if is_token(value):
            yield value
        case dict():
            for each in value.values():
                yield from tokens(each)
        case list():
            for each in value:
                yield from tokens(each)


@pytest.mark.parametrize(("service", "name", "event"), STORED)
def test_a_public_model_names_exactly_the_fields_that_carry_sealed_values(
    service: Service, name: str, event: type[Event]
) -> None:
    [stored] = service.context.catalogue().stored(
        [NewEvent(SUBJECT, 1, sample(event), METADATA)], {SUBJECT: KEY}
    )
    published = service.context.words(stored)
    if published is None:
        return
    sent = json.loads(published.body)
    assert {field for field, value in sent.items() if any(tokens(value))} == published.event.PERSONAL


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_what_a_service_declares_is_what_its_roles_run(service: Service) -> None:
    roles = set(roles_of(service))
    assert ("views" in roles) == bool(service.views)
    assert ("policies" in roles) == bool(service.policies)
    assert service.readers.keys() == service.own_roles.keys()


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_names_of_consumer_groups_are_used_once(service: Service) -> None:
    names = [group.name for group in service.groups]
    assert len(names) == len(set(names))


def test_a_service_describes_the_list_of_each_route_that_takes_a_condition() -> None:
    named = {
        f"{service.name}.{route}" for service in services() for one in service.lists for route in one.routes
    }
    taking = {
        f"{service.name}.{route.name}"
        for service in services()
        for route in routes_of(service)
        if "where" in _taken(route)
    }
    # A file of a list is asked for as its page is: by the rights of the route of the page.
    exports = {f"{service.name}.request_{service.context.name}_export" for service in services()}
    assert taking - exports == named
    assert named


def _taken(route: APIRoute) -> set[str]:
    """The names of the parameters of a query, and of the fields of a body."""
    model = None if route.body_field is None else route.body_field.field_info.annotation
    return {field.alias for field in route.dependant.query_params} | set(getattr(model, "model_fields", ()))
