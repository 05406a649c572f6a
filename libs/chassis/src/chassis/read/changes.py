"""The changes of a collection as MongoDB's change streams give them: ids, and places to go on from.

A place is a resume token of the server. It is valid in every process, as long as the server's log of operations (the
oplog) goes back that far. It begins with the time of an operation, in hexadecimal digits and in the order of time.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from bson.int64 import Int64
from pymongo.errors import OperationFailure
from typing_extensions import override

from chassis.read.documents import ID, DocumentId, DocumentsUnavailable
from chassis.read.mongo import Mongo

CHANGES_AT_ONCE: Final = 1_000
CLOSING_SECONDS_MAX: Final = 1.0
NO_REPLICA_SET: Final = "MongoDB is no replica set: it tells no changes"
_NO_REPLICA_SET_CODE: Final = 40_573
_TIME_TYPE: Final = "82"
AHEAD_SECONDS_MAX: Final = 10
_SECONDS_DIGITS: Final = 8
_TIME_DIGITS: Final = 18
"""Of a place: a byte of type, seconds, and a counter within the second."""
_UNCHANGED: Final = frozenset({"create", "createIndexes", "dropIndexes", "modify", "shardCollection"})


class ChangesLost(Exception):
    """The server cannot tell any more what came after a place, or the collection is gone."""


class Changed(NamedTuple):
    """Ids of changed documents, each once; `again`: those that changed more often. `place`: everything up to it was given, these included.

    `at`: when the first of them was written, by the server's clock, if the server says so. `more`: whether others are
    there already.
    """

    ids: tuple[DocumentId, ...]
    place: str
    at: datetime | None
    more: bool
    again: frozenset[DocumentId] = frozenset()


def is_ahead(place: str, end: str) -> bool:
    """Whether a place is of a time that the server has not reached: it is of another server, or was made up.

    A place where nothing happened yet may be a little ahead of the last operation.
    """
    first, after = len(_TIME_TYPE), len(_TIME_TYPE) + _SECONDS_DIGITS
    return int(place[first:after] or "0", 16) > int(end[first:after], 16) + AHEAD_SECONDS_MAX


def reaches(place: str, other: str) -> bool:
    """Whether a place is of the same time as another, or of a later one.

    At the place of a reply without changes, everything of its time was given.
    """
    return place[:_TIME_DIGITS] >= other[:_TIME_DIGITS]


class Changes(Protocol):
    """The changes of a collection, in order. A document that is given can be read as it was written, or later."""

    place: str

    async def next(self, seconds_max: float) -> Changed:
        """The next changes, `CHANGES_AT_ONCE` at most; without ids where none came in time.

        Raises ChangesLost, DocumentsUnavailable.
        """
        ...

    async def close(self) -> None:
        """Lets the server forget the cursor."""
        ...


class ChangeLog(Protocol):
    """The changes of a database: MongoDB's change streams in production, a list in the simulation."""

    async def opened(
        self, collection: str, after: str | None = None, ids: Collection[DocumentId] | None = None
    ) -> Changes:
        """The changes of a collection after a place, or from now on; of some ids alone where any are given.

        Raises ChangesLost where the server cannot go on from that place, DocumentsUnavailable.
        """
        ...

    async def end(self) -> str:
        """The place of the last operation, of whatever collection; raises DocumentsUnavailable."""
        ...


class MongoChanges(Changes):
    """The changes of a collection of MongoDB, read with one cursor."""

    def __init__(self, mongo: Mongo, collection: str, session: Any) -> None:
        self.place = ""
        self._mongo = mongo
        self._collection = collection
        self._session = session
        self._cursor = 0
        self._first: list[dict[str, Any]] = []

    @classmethod
    async def opened(
        cls, mongo: Mongo, collection: str, after: str | None, ids: Collection[DocumentId] | None
    ) -> "MongoChanges":
        """Opens the cursor. Raises ChangesLost where the server cannot go on from a place."""
        found = cls(mongo, collection, await mongo.session())
        stages: list[dict[str, Any]] = [
            {"$changeStream": {} if after is None else {"startAfter": {"_data": after}}}
        ]
        if ids is not None:
            stages.append({"$match": {f"documentKey.{ID}": {"$in": list(ids)}}})
        stages.append({"$project": {f"documentKey.{ID}": 1, "operationType": 1, "wallTime": 1}})
        command = {"aggregate": collection, "pipeline": stages, "cursor": {"batchSize": 0}}
        try:
            await found._asked(command, "firstBatch")
        except BaseException:
            await found.close()
            raise
        return found

    @override
    async def next(self, seconds_max: float) -> Changed:
        if not self._cursor:
            raise ChangesLost(self._collection)
        command = {
            "getMore": Int64(self._cursor),
            "collection": self._collection,
            "batchSize": CHANGES_AT_ONCE,
            "maxTimeMS": max(1, int(seconds_max * 1_000)),
        }
        batch = await self._asked(command, "nextBatch")
        found, again = dict[DocumentId, None](), set[DocumentId]()
        for one in batch:
            if ID in one.get("documentKey", ()):
                id = one["documentKey"][ID]
                if id in found:
                    again.add(id)
                found[id] = None
            elif one["operationType"] not in _UNCHANGED:
                raise ChangesLost(self._collection)
        at = next((one["wallTime"] for one in batch if "wallTime" in one), None)
        return Changed(tuple(found), self.place, at, len(batch) == CHANGES_AT_ONCE, frozenset(again))

    @override
    async def close(self) -> None:
        try:
            if self._cursor:
                gone = {"killCursors": self._collection, "cursors": [Int64(self._cursor)]}
                async with asyncio.timeout(CLOSING_SECONDS_MAX):
                    await self._mongo.command(gone, self._session)
        except (DocumentsUnavailable, TimeoutError):
            pass  # the server forgets a cursor that nobody reads
        finally:
            self._cursor = 0
            await self._session.end_session()

    async def _asked(self, command: dict[str, Any], batch: str) -> list[dict[str, Any]]:
        try:
            reply = await self._mongo.command(command, self._session)
        except OperationFailure as error:
            if error.code == _NO_REPLICA_SET_CODE:
                raise DocumentsUnavailable(NO_REPLICA_SET) from error
            raise ChangesLost(f"{self._collection}: {error.code}") from error
        cursor = reply["cursor"]
        self._cursor = cursor["id"]
        self.place = cursor["postBatchResumeToken"]["_data"]
        found: list[dict[str, Any]] = cursor[batch]
        return found


class MongoChangeLog(ChangeLog):
    """The changes of a database of MongoDB, which is a replica set."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    @override
    async def opened(
        self, collection: str, after: str | None = None, ids: Collection[DocumentId] | None = None
    ) -> MongoChanges:
        return await MongoChanges.opened(self._mongo, collection, after, ids)

    @override
    async def end(self) -> str:
        at = (await self._mongo.command({"ping": 1})).get("operationTime")
        if at is None:
            raise DocumentsUnavailable(NO_REPLICA_SET)
        return f"{_TIME_TYPE}{at.time:08X}{at.inc:08X}"
