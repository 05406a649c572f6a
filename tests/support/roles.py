"""The roles of all services, in the process of a test."""

from collections.abc import Callable, Collection
from typing import TypeVar

from chassis.connections.settings import Settings
from chassis.process.roles import Role
from chassis.service import services

PLACES = {"postgres_url", "keys_url", "kafka_url", "mongo_url", "data", "environment"}
FOLLOWING = frozenset({"relay", "views", "policies"})
"""The roles that wait for no caller and no feed."""

S = TypeVar("S", bound=Settings)


def settings_of(kind: type[S], settings: Settings) -> S:
    """Settings of another kind, over the same servers."""
    return settings if isinstance(settings, kind) else kind(**settings.model_dump(include=PLACES))


def roles_of_all(settings: Settings, wanted: Collection[str] = FOLLOWING) -> dict[str, Callable[[], Role]]:
    """The roles of all services that are called so: `customer-views`."""
    return {
        f"{service.name}-{name}": make
        for service in services()
        for name, make in service.roles(settings_of(service.settings, settings)).items()
        if name in wanted
    }
