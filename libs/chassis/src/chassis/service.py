"""The declaration of a service.

The programs that run its processes and those that inspect it read the same value. `make generate` makes the
manifests, the list of consumer groups and the boundaries of the packages from it.

Each service names its declaration in its `pyproject.toml`, in the entry-point group `crm.services`.
`services()` returns the installed ones, so that no program keeps a list of them.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from contracts.topics import EVENTS, ConsumerGroup, Topic
from fastapi import APIRouter

from chassis.connections.migrating import Tables
from chassis.connections.settings import Settings, from_environment
from chassis.lists.describing import AskedList
from chassis.messaging.asyncapi import Taken
from chassis.notices.deciding import NOTICES
from chassis.privacy.rights import Rights, roles_of
from chassis.process.roles import Role
from chassis.process.roles import main as run_process
from chassis.reactions.policies import DeclaredPolicy
from chassis.read.deriving import DerivedView
from chassis.read.generations import Kept
from chassis.read.projecting import View
from chassis.relay import Words
from chassis.timers import TimerRule
from chassis.web import Dependencies, Routes
from chassis.web.consistency import Heads
from chassis.write.catalogue import Catalogue
from chassis.write.events import Event, StoredEvent

GROUP: Final = "crm.services"

Need = Literal["postgres", "keys", "mongo", "kafka", "files", "tokens", "peers", "providers", "receipts"]
"""What a role may be given: a server, the files of the key-encryption key or of the token keys, the APIs of other
contexts with the token of the service, the providers of notices, or the secrets that sign their receipts."""

NEEDS: Final[dict[str, frozenset[Need]]] = {
    "api": frozenset({"postgres", "keys", "tokens"}),
    "relay": frozenset({"postgres", "kafka"}),
    "views": frozenset({"mongo", "kafka"}),
    "derived": frozenset({"mongo", "kafka"}),
    "policies": frozenset({"postgres", "keys", "mongo", "kafka"}),
    "timers": frozenset({"postgres", "keys"}),
    "sagas": frozenset({"postgres", "keys", "peers"}),
    "notices": frozenset({"postgres", "keys", "providers", "receipts"}),
}
"""The needs of the roles that the chassis has; the API and the timers of a service with views read MongoDB too, and
the API of one with files the storage of files."""

S = TypeVar("S", bound=Settings)


Hide = Callable[[int, dict[str, Any]], dict[str, Any]]
"""From the version and the data of a stored event to the data that a reader is shown."""


class Erasure(NamedTuple):
    """What an event has erased: these subjects, all of them or their values of one purpose."""

    subjects: tuple[UUID, ...]
    purpose: str | None


Erases = Callable[[StoredEvent], Erasure | None]
"""From a stored event to what it has erased, whose keys are gone; None for every other event."""


@dataclass(frozen=True, slots=True)
class Context:
    """A context: its event store, the stored names of its events, what makes them public, and their topic.

    `hides`: by stored name, what is not shown of events that were stored before it was known to be personal.
    """

    name: str
    schema: str
    words: Words
    catalogue: Callable[[], Catalogue]
    hides: Mapping[str, Hide] = field(default_factory=dict)
    erases: Erases = lambda _: None

    @property
    def topic(self) -> Topic:
        """The topic of its events."""
        return EVENTS[self.name]

    @property
    def stored_names(self) -> dict[str, type[Event]]:
        """The current class of each stored name."""
        catalogue = self.catalogue()
        return {name: catalogue.class_of(name) for name in catalogue.names}


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """The parts of a service.

    `name`: of its processes and of its consumer groups; with `_` for `-` it is the name of its package.
    `router(application, dependencies)`: its HTTP routes; `rights`: the roles that may call each, and over which rows;
    `high_privilege`: those whose events are marked as such; `scope`: in words, which rows a caller sees.
    `routes(settings, heads)`: the routes with their connections; `heads` give the last positions of the stores
    of other contexts, for requests that wait for a view.
    `views`, `policies`: those that its roles of these names run. `readers`: the topics that each role of its own
    reads. `own_roles`: the needs of the roles that the chassis does not have. `taken`: topics of
    other systems' records that it takes, with their schemas. `timers`: when its timers are due, which `verify` folds anew.
    `files`: its API keeps files. `lists`: those of which its routes take conditions.
    """

    name: str
    settings: type[S]
    tables: Sequence[Tables]
    context: Context
    roles: Callable[[S], Mapping[str, Callable[[], Role]]]
    routes: Callable[[S, Heads], AbstractAsyncContextManager[Routes]]
    router: Callable[[Any, Dependencies], APIRouter]
    rights: Mapping[str, Rights]
    views: tuple[View, ...] = ()
    policies: tuple[DeclaredPolicy[Any], ...] = ()
    high_privilege: frozenset[str] = frozenset()
    scope: str = ""
    derived: tuple[DerivedView, ...] = ()
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_roles: Mapping[str, frozenset[Need]] = field(default_factory=dict)
    taken: tuple[Taken, ...] = ()
    timers: Callable[[S], Sequence[TimerRule]] = lambda _: ()
    files: bool = False
    lists: tuple[AskedList, ...] = ()

    @property
    def package(self) -> str:
        """The Python package of the service."""
        return self.name.replace("-", "_")

    @property
    def permissions(self) -> Mapping[str, frozenset[str]]:
        """The roles that may call each route."""
        return roles_of(self.rights)

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Its views and derived views."""
        return (*self.views, *self.derived)

    @property
    def groups(self) -> tuple[ConsumerGroup, ...]:
        """Its consumer groups. That of a view has the view's first number, under which its dead letters are kept."""
        views = [ConsumerGroup(f"{self.name}.{view.name}.v1", view.sources) for view in self.kept]
        readers = {**{policy.name: policy.sources for policy in self.policies}, **self.readers}
        return (*views, *(ConsumerGroup(f"{self.name}.{name}", of) for name, of in readers.items()))

    def needs(self, role: str) -> frozenset[Need]:
        """The servers and files of a role; it is given no others."""
        if role in self.own_roles:
            return self.own_roles[role]
        if role == "derived" and any(view.digests for view in self.derived):
            return NEEDS[role] | {"keys"}
        if role == "timers" and self.views:
            return NEEDS[role] | {"mongo"}
        if role == "api":
            more: dict[Need, bool] = {
                "mongo": bool(self.views),
                "files": self.files,
                "receipts": NOTICES.keys() <= self.context.stored_names.keys(),
            }
            return NEEDS[role] | {need for need, needed in more.items() if needed}
        return NEEDS[role]

    def main(self) -> int:
        """`python -m <service> <role>...`; the exit code."""
        settings = from_environment(self.settings)
        roles = self.roles(settings)
        without_postgres = {role for role in roles if "postgres" not in self.needs(role)}
        return run_process(self.name, roles, settings, self.tables, without_postgres=without_postgres)

    def run(self) -> None:
        """Runs the process and ends it with its exit code."""
        sys.exit(self.main())


@cache
def services() -> tuple[Service[Any], ...]:
    """Every service that is installed, by name."""
    found: list[Service[Any]] = [each.load() for each in entry_points(group=GROUP)]
    return tuple(sorted(found, key=lambda service: service.name))
