"""Reads the sagas of a context from its store, for programs that look at it from outside. Blocking."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from chassis.sagas.deciding import ENDED, STARTED, SagaEvent, saga_decider
from chassis.sagas.running import OPEN_READ, SagaShown, shown_of
from chassis.write.catalogue import Catalogue
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder

_DECIDER: Final = saga_decider({})
"""Without the kinds: status and steps do not depend on them."""


class OpenSaga(NamedTuple):
    """A saga that has not ended; `position` is that of its first event."""

    shown: SagaShown
    position: int


def has_sagas(catalogue: Catalogue) -> bool:
    """Whether the context has sagas."""
    return STARTED in catalogue.names


def open_sagas(recorder: Recorder, catalogue: Catalogue) -> Iterator[OpenSaga]:
    """The sagas that have not ended, in the order of their ids; raises StoreUnavailable, and what is wrong with an event."""
    for id, stored in begun_sagas(recorder):
        if (found := open_saga(id, stored, catalogue)) is not None:
            yield found


def begun_sagas(recorder: Recorder) -> Iterator[tuple[UUID, list[StoredEvent]]]:
    """The streams of sagas without an end, in the order of their ids; raises StoreUnavailable."""
    return recorder.open_streams(STARTED, [ENDED], OPEN_READ)


def open_saga(id: UUID, stored: Sequence[StoredEvent], catalogue: Catalogue) -> OpenSaga | None:
    """The saga of a stream; None where it has ended. Raises what is wrong with an event of it."""
    events: list[Any] = [catalogue.open(one, None).event for one in stored]
    shown = shown_of(id, _DECIDER.fold(cast("list[SagaEvent]", events)))
    return None if shown.status == "ended" else OpenSaga(shown, stored[0].position or 0)
