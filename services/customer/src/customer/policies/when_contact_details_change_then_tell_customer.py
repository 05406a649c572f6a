"""When staff change how a customer is reached, then the customer is told, there where it was reached before.

Who takes over a customer's number or address by a false application is thereby found out. A customer who had none before
is told at the new one. Where customers have the bank's app, it tells them too: whoever took over the number has not their
device. What a source states is not told: the source does that itself.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

import structlog
from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.notices import Notices, RecipientUnfit, SubjectGone, Wanted
from chassis.privacy.keys import ERASED
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from contracts.topics import CUSTOMER_EVENTS

from customer.application import Handler
from customer.connections import Write, notices_of, reaching
from customer.domain.events import Detail
from customer.domain.state import Customer
from customer.notices import CONTACT_CHANGED_EMAIL, CONTACT_CHANGED_PUSH, CONTACT_CHANGED_SMS

NAME: Final = "when_contact_details_change_then_tell_customer"
EVENT: Final = "customer.contact_details_changed"
_NAMED: Final[dict[Detail, str]] = {"phone": "手机号码", "email": "电子邮箱", "address": "联系地址"}
_TOLD: Final[tuple[tuple[Detail, str], ...]] = (
    ("phone", CONTACT_CHANGED_SMS.name),
    ("email", CONTACT_CHANGED_EMAIL.name),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TellCustomer:
    """The policy, with what it needs. `app`: customers have the bank's app."""

    notices: Notices
    handler: Handler
    clock: Clock
    app: bool = False

    async def __call__(self, event: Delivered) -> None:
        """Requests a notice by SMS, one by e-mail and one in the app. A second call changes nothing."""
        if event.type != EVENT or event.data.get("source") is not None:
            return
        before = await self.handler.state_at(event.subject, event.sequence - 1)
        after = await self.handler.state_at(event.subject, event.sequence)
        changed = [field for field in _NAMED if _of(before, field) != _of(after, field)]
        what = "、".join(_NAMED[field] for field in changed)
        for field, template in _TOLD:
            to = _of(before, field) or _of(after, field)
            if changed and to is not None and to != ERASED:
                await self._tell(event, template, to, what)
        if changed and self.app:
            await self._tell(event, CONTACT_CHANGED_PUSH.name, str(event.subject), what)

    async def _tell(self, event: Delivered, template: str, to: str, what: str) -> None:
        id = uuid5(UUID(str(event.id)), template)
        context = command_of(event, NAME, id, self.clock)
        try:
            await self.notices.request(id, Wanted(event.subject, to, template, {"what": what}), context)
        except (RecipientUnfit, SubjectGone) as refusal:
            _log.info("a customer is not told", subject=str(event.subject), reason=refusal.code)


def _of(customer: Customer, field: Detail) -> str | None:
    return customer.values.get(field)


def _reaction(write: Write) -> Reaction:
    telling = TellCustomer(notices_of(write), write.handler, write.clock, write.settings.app_push)
    return Reaction(reaching(telling, write.settings.reached))


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(CUSTOMER_EVENTS.name,),
    events=frozenset({EVENT}),
    starts="now",
    reaction=_reaction,
)
