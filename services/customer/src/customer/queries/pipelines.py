"""Expressions and stages of MongoDB that several queries use."""

from typing import Any, Final

JOINED_BYTES_MAX: Final = 12_000_000
"""Of all that is joined to one document. MongoDB closes the connection where a document of an answer exceeds 16 MB."""
FEW: Final = 100
"""So few joined documents are not measured."""
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


def bounded(into: str, bytes_max: int = JOINED_BYTES_MAX) -> dict[str, Any]:
    """A stage that puts null in place of what was joined `into` where it is larger than that."""
    joined = f"${into}"
    sizes = {"$map": {"input": joined, "as": "one", "in": {"$bsonSize": "$$one"}}}
    fits = {"$or": [{"$lte": [{"$size": joined}, FEW]}, {"$lte": [{"$sum": sizes}, bytes_max]}]}
    return {"$set": {into: {"$cond": [fits, joined, None]}}}
