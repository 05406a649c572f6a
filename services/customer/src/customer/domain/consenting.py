"""Consents of customers (同意), by channel and purpose, and what stood at a time as it was known at another (M36).

Unknown is refusal. What is effective last stands, whenever it was recorded; of two at the same instant a withdrawal. An erasure ends
all that was said, also what another process stored with a later time.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple, assert_never, get_args

from customer.domain.commands import GiveConsent, WithdrawConsent
from customer.domain.events import ConsentChannel, ConsentGiven, ConsentPurpose, ConsentWithdrawn
from customer.domain.refusals import ConsentTermInvalid

CHANNELS: Final[tuple[ConsentChannel, ...]] = get_args(ConsentChannel)
PURPOSES: Final[tuple[ConsentPurpose, ...]] = get_args(ConsentPurpose)
Pair = tuple[ConsentChannel, ConsentPurpose]


class ConsentChange(NamedTuple):
    """That a consent was given or withdrawn, from `at` on, which was recorded at `recorded_at` as the event `sequence`. `erased`: by an
    erasure, after which nothing is said."""

    channel: ConsentChannel
    purpose: ConsentPurpose
    given: bool
    valid_until: date | None
    at: datetime
    recorded_at: datetime
    sequence: int
    erased: bool = False

    @property
    def order(self) -> tuple[bool, datetime, bool, int]:
        """Of the changes of one channel and purpose the last in this order stands."""
        return (self.erased, self.at, not self.given, self.sequence)

    def valid_on(self, day: date) -> bool:
        """Whether it is a consent that stands on a business date."""
        return self.given and (self.valid_until is None or day < self.valid_until)


def decide_consent(command: GiveConsent | WithdrawConsent) -> Sequence[ConsentGiven | ConsentWithdrawn]:
    """The events of a command; raises ConsentTermInvalid. Each is stored, because each has its own evidence."""
    match command:
        case GiveConsent(channel, purpose, evidence, valid_until, on, consent):
            if valid_until is not None and valid_until <= on:
                raise ConsentTermInvalid(f"after {on}")
            return [ConsentGiven(channel, purpose, evidence, valid_until, consent)]
        case WithdrawConsent(channel, purpose, evidence, consent):
            return [ConsentWithdrawn(channel, purpose, evidence, consent)]
        case _:
            assert_never(command)


def standing(changes: Iterable[ConsentChange], at: datetime, known_at: datetime) -> dict[Pair, ConsentChange]:
    """By channel and purpose the change that stood at `at`, of what was recorded up to `known_at`."""
    found = dict[Pair, ConsentChange]()
    for one in changes:
        pair = one.channel, one.purpose
        if one.at <= at and one.recorded_at <= known_at:
            found[pair] = max(found.get(pair, one), one, key=lambda each: each.order)
    return found
