"""An edit of a customer that somebody else changed since it was read: both changes beside what they began from (R060)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast
from uuid import UUID

from chassis.write.deciding import CommandContext, Outcome, VersionMismatch
from chassis.write.handling import CommandHandler

from customer.domain.commands import (
    ChangeContactDetails,
    CorrectIdentityDetails,
    CustomerCommand,
    EditDetails,
    RenameCustomer,
)
from customer.domain.deciding import decide
from customer.domain.events import CustomerEvent, CustomerKind
from customer.domain.evolving import evolve
from customer.domain.state import Customer

DetailsCommand = RenameCustomer | ChangeContactDetails | CorrectIdentityDetails | EditDetails
Values = Mapping[str, str | None]


class FieldCompared(NamedTuple):
    """A field that the caller edits, or that was changed since: what the caller read, what stands, and what the caller wants.

    `edited`: the caller edits it. `changed`: it was changed since. Both together are a conflict, whatever the values are: who
    learned whether they are equal could guess a value that is shown masked.
    """

    field: str
    base: str | None
    theirs: str | None
    mine: str | None
    edited: bool
    changed: bool

    @property
    def conflict(self) -> bool:
        """Whether a person has to decide."""
        return self.edited and self.changed


class EditOutdated(VersionMismatch):
    """The customer was changed since the caller read it: each field that either of both changed. The values are in clear."""

    def __init__(
        self, expected: int, actual: int, fields: tuple[FieldCompared, ...], kind: CustomerKind
    ) -> None:
        super().__init__(expected, actual)
        self.fields = fields
        self.kind = kind


@dataclass(frozen=True, slots=True)
class CustomerEdits:
    """Compares edits with the events since the version that their authors read."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]

    async def outdated(
        self,
        customer: UUID,
        command: CustomerCommand,
        mine: Values,
        context: CommandContext,
        mismatch: VersionMismatch,
        values: Callable[[Customer], Values],
    ) -> Outcome[CustomerEvent]:
        """The customer as it stands, where the caller itself has changed all of these fields to these values since, and `command` has
        nothing to change: RFC 9110, 13.1.1. A value from another time on is a change of its own.

        Raises EditOutdated with what was changed; `mismatch` where there was no such version, or the values are erased. `values` gives
        those of a state that are edited.
        """
        version = mismatch.expected
        if not 1 <= version < mismatch.actual:
            raise mismatch
        state = await self.handler.state_at(customer, version)
        base, now, position = values(state), values(state), 0
        authors = dict[str, tuple[str, str | None]]()
        async for recorded in self.handler.recorded(customer, after=version):
            state = evolve(state, cast(CustomerEvent, recorded.event))
            before, now = now, values(state)
            by = (recorded.metadata.actor, recorded.metadata.on_behalf_of)
            authors |= {
                field: by for field in before.keys() | now.keys() if before.get(field) != now.get(field)
            }
            version, position = recorded.version, recorded.position or 0
        if state.erased or state.contact_erased:
            raise mismatch
        me = (context.actor, context.on_behalf_of)
        saved = all(authors.get(field) == me and now.get(field) == value for field, value in mine.items())
        if saved and not decide(command, state):
            return Outcome(customer, version, position, ())
        raise EditOutdated(mismatch.expected, version, compared(base, now, mine), state.kind)


def compared(base: Values, theirs: Values, mine: Values) -> tuple[FieldCompared, ...]:
    """Each field that is edited or was changed since, in order of their names."""
    return tuple(
        FieldCompared(field, base.get(field), theirs.get(field), mine.get(field), field in mine, changed)
        for field in sorted(base.keys() | theirs.keys() | mine.keys())
        for changed in [base.get(field) != theirs.get(field)]
        if changed or field in mine
    )


def details_at(state: Customer) -> Values:
    """The details of a customer that are edited: all but the branch, which is assigned."""
    return {field: value for field, value in state.values.items() if field != "branch"}


def details_of(command: CustomerCommand) -> Values:
    """The details that a command changes."""
    match command:
        case RenameCustomer(name):
            return {"name": name}
        case ChangeContactDetails(phone, email, address):
            return {"phone": phone, "email": email, "address": address}
        case CorrectIdentityDetails(born_on, identity_number):
            return {"born_on": born_on, "identity_number": identity_number}
        case EditDetails(changes):
            return dict[str, str | None](changes.items())
        case _:
            raise TypeError(type(command))
