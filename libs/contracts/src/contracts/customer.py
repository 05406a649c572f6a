"""Public events of the context customer, version 1.

Subject = customer. Fields named in `PERSONAL` carry sealed tokens; only who holds the customer's key reads them.
"""

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class CustomerContextEvent(BaseModel):
    """Base of the customer context's public events. Readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    PERSONAL: ClassVar[frozenset[str]] = frozenset()


class CustomerRegistered(CustomerContextEvent):
    """The bank knows this customer from now on; `origin` says whether staff or a source's master data said so."""

    TYPE = "customer.registered"
    PERSONAL = frozenset({"name", "phone", "email", "address", "born_on", "identity_number"})

    name: str | None = None
    kind: Literal["person", "company"]
    origin: Literal["staff", "master-data"]
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    branch: str | None = None


class CustomerReferenceLinked(CustomerContextEvent):
    """A source knows the customer as the party `party_id`; the party's accounts are the customer's."""

    TYPE = "customer.reference_linked"

    source: str
    party_id: UUID


class CustomerRenamed(CustomerContextEvent):
    """The customer bears another name."""

    TYPE = "customer.renamed"
    PERSONAL = frozenset({"name"})

    name: str


class CustomerContactDetailsChanged(CustomerContextEvent):
    """How the customer is reached from now on."""

    TYPE = "customer.contact_details_changed"
    PERSONAL = frozenset({"phone", "email", "address"})

    phone: str | None = None
    email: str | None = None
    address: str | None = None


class CustomerIdentityDetailsCorrected(CustomerContextEvent):
    """What identifies the person was wrong or missing."""

    TYPE = "customer.identity_details_corrected"
    PERSONAL = frozenset({"born_on", "identity_number"})

    born_on: str | None = None
    identity_number: str | None = None


EVENTS: tuple[type[CustomerContextEvent], ...] = (
    CustomerRegistered,
    CustomerReferenceLinked,
    CustomerRenamed,
    CustomerContactDetailsChanged,
    CustomerIdentityDetailsCorrected,
)
