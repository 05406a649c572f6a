"""Those to whom a saga gives commands: another context over HTTP, or this one in its own process.

A peer either carries a command out, refuses it for good, or leaves it open. Left open, it is given again under the same
id, and the peer's memory of commands recognises it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from contracts.roles import SERVICE
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.posting import ANSWER_SECONDS_MAX, UNANSWERED, Poster
from chassis.connections.settings import Settings
from chassis.connections.transient import Transient, is_transient
from chassis.observability import telemetry
from chassis.privacy.tokens import TOKEN_CHARACTERS_MAX, development_token
from chassis.sagas.declaring import Request
from chassis.write.deciding import CommandContext, Refusal, TooManyConflicts

AT_ONCE_MAX: Final = 20
"""Commands that one process gives to one peer at once. While it answers none, no others wait for their turn."""
CODE_CHARACTERS_MAX: Final = 100
DEVELOPMENT_TOKEN_SECONDS: Final = 3_600
_NOT_ABOUT_THE_COMMAND: Final = frozenset({401, 403, 405, 408, 413, 421, 425, 429})
"""The peer did not look at the command: the token, the permissions or the load are at fault, and are mended there."""
_NOT_FOR_GOOD: Final = frozenset({TooManyConflicts.code, "route-unknown"})
"""Codes of answers that may be another one in a moment: others were faster, or the peer is not deployed yet."""


class PeerUnanswered(Transient):
    """The peer did not answer, or not about the command. Whether it was carried out is not known."""


class Carried(msgspec.Struct, frozen=True):
    """The command was carried out, now or before."""


class RefusedForGood(msgspec.Struct, frozen=True):
    """The command was refused, and would be again: a result for the saga."""

    code: str


Outcome = Carried | RefusedForGood


class Peer(Protocol):
    """Takes commands. Calls raise PeerUnanswered, and other transient errors."""

    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        """Gives the command under `id`; `context` says for what."""
        ...


class LocalPeer(Peer):
    """This context. `carry_out` gives the request to one command handler, with exactly this context."""

    def __init__(self, carry_out: Callable[[Request, CommandContext], Awaitable[Any]]) -> None:
        self._carry_out = carry_out

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        try:
            await self._carry_out(request, context)
        except Refusal as refusal:
            if is_transient(refusal):
                raise
            return RefusedForGood(refusal.code)
        return Carried()


class ServiceToken:
    """The token by which a service shows who it is.

    It is read from the file at each command, so a new one needs no restart. In development, where no file is named,
    it is issued as a development token is.
    """

    def __init__(self, settings: Settings, service: str, clock: Clock) -> None:
        self._settings = settings
        self._subject = f"service:{service}"
        self._clock = clock
        self._issued = ""
        self._until = datetime.min.replace(tzinfo=clock.now().tzinfo)

    async def __call__(self) -> str:
        """The token; raises PeerUnanswered where there is none."""
        file = self._settings.service_token_file
        if file is not None:
            return await asyncio.to_thread(_read, file)
        if not self._settings.development:
            raise PeerUnanswered("CRM_SERVICE_TOKEN_FILE names no file")
        now = self._clock.now()
        if now >= self._until:
            self._issued = development_token(
                self._settings,
                now,
                subject=self._subject,
                roles=(SERVICE,),
                seconds=DEVELOPMENT_TOKEN_SECONDS,
            )
            self._until = now + timedelta(seconds=DEVELOPMENT_TOKEN_SECONDS / 2)
        return self._issued


def _read(file: Path) -> str:
    try:
        text = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise PeerUnanswered(f"the service token cannot be read: {type(error).__name__}") from error
    if not 0 < len(text) <= TOKEN_CHARACTERS_MAX:
        raise PeerUnanswered("the service token is empty or too long")
    return text


class HttpPeer(Poster, Peer):
    """Another context by the address of its API."""

    def __init__(
        self,
        url: str,
        token: Callable[[], Awaitable[str]],
        *,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
        at_once_max: int = AT_ONCE_MAX,
    ) -> None:
        super().__init__(url, seconds_max=answer_seconds_max)
        self._token = token
        self._turns = asyncio.Semaphore(at_once_max)
        self._silent = False
        """The command that was given last was not answered."""

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        # Who waits for a peer that answers nobody takes the place of those who want another one.
        waits = self._turns.locked()
        if waits and self._silent:
            raise PeerUnanswered("others wait for its answer")
        async with self._turns:
            if waits and self._silent:
                raise PeerUnanswered("others were not answered")
            headers = {
                "Authorization": f"Bearer {await self._token()}",
                "Idempotency-Key": str(id),
                **telemetry.carrier(),
            }
            try:
                answered = await self.post(request.path, request.body.encode(), headers)
            except UNANSWERED as error:
                self._silent = True
                raise PeerUnanswered(f"{type(error).__name__}") from error
            self._silent = False
        return outcome_of(answered.status, answered.content)


class _Problem(msgspec.Struct):
    code: str


def outcome_of(status: int, content: bytes) -> Outcome:
    """What an answer means; raises PeerUnanswered where it says nothing about the command.

    A refusal is a 4xx with a code. A 4xx without one comes from something in between.
    """
    if 200 <= status < 300:
        return Carried()
    if not 400 <= status < 500 or status in _NOT_ABOUT_THE_COMMAND:
        raise PeerUnanswered(f"the peer answered {status}")
    try:
        code = msgspec.json.decode(content, type=_Problem).code
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerUnanswered(f"the peer answered {status} without a code") from error
    if code in _NOT_FOR_GOOD:
        raise PeerUnanswered(f"the peer answered {code}")
    if not code or len(code) > CODE_CHARACTERS_MAX or not code.isprintable():
        raise PeerUnanswered(f"the peer answered {status} with a code that is none")
    return RefusedForGood(code)
