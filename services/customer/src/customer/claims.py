"""Whose a party or an identity number is: each is one customer's at a time, by an identity that the store holds once.

The first customer takes the identity that follows from the number itself. When it no longer has it, the next one takes
the next identity, which follows from the first. So two at once cannot both take one, and what was given up once can be
taken by another (ADR 0024, 0025).
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

from customer.domain.customer import Customer, CustomerCommand, Details
from customer.domain.events import CustomerEvent, CustomerKind

CLAIMS_MAX: Final = 50
"""How often one number can go from customer to customer."""
_KINDS: Final[dict[CustomerKind, str]] = {"person": "resident-id", "company": "credit-code"}


class ClaimedTooOften(Refusal):
    """The number went from customer to customer too often."""

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
    """`holder` is the customer whose the number is, under `identity`; without one, `identity` is free to be taken."""

    holder: UUID | None
    identity: UUID

    def free_for(self, customer: UUID) -> bool:
        """Whether the number is this customer's or can become it."""
        return self.holder in {None, customer}


@dataclass(frozen=True, slots=True)
class Claims:
    """Looks up whose a number is, in the write side."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore

    async def of_party(self, party: UUID, day: date) -> Claim:
        """Whose a party is on a bank day, confirmed or not."""
        return await self._of(party, lambda customer: customer.has(party, day))

    async def of_number(self, first: UUID, number: str) -> Claim:
        """Whose an identity number is; `first` is the identity that follows from it."""
        return await self._of(first, lambda customer: customer.values.get("identity_number") == number)

    async def _of(self, first: UUID, has: Callable[[Customer], bool]) -> Claim:
        ids = [nth(first, number) for number in range(CLAIMS_MAX)]
        taken = {one.identity: one.stream_id for one in await self.store.read_identities(ids)}
        for identity in reversed(ids):
            stream = taken.get(identity)
            if stream is not None:
                # What this process remembers of the customer may be from before another gave the number up.
                self.handler.forget(stream)
                if has((await self.handler.load(stream)).state):
                    return Claim(stream, identity)
        free = next((identity for identity in ids if identity not in taken), None)
        if free is None:
            raise ClaimedTooOften
        return Claim(None, free)


def nth(first: UUID, number: int) -> UUID:
    """The identity that is taken when a number goes to another customer for the n-th time."""
    return first if number == 0 else uuid5(first, str(number))


def number_claim(ids: ExternalIds, details: Details) -> UUID | None:
    """The identity of an identity number whose own check proves it; other numbers are not unique in the world."""
    if details.identity_number is None or not details.proven:
        return None
    return ids.of_source("identity", _KINDS[details.kind], details.identity_number)
