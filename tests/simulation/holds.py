"""A customer is erased, in two steps, while somebody places and lifts a legal hold, and the processes that they use die.

Nothing is erased while a hold stands, and keys are destroyed after the event that says so, for ever.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID, uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    Decider,
    Outcome,
    Refusal,
    TooManyConflicts,
)
from chassis.write.handling import CommandHandler
from contracts.purposes import CONTACT
from customer.catalogue import catalogue
from customer.domain.commands import (
    CustomerCommand,
    Details,
    EraseContact,
    EraseCustomer,
    LiftLegalHold,
    PlaceLegalHold,
    RegisterCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerEvent
from customer.domain.refusals import CustomerIsErased, LegalHoldStands
from customer.domain.state import Customer
from customer.policies.when_customer_erased_then_destroy_keys import DestroyKeys
from customer.publishing import published

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import SimulatedKeys, StoreClient
from tests.support.fixtures import delivered

CUSTOMERS = [uuid5(NAMESPACE, f"held {number}") for number in range(3)]
TODAY, LATER = date(2026, 1, 5), date(2036, 1, 5)
PHONE = "13800001234"
REGISTER = RegisterCustomer(Details(name="张伟", phone=PHONE))
TRIES_MAX = 200
FAULTS = Faults(crash=0.02, crashes_max=8, unanswered=0.03, unanswered_max=20)
CATALOGUE = catalogue()
ERASURES = {"customer-contact-erased", "customer-erased"}

CustomerDecider = Decider[CustomerCommand, Customer, CustomerEvent]
Handler = CommandHandler[CustomerCommand, Customer, CustomerEvent]


@dataclass(frozen=True, slots=True)
class Parts:
    """What decides, and whether keys are destroyed before the event is stored; a planted bug is another part."""

    decider: CustomerDecider = customer_decider
    keys_first: bool = False


@dataclass(slots=True)
class Archive:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    told: dict[str, object] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    broken: list[Broken] = field(default_factory=list)


def ring_of(archive: Archive) -> SimulatedKeys:
    """The keys as a process has them that starts."""
    return SimulatedKeys(archive.kernel, archive.keys)


def over(archive: Archive, parts: Parts) -> Handler:
    """As a process that starts has it."""
    return CommandHandler(parts.decider, StoreClient(archive.log), CATALOGUE, ring_of(archive))


async def answered(archive: Archive, key: str, act: Callable[[CommandContext], Awaitable[object]]) -> object:
    """Acts until it is answered or refused; the answer is remembered, as a caller does who crashes and asks again."""
    context = CommandContext(
        actor=key.split(" ", maxsplit=1)[0],
        now=archive.kernel.now(),
        command_id=uuid5(NAMESPACE, key),
        reason="so",
    )
    for _ in range(TRIES_MAX):
        try:
            found: object = await act(context)
        except (StoreUnavailable, Injected, TooManyConflicts):
            await archive.kernel.sleep(0.01)
            continue
        except Refusal as refusal:
            found = refusal
        archive.told[key] = found
        return found
    archive.broken.append(Broken("I10", f"no answer to {key}"))
    return None


def registering(archive: Archive, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Somebody enters the customers."""

    async def main() -> None:
        handler = over(archive, parts)
        for customer in CUSTOMERS:
            await answered(
                archive, f"teller {customer}", lambda said, c=customer: handler.handle(c, REGISTER, said)
            )
        archive.ended.add("teller")

    return main


def erasing(archive: Archive, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Somebody looks whether a hold stands, and erases what is kept for contact; then the rest."""

    async def main() -> None:
        handler, ring = over(archive, parts), ring_of(archive)
        await archive.kernel.comes(lambda: "teller" in archive.ended, 60.0)
        for customer in CUSTOMERS:
            for step, command in enumerate((EraseContact((), LATER, TODAY), EraseCustomer((), (), TODAY))):

                async def erase(
                    said: CommandContext, c: UUID = customer, erases: CustomerCommand = command
                ) -> object:
                    handler.forget(c)
                    if (await handler.load(c)).state.holds:
                        raise LegalHoldStands
                    if parts.keys_first:
                        ring.erase([c], CONTACT if isinstance(erases, EraseContact) else None)
                    return await handler.handle(c, erases, said, asked="erase")

                await answered(archive, f"chen {step} {customer}", erase)
        archive.ended.add("chen")

    return main


def holding(archive: Archive, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Somebody places a hold on each customer, and lifts every second one."""

    async def main() -> None:
        handler = over(archive, parts)
        await archive.kernel.comes(lambda: "teller" in archive.ended, 60.0)
        for number, customer in enumerate(CUSTOMERS):
            hold = uuid5(customer, "hold")
            place, lift = PlaceLegalHold(hold, None, TODAY), LiftLegalHold(hold)
            done = await answered(
                archive,
                f"wu hold {customer}",
                lambda said, c=customer, place=place: handler.handle(c, place, said),
            )
            if number % 2 == 0 and isinstance(done, Outcome):
                await answered(
                    archive,
                    f"wu lift {customer}",
                    lambda said, c=customer, lift=lift: handler.handle(c, lift, said),
                )
        archive.ended.add("wu")

    return main


def destroying(archive: Archive) -> Callable[[], Awaitable[None]]:
    """The policy: what is stored is told from the beginning on, and again after a crash."""

    async def main() -> None:
        destroy, position = DestroyKeys(ring_of(archive)), 0
        while not {"chen", "wu"} <= archive.ended or position < len(archive.log.rows):
            for row in archive.log.rows[position:]:
                public = published(row)
                if public is not None and row.name in ERASURES:
                    data = {"parties": [], "accounts": [], "rest_from": str(LATER)}
                    await destroy(delivered(public.event.TYPE, row.stream_id, row.version, **data))
                position += 1
            await archive.kernel.sleep(0.05)

    return main


def check(archive: Archive) -> list[Broken]:
    """Everything, when all is over."""
    return [*archive.broken, *_checked(archive)]


def _checked(archive: Archive) -> Iterator[Broken]:
    for customer in CUSTOMERS:
        rows = [row for row in archive.log.rows if row.stream_id == customer]
        names = [row.name for row in rows]
        if [row.version for row in rows] != list(range(1, len(rows) + 1)):
            yield Broken("I3", f"versions of {names}")
        held = False
        for name in names:
            if held and name in ERASURES:
                yield Broken("I8", f"erased while a hold stands: {names}")
            held = name == "legal-hold-placed" or (held and name != "legal-hold-lifted")
        said = archive.told.get(f"wu hold {customer}")
        # The digest of a command dies with a key: who asks again afterwards learns that it was carried out, and not how.
        if isinstance(said, Outcome | CommandKeyReused) != ("legal-hold-placed" in names):
            yield Broken("I8", f"the hold was answered with {said!r}: {names}")
        if isinstance(said, CustomerIsErased) and "customer-erased" not in names:
            yield Broken("I8", f"a hold was refused: {names}")
        key = archive.keys[customer]
        contact_gone = key is None or key.of(CONTACT) is None
        if contact_gone != bool(ERASURES & set(names)) or (key is None) != ("customer-erased" in names):
            yield Broken("I2", f"{names}, and the keys are {key and key.parts}")
        if not contact_gone:
            registered = CATALOGUE.open(rows[0], key).event
            if getattr(registered, "phone", None) != PHONE:
                yield Broken("I4", "what is held does not open")


async def lived(seed: int, parts: Parts | None = None, flaws: Flaws | None = None) -> Archive:
    """All that is left after a seed's schedule."""
    kernel, parts = Kernel(seed, FAULTS), parts or Parts()
    archive = Archive(kernel, LogServer(kernel, flaws or Flaws()))
    kernel.spawn("teller", registering(archive, parts))
    kernel.spawn("chen", erasing(archive, parts))
    kernel.spawn("wu", holding(archive, parts))
    kernel.spawn("policy", destroying(archive))
    await kernel.run()
    return archive
