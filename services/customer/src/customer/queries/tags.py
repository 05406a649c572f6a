"""Queries of tags: their documents, what a word in a condition means, and what a tag is called."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from chassis.conditions.language import And, IsAmong
from chassis.conditions.replacing import replaced, values_of
from chassis.lists import ConditionInvalid, Question, Reader, Scope
from chassis.lists.ordering import Order
from chassis.read.documents import ID, Document

from customer.domain.spelling import key_of
from customer.facts import TAGS
from customer.merging import stand_for
from customer.queries.collections import Collections
from customer.views.tags import INTO, KEYS

NEAREST_AMONG_MAX: Final = 2_000
"""Names among which the one is looked for that a caller may have meant."""
_BY_NAME: Final = Order("name")


class TagQueries:
    """Tags as the view shows them."""

    def __init__(self, views: Collections, reader: Reader) -> None:
        self._views = views
        self._reader = reader

    async def some(self, codes: Collection[str]) -> dict[str, Document]:
        """The documents of these tags by code, of those that the view shows."""
        return await self._having(ID, codes) if codes else {}

    async def ends(self, codes: Collection[str]) -> dict[str, Document]:
        """By code, the document of the tag that it stands for; a code that the view does not show yet is left out."""
        ends = await stand_for(codes, self.some)
        there = await self.some(set(ends.values()))
        return {code: there[end] for code, end in ends.items() if end in there}

    async def page(
        self, kind: str | None, status: str | None, caller: str, limit: int, after: str | None
    ) -> tuple[list[Document], str | None]:
        """A page of tags by name, and the cursor of the page after it."""
        wanted = [
            IsAmong(field=field, values=(value,))
            for field, value in (("kind", kind), ("status", status))
            if value is not None
        ]
        condition = And(conditions=tuple(wanted)) if wanted else None
        asked = Question(condition, _BY_NAME)
        found = await self._reader.page(Scope.all(), asked, caller, limit=limit, after=after)
        return found.documents, found.next

    async def meant(self, question: Question) -> Question:
        """The question with the codes that the facts hold, in place of the codes and names that tags have or had.

        Raises ConditionInvalid where there is no such tag.
        """
        if question.condition is None or not (said := values_of(question.condition, TAGS)):
            return question
        found = await self._called(said)
        unknown = [one for one in sorted(said) if one not in found]
        if unknown:
            raise ConditionInvalid(f"{TAGS} has no value {unknown[0]!r}{await self._nearest(unknown[0])}")
        ends = await stand_for(set(found.values()), self.some)
        instead = {one: ends[code] for one, code in found.items()}
        return replace(question, condition=replaced(question.condition, TAGS, instead))

    async def names(self, codes: Collection[str]) -> dict[str, str]:
        """The present names of these tags, of those that the view shows."""
        return {code: str(tag["name"]) for code, tag in (await self.some(codes)).items()}

    async def _called(self, said: Collection[str]) -> dict[str, str]:
        """By what was said, the code of the tag that is or was called so."""
        codes = await self.some(said)
        keys = {one: key_of(one) for one in said if one not in codes}
        by_key = {
            key: code for code, tag in (await self._having(KEYS, keys.values())).items() for key in tag[KEYS]
        }
        return {one: one for one in codes} | {one: by_key[key] for one, key in keys.items() if key in by_key}

    async def _having(self, field: str, values: Collection[str]) -> dict[str, Document]:
        if not values:
            return {}
        found = await self._views.mongo.find(
            await self._views.tags(), {field: {"$in": sorted(set(values))}}, limit=len(set(values))
        )
        return {one[ID]: one for one in found}

    async def _nearest(self, said: str) -> str:
        known = await self._views.mongo.find(
            await self._views.tags(), {}, fields={"name": 1}, order=[("name", 1)], limit=NEAREST_AMONG_MAX
        )
        near = get_close_matches(said, [one["name"] for one in known], 1)
        return f"; did you mean {near[0]!r}?" if near else ""


def tag_shown(tag: Mapping[str, object], version: int) -> Document:
    """A tag as `TagShown` has it."""
    names = ("name", "former", "kind", "status", INTO, "defined_at", "changed_at")
    return {"tag": tag[ID], "version": version, **{name: tag[name] for name in names}}
