"""Expressions and stages of MongoDB that several queries use."""

from typing import Any, Final

CONCATENATED: Final = {"$concatArrays": ["$$value", "$$this"]}
"""The step of a $reduce that joins lists."""


def standing_expression(members: object, day: str) -> dict[str, Any]:
    """`holdings.stands_on` as an expression of MongoDB: null and missing sort before every text."""
    since = {"$lte": [{"$ifNull": ["$$one.from", ""]}, day]}
    until = {"$gt": [{"$ifNull": ["$$one.until", "9999-12-32"]}, day]}
    return {"$filter": {"input": members, "as": "one", "cond": {"$and": [since, until]}}}


def lookup(collection: str, local: str, foreign: str, into: str) -> dict[str, Any]:
    """A stage that joins another collection in."""
    return {"$lookup": {"from": collection, "localField": local, "foreignField": foreign, "as": into}}
