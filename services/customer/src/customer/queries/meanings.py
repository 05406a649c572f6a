"""What the words of a condition on the facts mean: the codes of tags, and digests in place of the codes of a sealed profile."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from chassis.conditions import Condition
from chassis.conditions.replacing import replaced, values_of
from chassis.lists import Question
from chassis.lists.declaring import BLIND
from chassis.read.blind import BlindIndex

from customer.domain.events import PROFILE_FIELDS, ProfileField
from customer.domain.profile import DICTIONARIES
from customer.facts import TAGS
from customer.queries.tags import TagQueries


class Meanings:
    """From the words of people to what the facts hold, and back."""

    def __init__(self, tags: TagQueries, blind: BlindIndex) -> None:
        self._tags = tags
        self._blind = blind
        self._digests = dict[ProfileField, Mapping[str, str]]()

    async def meant(self, question: Question) -> Question:
        """The question in what the facts hold; raises ConditionInvalid where there is no such tag."""
        asked = await self._tags.meant(question)
        if (condition := asked.condition) is None:
            return asked
        for field in PROFILE_FIELDS:
            if values_of(condition, field):
                condition = replaced(condition, field, await self._digests_of(field))
        return replace(asked, condition=condition)

    async def naming(self, condition: Condition) -> Callable[[Condition], Condition]:
        """What puts the words of people into a condition that is meant, or into a part of it."""
        instead: dict[str, Mapping[str, str]] = {TAGS: await self._tags.names(values_of(condition, TAGS))}
        for field in PROFILE_FIELDS:
            if values_of(condition, field):
                instead[field] = await self._codes_of(field)

        def named(part: Condition) -> Condition:
            for field, words in instead.items():
                part = replaced(part, field, words)
            return part

        return named

    async def named(self, condition: Condition) -> Condition:
        """A condition that is meant, in the words of people."""
        return (await self.naming(condition))(condition)

    async def worded(self, question: Question) -> str:
        """As `Question.worded`, of a question that is meant, in the words of people."""
        if question.condition is None:
            return ""
        return replace(question, condition=await self.named(question.condition)).worded()

    async def told(self, facts: Mapping[str, Any], condition: Condition) -> dict[str, Any]:
        """The facts of a customer in the words of people: names of tags, and the codes that a condition asks for."""
        names = await self._tags.names(facts[TAGS])
        blind = dict(facts[BLIND])
        for field in PROFILE_FIELDS:
            if values_of(condition, field):
                blind[field] = (await self._codes_of(field)).get(blind[field])
        return {**facts, TAGS: [names.get(code, code) for code in facts[TAGS]], BLIND: blind}

    async def _digests_of(self, field: ProfileField) -> Mapping[str, str]:
        if field not in self._digests:
            codes = [one.code for one in DICTIONARIES[field]]
            self._digests[field] = {code: await self._blind.digest(field, code) for code in codes}
        return self._digests[field]

    async def _codes_of(self, field: ProfileField) -> Mapping[str, str]:
        return {digest: code for code, digest in (await self._digests_of(field)).items()}
