"""A watcher: what it wants to hear of, and what it was not sent yet, bounded and one entry for each document."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final, Literal, Protocol

from typing_extensions import override

from chassis.conditions import CONDITION, Condition
from chassis.conditions.language import And
from chassis.read.documents import DocumentId
from chassis.web.streams import Sent, Source

PENDING_MAX: Final = 1_000
"""Documents of which a watcher was not told yet. One that is slower is told to read everything."""
CHANGED: Final = "changed"
RESET: Final = "reset"

Kind = Literal["changed", "entered", "left"]
Reason = Literal["begun", "rebuilt", "lost", "slow", "day", "scope"]


@dataclass(frozen=True)
class Wanted:
    """The documents of these ids (None: of any), and of these those that meet a condition, if one is given.

    `scope` is what the caller may see, where that is not everything. A document out of it is told of by its id alone
    where the caller has named the id, or was told of the document while it was in it.
    """

    ids: frozenset[DocumentId] | None
    condition: Condition | None = None
    scope: Condition | None = None

    @cached_property
    def whole(self) -> Condition | None:
        """What holds of the documents that are wanted, if anything has to."""
        parts = tuple(each for each in (self.condition, self.scope) if each is not None)
        return And(conditions=parts) if len(parts) > 1 else next(iter(parts), None)

    @property
    def hides(self) -> bool:
        """Whether documents may change whose ids the caller is not to learn."""
        return self.ids is None and self.scope is not None

    @cached_property
    def digest(self) -> str:
        """Equal for equal wishes, in every process."""
        ids = None if self.ids is None else sorted(map(str, self.ids))
        conditions = [
            None if each is None else CONDITION.dump_json(each) for each in (self.condition, self.scope)
        ]
        return blake2b(repr((ids, *conditions)).encode(), digest_size=16).hexdigest()


class Place(Protocol):
    """How far all watchers of a collection were told."""

    @property
    def name(self) -> str:
        """Of the view."""
        ...

    @property
    def at_least(self) -> str:
        """The consistency token from which on a read shows all that was told."""
        ...

    def place(self, wanted: Wanted) -> str:
        """The id of an event from which a watcher goes on."""
        ...

    def was_reset(self, reason: Reason) -> None:
        """Counts a watcher that is told to read everything."""
        ...


class Watcher(Source):
    """What one stream sends. `put` and `reset` fill it, `next` takes out.

    Whoever puts calls `wake` when the place covers what was put: the event then has the id from which nothing comes again.
    """

    def __init__(
        self, wanted: Wanted, told: Place, wake: Callable[[], None], pending_max: int = PENDING_MAX
    ) -> None:
        self.wanted = wanted
        self._told = told
        self.wake = wake
        self._pending_max = pending_max
        self._pending: dict[DocumentId, Kind] = {}
        self._reset: Reason | None = None
        self._ended: str | None = None

    def put(self, changes: Iterable[tuple[DocumentId, Kind]]) -> None:
        """Adds changes. Of a document the last one counts."""
        if self._reset is not None:
            return
        pending = self._pending
        for id, kind in changes:
            pending[id] = "entered" if kind == "changed" and pending.get(id) == "entered" else kind
        if len(pending) > self._pending_max:
            self.reset("slow")

    def reset(self, reason: Reason) -> None:
        """Everything is to be read again."""
        self._pending.clear()
        if self._reset is None:
            self._reset = reason
            self._told.was_reset(reason)
        self.wake()

    def end(self, code: str) -> None:
        """Nothing more will be told."""
        self._ended = code
        self.wake()

    @property
    @override
    def place(self) -> str:
        return self._told.place(self.wanted)

    @property
    @override
    def ended(self) -> str | None:
        return self._ended

    @override
    def next(self) -> Sent | None:
        of_view = {"view": self._told.name, "at_least": self._told.at_least}
        if self._reset is not None:
            reason, self._reset = self._reset, None
            return Sent(RESET, {**of_view, "reason": reason}, self.place)
        if not self._pending:
            return None
        kinds: dict[Kind, list[str]] = {"changed": [], "entered": [], "left": []}
        for id, kind in self._pending.items():
            kinds[kind].append(str(id))
        self._pending.clear()
        return Sent(CHANGED, {**of_view, **kinds}, self.place)
