"""Conditions as a caller may ask them, and the facts as a caller may see them."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar
from uuid import UUID

from chassis.conditions import Condition, ConditionRefused, Fields, Label, from_text, sentence
from chassis.conditions.explaining import Reason
from chassis.privacy.tokens import Caller
from chassis.write.deciding import Refusal
from pydantic import BaseModel, Field

from customer.domain.events import CustomerKind
from customer.facts import FIELDS, allowed
from customer.panorama.schema import Product
from customer.queries.facts import COUNTED_MAX

AmountsByCurrency = Annotated[
    dict[str, int] | None, Field(description="integer minor units by currency; null where you may not see it")
]


class ConditionInvalid(Refusal):
    """The condition cannot be read, or asks for what there is not."""

    code: ClassVar[str] = "condition-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The condition cannot be asked"
    title_zh: ClassVar[str] = "条件无法查询"


class FieldNotPermitted(Refusal):
    """The condition asks for a field that the caller may not ask for."""

    code: ClassVar[str] = "field-not-permitted"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "You may not ask for this field"
    title_zh: ClassVar[str] = "您无权按此字段查询"


class CustomerFacts(BaseModel):
    """What is known of a customer that is not personal. Amounts are by currency, in integer minor units."""

    customer_id: UUID
    kind: CustomerKind
    branch: str | None
    products: list[Product]
    accounts: int
    first_opened_on: date | None
    last_movement_on: date | None
    aum: AmountsByCurrency
    liabilities: AmountsByCurrency
    net_worth: AmountsByCurrency


class FactsPage(BaseModel):
    """A page in the order of ids; `next` is the cursor of the page after it."""

    items: list[CustomerFacts]
    next: str | None


class Sentence(BaseModel):
    """A condition in words."""

    zh: str
    en: str

    @classmethod
    def of(cls, label: Label) -> "Sentence":
        """The words as a response has them."""
        return cls(zh=label.zh, en=label.en)


class Counted(BaseModel):
    """How many customers meet a condition: `count`, or more where `more` says so."""

    count: int
    more: bool
    sentence: Sentence


class ClauseExplained(BaseModel):
    """A part of a condition that decides, and whether it holds."""

    holds: bool
    sentence: Sentence


class Explained(BaseModel):
    """Whether a customer meets a condition, and the parts that decide it."""

    holds: bool
    because: list[ClauseExplained]


def asked(where: str, caller: Caller) -> Condition:
    """The condition of a line of text; raises ConditionInvalid, FieldNotPermitted."""
    try:
        return from_text(where, fields_for(caller))
    except ConditionRefused as refused:
        try:
            from_text(where, FIELDS)
        except ConditionRefused:
            raise ConditionInvalid(str(refused)) from refused
        raise FieldNotPermitted from refused


def fields_for(caller: Caller) -> Fields:
    """The fields that a caller may ask for."""
    return FIELDS.for_caller(allowed(frozenset(caller.roles)))


def facts_shown(document: Mapping[str, Any], caller: Caller) -> CustomerFacts:
    """The facts that a caller may ask for; the others are null."""
    may = fields_for(caller)
    shown = {name: document.get(name) for name in CustomerFacts.model_fields if name in may}
    hidden = dict.fromkeys(name for name in CustomerFacts.model_fields if name not in may)
    return CustomerFacts(**{**hidden, **shown, "customer_id": document["_id"]})


def counted(condition: Condition, count: int) -> Counted:
    """A count as a response has it."""
    said = Sentence.of(sentence(condition, FIELDS))
    return Counted(count=min(count, COUNTED_MAX), more=count > COUNTED_MAX, sentence=said)


def explained(holds: bool, reasons: tuple[Reason, ...]) -> Explained:
    """An explanation as a response has it."""
    parts = [ClauseExplained(holds=one.holds, sentence=Sentence.of(one.sentence)) for one in reasons]
    return Explained(holds=holds, because=parts)
