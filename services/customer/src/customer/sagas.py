"""The sagas of customer: what takes several steps, and other contexts.

Preparing an erasure closes each party of the customer to releases at its source, one after the other. Once all are
closed it is prepared, and waits for the erasure. Where a source refuses, or the time is over, or compliance withdraws,
what was closed is opened again, the last one first.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, assert_never
from uuid import UUID

import msgspec
from chassis.clock import Clock
from chassis.sagas import (
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    LocalPeer,
    Move,
    Opened,
    Peer,
    Refused,
    Request,
    Saga,
    Sagas,
    Started,
    TimedOut,
    peers_of,
    saga_handler,
)
from chassis.sagas.running import Handler as SagaHandler
from chassis.write.deciding import CommandContext
from msgspec import structs

from customer.catalogue import CONTEXT, INGEST, catalogue
from customer.connections import Write, write_side
from customer.domain.commands import (
    AcceptErasurePreparation,
    ConfirmErasurePreparation,
    CustomerCommand,
    EndErasurePreparation,
)
from customer.domain.events import PartyOfSource
from customer.domain.refusals import CustomerIsErased
from customer.settings import CustomerSettings

PREPARE_ERASURE: Final = "prepare-erasure"
PREPARATIONS_LAST: Final = timedelta(days=15)
"""A day more than a proposal of an erasure waits for a second person."""
ERASED: Final = "erased"
_REASON: Final = "the erasure of a customer is prepared"


class Preparing(msgspec.Struct, frozen=True):
    """An erasure that is prepared: of whom, which parties are not closed yet, and whether all steps are answered."""

    customer: str = ""
    preparation: str = ""
    left: tuple[PartyOfSource, ...] = ()
    confirming: bool = False
    prepared: bool = False
    erased: bool = False


def evolve(preparing: Preparing, came: Came) -> Preparing:  # noqa: PLR0911 (one arm per case)
    """The preparation after what came."""
    match came:
        case Started(data):
            parties = msgspec.convert(data["parties"], tuple[PartyOfSource, ...])
            return Preparing(data["customer"], data["preparation"], parties)
        case Answered("accept"):
            return structs.replace(preparing, confirming=not preparing.left)
        case Answered("confirm"):
            return structs.replace(preparing, prepared=True)
        case Answered():
            left = preparing.left[1:]
            return structs.replace(preparing, left=left, confirming=not left)
        case Heard(_, data):
            return structs.replace(preparing, erased=preparing.erased or data["because"] == ERASED)
        case Refused(code=CustomerIsErased.code):
            return structs.replace(preparing, erased=True)
        case Refused() | TimedOut():
            return preparing
        case _:
            assert_never(came)


def decide(preparing: Preparing, came: Came) -> Sequence[Move]:  # noqa: PLR0911 (one arm per case)
    """What follows. Steps are given one after the other, so one of them is open until all is prepared."""
    match came:
        case Started():
            return [
                Give("accept", CONTEXT, _own(preparing, "accept"), undo=_own(preparing, "end")),
            ]
        case Answered() | Refused() if preparing.erased:
            return [End(ERASED)]
        case Answered("confirm"):
            return []
        case Answered():
            if preparing.confirming:
                return [Give("confirm", CONTEXT, _own(preparing, "confirm"))]
            return [_closing(preparing.left[0])]
        case Refused(_, code):
            return [Compensate(code)]
        case Heard(_, data):
            if data["because"] != ERASED:
                return [Compensate(data["because"])]
            return [End(ERASED)] if preparing.prepared else []
        case TimedOut():
            return [Compensate("timed-out")]
        case _:
            assert_never(came)


def _closing(party: PartyOfSource) -> Give:
    """Closes a party to releases at its source. What is closed when the customer is erased stays closed."""
    place = f"/ingest/parties/{party.party_id}"
    body = {"source": party.source, "reason": _REASON}
    close, open = (Request.of(f"{place}/{verb}-releases", **body) for verb in ("close", "open"))
    return Give(f"close:{party.party_id}", INGEST, close, undo=open)


def _own(preparing: Preparing, path: str) -> Request:
    return Request.of(path, customer=preparing.customer, preparation=preparing.preparation)


PREPARING: Final[Saga[Preparing]] = Saga(PREPARE_ERASURE, Preparing(), evolve, decide, PREPARATIONS_LAST)
KINDS: Final = (PREPARING,)


class _Own(msgspec.Struct):
    customer: UUID
    preparation: UUID


def own_commands(write: Write) -> LocalPeer:
    """The customers of this context, as a peer of its sagas."""

    async def carry_out(request: Request, context: CommandContext) -> Any:
        said = msgspec.json.decode(request.body, type=_Own)
        commands: dict[str, CustomerCommand] = {
            "accept": AcceptErasurePreparation(said.preparation),
            "confirm": ConfirmErasurePreparation(said.preparation),
            "end": EndErasurePreparation("failed", said.preparation),
        }
        return await write.handler.handle(said.customer, commands[request.path], context)

    return LocalPeer(carry_out)


def handler_of(write: Write) -> SagaHandler:
    """The command handler of the sagas of this context."""
    return saga_handler(write.store, catalogue(), write.ring, KINDS, reached=write.settings.reached)


def starting(write: Write) -> Sagas:
    """The sagas as a policy has them, which starts them and has them hear."""
    return Sagas(write.store, handler_of(write), write.clock)


def giving(write: Write, peers: dict[str, Peer]) -> Sagas:
    """The sagas as the role has them that gives their commands."""
    own: dict[str, Peer] = {CONTEXT: own_commands(write)}
    return Sagas(write.store, handler_of(write), write.clock, peers | own, reached=write.settings.reached)


@asynccontextmanager
async def opened(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Opened]:
    """Opens what the commands of the sagas are given to."""
    async with write_side(settings, clock) as write, peers_of(settings, CONTEXT, clock) as peers:
        yield Opened(giving(write, dict(peers)), write.store)
