"""The headers of a command over HTTP."""

from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

from chassis.clock import Clock, uuid7
from chassis.observability import telemetry
from chassis.web.callers import Asking
from chassis.write.deciding import COMMAND_KEY_CHARACTERS_MAX, CommandContext

KEY_CHARACTERS_MAX: Final = COMMAND_KEY_CHARACTERS_MAX // 2
"""Outcomes are remembered under the caller's name followed by this key."""


async def idempotency_key(
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=KEY_CHARACTERS_MAX,
            pattern=r"^[!-~]+$",
            description="the same key with the same command gives the same answer and does nothing twice",
        ),
    ],
) -> str:
    """The key under which the outcome of a command is remembered; without one the answer is 400."""
    return key


Key = Annotated[str, Depends(idempotency_key)]


async def command_context(request: Request, asking: Asking, key: Key) -> CommandContext:
    """The actor, the time and the trace of a command. The actor comes from the token, never from the request."""
    clock: Clock = request.app.state.clock
    now = clock.now()
    return CommandContext(
        actor=asking.subject,
        now=now,
        command_id=uuid7(now),
        post=asking.post,
        on_behalf_of=asking.on_behalf_of,
        idempotency_key=key,
        trace=telemetry.carrier(),
        client_address=request.client.host if request.client else None,
    )


Commanding = Annotated[CommandContext, Depends(command_context)]
