"""The tags of a customer: added and removed by staff, or by a rule."""

from collections.abc import Sequence
from typing import Literal, assert_never

from msgspec import structs

from customer.domain.commands import ChangeTags
from customer.domain.events import TagAdded, TagRemoved
from customer.domain.refusals import TAGS_MAX, TagOfAnother, TooManyTags
from customer.domain.state import Customer

TaggingEvent = TagAdded | TagRemoved


def decide_tags(command: ChangeTags, customer: Customer) -> Sequence[TaggingEvent]:
    """The events of a command, all or none; raises TagOfAnother, TooManyTags.

    A customer may have a tag several times, by tags that were merged into one. Who takes it away takes away what is its own,
    and the tag stays where somebody else gave it too.
    """
    left, events = dict(customer.tags), list[TaggingEvent]()
    removed, foreign = list[str](), list[str]()
    for one in command.remove:
        there = [code for code in one.codes if code in left]
        own = [code for code in there if command.overriding or left[code] == command.rule]
        removed += own
        foreign += [] if own else there
    if foreign:
        raise TagOfAnother(", ".join(foreign))
    for code in dict.fromkeys(removed):
        del left[code]
        events.append(TagRemoved(code=code, rule=command.rule))
    origin: Literal["manual", "system"] = "manual" if command.rule is None else "system"
    for one in command.add:
        if left.keys().isdisjoint(one.codes):
            left[one.code] = command.rule
            events.append(TagAdded(code=one.code, origin=origin, rule=command.rule))
    if len(left) > max(TAGS_MAX, len(customer.tags)):
        raise TooManyTags
    return events


def evolve_tags(customer: Customer, event: TaggingEvent) -> Customer:
    """The customer after an event."""
    match event:
        case TagAdded(code, _, rule):
            return structs.replace(customer, tags={**customer.tags, code: rule})
        case TagRemoved(code):
            left = {one: rule for one, rule in customer.tags.items() if one != code}
            return structs.replace(customer, tags=left)
        case _:
            assert_never(event)
