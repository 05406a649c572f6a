"""A command over HTTP: its key, its reason (R091), its privilege, and from when it is so."""

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

from fastapi import Depends, Header
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from starlette.requests import Request

from chassis.clock import Clock, uuid7
from chassis.observability import telemetry
from chassis.web.callers import HIGH_KEY, Asking
from chassis.web.formats import LINE, StatedInstant, stating
from chassis.write.deciding import COMMAND_KEY_CHARACTERS_MAX, CommandContext, Refusal

KEY_CHARACTERS_MAX: Final = COMMAND_KEY_CHARACTERS_MAX // 2
"""Outcomes are remembered under the caller's name followed by this key."""
REASON_CHARACTERS_MAX: Final = 500
CLOCK_AHEAD_SECONDS_MAX: Final = 60
"""So far the clock of a caller may be ahead of ours. What is so from then on is stored as so from now on."""

Reason = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=REASON_CHARACTERS_MAX,
        pattern=stating(LINE),
    ),
]
"""Why a command is given. It can be seen, and it is stored with every event of the command."""


class CommandBody(BaseModel):
    """The base of the bodies of commands. A route whose body is no JSON takes `reason` in its query.

    An unknown field is refused.
    """

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(
        default=None, description="why; it is stored with each event of the command"
    )


class ExplainedBody(CommandBody):
    """The base of the bodies of commands that must say why, such as those of high privilege."""

    reason: Reason = Field(description="why; it is stored with each event of the command")


class DatedBody(CommandBody):
    """The base of the bodies of commands about what may have been so before it is recorded."""

    effective_at: StatedInstant | None = Field(
        default=None, description="from when it is so, if earlier than now"
    )


class DatedExplainedBody(DatedBody):
    """The base of the bodies of such commands that must say why."""

    reason: Reason = Field(description="why; it is stored with each event of the command")


class EffectiveAhead(Refusal):
    """The effective time lies ahead. Time passes as an event: what is so later is commanded later."""

    code: ClassVar[str] = "effective-time-ahead"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The effective time lies ahead"
    title_zh: ClassVar[str] = "生效时间晚于当前时间"


_CLOCK_AHEAD: Final = timedelta(seconds=CLOCK_AHEAD_SECONDS_MAX)
_INSTANT: Final[TypeAdapter[datetime]] = TypeAdapter(StatedInstant)


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
    """The actor, the time, the reason, the privilege and the trace of a command.

    The actor comes from the token and the privilege from the table of permissions, never from the request. Raises
    EffectiveAhead.
    """
    clock: Clock = request.app.state.clock
    now = clock.now()
    stated = await stated_in(request)
    effective_at = _instant(stated.get("effective_at"))
    if effective_at is not None and effective_at > now + _CLOCK_AHEAD:
        raise EffectiveAhead
    reason = stated.get("reason")
    return CommandContext(
        actor=asking.subject,
        now=now,
        command_id=uuid7(now),
        post=asking.post,
        on_behalf_of=asking.on_behalf_of,
        reason=reason if isinstance(reason, str) else None,
        privilege="high" if request.scope.get(HIGH_KEY) else "normal",
        effective_at=effective_at,
        idempotency_key=key,
        trace=telemetry.carrier(),
        client_address=request.client.host if request.client else None,
    )


async def stated_in(request: Request) -> dict[str, Any]:
    """The fields of the body, or of the query where the body is no JSON.

    The framework has read a JSON body by now, and checks it against the model of the route before the route is called.
    """
    body = getattr(request, "_json", None)
    return body if isinstance(body, dict) else {**request.query_params}


def _instant(stated: Any) -> datetime | None:
    try:
        return None if stated is None else _INSTANT.validate_python(stated)
    except ValidationError:
        return None  # the model of the route refuses it


Commanding = Annotated[CommandContext, Depends(command_context)]
