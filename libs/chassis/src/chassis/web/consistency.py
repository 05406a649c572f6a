"""Reading one's own write: a command returns a token, and a query may wait until the view has reached its
position."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Annotated, Any, Final

from contracts.topics import EVENTS
from fastapi import Query

from chassis.web.problems import ViewBehind
from chassis.write.deciding import Refusal

HEADER: Final = "Consistency-Token"
WAIT_SECONDS_MAX: Final = 5.0
WAITING_MAX: Final = 200
TOKEN_PATTERN: Final = r"^[a-z]{1,20}(-[a-z]{1,20}){0,2}-[0-9]{1,18}$"  # noqa: S105 (the shape of a position, no secret)

WaitFor = Callable[[str, int, float], Awaitable[bool]]
"""(context, position, timeout in seconds) -> whether the views reached the position in time."""


Heads = Mapping[str, Callable[[], Awaitable[int]]]
"""Context -> the position of the last event of its store, for the stores that a process can ask."""
NO_HEADS: Final[Heads] = {}


def consistency_token(context: str, position: int) -> str:
    """The token that names a position of a context's store."""
    return f"{context}-{position}"


class ContextUnknown(Refusal):
    """The context does not exist: no command issued this token."""

    code = "context-unknown"
    status = 404
    title = "There is no context of that name"
    title_zh = "没有该上下文"


class PositionUnknown(Refusal):
    """The position lies beyond the end of the context's store: no command issued this token."""

    code = "position-unknown"
    status = 400
    title = "The store has no such position yet"
    title_zh = "存储中尚无该位置"


def reading_own_write(
    wait_for: WaitFor, contexts: Collection[str] = EVENTS, heads: Heads = NO_HEADS
) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that waits, bounded, until the views have reached the `at_least` of a query; else 503.

    `contexts` are the existing ones; another context is refused at once. So is a position beyond the end
    of a store that this process can read (`heads`). At most `WAITING_MAX` requests wait at once, over all
    contexts and positions.
    """
    waiting = 0

    async def at_least(
        at_least: Annotated[
            str | None,
            Query(
                pattern=TOKEN_PATTERN, description=f"a `{HEADER}`: the answer holds at least what it names"
            ),
        ] = None,
    ) -> None:
        if at_least is None:
            return
        context, _, position = at_least.rpartition("-")
        if context not in contexts:
            raise ContextUnknown
        if await wait_for(context, int(position), 0.0):
            return
        if context in heads and int(position) > await heads[context]():
            raise PositionUnknown(f"{at_least} is beyond the end of the store")
        nonlocal waiting
        if waiting >= WAITING_MAX:
            raise ViewBehind(f"{WAITING_MAX} requests wait for a view already")
        waiting += 1
        try:
            reached = await wait_for(context, int(position), WAIT_SECONDS_MAX)
        finally:
            waiting -= 1
        if not reached:
            raise ViewBehind(f"the view has not reached {at_least} within {WAIT_SECONDS_MAX:g} s")

    return at_least
