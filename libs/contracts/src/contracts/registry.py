"""Every public event by type and version."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, Final, Protocol

from contracts.topics import CONTEXTS

Lift = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the data of a version that of the next."""


class PublicEvent(Protocol):
    """What the models of public events have in common, whatever their context."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int]
    PERSONAL: ClassVar[frozenset[str]]

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON schema of the body."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: bytes | str) -> "PublicEvent":
        """Reads a body; raises ValueError."""
        ...


class TypeUnknown(LookupError):
    """No public event has this type and version."""

    own_words = True


class VersionNewer(TypeUnknown):
    """A public event of this type has an older version: the reader is older than the writer."""


_MODULES: Final = {context: import_module(f"contracts.{context}") for context in CONTEXTS}
BY_CONTEXT: Final[dict[str, tuple[type[PublicEvent], ...]]] = {
    context: module.EVENTS for context, module in _MODULES.items()
}

_NAME: Final = re.compile(r"[a-z]+(\.[a-z-]+)+", re.ASCII)
_MODELS: Final = {
    (event.TYPE, event.VERSION): (context, event)
    for context, events in BY_CONTEXT.items()
    for event in events
}
_LIFTS: Final[dict[tuple[str, int], Lift]] = {
    place: lift for module in _MODULES.values() for place, lift in module.LIFTS.items()
}
_NEWEST: Final = dict(sorted(_MODELS))


def lifts_of(name: str, version: int) -> tuple[Lift, ...]:
    """What makes the newest version of a body of this version, in order; empty for the newest."""
    return tuple(_LIFTS[name, step] for step in range(version, _NEWEST[name]))


def model_of(name: str, version: int) -> type[PublicEvent]:
    """The model of the body of an event of type `name`; raises TypeUnknown, VersionNewer among them."""
    return _entry(name, version)[1]


def context_of(name: str, version: int = 1) -> str:
    """The context that publishes the event; raises TypeUnknown."""
    return _entry(name, version)[0]


def _entry(name: str, version: int) -> tuple[str, type[PublicEvent]]:
    try:
        return _MODELS[name, version]
    except KeyError:
        told = name if _NAME.fullmatch(name) else "of that name"  # others may have written anything there
        if version > _NEWEST.get(name, version):
            raise VersionNewer(f"{told} version {version} is newer than this code") from None
        raise TypeUnknown(f"no public event {told} version {version}") from None
