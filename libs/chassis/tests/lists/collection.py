"""A collection that tests of lists fill, and what of it a question finds by plain Python."""

from collections.abc import Iterable
from datetime import date
from typing import Any

from chassis.conditions import Fields, holds
from chassis.conditions.language import Condition
from chassis.lists import Scope
from chassis.read.documents import GONE
from chassis.read.mongo import Mongo

COLLECTION = "things_v1_all"


class Live:
    """The one generation."""

    async def collection(self, view: str, name: str) -> str:
        return f"{view}_v1_{name}"


async def fill(mongo: Mongo, things: Iterable[dict[str, Any]]) -> None:
    """Inserts documents, and a tombstone."""
    for thing in (*things, {"_id": "9999", GONE: True}):
        await mongo.insert_new(COLLECTION, thing)


def found_in(
    things: Iterable[dict[str, Any]], condition: Condition | None, scope: Scope, fields: Fields, as_of: date
) -> list[dict[str, Any]]:
    """The documents in scope that meet a condition, in the order of `things`."""
    return [
        one
        for one in things
        if (condition is None or holds(condition, one, fields, as_of)) and scope.covers(one, fields, as_of)
    ]
