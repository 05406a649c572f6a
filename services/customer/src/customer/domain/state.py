"""The state of a customer that decisions need."""

from datetime import date, datetime
from typing import NewType
from uuid import UUID

import msgspec
from msgspec import structs

from customer.domain.events import CustomerKind, Detail, ProfileField, RegisteredBy, Tier

CustomerId = NewType("CustomerId", UUID)


class Link(msgspec.Struct, frozen=True):
    """An external id of a customer. `described`: the description of a disputed one's party in master data.

    `earlier` is the confirmed link of the same number before this one, of several the one that ends last. No other is kept,
    or a number that is claimed and given up again and again would fill the state. Of days before both, the view knows more.
    """

    source: str
    key: str
    confirmed: bool
    linked_from: date | None = None
    until: date | None = None
    described: dict[Detail, str] | None = None
    earlier: "Link | None" = None

    def stands_on(self, day: date) -> bool:
        """Whether the number belongs to the customer on a business date, confirmed or not."""
        return (self.linked_from is None or self.linked_from <= day) and self.ends_after(day)

    def ends_after(self, day: date) -> bool:
        """Whether the number belongs to the customer on a business date or later. A claim that nobody confirmed ends at
        once."""
        return self.until is None or (self.confirmed and day < self.until)

    def ended(self, until: date) -> "Link":
        """The link where the number is the customer's before a business date only: by an earlier link neither. Who gives up a
        claim says nothing of an earlier link."""
        earlier = self.earlier
        if self.confirmed and earlier is not None:
            earlier = structs.replace(earlier, until=min(earlier.until or until, until))
        return structs.replace(self, until=until, described=None, earlier=earlier)


class TierOverride(msgspec.Struct, frozen=True):
    """A tier that staff put a customer into, before the business date `valid_until`."""

    tier: Tier
    valid_until: date


class Need(msgspec.Struct, frozen=True):
    """What a customer needs: the code of a kind or a kind in other words, and a text."""

    kind: str | None
    kind_text: str | None
    text: str


class OpenNeed(msgspec.Struct, frozen=True):
    """A need that is open, and how often it was corrected."""

    need: Need
    corrections: int = 0


class Stated(msgspec.Struct, frozen=True):
    """A value of a field from an instant on; None where it is not known from then on."""

    since: datetime
    value: str | None


class Customer(msgspec.Struct, frozen=True):
    """The state of a customer that decisions need. The initial value is an unregistered customer.

    `values` are the current details. `stated_by` is the author of each (None: staff). `last` are the
    values that each party's source stated last. `contradictions` are its values that differ from staff's,
    by field and party. `number_shared`: the identity number was another customer's when a source stated it, so this customer
    claims none. `review_due_on`: of a key customer; `review_reminded`: of that review.
    `preparation`: that of an erasure which is under way; `prepared`: no source releases records of the parties.
    `rest_from`: the business date on which the rest of an erasure is due whose values for contact are gone. `holds`: the business date
    before which each legal hold stands, None where it has to be lifted. `tags`: by code the rule that added each, None where staff
    did. `tier`: the one that the last assessment gave, of the month `tier_month`; `tier_override`: the one that stands, and is in force
    instead. `needs`: those that are open. `profile`: what was stated of each field, in the order of when it was so, once for each
    instant.
    """

    origin: RegisteredBy | None = None
    kind: CustomerKind = "person"
    values: dict[Detail, str | None] = {}
    stated_by: dict[Detail, UUID | None] = {}
    last: dict[UUID, dict[Detail, str]] = {}
    contradictions: dict[Detail, dict[UUID, str]] = {}
    links: dict[UUID, Link] = {}
    number_shared: bool = False
    erased: bool = False
    review_due_on: date | None = None
    review_reminded: bool = False
    preparation: UUID | None = None
    prepared: bool = False
    contact_erased: bool = False
    rest_from: date | None = None
    holds: dict[UUID, date | None] = {}
    tags: dict[str, str | None] = {}
    tier: Tier | None = None
    tier_month: str | None = None
    tier_override: TierOverride | None = None
    needs: dict[UUID, OpenNeed] = {}
    profile: dict[ProfileField, tuple[Stated, ...]] = {}

    @property
    def tier_in_force(self) -> Tier | None:
        """The tier of the override that stands, else the assessed one."""
        return self.tier if self.tier_override is None else self.tier_override.tier

    @property
    def registered(self) -> bool:
        """Whether the customer is registered."""
        return self.origin is not None

    def has(self, party: UUID, day: date) -> bool:
        """Whether the party belongs to this customer on a business date, confirmed or not."""
        return self.link_on(party, day) is not None

    def link_on(self, party: UUID, day: date) -> Link | None:
        """The link by which the party belongs to this customer on a business date, confirmed or not."""
        return next((link for link in self._links_of(party) if link.stands_on(day)), None)

    def has_later(self, party: UUID, day: date) -> bool:
        """Whether the party belongs to this customer on a business date or later, confirmed or not."""
        return any(link.ends_after(day) for link in self._links_of(party))

    def confirmed_until(self) -> dict[UUID, date | None]:
        """The parties that are or were the customer's, each with the day on which its last confirmed link ended or ends.

        A number that was given up and then claimed again is among them.
        """
        last = {party: self.last_confirmed(party) for party in self.links}
        return {party: link.until for party, link in last.items() if link is not None}

    def last_confirmed(self, party: UUID) -> Link | None:
        """Of the confirmed links by which the party is or was this customer's, the one that ends last, without another."""
        confirmed = [link for link in self._links_of(party) if link.confirmed]
        last = max(confirmed, key=lambda link: link.until or date.max, default=None)
        return None if last is None else structs.replace(last, earlier=None)

    def _links_of(self, party: UUID) -> list[Link]:
        """The links of a number, the newest first."""
        newest = self.links.get(party)
        return [link for link in (newest, newest and newest.earlier) if link is not None]
