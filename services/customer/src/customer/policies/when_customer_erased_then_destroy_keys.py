"""When a customer is erased, then its keys are destroyed: the customer's own, its parties', its accounts'. When its values for
contact are, then those for contact of the customer and of its parties.

The event names the keys, and the policy destroys them. After a crash, or a loss of the key database, it
goes on where it stopped. An account's key is destroyed when the last of its holders is erased. This holds
in any order of two erasures, because each destroys its own keys before it checks those of the others.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from chassis.messaging.delivered import Delivered
from chassis.privacy.keys import KeyRing
from chassis.reactions.policies import DeclaredPolicy, Reaction
from chassis.service import Erasure
from chassis.write.events import StoredEvent
from contracts import purposes
from contracts.topics import CUSTOMER_EVENTS

from customer.connections import Write, reaching

EVENT: Final = "customer.erased"
CONTACT_EVENT: Final = "customer.contact_erased"


@dataclass(frozen=True, slots=True)
class DestroyKeys:
    """The policy, with what it needs."""

    ring: KeyRing
    reached: Callable[[str], None] = lambda _: None

    async def __call__(self, event: Delivered) -> None:
        """Destroys the keys that may be destroyed. A second call changes nothing."""
        if event.type == CONTACT_EVENT:
            own = [event.subject, *map(UUID, event.data["parties"])]
            await asyncio.to_thread(self.ring.erase, own, purposes.CONTACT)
            self.reached("keys-destroyed")
        if event.type == EVENT:
            parties = [UUID(party) for party in event.data["parties"]]
            accounts = {
                UUID(one["account"]): {UUID(other) for other in one["others"]}
                for one in event.data["accounts"]
            }
            await asyncio.to_thread(self._destroy, [event.subject, *parties], accounts)

    def _destroy(self, own: list[UUID], accounts: dict[UUID, set[UUID]]) -> None:
        self.ring.erase(own)
        self.reached("keys-destroyed")
        erased = self.ring.erased({other for others in accounts.values() for other in others})
        self.ring.erase([account for account, others in accounts.items() if others <= erased])


class _Data(msgspec.Struct):
    parties: tuple[UUID, ...]


class _Body(msgspec.Struct):
    data: _Data


def erased_by(stored: StoredEvent) -> Erasure | None:
    """Whose keys are gone, or will be within seconds; those of accounts depend on the erasures of others."""
    if stored.name not in {"customer-erased", "customer-contact-erased"}:
        return None
    parties = msgspec.json.decode(stored.body, type=_Body).data.parties
    purpose = None if stored.name == "customer-erased" else purposes.CONTACT
    return Erasure((stored.stream_id, *parties), purpose)


def _reaction(write: Write) -> Reaction:
    reached = write.settings.reached
    return Reaction(reaching(DestroyKeys(write.ring, reached), reached))


POLICY: Final = DeclaredPolicy(
    name="when_customer_erased_then_destroy_keys",
    sources=(CUSTOMER_EVENTS.name,),
    events=frozenset({EVENT, CONTACT_EVENT}),
    starts="beginning",
    reaction=_reaction,
)
