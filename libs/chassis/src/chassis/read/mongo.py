"""MongoDB behind one small class, with either of its asynchronous drivers: PyMongo Async, or Motor where
asked for.

The two differ in which calls are awaited. Only this module knows which one is in use.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, Self, cast

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.int64 import Int64
from pymongo import AsyncMongoClient
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)
from pymongo.uri_parser import parse_uri
from typing_extensions import override

from chassis.ending import ended
from chassis.read.documents import (
    ID,
    SEQUENCE,
    AnswerTooLarge,
    Change,
    Document,
    DocumentId,
    Documents,
    DocumentsSlow,
    DocumentsUnavailable,
    IndexMissing,
    Unwritable,
    Written,
)

Driver = Literal["pymongo", "motor"]

DATABASE_DEFAULT: Final = "crm"
POOL_CONNECTIONS_MAX: Final = 20
SELECTION_TIMEOUT_MS: Final = 5_000
SOCKET_TIMEOUT_MS: Final = 60_000
CLOSING_SECONDS_MAX: Final = 1.0
CLOSED_TRIES: Final = 2
"""The first time the driver tells the server which sessions end; it has none left the second time."""
COMMAND_BYTES_MAX: Final = 8_000_000
"""Documents of one write command; the server takes commands of 16 MB."""
COMMAND_WRITES_MAX: Final = 2_000
DOCUMENT_BYTES_MAX: Final = 16_000_000
LOADED_AT_ONCE_MAX: Final = 5_000
PAGE_DOCUMENTS: Final = 1_000

_DUPLICATE_KEY: Final = 11_000
_BAD_VALUE: Final = 2
_INDEX_NOT_FOUND: Final = 27
_ID_INDEX: Final = "_id_"
_UNIQUE_BROKEN: Final = "breaks a unique index"
_TEXT_ID: Final = b"\x02_id\0"
"""A field of BSON: its type, which is text, and its name. The length of the text and the text follow."""


class _Int64(TypeDecoder):
    """Decodes integers of 2^31 and more as plain int.

    The driver's own type is a subclass, which JSON encoders refuse.
    """

    bson_type = Int64
    transform_bson = int  # type: ignore[assignment]  # a type is called as it is, without a frame of Python


class _Integral(TypeDecoder):
    """Decodes a decimal as an int. No document holds a decimal; the only one is the result of `exact_sum`."""

    bson_type = Decimal128

    @override
    def transform_bson(self, value: Decimal128) -> int:
        number = value.to_decimal()
        if number != int(number):
            raise ValueError("a decimal of the database is no integer")
        return int(number)


_REGISTRY: Final = TypeRegistry([_Int64(), _Integral()])
_SERVERS_OWN: Final = frozenset(
    {
        *(6, 7, 89, 202, 9001),  # a host of the set does not answer
        *(91, 189, 10107, 11600, 11602, 13435, 13436),  # not the primary any more, or shutting down
        *(13, 18),  # not authorised, or not yet
        *(14031, 146),  # out of disk, out of memory
        *(24, 46, 50, 112, 262, 290, 314),  # locks, conflicts and time limits
        *(64, 79, 100, 133, 134, 246),  # too few members for what was asked
        *(43, 175, 237, 251, 279, 11601),  # interrupted or killed
        *(117, 215, 276),  # the database or collection is being dropped, or an index of it is being made
    }
)
"""Error codes about the server's own state, its disk, memory, locks and members, and not about the request."""
_TOO_LARGE: Final = frozenset({4568, 10334})
"""A join of more than 100 MB, and a document of more than 16 MB."""
_OPTIONS: Final[CodecOptions[Any]] = CodecOptions(
    tz_aware=True, uuid_representation=bson.binary.UuidRepresentation.STANDARD, type_registry=_REGISTRY
)


def exact_sum(expression: str) -> dict[str, Any]:
    """An accumulator that sums integers exactly to 34 digits; `$sum` alone turns to floating point beyond 64
    bits."""
    return {"$sum": {"$toDecimal": expression}}


class Mongo:
    """A database. All calls raise DocumentsUnavailable when the server does not answer."""

    def __init__(self, client: Any, database: str, driver: Driver) -> None:
        self.driver = driver
        self.name = database
        self._client = client
        self._database = client[database]

    @classmethod
    def connect(cls, url: str, driver: Driver = "pymongo", database: str | None = None) -> Self:
        """A client on the database of the URL, or on `database`. Nothing is sent yet.

        Belongs to the running loop.
        """
        parsed = parse_uri(url)
        given = {option.lower() for option in parsed["options"]}
        options: dict[str, Any] = {
            "maxPoolSize": POOL_CONNECTIONS_MAX,
            "serverSelectionTimeoutMS": SELECTION_TIMEOUT_MS,
            "socketTimeoutMS": SOCKET_TIMEOUT_MS,
            "w": "majority",
        }
        options = {option: value for option, value in options.items() if option.lower() not in given}
        options |= {"tz_aware": True, "uuidRepresentation": "standard", "type_registry": _REGISTRY}
        name = database or parsed["database"] or DATABASE_DEFAULT
        if driver == "motor":
            from motor.motor_asyncio import AsyncIOMotorClient

            return cls(AsyncIOMotorClient(url, **options), name, driver)
        return cls(AsyncMongoClient(url, **options), name, driver)

    def beside(self, suffix: str) -> "Mongo":
        """The database of this name and a suffix, over the same connections; do not close it."""
        return Mongo(self._client, f"{self.name}_{suffix}", self.driver)

    async def close(self) -> None:
        """Lets the connections go. A server that does not answer is not waited for."""
        for _ in range(CLOSED_TRIES):
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_SECONDS_MAX):
                    closing = self._client.close()
                    if inspect.isawaitable(closing):
                        await closing
                return

    async def ping(self) -> None:
        """Asks the server whether it is there."""
        await self.command({"ping": 1})

    async def command(self, command: Mapping[str, Any], session: Any = None) -> Document:
        """Runs a database command. A cursor is read in the session in which it was opened.

        The driver decodes its reply by itself: read documents with `find` or `aggregate`.
        """
        with translated():
            reply = await self._database.command(command, codec_options=_OPTIONS, session=session)
            return cast(Document, reply)

    async def session(self) -> Any:
        """A session of the driver. Its caller ends it."""
        with translated():
            session = self._client.start_session()
            return await session if inspect.isawaitable(session) else session

    async def _write(self, kind: str, collection: str, writes: list[Any]) -> Document:
        """Runs a write command on a majority; what it did not do is in the reply's `writeErrors`."""
        parts = {"insert": "documents", "update": "updates", "delete": "deletes"}
        reply = await self.command(
            {kind: collection, parts[kind]: writes, "ordered": False, "writeConcern": {"w": "majority"}}
        )
        if "writeConcernError" in reply:
            raise DocumentsUnavailable(str(reply["writeConcernError"].get("errmsg")))
        return reply

    # reading

    async def find(
        self,
        collection: str,
        where: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
        order: Sequence[tuple[str, int]] = (),
        skip: int = 0,
        limit: int = 0,
        hint: Sequence[tuple[str, int]] = (),
        seconds_max: float | None = None,
    ) -> list[Document]:
        """The documents that match, all of them where `limit` is 0; raises DocumentsSlow after `seconds_max`.

        `hint`: the fields of the index that is used; raises IndexMissing.
        """
        with translated():
            cursor = self._database[collection].find(
                where or {},
                fields,
                skip=skip,
                limit=limit,
                sort=list(order) or None,
                hint=list(hint) or None,
                max_time_ms=_milliseconds(seconds_max),
            )
            return cast(list[Document], await cursor.to_list(None))

    async def find_raw(self, collection: str, where: Mapping[str, Any]) -> list[bytes]:
        """The documents that match as the database holds them; `Frozen.thawed` reads one."""
        with translated():
            cursor = self._database[collection].find_raw_batches(where, batch_size=LOADED_AT_ONCE_MAX)
            return [document async for batch in cursor for document in _split(batch)]

    async def find_one(
        self, collection: str, where: Mapping[str, Any], *, fields: Mapping[str, Any] | None = None
    ) -> Document | None:
        """The first document that matches."""
        with translated():
            return cast("Document | None", await self._database[collection].find_one(where, fields))

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        """The documents that an aggregation returns."""
        with translated():
            cursor = self._database[collection].aggregate(list(pipeline))
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return cast(list[Document], await cursor.to_list(None))

    async def aggregate_raw(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """The documents that an aggregation returns as the database holds them; `Frozen.thawed` reads one."""
        with translated():
            cursor = self._database[collection].aggregate_raw_batches(list(pipeline))
            if inspect.isawaitable(cursor):
                cursor = await cursor
            return [document async for batch in cursor for document in _split(batch)]

    async def pages(
        self,
        collection: str,
        *,
        fields: Mapping[str, Any] | None = None,
        order: Sequence[tuple[str, int]] = ((ID, 1),),
    ) -> AsyncIterator[list[Document]]:
        """Yields all documents of a collection in order, a page at a time.

        The next page is fetched while one is read.
        """
        cursor = self._database[collection].find({}, fields, sort=list(order), batch_size=PAGE_DOCUMENTS)

        async def fetched() -> list[Document]:
            with translated():
                return cast(list[Document], await cursor.to_list(PAGE_DOCUMENTS))

        fetching = asyncio.ensure_future(fetched())
        try:
            while page := await fetching:
                fetching = asyncio.ensure_future(fetched())
                yield page
        finally:
            await ended(fetching)
            closing = cursor.close()
            if inspect.isawaitable(closing):
                await closing

    async def raw_pages(self, collection: str) -> AsyncGenerator[list[bytes], None]:
        """All documents of a collection in order of their ids, as `find_raw` has them, some hundreds at a
        time; the next are fetched while some are looked at."""
        cursor = self._database[collection].find_raw_batches({}, sort=[(ID, 1)], batch_size=PAGE_DOCUMENTS)

        async def fetched() -> bytes | None:
            with translated():
                return await anext(cursor, None)

        fetching = asyncio.ensure_future(fetched())
        try:
            while (batch := await fetching) is not None:
                fetching = asyncio.ensure_future(fetched())
                yield list(_split(batch))
        finally:
            await ended(fetching)
            closing = cursor.close()
            if inspect.isawaitable(closing):
                await closing

    async def count(
        self,
        collection: str,
        where: Mapping[str, Any] | None = None,
        *,
        limit: int = 0,
        hint: Sequence[tuple[str, int]] = (),
        seconds_max: float | None = None,
    ) -> int:
        """How many documents match, no more of them counted than `limit` where it is not 0; raises DocumentsSlow
        after `seconds_max`. `hint` as in `find`.

        The drivers count by an aggregation, which takes twice as long in an index as the command does. The command is not
        exact where collections are sharded, which none is, and where nothing is asked, which is counted as the drivers do.
        """
        bound: dict[str, Any] = {"limit": limit} if limit else {}
        if hint:
            bound["hint"] = dict(hint)
        if seconds_max is not None:
            bound["maxTimeMS"] = _milliseconds(seconds_max)
        with translated():
            if not where:
                return cast(int, await self._database[collection].count_documents({}, **bound))
            command = {"count": collection, "query": where, **bound}
            try:
                reply = await self._database.command(command)
            except AutoReconnect:  # the drivers try other reads once more, and no command
                reply = await self._database.command(command)
            return cast(int, reply["n"])

    async def collections(self) -> list[str]:
        """Names of all collections, in order."""
        with translated():
            return sorted(await self._database.list_collection_names())

    # writing

    async def insert_new(self, collection: str, document: Document) -> bool:
        """Inserts a document; False where one with its id is there."""
        reply = await self._write("insert", collection, [document])
        return _only_duplicates(reply) == 0

    async def update(
        self,
        collection: str,
        where: Mapping[str, Any],
        change: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        upsert: bool = False,
    ) -> int:
        """Changes one document; how many matched or were made (0 or 1). An upsert that raced another gives 0."""
        return await self.update_each(collection, [(where, change)], upsert=upsert)

    async def update_each(
        self,
        collection: str,
        changes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | Sequence[Mapping[str, Any]]]],
        *,
        upsert: bool = False,
    ) -> int:
        """Changes one document for each filter, independently of the others.

        Returns how many matched or were made.
        """
        updates = [{"q": where, "u": change, "upsert": upsert} for where, change in changes]
        reply = await self._write("update", collection, updates)
        _only_duplicates(reply)
        return cast(int, reply["n"])

    async def delete(self, collection: str, where: Mapping[str, Any]) -> int:
        """Deletes all documents that match. Returns how many there were."""
        reply = await self._write("delete", collection, [{"q": where, "limit": 0}])
        return cast(int, reply["n"])

    async def drop(self, collection: str) -> None:
        """Drops a collection, if it exists."""
        with translated():
            await self._database.drop_collection(collection)

    async def drop_database(self) -> None:
        """Drops the database."""
        with translated():
            await self._client.drop_database(self.name)

    async def index(
        self,
        collection: str,
        fields: Sequence[tuple[str, int]],
        *,
        unique: bool = False,
        partial: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes an index unless it exists, and with it the collection."""
        options: dict[str, Any] = {} if partial is None else {"partialFilterExpression": partial}
        with translated():
            await self._database[collection].create_index(list(fields), unique=unique, **options)

    async def settle_indexes(self, collection: str, wanted: Sequence[Mapping[str, Any]]) -> None:
        """Makes the indexes of a collection those that are wanted (arguments of `index`), and drops all others.

        An index that is made anew with other options is dropped first; any other goes when the new ones are there.
        """
        with translated():
            there = await self._database[collection].index_information()
        stale = {
            name for name in there if name != _ID_INDEX and _index_of(there[name]) not in map(_index, wanted)
        }
        keys = {_index(one)[0] for one in wanted}
        for name in sorted(stale):
            if _index_of(there[name])[0] in keys:
                await self._drop_index(collection, name)
                stale.remove(name)
        for one in wanted:
            await self.index(collection, **one)
        for name in sorted(stale):
            await self._drop_index(collection, name)

    async def _drop_index(self, collection: str, name: str) -> None:
        """Drops an index, if another process did not."""
        with translated():
            try:
                await self._database[collection].drop_index(name)
            except OperationFailure as error:
                if error.code != _INDEX_NOT_FOUND:
                    raise

    async def ensure(self, collection: str) -> None:
        """Makes a collection unless it exists."""
        with translated():
            try:
                await self._database.create_collection(collection)
            except PyMongoError as error:
                if getattr(error, "code", None) != 48 and "already exists" not in str(error):
                    raise

    # documents of views

    async def write_guarded(self, collection: str, changes: Sequence[Change]) -> Written:
        """See `Documents.write`.

        New documents are inserted. Others are found by their id alone and replaced by an expression that
        holds the guard: a filter with `_seq` beside `_id` is planned anew for every document and costs the
        server 70 us where this costs 37 us. How many were replaced is counted; only where some were not,
        they are looked for.
        """
        conflicts: list[DocumentId] = []
        rejected: dict[DocumentId, str] = {}
        new = [change for change in changes if change.expected is None]
        old = [change for change in changes if change.expected is not None]
        for some in _commands(new):
            reply = await self._write("insert", collection, [change.frozen for change in some])
            _sort_out(reply, some, conflicts, rejected)
        for some in _commands(old):
            reply = await self._write("update", collection, [_replacement(change) for change in some])
            _sort_out(reply, some, conflicts, rejected)
            failed = len(reply.get("writeErrors", ()))
            if reply["nModified"] + len(reply.get("upserted", ())) + failed < len(some):
                conflicts += await self._lost(collection, some, {*conflicts, *rejected})
        return Written(conflicts, rejected)

    async def _lost(
        self, collection: str, changes: Sequence[Change], known: set[DocumentId]
    ) -> list[DocumentId]:
        """Returns the documents that differ from the intended ones, because another consumer wrote them.

        Comparing `_seq` is not enough. A consumer that folded past events that were parked meanwhile has
        the same `_seq`, and would go on from a document that was never written.
        """
        found = await self.find(collection, {ID: {"$in": [change.id for change in changes]}})
        there = {document[ID]: document for document in found}
        return [
            change.id
            for change in changes
            if change.id not in known and there.get(change.id) != change.frozen.thawed()
        ]


def _replacement(change: Change) -> dict[str, Any]:
    """Replaces a document whose `_seq` is as expected, changes no other, and makes a missing one."""
    expected: Any = change.expected if isinstance(change.expected, int) else {"$literal": change.expected}
    at_expected = {"$eq": [{"$ifNull": [f"${SEQUENCE}", expected]}, expected]}
    after = {"$cond": [at_expected, {"$literal": change.frozen}, "$$ROOT"]}
    return {"q": {ID: change.id}, "u": [{"$replaceWith": after}], "upsert": True}


class Frozen:
    """An encoded document.

    The drivers' encoder copies the bytes of whatever bears the marker of a raw document.

    Their own `RawBSONDocument` checks the bytes first, which costs as much as encoding them did.
    """

    __slots__ = ("raw",)
    _type_marker = 101

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def thawed(self) -> Document:
        """Returns the decoded document, as the database would return it."""
        return cast(Document, bson.decode(self.raw, codec_options=_OPTIONS))


def id_of(raw: bytes) -> str:
    """The id of a raw document, which the server keeps as its first field; raises ValueError where it is no text."""
    if raw[4:9] != _TEXT_ID:
        raise ValueError("the first field of a document is not an id that is text")
    return raw[13 : 12 + int.from_bytes(raw[9:13], "little")].decode()


class MongoDocuments(Documents):
    """Documents of one generation of a view: collection `c` of the view is `<prefix><c>` in the database."""

    def __init__(self, mongo: Mongo, prefix: str) -> None:
        self.mongo = mongo
        self.prefix = prefix

    @override
    def freeze(self, document: Document) -> Frozen:
        try:
            raw = bson.encode(document, codec_options=_OPTIONS)
        except (BSONError, OverflowError, TypeError, ValueError) as error:
            raise Unwritable(type(error).__name__) from error  # whose text quotes the value
        if len(raw) > DOCUMENT_BYTES_MAX:
            raise Unwritable(f"{len(raw)} bytes where at most {DOCUMENT_BYTES_MAX} fit")
        return Frozen(raw)

    @override
    async def load(
        self, collection: str, ids: Sequence[DocumentId], fields: Mapping[str, int] | None = None
    ) -> dict[DocumentId, Document]:
        """With `fields`, no more of each document."""
        found: dict[DocumentId, Document] = {}
        for at in range(0, len(ids), LOADED_AT_ONCE_MAX):
            some = list(ids[at : at + LOADED_AT_ONCE_MAX])
            for document in await self.mongo.find(
                self.prefix + collection, {ID: {"$in": some}}, fields=fields
            ):
                found[document[ID]] = document
        return found

    async def load_raw(self, collection: str, ids: Sequence[DocumentId]) -> list[bytes]:
        """The documents that are there, in no order, as `Frozen.raw` has them."""
        found: list[bytes] = []
        for at in range(0, len(ids), LOADED_AT_ONCE_MAX):
            some = list(ids[at : at + LOADED_AT_ONCE_MAX])
            found += await self.mongo.find_raw(self.prefix + collection, {ID: {"$in": some}})
        return found

    @override
    async def write(self, collection: str, changes: Sequence[Change]) -> Written:
        return await self.mongo.write_guarded(self.prefix + collection, changes)


def _split(batch: bytes) -> Iterator[bytes]:
    """The documents of a batch, each of which begins with its length."""
    at = 0
    while at < len(batch):
        end = at + int.from_bytes(batch[at : at + 4], "little")
        yield batch[at:end]
        at = end


def _index(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """What distinguishes an index, of the arguments of `index`."""
    return tuple(one["fields"]), bool(one.get("unique")), one.get("partial")


def _index_of(found: Mapping[str, Any]) -> tuple[Any, ...]:
    """What distinguishes an index, of what the database says of it."""
    return tuple(found["key"]), bool(found.get("unique")), found.get("partialFilterExpression")


def _milliseconds(seconds: float | None) -> int | None:
    """A time limit as the server takes it, where 0 is none."""
    return None if seconds is None else max(1, round(seconds * 1_000))


@contextmanager
def translated() -> Iterator[None]:
    """Translates the driver's errors: DocumentsUnavailable for a server that does not answer, AnswerTooLarge."""
    try:
        yield
    except ExecutionTimeout as error:
        raise DocumentsSlow(str(error)) from error
    except (ConnectionFailure, WTimeoutError) as error:
        raise DocumentsUnavailable(str(error)) from error
    except OperationFailure as error:
        labels = ("RetryableWriteError", "TransientTransactionError")
        if error.code in _SERVERS_OWN or any(error.has_error_label(label) for label in labels):
            raise DocumentsUnavailable(str(error)) from error
        if error.code in _TOO_LARGE:
            raise AnswerTooLarge(str(error)) from error
        if error.code == _BAD_VALUE and "hint" in str(error):
            raise IndexMissing(str(error)) from error
        raise


def _commands(changes: Sequence[Change]) -> Iterator[list[Change]]:
    some: list[Change] = []
    size = 0
    for change in changes:
        length = len(change.frozen.raw)
        if some and (size + length > COMMAND_BYTES_MAX or len(some) >= COMMAND_WRITES_MAX):
            yield some
            some, size = [], 0
        some.append(change)
        size += length
    if some:
        yield some


def _sort_out(
    reply: Document,
    changes: Sequence[Change],
    conflicts: list[DocumentId],
    rejected: dict[DocumentId, str],
) -> None:
    for error in reply.get("writeErrors", ()):
        change = changes[error["index"]]
        if error["code"] in _SERVERS_OWN:
            raise DocumentsUnavailable(f"{error['code']}: {error['errmsg']}")
        if error["code"] != _DUPLICATE_KEY:
            rejected[change.id] = f"{error['code']}: {error['errmsg']}"
        elif set(error.get("keyPattern", {})) == {ID}:
            conflicts.append(change.id)
        else:
            rejected[change.id] = f"{_UNIQUE_BROKEN}: {dict(error.get('keyPattern', {}))}"


def _only_duplicates(reply: Document) -> int:
    """The number of writes that met an existing document; any other error is raised."""
    errors = reply.get("writeErrors", ())
    for error in errors:
        if error["code"] in _SERVERS_OWN:
            raise DocumentsUnavailable(f"{error['code']}: {error['errmsg']}")
        if error["code"] != _DUPLICATE_KEY:
            raise OperationFailure(error["errmsg"], error["code"])
    return len(errors)
