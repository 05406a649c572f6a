"""The roles and the stores of all services, in the process of a test."""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from chassis.connections.settings import Settings
from chassis.connections.transient import is_transient
from chassis.process.roles import Role
from chassis.service import services
from chassis.write.store import Recorder

PLACES = {"postgres_url", "keys_url", "kafka_url", "mongo_url", "data", "environment"}
FOLLOWING = frozenset({"relay", "views", "derived", "policies"})
"""The roles that wait for no caller and no feed."""

AGAIN_SECONDS = 0.1
SCHEMAS = {service.context.name: service.context.schema for service in services()}
"""The schema of the store of each context."""

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


def heads(postgres_url: str) -> dict[str, int]:
    """The last position of each context."""
    found = {}
    for context, schema in SCHEMAS.items():
        recorder = Recorder(postgres_url, schema)
        found[context] = recorder.head_position()
        recorder.close()
    return found


async def hosted(make: Callable[[], Role], stopping: asyncio.Event) -> None:
    """Runs a role until `stopping`, as a process does: after a transient error it begins again."""
    while not stopping.is_set():
        try:
            await make().run(stopping)
        except Exception as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(AGAIN_SECONDS)
