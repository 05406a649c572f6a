"""A kind of command that many can be given at once, and what it takes to start a run of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from chassis.write.deciding import CommandContext, Outcome


@dataclass(frozen=True, slots=True)
class Approval:
    """Which runs it takes two persons to start: those of more than `alone_items_max` items; of 0, each.

    `approvers` are the roles that may decide on the start, `lives` how long its proposal waits, `title` what it is called.
    """

    alone_items_max: int
    approvers: frozenset[str]
    lives: timedelta
    title: str


@dataclass(frozen=True, slots=True)
class Bulkable:
    """A kind of command that many subjects can be given at once. It holds no personal value.

    `carry_out(subject, command, context)` gives it through one `CommandHandler.handle`, with exactly this context.
    `prepare(subjects)` may read many at once before, and makes nothing: a preview calls it too. `previewed(subject,
    command)` decides and stores nothing: whether it would change something; it raises the refusal.

    `undo(subject, command, before, version, context)` gives the command that takes it back, expecting `version`; `before`
    is the subject's version before the run. `approval`: None where one person may start any run.
    """

    command: type[msgspec.Struct]
    carry_out: Callable[[UUID, Any, CommandContext], Awaitable[Outcome[Any]]]
    previewed: Callable[[UUID, Any], Awaitable[bool]]
    prepare: Callable[[Sequence[UUID]], Awaitable[None]]
    undo: Callable[[UUID, Any, int, int, CommandContext], Awaitable[Outcome[Any]]] | None = None
    approval: Approval | None = None
