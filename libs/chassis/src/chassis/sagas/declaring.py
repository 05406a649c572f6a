"""What a saga is: pure functions from what came to the commands that are given next.

A saga goes over several steps, in this context and in others. It holds no personal value: what it is given, and what
it gives, lies in clear in the event store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID, uuid5

import msgspec

S = TypeVar("S")

STEPS_MAX: Final = 200
"""Steps of one saga."""
REQUEST_BYTES_MAX: Final = 16 * 1024


class Request(msgspec.Struct, frozen=True):
    """A command as a peer takes it: the path of its route, and the body as JSON."""

    path: str
    body: str

    @classmethod
    def of(cls, path: str, **body: Any) -> "Request":
        """From the fields of the body; raises ValueError where it is larger than `REQUEST_BYTES_MAX`."""
        content = msgspec.json.encode(body, order="deterministic")
        if len(content) > REQUEST_BYTES_MAX:
            raise ValueError(f"a request of a saga has more than {REQUEST_BYTES_MAX} bytes")
        return cls(path, content.decode())


# what comes


class Started(msgspec.Struct, frozen=True):
    """The saga begins with what its starter gave it."""

    data: Mapping[str, Any]


class Answered(msgspec.Struct, frozen=True):
    """The command of a step was carried out."""

    step: str


class Refused(msgspec.Struct, frozen=True):
    """The command of a step was refused for good, with the code of the refusal."""

    step: str
    code: str


class Heard(msgspec.Struct, frozen=True):
    """A published event that concerns the saga."""

    type: str
    data: Mapping[str, Any]


class TimedOut(msgspec.Struct, frozen=True):
    """The time of the saga is over and it has not ended."""


Came = Started | Answered | Refused | Heard | TimedOut


# what follows


class Give(msgspec.Struct, frozen=True):
    """Gives a command to the peer `to`. `step` names it within the saga; `undo` takes it back."""

    step: str
    to: str
    request: Request
    undo: Request | None = None


class Compensate(msgspec.Struct, frozen=True):
    """Takes back what was done, the last step first; then the saga ends as `compensated`."""

    because: str


class End(msgspec.Struct, frozen=True):
    """The saga is over. What was done stays."""

    outcome: str


Move = Give | Compensate | End


@dataclass(frozen=True, slots=True)
class Saga(Generic[S]):
    """Sagas of one kind. `name` is kebab-case, and for ever.

    `evolve` gives the state after what came. `decide` gives what follows from it, on that state. Both are pure. What
    was decided is stored, and is not decided again: a changed `decide` holds for what comes from then on.

    After `lasts` a saga that has not ended gets `TimedOut`. Where `decide` then neither ends nor compensates, it is
    compensated.
    """

    name: str
    initial: S
    evolve: Callable[[S, Came], S]
    decide: Callable[[S, Came], Sequence[Move]]
    lasts: timedelta


def command_id(saga: UUID, step: str, *, undoes: bool) -> UUID:
    """The id of the command of a step, or of the one that takes it back: the same at each try."""
    return uuid5(saga, f"undo:{step}" if undoes else f"give:{step}")
