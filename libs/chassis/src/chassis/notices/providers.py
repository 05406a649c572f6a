"""What carries notices out of the house: the port of a provider, and the one that prints them.

A provider either accepts a notice, refuses it for good, or leaves it open. Left open, it is handed over again under the
same id and with the same bytes.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import msgspec
from typing_extensions import override

from chassis.connections.transient import Transient
from chassis.notices.deciding import Channel

ANSWER_CHARACTERS_MAX: Final = 500
CODE_CHARACTERS_MAX: Final = 100
RETRY_AFTER_SECONDS_MAX: Final = 3_600.0
_UNSHOWN: Final = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")
_ID: Final = re.compile(r"[A-Za-z0-9._:/=-]{1,200}")
_CODE: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{CODE_CHARACTERS_MAX - 1}}}")


class Message(msgspec.Struct, frozen=True):
    """A notice as a provider gets it. The same notice is the same message at each try."""

    id: UUID
    channel: Channel
    to: str
    title: str
    text: str
    requested_at: datetime


class Accepted(msgspec.Struct, frozen=True):
    """The provider has it, now or before; `provider_id` is its own id of it."""

    provider_id: str | None
    answer: str


class Rejected(msgspec.Struct, frozen=True):
    """The provider refuses it, and would again."""

    code: str
    answer: str


Answer = Accepted | Rejected


class ProviderUnanswered(Transient):
    """The provider did not answer, or not about the notice. Whether it has it is not known.

    `retry_after_seconds`: when it wants to be asked again.
    """

    def __init__(self, text: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Provider(Protocol):
    """Carries notices of one channel."""

    name: str

    async def hand_over(self, message: Message) -> Answer:
        """Hands a notice over; raises ProviderUnanswered within a bounded time."""
        ...


class PrintingProvider(Provider):
    """Prints notices, for development: nobody gets one."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.name = "printing"
        self._write = write

    @override
    async def hand_over(self, message: Message) -> Answer:
        title = f" [{message.title}]" if message.title else ""
        self._write(f"notice {message.id} by {message.channel} to {message.to}:{title} {message.text}\n")
        return Accepted(None, "printed")


def shown(answer: str) -> str:
    """A provider's words as they are kept: one line of bounded length."""
    return _UNSHOWN.sub(" ", answer).strip()[:ANSWER_CHARACTERS_MAX]


def provider_id(found: object) -> str | None:
    """A provider's id of a notice, if it looks like one; else it stays in the answer alone, which is sealed."""
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def code_of(found: object, otherwise: str) -> str:
    """A provider's code, if it looks like one."""
    return found if isinstance(found, str) and _CODE.fullmatch(found) else otherwise
