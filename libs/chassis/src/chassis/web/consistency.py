"""Reading one's own write: a command returns a token, and a query may wait until the view has reached its
position."""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from contracts.topics import EVENTS
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from chassis.web.problems import ViewBehind
from chassis.write.deciding import Refusal

HEADER: Final = "Consistency-Token"
NAME: Final = "at_least"
WAIT_SECONDS_MAX: Final = 5.0
WAITING_MAX: Final = 200
TOKENS_MAX: Final = 4
_POSITION: Final = "[a-z]{1,20}(-[a-z]{1,20}){0,2}-[0-9]{1,18}"
TOKEN_PATTERN: Final = f"^{_POSITION}(,{_POSITION}){{0,{TOKENS_MAX - 1}}}$"
_TOKEN: Final = re.compile(TOKEN_PATTERN, re.ASCII)

WaitFor = Callable[[str, int, float], Awaitable[bool]]
"""(context, position, timeout in seconds) -> whether the views reached the position in time."""


Heads = Mapping[str, Callable[[], Awaitable[int]]]
"""Context -> the position of the last event of its store, for the stores that a process can ask."""
NO_HEADS: Final[Heads] = {}


def consistency_token(context: str, position: int) -> str:
    """The token that names a position of a context's store."""
    return f"{context}-{position}"


def consistency_tokens(positions: Mapping[str, int]) -> str:
    """The token that names a position of each of several contexts."""
    return ",".join(consistency_token(context, at) for context, at in sorted(positions.items()))


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


class ReadingOwnWrite:
    """A dependency that waits, bounded, until the views have reached the `at_least` of a query; else 503.

    `contexts` are the existing ones; another context is refused at once. So is a position beyond the end
    of a store that this process can read (`heads`). At most `WAITING_MAX` requests wait at once, over all
    contexts and positions.

    It reads its parameter itself, and describes it in `parameter`: a parameter that the framework reads costs
    every request without it 20 us (`benchmarks/panorama_read.py`).
    """

    parameter: Final = {
        "name": NAME,
        "in": "query",
        "required": False,
        "description": f"a `{HEADER}`: the answer holds at least what it names; one of each context, with commas",
        "schema": {"type": "string", "pattern": TOKEN_PATTERN},
    }

    def __init__(
        self, wait_for: WaitFor, contexts: Collection[str] = EVENTS, heads: Heads = NO_HEADS
    ) -> None:
        self._wait_for = wait_for
        self._contexts = contexts
        self._heads = heads
        self._waiting = 0

    async def __call__(self, request: Request) -> None:
        """Returns once the views show what the query names; raises RequestValidationError and the refusals."""
        if not request.scope["query_string"]:
            return
        at_least = request.query_params.get(NAME)
        if at_least is None:
            return
        if _TOKEN.fullmatch(at_least) is None:
            raise RequestValidationError(
                [
                    {
                        "type": "string_pattern_mismatch",
                        "loc": ("query", NAME),
                        "msg": f"String should match pattern '{TOKEN_PATTERN}'",
                    }
                ]
            )
        await self.wait(at_least)

    async def wait(self, at_least: str) -> None:
        """Waits until the views show what a token names, a position of each context in turn.

        Raises ContextUnknown, PositionUnknown, ViewBehind.
        """
        for token in at_least.split(","):
            await self._wait_one(token)

    async def _wait_one(self, at_least: str) -> None:
        context, _, position = at_least.rpartition("-")
        if context not in self._contexts:
            raise ContextUnknown
        if await self._wait_for(context, int(position), 0.0):
            return
        if context in self._heads and int(position) > await self._heads[context]():
            raise PositionUnknown(f"{at_least} is beyond the end of the store")
        if self._waiting >= WAITING_MAX:
            raise ViewBehind(f"{WAITING_MAX} requests wait for a view already")
        self._waiting += 1
        try:
            reached = await self._wait_for(context, int(position), WAIT_SECONDS_MAX)
        finally:
            self._waiting -= 1
        if not reached:
            raise ViewBehind(f"the view has not reached {at_least} within {WAIT_SECONDS_MAX:g} s")
