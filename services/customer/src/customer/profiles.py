"""Extended profiles of persons (扩展资料): noted by staff, and what was known of each field at a time (R016)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple
from uuid import UUID

from chassis.write.deciding import CommandContext, Outcome
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CustomerCommand, ExtendProfile
from customer.domain.events import (
    PROFILE_FIELDS,
    CustomerEvent,
    ProfileChannel,
    ProfileExtended,
    ProfileField,
)
from customer.domain.profile import ProfileChange, standing
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer

_NAMES: Final = frozenset({"profile-extended", "customer-erased", "customer-contact-erased"})


class ProfileFieldThen(NamedTuple):
    """What is known of a field by a change, and the event that says so; None where nothing ever was."""

    field: ProfileField
    change: ProfileChange | None
    recorded: RecordedEvent | None


class ProfileThen(NamedTuple):
    """What stood of each field at `at`, of what was recorded up to `known_at`, and the version of the customer that shows it."""

    version: int
    at: datetime
    known_at: datetime
    fields: list[ProfileFieldThen]


@dataclass(frozen=True, slots=True)
class CustomerProfiles:
    """Commands to the profiles of customers, and their histories, which are read from the event store."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    today: Callable[[], date]

    async def extend(
        self,
        customer: UUID,
        changes: Mapping[ProfileField, str | None],
        channel: ProfileChannel,
        context: CommandContext,
        version: int,
    ) -> Outcome[CustomerEvent]:
        """Notes these fields of a customer that the caller saw at `version`; the other fields stay.

        Raises CustomerNotRegistered, CustomerIsErased, VersionMismatch, ProfileOfCompany, ProfileValueUnknown, TooManyProfileChanges.
        """
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
        command = self.command(changes, channel, context)
        asked = ("extend-profile", command.changes, channel)
        return await self.handler.handle(customer, command, context, version, asked=asked)

    def command(
        self, changes: Mapping[ProfileField, str | None], channel: ProfileChannel, context: CommandContext
    ) -> ExtendProfile:
        """The command that notes these fields."""
        in_order = {field: changes[field] for field in PROFILE_FIELDS if field in changes}
        stated = context.effective_at is not None
        return ExtendProfile(in_order, channel, context.effective, self.today(), stated)

    async def then(
        self, customer: UUID, at: datetime | None, known_at: datetime | None, now: datetime
    ) -> ProfileThen:
        """What stood of each field at an instant, of what was recorded up to another; each is now where it is None, and at the latest.

        Raises CustomerNotRegistered, SubjectUnknown."""
        version = await self._version(customer)
        events = [one async for one in self.handler.recorded(customer, _NAMES)]
        changes = [change for one in events for change in changes_of(one)]
        # What is stored was so: the clock of the process that stored it may be ahead of ours.
        now = max([now, *(moment for one in changes for moment in (one.at, one.recorded_at))])
        at, known_at = min(at or now, now), min(known_at or now, now)
        stood = standing(changes, at, known_at)
        by_sequence = {one.version: one for one in events}
        fields = [
            ProfileFieldThen(field, change, None if change is None else by_sequence[change.sequence])
            for field in PROFILE_FIELDS
            for change in [stood.get(field)]
        ]
        return ProfileThen(version, at, known_at, fields)

    async def history(
        self, customer: UUID, field: ProfileField, after: int, limit: int
    ) -> list[ProfileFieldThen]:
        """The changes of a field beyond a sequence, in the order in which they were recorded. Raises CustomerNotRegistered, SubjectUnknown."""
        await self._version(customer)
        found = list[ProfileFieldThen]()
        async for one in self.handler.recorded(customer, _NAMES, after):
            found += [
                ProfileFieldThen(field, change, one) for change in changes_of(one) if change.field == field
            ]
            if len(found) >= limit:
                break
        return found

    async def _version(self, customer: UUID) -> int:
        head = (await self.store.stream_heads([customer])).get(customer)
        if head is None or not (await self.handler.load(customer)).version:
            raise CustomerNotRegistered
        return head


def changes_of(one: RecordedEvent) -> list[ProfileChange]:
    """The changes of fields that an event of a customer is; an erasure ends what is known of all of them."""
    event, recorded_at = one.event, one.metadata.recorded_at
    if isinstance(event, ProfileExtended):
        return [
            ProfileChange(field, getattr(event, field), event.since, recorded_at, one.version)
            for field in event.changed
        ]
    at = one.metadata.effective_at
    return [ProfileChange(field, None, at, recorded_at, one.version, erased=True) for field in PROFILE_FIELDS]
