"""Asks the database for pages, counts and single documents of a list. Nothing is asked without a scope."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import ClassVar, Final, NamedTuple, Protocol

from chassis.conditions import Condition, Facts, Filter, Step, as_filter, emptying, funnel, holds
from chassis.lists.asking import Question
from chassis.lists.cursors import Cursors, Ended
from chassis.lists.declaring import BLIND, Listing
from chassis.lists.ordering import BY_ID, Order, Range, place_of, ranges
from chassis.lists.pairing import Paired, paired
from chassis.lists.scope import Scope
from chassis.lists.spanning import Span, spans, values_span
from chassis.read.documents import GONE, ID, Document, DocumentsSlow, DocumentsUnavailable, IndexMissing
from chassis.read.generations import NotBuilt
from chassis.read.mongo import Mongo
from chassis.write.deciding import Refusal

COUNTED_MAX: Final = 10_000
"""Documents that are counted; of more it is only known that there are more."""
READ_AT_ONCE: Final = 2_000
"""Documents of one query of those that read a whole list."""
QUERY_SECONDS_MAX: Final = 5.0
"""Of one query. A page takes some of them, most take one."""
COUNTED_OF_RANGE_MAX: Final = 15_000
"""Documents of a range that are counted, from its index alone, to know whether they are read and sorted for a page in the
order of ids. One of more is not."""
NARROW_MAX: Final = 2_000
"""A range with so few documents is read at once."""
FIRST_LOOKED_AT: Final = 1_250
"""Documents that are looked at along the ids at first; how many of them are found says how near the rest is."""
LOOKED_AT: Final = 5_000
"""So many are looked at before the rest is looked for further away than that: what is found among fewer says too little."""
ALONG_IDS_MAX: Final = 60_000
"""Documents along the ids among which all are expected, where the database is not asked which way is shorter."""
SCATTERED: Final = 2
"""Reading a document at the place that an index names takes as long as looking at so many along the ids (1.2 us each)."""
AS_FAR_AGAIN: Final = 1.5
"""The rest is looked for so much further than where it is expected."""


class QueryTooSlow(Refusal):
    """The database took longer for the question than it may."""

    code: ClassVar[str] = "query-too-slow"
    status: ClassVar[int] = 503
    title: ClassVar[str] = "The question takes too long; ask for less, or try again shortly"
    title_zh: ClassVar[str] = "查询耗时过长，请缩小范围或稍后重试"


class LiveViews(Protocol):
    """Finds the live generation of a view."""

    async def collection(self, view: str, name: str) -> str:
        """The collection of the database that holds this collection of the view; raises NotBuilt."""
        ...


class Found(NamedTuple):
    """A page; `next` is the cursor of the page after it, None on the last."""

    documents: list[Document]
    next: str | None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are: `count`, or more where `more` says so."""

    count: int
    more: bool


class _Ways(NamedTuple):
    """The ways to a page in the order of ids: the smallest of these ranges, sorted; and `along` the ids, or else as the
    database decides."""

    spans: tuple[Span, ...]
    along: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one list. `today` is the business date, from which days are counted unless the question names another."""

    listing: Listing
    mongo: Mongo
    live: LiveViews
    cursors: Cursors
    today: Callable[[], date]
    query_seconds_max: float = QUERY_SECONDS_MAX
    counted_max: int = COUNTED_MAX
    read_at_once: int = READ_AT_ONCE
    counted_of_range_max: int = COUNTED_OF_RANGE_MAX
    narrow_max: int = NARROW_MAX
    looked_at: int = LOOKED_AT
    first_looked_at: int = FIRST_LOOKED_AT

    async def page(
        self, scope: Scope, question: Question, caller: str, *, limit: int, after: str | None = None
    ) -> Found:
        """A page of the documents in scope that meet the condition. `after` is the `next` of the page before, which
        was given to the same caller for the same question; raises CursorInvalid, QueryTooSlow.

        Who writes meanwhile moves what it writes, and nothing else: a document whose value of the order and whose
        membership stay as they are is on exactly one page.
        """
        asked = [self.listing.name, question.named(), scope.named(), caller]
        ended = None if after is None else await self.cursors.ended(after, asked)
        as_of = self._day(question) if ended is None else ended.as_of
        where = self._where(scope, question.condition, as_of)
        ways = self._ways(scope, question, as_of)
        found = await self._next(where, question.order, ended, limit + 1, ways)
        if len(found) <= limit:
            return Found(found, None)
        last = place_of(found[limit - 1], question.order)
        return Found(found[:limit], await self.cursors.cursor(Ended(as_of, *last), asked))

    async def every(self, scope: Scope, question: Question) -> AsyncIterator[str]:
        """The ids of all documents in scope that meet the condition, in their order, read bit by bit; raises
        QueryTooSlow. Who writes meanwhile moves what it writes, as between pages."""
        async for found in self.documents(scope, replace(question, order=BY_ID)):
            for one in found:
                yield one[ID]

    async def documents(self, scope: Scope, question: Question) -> AsyncIterator[list[Document]]:
        """All documents in scope that meet the condition, in the order of the question, some at a time; raises
        QueryTooSlow. Who writes meanwhile moves what it writes, as between pages."""
        day, ended = self._day(question), None
        where = self._where(scope, question.condition, day)
        while found := await self._next(where, question.order, ended, self.read_at_once):
            yield found
            ended = Ended(day, *place_of(found[-1], question.order))

    async def count(self, scope: Scope, question: Question, counted_max: int | None = None) -> Counted:
        """How many documents in scope meet the condition, counted up to `counted_max`; raises QueryTooSlow."""
        counted_max = counted_max or self.counted_max
        day = self._day(question)
        where = self._where(scope, question.condition, day)
        found = await self._many_of_scope(scope, question.condition, where, counted_max + 1)
        if found is None:
            found = await self._many_of_pair(scope, question.condition, day, where, counted_max + 1)
        if found is None:
            return await self._counted(where, counted_max)
        return Counted(min(found, counted_max), found > counted_max)

    async def one(self, scope: Scope, id: str, as_of: date | None = None) -> Document | None:
        """The document of this id; None where there is none in scope."""
        found = await self._find({ID: id}, self._where(scope, None, as_of or self.today()), limit=1)
        return found[0] if found else None

    async def all_there(self, scope: Scope, ids: Sequence[str]) -> bool:
        """Whether there is a document in scope of each of these ids."""
        wanted = sorted(set(ids))
        where = {"$and": [{ID: {"$in": wanted}}, self._where(scope, None, self.today())]}
        return (await self._counted(where)).count == len(wanted)

    async def covers(self, scope: Scope, id: str) -> bool | None:
        """Whether the document of this id is in scope; None where there is no document, which says nothing of its
        subject: the view may be behind."""
        if scope.everything:
            return True
        there = await self._find({ID: id}, limit=1)
        return scope.covers(there[0], self.listing.fields, self.today()) if there else None

    async def having(self, scope: Scope, field: str, digests: Sequence[str], *, limit: int) -> list[Document]:
        """The documents in scope of which the sealed value of a field has one of these digests, in the order of
        ids. The search is noted before anything of them is shown (`chassis.lists.searching`)."""
        blind = {f"{BLIND}.{field}": {"$in": list(digests)}}
        return await self._find(blind, self._where(scope, None, self.today()), order=[(ID, 1)], limit=limit)

    async def funnel(self, scope: Scope, condition: Condition, as_of: date | None = None) -> list[Step]:
        """The parts of a condition in order, each with how many documents in scope it leaves; counted up to one more
        than `counted_max`."""
        day = as_of or self.today()

        async def count(part: Filter) -> int:
            counted = await self._counted({"$and": [part, self._where(scope, None, day)]})
            return counted.count + counted.more

        return await funnel(condition, self.listing.fields, day, count)

    async def emptying(
        self, scope: Scope, condition: Condition, as_of: date | None = None
    ) -> tuple[Condition, ...] | None:
        """The smallest set of parts of a condition that no document in scope meets together; None where one meets
        all. Raises ConditionRefused where there are too many parts."""
        day = as_of or self.today()

        async def find(part: Filter) -> Facts | None:
            found = await self._find(part, self._where(scope, None, day), limit=1)
            return found[0] if found else None

        return await emptying(condition, self.listing.fields, day, find)

    async def _next(
        self,
        where: Filter,
        order: Order,
        ended: Ended | None,
        wanted: int,
        ways: _Ways | None = None,
    ) -> list[Document]:
        found = dict[str, Document]()
        for each in ranges(order, None if ended is None else ended.place):
            left = wanted - len(found)
            if not left:
                break
            if ways is None:
                some = await self._find(each.where, where, order=each.order, limit=left)
            else:
                some = await self._by_ids(each, where, ways, left)
            for one in some:
                found.setdefault(one[ID], one)  # what is moved into the next range meanwhile is read twice
        return list(found.values())

    def _ways(self, scope: Scope, question: Question, as_of: date) -> _Ways | None:
        """The ways to a page in the order of ids; None where the database decides.

        Who sees a part of the documents has one more: what the scope says of one value is a range too."""
        of_scope = self._of_scope(scope)
        if question.condition is None or question.order != BY_ID or not (scope.everything or of_scope):
            return None
        found = spans(question.condition, self.listing.fields, self.listing.indexes, as_of)
        if found is None:
            return None if of_scope is None else _Ways((of_scope,), along=False)
        of_pair = self._paired(question.condition, as_of)
        ranges = [of_scope, *found, None if of_pair is None else of_pair.span]
        return _Ways(tuple(each for each in ranges if each is not None), along=True)

    def _of_scope(self, scope: Scope) -> Span | None:
        """The documents in scope as a range of an index; None where the scope is of more than one value, or of all."""
        if scope.condition is None:
            return None
        return values_span(scope.condition, self.listing.fields, self.listing.indexes)

    async def _by_ids(self, rest: Range, where: Filter, ways: _Ways, limit: int) -> list[Document]:
        """The first documents of the rest in the order of ids: sorted from a range, or along the ids, whichever is shorter as
        far as it is known. Where it is not, the database tries all ways side by side until one is done."""
        narrow = await self._smallest(ways.spans)
        if narrow is not None and (narrow[0] <= self.narrow_max or not ways.along):
            return await self._of_span(narrow[1], rest.where, where, order=rest.order, limit=limit)
        if not ways.along:
            return await self._find(rest.where, where, order=rest.order, limit=limit)
        found, after, seen, many = list[Document](), rest.where, 0, self.first_looked_at
        while True:
            some, following = await self._along_ids(after, where, many, limit - len(found))
            found += some
            if following is None or len(found) == limit:
                return found
            after, seen = following, seen + many
            near = (limit - len(found)) * seen / len(found) if found else math.inf
            if narrow is not None and narrow[0] * SCATTERED <= near:
                limit -= len(found)
                return found + await self._of_span(narrow[1], after, where, order=rest.order, limit=limit)
            if seen < self.looked_at:
                many = int(min(near * AS_FAR_AGAIN, self.looked_at))
            elif seen + near <= ALONG_IDS_MAX:
                many = int(near * AS_FAR_AGAIN)
            else:
                break
        return found + await self._find(after, where, order=rest.order, limit=limit - len(found))

    async def _of_span(
        self, span: Span, rest: Filter, where: Filter, *, order: Sequence[tuple[str, int]], limit: int
    ) -> list[Document]:
        """What is found among the documents of a range, sorted."""
        asked = {"$and": [part for part in (rest, where) if part]}
        return await self._find(span.among(asked), order=order, limit=limit, hint=span.indexed)

    async def _smallest(self, of_ranges: Sequence[Span]) -> tuple[int, Span] | None:
        """The range with the fewest documents, and how many; None where each has more than are counted. Of each, no more
        are counted than the smallest so far has."""
        found: tuple[int, Span] | None = None
        for each in of_ranges:
            most = self.counted_of_range_max if found is None else found[0] - 1
            if most < 0:
                break
            try:
                many = await self._many(each.read, most + 1, each.indexed)
            except IndexMissing:
                continue
            if many <= most:
                found = many, each
        return found

    async def _along_ids(
        self, rest: Filter, where: Filter, many: int, limit: int
    ) -> tuple[list[Document], Filter | None]:
        """What is found among the next so many documents in the order of ids, and the rest after them; None where there is no
        more."""
        following = await self._id_after(rest, many)
        upto = rest if following is None else {ID: {**rest.get(ID, {}), "$lt": following}}
        found = await self._find(upto, where, order=((ID, 1),), limit=limit, hint=((ID, 1),))
        return found, None if following is None else {ID: {"$gte": following}}

    async def _id_after(self, where: Filter, many: int) -> str | None:
        """The id that follows so many; None where there are no more."""
        try:
            found = await self.mongo.find(
                await self._collection(),
                where,
                fields={ID: 1},
                order=[(ID, 1)],
                skip=many,
                limit=1,
                hint=((ID, 1),),
                seconds_max=self.query_seconds_max,
            )
        except DocumentsSlow as error:
            raise QueryTooSlow from error
        return found[0][ID] if found else None

    def _where(self, scope: Scope, condition: Condition | None, as_of: date) -> Filter:
        fields = self.listing.fields
        of_scope = self._of_scope(scope)
        parts = [scope.filter(fields, as_of) if of_scope is None else of_scope.where]
        if condition is not None:
            parts.append(as_filter(condition, fields, as_of))
        # A tombstone has no values. Where nothing that has none is found, it need not be asked for: the indexes do not have
        # it, and whoever asks for it reads every document.
        if scope.covers({}, fields, as_of) and (condition is None or holds(condition, {}, fields, as_of)):
            parts.append({GONE: {"$exists": False}})
        return {"$and": found} if (found := [part for part in parts if part]) else {}

    def _day(self, question: Question) -> date:
        return question.as_of or self.today()

    async def _find(
        self,
        *where: Filter,
        order: Sequence[tuple[str, int]] = (),
        limit: int,
        hint: Sequence[tuple[str, int]] = (),
    ) -> list[Document]:
        parts = [part for part in where if part]
        try:
            return await self.mongo.find(
                await self._collection(),
                {"$and": parts} if parts else {},
                order=order,
                limit=limit,
                hint=hint,
                seconds_max=self.query_seconds_max,
            )
        except DocumentsSlow as error:
            raise QueryTooSlow from error
        except IndexMissing:
            if not hint:
                raise
            return await self._find(*where, order=order, limit=limit)  # it was dropped after it was chosen

    async def _counted(self, where: Filter, counted_max: int | None = None) -> Counted:
        counted_max = counted_max or self.counted_max
        found = await self._many(where, counted_max + 1)
        return Counted(min(found, counted_max), found > counted_max)

    async def _many_of_scope(
        self, scope: Scope, condition: Condition | None, where: Filter, limit: int
    ) -> int | None:
        """How many are counted among the documents in scope, by the index that has them; None where there is none, or too many
        documents would be read. Where nothing else is asked, the database needs no help."""
        span = self._of_scope(scope)
        if span is None or condition is None:
            return None
        try:
            if (
                await self._many(span.read, self.counted_of_range_max + 1, span.indexed)
                > self.counted_of_range_max
            ):
                return None
            return await self._many(where, limit, span.indexed)
        except IndexMissing:
            return None

    async def _many_of_pair(
        self, scope: Scope, condition: Condition | None, as_of: date, where: Filter, limit: int
    ) -> int | None:
        """How many are counted by the index of a pair with an amount of a month; None where none has what is asked for, or
        where too many documents would be read."""
        found = self._paired(condition, as_of)
        if found is None:
            return None
        span, alone = found.span, found.alone and scope.everything
        read = {"$or": list(span.besides)} if alone else span.read
        try:
            many = await self._many(read, self.counted_of_range_max + 1, span.indexed)
            if many > self.counted_of_range_max:
                return None
            return await self._many(found.counted(where, alone=alone), limit, span.indexed)
        except IndexMissing:
            return None

    def _paired(self, condition: Condition | None, as_of: date) -> Paired | None:
        listing = self.listing
        return paired(condition, listing.monthly_pairs, listing.fields, as_of, self.today())

    async def _many(self, where: Filter, limit: int, hint: Sequence[tuple[str, int]] = ()) -> int:
        try:
            return await self.mongo.count(
                await self._collection(),
                where,
                limit=limit,
                hint=hint,
                seconds_max=self.query_seconds_max,
            )
        except DocumentsSlow as error:
            raise QueryTooSlow from error

    async def _collection(self) -> str:
        try:
            return await self.live.collection(self.listing.view, self.listing.collection)
        except NotBuilt as error:
            raise DocumentsUnavailable(f"the view {self.listing.view} is not built yet") from error
