"""Claims: a party or an identity number belongs to one customer at a time.

The store holds each claim's identity once.

The first customer takes the identity that is derived from the number itself. When that customer has given
the number up, the next customer takes the next identity, which is derived from the first. Two customers
can therefore not claim one number at once, and a number that was given up can be claimed by another
customer (ADR 0024, 0025).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import ClassVar, Final
from uuid import UUID, uuid5

from chassis.write.deciding import Refusal
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore
from contracts.identity import ExternalIds

from customer.domain.commands import CustomerCommand, Details
from customer.domain.events import CustomerEvent, CustomerKind
from customer.domain.state import Customer

CLAIMS_MAX: Final = 50
"""How often one number can be claimed. A number goes to another customer a few times in its life; one that goes to and fro
is a quarrel or a program at fault, and each look-up reads all its claims. `CRM_CLAIMS_MAX` allows more."""
_KINDS: Final[dict[CustomerKind, str]] = {"person": "resident-id", "company": "credit-code"}


class ClaimedTooOften(Refusal):
    """The number was claimed too often, by one customer after the other. The text says how often; the bound is a setting."""

    code: ClassVar[str] = "claimed-too-often"
    title: ClassVar[str] = "The number has been claimed too often"
    title_zh: ClassVar[str] = "该编号被关联的次数过多"


class IdentityNumberKnown(Refusal):
    """Another customer has this identity number. The text names that customer to who may see it (`shown`), and to nobody
    else."""

    code: ClassVar[str] = "identity-number-known"
    title: ClassVar[str] = "Another customer has this identity number"
    title_zh: ClassVar[str] = "该证件号码已属于另一位客户"

    def __init__(self, customer: UUID, *, shown: bool = False) -> None:
        super().__init__(f"the customer {customer}" if shown else "a customer out of your scope")
        self.customer = customer


@dataclass(frozen=True, slots=True)
class Claim:
    """`holder` is the customer that has the number, under `identity`.

    Without a holder, `identity` can be claimed.
    """

    holder: UUID | None
    identity: UUID

    def free_for(self, customer: UUID) -> bool:
        """Whether this customer has the number or can claim it."""
        return self.holder in {None, customer}


@dataclass(frozen=True, slots=True)
class Claims:
    """Looks up the customer of a number, in the write side."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    claims_max: int = CLAIMS_MAX

    async def of_party(self, party: UUID, day: date, *, without: UUID | None = None) -> Claim:
        """Returns the claim on a party on a business date, confirmed or not; without one on that day, that of a later day.

        A number that is another customer's from a later day on is not free before it. `without` is a customer that is
        about to give the number up.
        """
        on_day = await self._of(party, lambda customer: customer.has(party, day), without)
        if on_day.holder is not None:
            return on_day
        return await self._of(party, lambda customer: customer.has_later(party, day), without)

    async def free_identity(self, party: UUID) -> UUID:
        """Returns the next identity under which a party can be claimed, also by a customer that had it before."""
        _, free = await self._claimed(party)
        return self._allowed(free)

    async def of_number(self, first: UUID, number: str) -> Claim:
        """Returns the claim on an identity number; `first` is the identity that is derived from it."""
        return await self._of(first, lambda customer: customer.values.get("identity_number") == number)

    async def _of(self, first: UUID, has: Callable[[Customer], bool], without: UUID | None = None) -> Claim:
        taken, free = await self._claimed(first)
        for identity, stream in reversed(taken.items()):
            if stream != without:
                # The cached state of the customer may be older than the event by which it gave the number up.
                self.handler.forget(stream)
                if has((await self.handler.load(stream)).state):
                    return Claim(stream, identity)
        return Claim(None, self._allowed(free))

    async def _claimed(self, first: UUID) -> tuple[dict[UUID, UUID], UUID | None]:
        """The identities under which a number was claimed, in their order, each with its customer; and the next one."""
        ids = [nth(first, number) for number in range(self.claims_max)]
        found = {one.identity: one.stream_id for one in await self.store.read_identities(ids)}
        taken = {identity: found[identity] for identity in ids if identity in found}
        return taken, next((identity for identity in ids if identity not in found), None)

    def _allowed(self, free: UUID | None) -> UUID:
        if free is None:
            raise ClaimedTooOften(f"{self.claims_max} times; CRM_CLAIMS_MAX allows more")
        return free


def nth(first: UUID, number: int) -> UUID:
    """The identity that is claimed when a number is moved to another customer for the n-th time."""
    return first if number == 0 else uuid5(first, str(number))


def number_claim(ids: ExternalIds, details: Details) -> UUID | None:
    """The identity of an identity number with a valid checksum. Other numbers are not unique worldwide."""
    if details.identity_number is None or not details.proven:
        return None
    return ids.of_source("identity", _KINDS[details.kind], details.identity_number)
