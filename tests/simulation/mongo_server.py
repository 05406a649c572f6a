"""MongoDB in the simulation, under the chassis' own `MongoDocuments` and `MongoCheckpoints`.

It knows the commands that those send. Each write of a command happens on its own, in any order, with others' in
between; any part of them may be lost, and what is under way happens even when its sender has died.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import bson
from chassis.read.documents import ID, SEQUENCE, Document, DocumentsUnavailable
from chassis.read.mongo import _OPTIONS, Frozen, Mongo
from typing_extensions import override

from tests.simulation.kernel import Injected, Kernel

T = TypeVar("T")
DUPLICATE_KEY = 11_000
PAGE_DOCUMENTS = 4
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, other: value == other,
    "$exists": lambda value, wanted: (value is not None) is wanted,
    "$in": lambda value, those: value in those,
    "$gt": lambda value, other: value is not None and value > other,
    "$gte": lambda value, other: value is not None and value >= other,
    "$lt": lambda value, other: value is not None and value < other,
    "$lte": lambda value, other: value is not None and value <= other,
}


@dataclass(frozen=True, slots=True)
class MongoFlaws:
    """Promises that the server breaks in a planted bug."""

    no_guard: bool = False
    """Writes documents of views whatever they were folded from."""


class _DuplicateKey(Exception):
    pass


class MongoServer(Mongo):
    """A database in dictionaries; every client sees the same."""

    def __init__(self, kernel: Kernel, flaws: MongoFlaws) -> None:
        self.kernel = kernel
        self.flaws = flaws
        self.there: dict[str, dict[Any, Document]] = {}
        self.written: list[tuple[str, Any]] = []
        """Collection and id of every document that was inserted or replaced, in order."""
        self.conflicts = 0
        """Writes of documents of views whose guard did not hold."""
        self._commands = 0

    @override
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
        def found() -> list[Document]:
            matching = list(self._matching(collection, where or {}))
            for name, _ in reversed(order):
                matching.sort(key=lambda document: document[name])
            return [_shown(document, fields) for document in matching[skip : skip + limit if limit else None]]

        return await self._ask(f"find {collection}", found)

    @override
    async def _write(self, kind: str, collection: str, writes: list[Any]) -> Document:
        kernel = self.kernel
        await kernel.gate(f"{kind} {collection}?")
        arriving = kernel.draw_cut(len(writes))
        order = kernel.chance.sample(range(len(writes)), arriving)
        answer: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
        frozen = [_as_sent(write) for write in writes]

        async def under_way() -> None:
            reply: Document = {"n": 0, "nModified": 0, "made": 0, "writeErrors": []}
            for index in order:
                await kernel.gate(f"{kind} {collection}")
                try:
                    if isinstance(frozen[index], _Replacement):
                        reply[self._replace(collection, frozen[index])] += 1
                    else:
                        reply["n"] += self._one(kind, collection, frozen[index])
                except _DuplicateKey:
                    error = {"index": index, "code": DUPLICATE_KEY, "errmsg": "duplicate key"}
                    reply["writeErrors"].append({**error, "keyPattern": {ID: 1}})
            reply["upserted"] = [{}] * reply["made"]
            if not answer.done():
                answer.set_result(reply)

        self._commands += 1
        kernel.spawn(f"command-{self._commands}", under_way, mortal=False)
        reply = await kernel.wait(answer)
        if arriving < len(writes) or kernel.draw_cut(1) == 0:
            raise DocumentsUnavailable(f"{kind} {collection}")
        return reply

    @override
    def beside(self, suffix: str) -> "MongoServer":
        return self

    @override
    async def index(
        self,
        collection: str,
        fields: Sequence[tuple[str, int]],
        *,
        unique: bool = False,
        partial: Mapping[str, Any] | None = None,
    ) -> None:
        await self._ask(f"index {collection}", lambda: None)

    @override
    async def settle_indexes(self, collection: str, wanted: Sequence[Mapping[str, Any]]) -> None:
        for _ in wanted:
            await self._ask(f"index {collection}", lambda: None)

    @override
    async def find_one(
        self, collection: str, where: Mapping[str, Any], *, fields: Mapping[str, Any] | None = None
    ) -> Document | None:
        found = await self.find(collection, where, fields=fields, limit=1)
        return found[0] if found else None

    @override
    async def count(
        self,
        collection: str,
        where: Mapping[str, Any] | None = None,
        *,
        limit: int = 0,
        hint: Sequence[tuple[str, int]] = (),
        seconds_max: float | None = None,
    ) -> int:
        return await self._ask(
            f"count {collection}", lambda: len(list(self._matching(collection, where or {})))
        )

    @override
    async def collections(self) -> list[str]:
        return await self._ask("collections", lambda: sorted(self.there))

    @override
    async def ensure(self, collection: str) -> None:
        await self._ask(f"ensure {collection}", lambda: self.there.setdefault(collection, {}))

    @override
    async def drop(self, collection: str) -> None:
        await self._ask(f"drop {collection}", lambda: self.there.pop(collection, None))

    @override
    async def raw_pages(self, collection: str) -> AsyncGenerator[list[bytes], None]:
        async for page in self.pages(collection):
            yield [bson.encode(document, codec_options=_OPTIONS) for document in page]

    @override
    async def pages(
        self,
        collection: str,
        *,
        fields: Mapping[str, Any] | None = None,
        order: Sequence[tuple[str, int]] = ((ID, 1),),
    ) -> AsyncGenerator[list[Document], None]:
        after: list[Any] = []

        def found() -> list[Document]:
            there = sorted(self.there.get(collection, {}).values(), key=lambda one: one[ID])
            return deepcopy([one for one in there if not after or one[ID] > after[-1]][:PAGE_DOCUMENTS])

        while page := await self._ask(f"page of {collection}", found):
            after.append(page[-1][ID])
            yield page

    async def _ask(self, point: str, effect: Callable[[], T]) -> T:
        try:
            return await self.kernel.call(point, effect)
        except Injected as error:
            raise DocumentsUnavailable(point) from error

    def _one(self, kind: str, collection: str, write: Any) -> int:
        there = self.there.setdefault(collection, {})
        match kind:
            case "insert":
                made = self._insert(there, write)
                self.written.append((collection, write[ID]))
                return made
            case "delete":
                gone = [document[ID] for document in self._matching(collection, write["q"])]
                for id in gone:
                    del there[id]
                return len(gone)
            case "update":
                return self._update(collection, write)
            case _:
                raise ValueError(kind)

    def _insert(self, there: dict[Any, Document], document: Document) -> int:
        if document[ID] in there and not (self.flaws.no_guard and SEQUENCE in document):
            self.conflicts += SEQUENCE in document
            raise _DuplicateKey
        there[document[ID]] = document
        return 1

    def _replace(self, collection: str, write: "_Replacement") -> str:
        """Which count of the reply this raises."""
        there = self.there.setdefault(collection, {})
        before = there.get(write.document[ID])
        if before is not None and before[SEQUENCE] != write.expected and not self.flaws.no_guard:
            self.conflicts += 1
            return "n"
        there[write.document[ID]] = write.document
        self.written.append((collection, write.document[ID]))
        return "made" if before is None else "nModified"

    def _update(self, collection: str, write: Mapping[str, Any]) -> int:
        change = write["u"]
        matching = next(self._matching(collection, write["q"]), None)
        if matching is None:
            return 0
        for operator, fields in change.items():
            for path, value in fields.items():
                *outer, name = path.split(".")
                inner = matching
                for step in outer:
                    inner = inner.setdefault(step, {})
                before: Any = inner.get(name)
                if operator == "$inc":
                    inner[name] = (before or 0) + value
                elif operator == "$addToSet":
                    inner[name] = [*before, *(one for one in value["$each"] if one not in before)]
                elif operator == "$set" or before is None or value > before:
                    if operator not in {"$set", "$max"}:
                        raise ValueError(operator)
                    inner[name] = value
        return 1

    def _matching(self, collection: str, where: Mapping[str, Any]) -> Iterator[Document]:
        for document in list(self.there.get(collection, {}).values()):
            if _meets(document, where):
                yield document


def _shown(document: Document, fields: Mapping[str, Any] | None) -> Document:
    """A copy of a document, of these fields and the id where some are named."""
    return deepcopy({name: document[name] for name in document if not fields or name == ID or name in fields})


def _meets(document: Document, where: Mapping[str, Any]) -> bool:
    return all(
        all(_meets(document, each) for each in wanted)
        if name == "$and"
        else _matches(document.get(name), wanted)
        for name, wanted in where.items()
    )


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(value, list) and isinstance(wanted, Mapping):
        return any(_matches(each, wanted) for each in value)
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    return all(_COMPARISONS[operator](value, other) for operator, other in wanted.items())


@dataclass(frozen=True, slots=True)
class _Replacement:
    """A guarded write of a document of a view."""

    expected: Any
    document: Document


def _as_sent(write: Any) -> Any:
    """A write as the wire would carry it: a copy, with frozen documents decoded."""
    match write:
        case Frozen(raw=raw):
            return bson.decode(raw, codec_options=_OPTIONS)
        case {
            "u": [{"$replaceWith": {"$cond": [guard, {"$literal": Frozen(raw=raw)}, "$$ROOT"]}}],
            "upsert": True,
        }:
            match guard:
                case {"$eq": [{"$ifNull": ["$_seq", expected]}, same]} if expected == same:
                    expected = expected["$literal"] if isinstance(expected, dict) else expected
                    return _Replacement(expected, bson.decode(raw, codec_options=_OPTIONS))
                case _:
                    raise ValueError(guard)
        case _:
            return deepcopy(write)
