"""What the tier of a customer was, when and why: read from the event store."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal, NamedTuple
from uuid import UUID

from chassis.write.catalogue import Catalogue
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CustomerCommand
from customer.domain.events import (
    CustomerContactErased,
    CustomerErased,
    CustomerEvent,
    Tier,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.overriding import evolve_tiers
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer

_NAMES: Final = frozenset(
    {"tier-assessed", "tier-overridden", "tier-override-ended", "customer-erased", "customer-contact-erased"}
)
Change = Literal["assessed", "overridden", "lapsed", "withdrawn", "erased"]


class TierChange(NamedTuple):
    """An event of a customer's tier, and the customer after it: its tiers alone are known."""

    change: Change
    recorded: RecordedEvent
    after: Customer


class TierOn(NamedTuple):
    """The tier that was in force on a business date, what was assessed by then, and the event that gave it: the override that stood, else
    the last assessment; None where there was neither."""

    tier: Tier | None
    assessed: Tier | None
    given_by: TierChange | None


@dataclass(frozen=True, slots=True)
class TierHistory:
    """The history of the tiers of customers."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    catalogue: Catalogue
    business_date: Callable[[datetime], date]

    async def page(self, customer: UUID, after: int, limit: int) -> list[TierChange]:
        """The events of a customer's tier beyond a sequence, oldest first. Raises CustomerNotRegistered, SubjectUnknown."""
        found = list[TierChange]()
        async for one in self._changes(customer):
            if one.recorded.version > after:
                found.append(one)
            if len(found) == limit:
                return found
        if not found:
            await self._require_known(customer)
        return found

    async def on(self, customer: UUID, day: date) -> TierOn:
        """The tier at the end of a business date, by what is effective until then. Raises CustomerNotRegistered, SubjectUnknown."""
        state, assessed, overridden = Customer(), None, None
        async for one in self._changes(customer):
            if self.business_date(one.recorded.metadata.effective_at) > day:
                continue
            state = _evolved(state, one.recorded)
            match one.change:
                case "assessed":
                    assessed = one
                case "overridden":
                    overridden = one
                case "lapsed" | "withdrawn":
                    overridden = None
                case "erased":
                    assessed = overridden = None
        if assessed is None and overridden is None:
            await self._require_known(customer)
        return TierOn(state.tier_in_force, state.tier, overridden or assessed)

    async def _changes(self, customer: UUID) -> AsyncIterator[TierChange]:
        state = Customer()
        async for one in self.store.read_named(customer, _NAMES):
            recorded = self.catalogue.open(one, None)
            state = _evolved(state, recorded)
            yield TierChange(_change(recorded), recorded, state)

    async def _require_known(self, customer: UUID) -> None:
        if not (await self.handler.load(customer)).version:
            raise CustomerNotRegistered


def _evolved(state: Customer, recorded: RecordedEvent) -> Customer:
    match recorded.event:
        case TierAssessed() | TierOverridden() | TierOverrideEnded() as event:
            return evolve_tiers(state, event)
        case _:
            return Customer()


def _change(recorded: RecordedEvent) -> Change:
    match recorded.event:
        case TierAssessed():
            return "assessed"
        case TierOverridden():
            return "overridden"
        case TierOverrideEnded(because):
            return because
        case CustomerErased() | CustomerContactErased():
            return "erased"
        case _:
            raise TypeError(recorded.name)
