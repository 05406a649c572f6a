"""What routes of lists take and answer."""

from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BaseModel, Field

from chassis.conditions import Condition, Fields, Label, Step, as_text, sentence
from chassis.conditions.language import CalendarDay
from chassis.lists.asking import (
    SORT_CHARACTERS_MAX,
    WHERE_CHARACTERS_MAX,
    ConditionInvalid,
    FieldNotPermitted,
    SortInvalid,
)
from chassis.lists.finding import COUNTED_MAX, Counted, QueryTooSlow
from chassis.web.paging import CursorInvalid
from chassis.web.problems import refusals

WHERE: Final = Query(
    min_length=1,
    max_length=WHERE_CHARACTERS_MAX,
    description="a condition, as a line of text or as JSON (`Condition` of the schemas)",
)
Where = Annotated[str, WHERE]
Filtered = Annotated[str | None, WHERE]
Sorted = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=SORT_CHARACTERS_MAX,
        description="what the list is sorted by, with a minus before it where it descends; else by id",
    ),
]
Totalled = Annotated[bool, Query(description="count the whole list too")]
AsOf = Annotated[
    CalendarDay | None,
    Query(description="the day that windows of days end with; by default the business date"),
]
COUNTED: Final[dict[int | str, dict[str, Any]]] = refusals(ConditionInvalid, FieldNotPermitted, QueryTooSlow)
"""Belongs to the `responses` of a route that takes a condition."""
LISTED: Final[dict[int | str, dict[str, Any]]] = refusals(
    ConditionInvalid, SortInvalid, FieldNotPermitted, QueryTooSlow, CursorInvalid
)
"""Belongs to the `responses` of a route that gives pages of a list."""


class Total(BaseModel):
    """How many there are: `count`, or more where `more` says so."""

    count: int = Field(le=COUNTED_MAX)
    more: bool

    @classmethod
    def of(cls, counted: Counted) -> "Total":
        """A count as a response has it."""
        return cls(count=counted.count, more=counted.more)

    @classmethod
    def up_to(cls, found: int) -> "Total":
        """As `of`, where one more than can be counted stands for all that are more."""
        return cls(count=min(found, COUNTED_MAX), more=found > COUNTED_MAX)


class Sentence(BaseModel):
    """A condition in words."""

    zh: str
    en: str

    @classmethod
    def of(cls, label: Label) -> "Sentence":
        """The words as a response has them."""
        return cls(zh=label.zh, en=label.en)


class CountedCondition(Total):
    """How many meet a condition, and the condition in words."""

    sentence: Sentence


class FunnelPart(BaseModel):
    """A part of a condition, as text and in words."""

    where: str
    sentence: Sentence


class FunnelStep(FunnelPart):
    """How many meet a part alone, and how many meet it and all parts before it."""

    alone: Total
    so_far: Total


class Funnel(BaseModel):
    """The parts of a condition in order. `emptied_by`: where nobody meets all, the smallest set of parts that nobody
    meets together (R081)."""

    steps: list[FunnelStep]
    emptied_by: list[FunnelPart]


def funnel_of(steps: list[Step], culprits: tuple[Condition, ...] | None, fields: Fields) -> Funnel:
    """A funnel as a response has it."""
    return Funnel(
        steps=[
            FunnelStep(
                where=as_text(step.part),
                sentence=Sentence.of(step.sentence),
                alone=Total.up_to(step.alone),
                so_far=Total.up_to(step.so_far),
            )
            for step in steps
        ],
        emptied_by=[
            FunnelPart(where=as_text(each), sentence=Sentence.of(sentence(each, fields)))
            for each in culprits or ()
        ],
    )
