"""What happens to a customer. Stream = customer; personal fields are sealed one by one when stored."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from chassis.events import Event, personal

Identifying = Annotated[str | None, personal("C2")]
CustomerKind = Literal["person", "company"]
Origin = Literal["staff", "master-data"]


class StatedAsset(msgspec.Struct, frozen=True):
    """A core asset as the customer states it when first met (R014); never part of a figure of the panorama."""

    product: Literal["deposit", "wealth", "insurance", "fund", "property", "other"]
    amount_minor: int
    currency: str


class CustomerRegistered(Event, frozen=True):
    """The bank knows this customer from now on.

    Version 2. Version 1 is from when all customers were persons entered by staff: it has no `kind` and no `origin`.
    """

    name: Identifying
    kind: CustomerKind
    origin: Origin
    phone: Identifying = None
    email: Identifying = None
    address: Identifying = None
    born_on: Identifying = None
    identity_number: Identifying = None
    branch: str | None = None
    stated_assets: tuple[StatedAsset, ...] = ()


class ReferenceLinked(Event, frozen=True):
    """`source` knows the customer under its own number; whatever that party holds is the customer's.

    `party_id` is the identity of this event in the store, so that one party is one customer's.
    """

    source: str
    party_id: UUID
    key: Annotated[str, personal("C2")]


class CustomerRenamed(Event, frozen=True):
    """The customer bears another name."""

    name: Annotated[str, personal("C2")]


class ContactDetailsChanged(Event, frozen=True):
    """How the customer is reached from now on; None where there is no such way."""

    phone: Identifying
    email: Identifying
    address: Identifying


class IdentityDetailsCorrected(Event, frozen=True):
    """What identifies the person was wrong or missing."""

    born_on: Identifying
    identity_number: Identifying


CustomerEvent = (
    CustomerRegistered | ReferenceLinked | CustomerRenamed | ContactDetailsChanged | IdentityDetailsCorrected
)

STORED_NAMES: dict[str, type[Event]] = {
    "customer-registered": CustomerRegistered,
    "reference-linked": ReferenceLinked,
    "customer-renamed": CustomerRenamed,
    "contact-details-changed": ContactDetailsChanged,
    "identity-details-corrected": IdentityDetailsCorrected,
}


def registered_v1_to_v2(data: dict[str, object]) -> dict[str, object]:
    """Version 1 knew persons only, and only staff entered them."""
    return {**data, "kind": "person", "origin": "staff"}
