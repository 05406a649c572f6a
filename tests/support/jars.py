"""A small domain for the tests of the mechanism: a jar that is opened, filled, emptied, and may carry a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, assert_never
from uuid import UUID, uuid5

import msgspec
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, Refusal
from chassis.write.events import Event, Metadata, personal

NAMESPACE = UUID(int=7)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class JarOpened(Event, frozen=True):
    owner: Annotated[str, personal("C2")]
    note: Annotated[str | None, personal("C1")]
    unit: str


class JarFilled(Event, frozen=True):
    amount: int
    ticket: UUID | None = None


class JarEmptied(Event, frozen=True):
    pass


JarEvent = JarOpened | JarFilled | JarEmptied


class Jar(msgspec.Struct, frozen=True):
    opened: bool = False
    amount: int = 0
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class OpenJar:
    owner: str
    note: str | None = None
    unit: str = "bean"


@dataclass(frozen=True, slots=True)
class FillJar:
    amount: int
    ticket: UUID | None = None


@dataclass(frozen=True, slots=True)
class EmptyJar:
    pass


JarCommand = OpenJar | FillJar | EmptyJar


class JarNotOpened(Refusal):
    code = "jar-not-opened"


class JarAlreadyOpened(Refusal):
    code = "jar-already-opened"


def decide(command: JarCommand, jar: Jar) -> Sequence[JarEvent]:
    match command:
        case OpenJar(owner, note, unit):
            if jar.opened:
                raise JarAlreadyOpened
            return [JarOpened(owner, note, unit)]
        case FillJar(amount, ticket):
            if not jar.opened:
                raise JarNotOpened
            return [JarFilled(amount, ticket)]
        case EmptyJar():
            if not jar.opened:
                raise JarNotOpened
            return [JarEmptied()] if jar.amount else []
        case _:
            assert_never(command)


def evolve(jar: Jar, event: JarEvent) -> Jar:
    match event:
        case JarOpened(owner):
            return Jar(True, 0, owner)
        case JarFilled(amount):
            return msgspec.structs.replace(jar, amount=jar.amount + amount)
        case JarEmptied():
            return msgspec.structs.replace(jar, amount=0)
        case _:
            assert_never(event)


def identify(event: JarEvent) -> UUID | None:
    return event.ticket if isinstance(event, JarFilled) else None


JAR: Decider[JarCommand, Jar, JarEvent] = Decider(Jar(), decide, evolve, JarEvent, identify, state_type=Jar)


def lift_opened(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no unit and called the owner by another name."""
    data["owner"] = data.pop("holder_name")
    return data | {"unit": "bean"}


def catalogue(store: str = "jars") -> Catalogue:
    return Catalogue(
        store=store,
        entries={"jar-opened": JarOpened, "jar-filled": JarFilled, "jar-emptied": JarEmptied},
        upcasts={("jar-opened", 1): lift_opened},
    )


def jar(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


def context(key: str, *, idempotency_key: str | None = None) -> CommandContext:
    return CommandContext(
        actor="tester",
        now=NOW,
        command_id=uuid5(NAMESPACE, f"command {key}"),
        idempotency_key=idempotency_key,
    )


def metadata(key: str = "k") -> Metadata:
    return context(key).metadata()
