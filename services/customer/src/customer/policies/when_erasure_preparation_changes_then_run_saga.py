"""When the preparation of an erasure begins, then its saga starts; when it ends, then the saga hears of it."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from chassis.sagas import Sagas
from contracts.topics import CUSTOMER_EVENTS

from customer.connections import Write, reaching
from customer.sagas import PREPARE_ERASURE, starting

NAME: Final = "when_erasure_preparation_changes_then_run_saga"
BEGUN: Final = "customer.erasure_preparation_begun"
ENDED: Final = "customer.erasure_preparation_ended"


@dataclass(frozen=True, slots=True)
class RunSaga:
    """The policy, with what it needs. The saga has the id of the preparation."""

    sagas: Sagas
    clock: Clock

    async def __call__(self, event: Delivered) -> None:
        """Starts the saga, or has it hear. A second call changes nothing."""
        preparation = UUID(event.data["preparation"])
        context = command_of(event, NAME, preparation, self.clock)
        if event.type == BEGUN:
            data = {
                "customer": str(event.subject),
                "preparation": str(preparation),
                "parties": event.data["parties"],
            }
            await self.sagas.start(PREPARE_ERASURE, preparation, data, context)
        elif event.type == ENDED:
            because = {"because": event.data["because"]}
            await self.sagas.hear(preparation, event.id, event.type, because, context)


def _reaction(write: Write) -> Reaction:
    return Reaction(reaching(RunSaga(starting(write), write.clock), write.settings.reached))


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(CUSTOMER_EVENTS.name,),
    events=frozenset({BEGUN, ENDED}),
    starts="beginning",
    reaction=_reaction,
)
