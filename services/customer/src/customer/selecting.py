"""The answers of the routes that select customers by a condition on their facts."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from chassis.conditions.explaining import Reason
from chassis.lists.routes import Sentence, Total
from chassis.privacy.tokens import Caller
from chassis.read.documents import ID
from pydantic import BaseModel, Field

from customer.domain.events import CustomerKind, Tier
from customer.facts import allowed
from customer.lists import FACTS_LIST
from customer.panorama.schema import Product

AmountsByCurrency = Annotated[
    dict[str, int] | None, Field(description="integer minor units by currency; null where you may not see it")
]


class CustomerFacts(BaseModel):
    """What is known of a customer that is not personal. Amounts are by currency, in integer minor units."""

    customer_id: UUID
    kind: CustomerKind
    branch: str | None
    products: list[Product]
    tags: list[str] = Field(description="codes of tags", examples=[["tag-sobk5xmthvl5l75v"]])
    tier: Tier | None
    accounts: int
    first_opened_on: date | None
    last_movement_on: date | None
    aum: AmountsByCurrency
    liabilities: AmountsByCurrency
    net_worth: AmountsByCurrency


class FactsPage(BaseModel):
    """A page; `next` is the cursor of the page after it. `total` where it was asked for."""

    items: list[CustomerFacts]
    next: str | None
    total: Total | None


class ClauseExplained(BaseModel):
    """A part of a condition that decides, and whether it holds."""

    holds: bool
    sentence: Sentence


class Explained(BaseModel):
    """Whether a customer meets a condition, and the parts that decide it."""

    holds: bool
    because: list[ClauseExplained]


def facts_shown(document: Mapping[str, Any], caller: Caller) -> CustomerFacts:
    """The facts that a caller may ask for; the others are null."""
    of_it = FACTS_LIST.shown(document, may_of(caller))
    return CustomerFacts(**{**of_it, "customer_id": document[ID]})


def may_of(caller: Caller) -> frozenset[str]:
    """What a caller may ask for beyond what everybody may."""
    return allowed(frozenset(caller.roles))


def explained(holds: bool, reasons: tuple[Reason, ...]) -> Explained:
    """An explanation as a response has it."""
    parts = [ClauseExplained(holds=one.holds, sentence=Sentence.of(one.sentence)) for one in reasons]
    return Explained(holds=holds, because=parts)
