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
"""How often one number can be moved from customer to customer."""
_KINDS: Final[dict[CustomerKind, str]] = {"person": "resident-id", "company": "credit-code"}


class ClaimedTooOften(Refusal):
    """The number was moved from customer to customer too often."""

    code: ClassVar[str] = "claimed-too-often"
    title: ClassVar[str] = f"A number can change its customer at most {CLAIMS_MAX} times"
    title_zh: ClassVar[str] = "该编号变更客户次数过多"


class IdentityNumberKnown(Refusal):
    """Another customer has this identity number; the text names that customer."""

    code: ClassVar[str] = "identity-number-known"
    title: ClassVar[str] = "Another customer has this identity number"
    title_zh: ClassVar[str] = "该证件号码已属于另一位客户"

    def __init__(self, customer: UUID) -> None:
        super().__init__(f"the customer {customer}")
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

    async def of_party(self, party: UUID, day: date, *, without: UUID | None = None) -> Claim:
        """Returns the claim on a party on a bank day, confirmed or not; without one on that day, that of a later day.

        A number that is another customer's from a later day on is not free before it. `without` is a customer that is
        about to give the number up.
        """
        on_day = await self._of(party, lambda customer: customer.has(party, day), without)
        if on_day.holder is not None:
            return on_day
        return await self._of(party, lambda customer: customer.has_later(party, day), without)

    async def free_identity(self, party: UUID) -> UUID:
        """Returns the next identity under which a party can be claimed, also by a customer that had it before."""
        ids = [nth(party, number) for number in range(CLAIMS_MAX)]
        taken = {one.identity for one in await self.store.read_identities(ids)}
        for identity in ids:
            if identity not in taken:
                return identity
        raise ClaimedTooOften

    async def of_number(self, first: UUID, number: str) -> Claim:
        """Returns the claim on an identity number; `first` is the identity that is derived from it."""
        return await self._of(first, lambda customer: customer.values.get("identity_number") == number)

    async def _of(self, first: UUID, has: Callable[[Customer], bool], without: UUID | None = None) -> Claim:
        ids = [nth(first, number) for number in range(CLAIMS_MAX)]
        taken = {one.identity: one.stream_id for one in await self.store.read_identities(ids)}
        for identity in reversed(ids):
            stream = taken.get(identity)
            if stream is not None and stream != without:
                # The cached state of the customer may be older than the event by which it gave the number up.
                self.handler.forget(stream)
                if has((await self.handler.load(stream)).state):
                    return Claim(stream, identity)
        free = next((identity for identity in ids if identity not in taken), None)
        if free is None:
            raise ClaimedTooOften
        return Claim(None, free)


def nth(first: UUID, number: int) -> UUID:
    """The identity that is claimed when a number is moved to another customer for the n-th time."""
    return first if number == 0 else uuid5(first, str(number))


def number_claim(ids: ExternalIds, details: Details) -> UUID | None:
    """The identity of an identity number with a valid checksum. Other numbers are not unique worldwide."""
    if details.identity_number is None or not details.proven:
        return None
    return ids.of_source("identity", _KINDS[details.kind], details.identity_number)
