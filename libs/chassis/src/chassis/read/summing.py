"""Sums over all documents of a derived view, kept in buckets of some thousand documents each.

A document belongs to the bucket that a hash of its id gives. The sums of a bucket are a function of its documents; a
reader adds up the buckets. So one document that changes costs the reading of one bucket, and no count or sum reads all
documents.

Whoever has written documents marks their buckets: a count for each bucket goes up, after the documents are written and
before what made them change is settled. Whoever sums reads the marks, then the count of writes of a bucket, then its
documents; it writes the bucket only if nobody wrote it meanwhile, and says up to which mark it is summed. A mark that
went up meanwhile stays above that. A bucket of which many documents change is read once for all of them.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Protocol

from chassis.read.documents import (
    GONE,
    ID,
    SEQUENCE,
    Change,
    Document,
    DocumentId,
    DocumentsUnavailable,
)
from chassis.read.mongo import Frozen, Mongo, MongoDocuments
from chassis.read.projecting import Contended, Index, check_name

BUCKETS_MAX: Final = 10_000
SUMMED_AT_ONCE: Final = 16
"""Buckets whose sums are in memory at a time."""
READ_AT_ONCE: Final = 2_000
"""Documents of a bucket that are in memory at a time."""
CONFLICT_ROUNDS_MAX: Final = 20
BUCKET: Final = "_bucket"
"""The field of a document that names its bucket."""
GROUPS: Final = "groups"
INDEX: Final = Index(((BUCKET, 1), (ID, 1)))
"""Of the documents. A bucket is read in the order of its ids."""
_MARKS: Final = "marks"
_CHANGED, _SUMMED, _DUE_ON = "changed", "summed", "due_on"
_COUNT: Final = {SEQUENCE: 1}

Group = str | None
Amounts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the documents of a derived view.

    `summands(document)`: for each group to which the document belongs, what it adds, by name. It is given the `fields`
    that are named. Raise `version` of the view when it gives other summands for the same document. `name`: the collection
    of the buckets. `buckets`: as many as give each some thousand documents; another number makes a new generation. What
    a group or a summand is called may be any text: it is no name of a field in the database.
    """

    name: str
    buckets: int
    fields: tuple[str, ...]
    summands: Callable[[Document], Iterable[tuple[Group, Mapping[str, int]]]]

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.buckets <= BUCKETS_MAX:
            raise ValueError(f"there are 1 to {BUCKETS_MAX} buckets")

    @property
    def marks(self) -> str:
        """The name of the collection of the marks."""
        return f"{self.name}_marks"

    def bucket_of(self, id: DocumentId) -> int:
        """The bucket of a document: the same in every process and version."""
        return int.from_bytes(blake2b(str(id).encode(), digest_size=8).digest()) % self.buckets

    def added(self, to: "Totals", documents: Iterable[Document]) -> None:
        """Adds documents to what was summed."""
        for document in documents:
            for group, summands in self.summands(document):
                of_group = to[group]
                for name, value in summands.items():
                    of_group[name] += value


Totals = defaultdict[Group, defaultdict[str, int]]


def no_totals() -> Totals:
    """Nothing summed yet."""
    return defaultdict(lambda: defaultdict(int))


def bucket_id(bucket: int) -> str:
    """The id of the document of a bucket."""
    return f"{bucket:05d}"


def stored(totals: Totals) -> Document:
    """What was summed as a document has it: in one order, and without what is zero. A sum is text, as it may be larger than
    what the database counts in."""
    groups = sorted(totals, key=lambda group: (group is not None, group or ""))
    found = [
        {
            "group": group,
            "sums": [[name, str(value)] for name, value in sorted(totals[group].items()) if value],
        }
        for group in groups
    ]
    return {GROUPS: [one for one in found if one["sums"]]}


def add_stored(to: Totals, bucket: Mapping[str, Any], times: int = 1) -> None:
    """Adds the sums of a bucket, or takes them away (-1)."""
    for one in bucket[GROUPS]:
        of_group = to[one["group"]]
        for name, value in one["sums"]:
            of_group[name] += times * int(value)


@dataclass(frozen=True, slots=True)
class Marks:
    """By bucket, how often it was marked, and up to which mark it is summed. `due_on`: the last day on which documents
    were marked because the day changes them."""

    changed: Mapping[int, int] = field(default_factory=dict)
    summed: Mapping[int, int] = field(default_factory=dict)
    due_on: str = ""

    def of(self, bucket: int) -> tuple[int, int]:
        """How often a bucket was marked, and up to which mark it is summed."""
        return self.changed.get(bucket, 0), self.summed.get(bucket, 0)

    def waiting(self) -> list[int]:
        """The buckets that changed since they were summed, in order."""
        return sorted(bucket for bucket, count in self.changed.items() if count > self.summed.get(bucket, 0))


class Waits:
    """For how long changes wait to be summed, by the marks that one process has seen. It knows of no wait from before it
    began, and of a bucket that is summed again and again no longer one than until the last time."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}

    def longest_seconds(self, marks: Marks, now_seconds: float) -> float:
        """The longest time for which a mark has been seen that is not summed; 0 where there is none."""
        seen = {}
        for bucket in marks.waiting():
            mark, since_seconds = self._seen.get(bucket, (0, now_seconds))
            if marks.summed.get(bucket, 0) >= mark:
                mark, since_seconds = marks.changed[bucket], now_seconds
            seen[bucket] = mark, since_seconds
        self._seen = seen
        return max((now_seconds - since for _, since in seen.values()), default=0.0)


class Summing:
    """Keeps the buckets of one generation. Several may do so at once. Raises DocumentsUnavailable and Contended."""

    def __init__(
        self, sums: Sums, documents: MongoDocuments, collection: str, changes_on: str | None = None
    ) -> None:
        """`collection`: where the documents are that are summed; `changes_on` as in the derived view."""
        self.sums = sums
        self.buckets_summed = 0
        self._documents = documents
        self._collection = collection
        self._changes_on = changes_on
        self._marks = documents.prefix + sums.marks
        fields = [*sums.fields, GONE, *([] if changes_on is None else [changes_on])]
        self._fields = dict.fromkeys(fields, 1)

    async def mark(self, ids: Iterable[DocumentId], due_on: str | None = None) -> None:
        """Marks the buckets of documents, after these are written.

        With `due_on` the documents are not written yet, and the day changes them. Nothing else would derive them anew where
        their writer ends before it marks them: their bucket keeps this mark until it is read without a document that is
        due.
        """
        buckets = sorted({self.sums.bucket_of(id) for id in ids})
        if not buckets:
            return
        change: dict[str, Any] = {"$inc": {f"{_CHANGED}.{bucket}": 1 for bucket in buckets}}
        if due_on is not None:
            change["$max"] = {_DUE_ON: due_on}
        update = self._documents.mongo.update
        if not await update(self._marks, {ID: _MARKS}, change):
            await self._documents.mongo.insert_new(self._marks, {ID: _MARKS})
            if not await update(self._marks, {ID: _MARKS}, change):
                raise DocumentsUnavailable(f"{self._marks} was dropped")

    async def marks(self) -> Marks:
        """The marks as they are."""
        found = await self._documents.mongo.find_one(self._marks, {ID: _MARKS}) or {}
        changed, summed = (
            {int(bucket): count for bucket, count in found.get(each, {}).items()}
            for each in (_CHANGED, _SUMMED)
        )
        return Marks(changed, summed, found.get(_DUE_ON, ""))

    async def sum_marked(self, still: Callable[[], Awaitable[bool]]) -> int:
        """Sums what changed since it was summed, as long as `still`. Returns how many buckets that were."""
        marks = await self.marks()
        return await self._sum(marks.waiting(), marks, still)

    async def sum_all(self, still: Callable[[], Awaitable[bool]]) -> bool:
        """Sums all buckets, empty ones too. Returns whether all were summed before `still` ended."""
        buckets = range(self.sums.buckets)
        return await self._sum(buckets, await self.marks(), still) == len(buckets)

    async def computed(self, bucket: int) -> Document:
        """The sums of a bucket as its documents are."""
        totals, _ = await self._read(bucket, "")
        return stored(totals)

    async def shown(self, bucket: int) -> Document | None:
        """The sums of a bucket as readers are shown them."""
        id = bucket_id(bucket)
        found = (await self._documents.load(self.sums.name, [id])).get(id)
        return None if found is None else {GROUPS: found[GROUPS]}

    async def strange(self) -> list[DocumentId]:
        """The documents beside the buckets that are none of them."""
        there = await self._documents.mongo.find(self._documents.prefix + self.sums.name, fields={ID: 1})
        buckets = {bucket_id(bucket) for bucket in range(self.sums.buckets)}
        return [one[ID] for one in there if one[ID] not in buckets]

    async def _sum(self, buckets: Sequence[int], marks: Marks, still: Callable[[], Awaitable[bool]]) -> int:
        done = 0
        for at in range(0, len(buckets), SUMMED_AT_ONCE):
            if not await still():
                break
            some = buckets[at : at + SUMMED_AT_ONCE]
            await self._settle(await self._sum_some(some, marks.due_on), marks)
            done += len(some)
        return done

    async def _sum_some(self, buckets: Sequence[int], due_on: str) -> list[int]:
        """Sums buckets, each until nobody else writes it meanwhile. Returns those in which no document is due."""
        left, settled = list(buckets), list[int]()
        for _ in range(CONFLICT_ROUNDS_MAX):
            refused, due = await self._write(left, due_on)
            settled += [bucket for bucket in left if bucket not in refused and bucket not in due]
            left = [bucket for bucket in left if bucket in refused]
            if not left:
                return settled
        raise Contended(f"{self.sums.name}: {len(left)} buckets are written by others all the time")

    async def _write(self, buckets: Sequence[int], due_on: str) -> tuple[set[int], set[int]]:
        """Sums buckets once. Returns those that another one wrote meanwhile, and those in which documents are due."""
        ids = [bucket_id(bucket) for bucket in buckets]
        there = await self._documents.load(self.sums.name, ids, _COUNT)
        found = {bucket: await self._read(bucket, due_on) for bucket in buckets}
        changes = []
        for bucket, id in zip(buckets, ids, strict=True):
            expected = there[id][SEQUENCE] if id in there else None
            sequence = (expected or 0) + 1
            frozen = self._documents.freeze({**stored(found[bucket][0]), ID: id, SEQUENCE: sequence})
            changes.append(Change(id, expected, sequence, frozen))
        written = await self._documents.write(self.sums.name, changes)
        failed = {*written.conflicts, *written.rejected}
        refused = {bucket for bucket, id in zip(buckets, ids, strict=True) if id in failed}
        self.buckets_summed += len(buckets) - len(refused)
        return refused, {bucket for bucket, (_, is_due) in found.items() if is_due}

    async def _read(self, bucket: int, due_on: str) -> tuple[Totals, bool]:
        """The sums of a bucket, and whether one of its documents is due on a day."""
        totals, is_due, after = no_totals(), False, None
        name = self._documents.prefix + self._collection
        while True:
            where: dict[str, Any] = {BUCKET: bucket}
            if after is not None:
                where[ID] = {"$gt": after}
            page = await self._documents.mongo.find(
                name, where, fields=self._fields, order=[(ID, 1)], limit=READ_AT_ONCE
            )
            there = [document for document in page if GONE not in document]
            self.sums.added(totals, there)
            if self._changes_on is not None:
                days = [document.get(self._changes_on) for document in there]
                is_due = is_due or any(day is not None and day <= due_on for day in days)
            if len(page) < READ_AT_ONCE:
                return totals, is_due
            after = page[-1][ID]

    async def _settle(self, buckets: Collection[int], marks: Marks) -> None:
        """Says up to which mark buckets are summed: the one that was read before their documents."""
        through = {
            f"{_SUMMED}.{bucket}": marks.changed[bucket] for bucket in buckets if bucket in marks.changed
        }
        if through:
            await self._documents.mongo.update(self._marks, {ID: _MARKS}, {"$max": through})


class LiveViews(Protocol):
    """Finds the live collections (`chassis.read.generations.ViewReader`)."""

    async def collection(self, view: str, name: str) -> str:
        """The name of a live collection; raises NotBuilt."""
        ...


@dataclass(frozen=True, slots=True)
class Summed:
    """What all documents of a derived view add up to, by group and name.

    `settled`: whether it shows every change that was marked before it was asked for. A deriver marks before it saves its
    checkpoint, so the changes up to a checkpoint are marked; of a batch that goes on, some are written and not marked yet.
    """

    groups: Mapping[Group, Mapping[str, int]]
    settled: bool


class SumsReader:
    """Reads the sums of a derived view as its live generation has them. Remembers the buckets as they were stored, and reads
    those again that were written since."""

    def __init__(self, view: str, sums: Sums, collection: str, mongo: Mongo, live: LiveViews) -> None:
        self._view = view
        self._sums = sums
        self._collection = collection
        self._mongo = mongo
        self._live = live
        self._known = _Known("")

    async def read(self, shows: Callable[[Group], bool]) -> Summed:
        """The sums of the groups that a caller may see; raises NotBuilt."""
        name = await self._live.collection(self._view, self._sums.name)
        documents = MongoDocuments(self._mongo, name.removesuffix(self._sums.name))
        # Marks first: what was marked before is in the buckets that are read after.
        settled = not (await Summing(self._sums, documents, self._collection).marks()).waiting()
        if name != self._known.name:
            self._known = _Known(name)
        known = self._known
        written = await self._mongo.find(name, fields=_COUNT)
        left = [one[ID] for one in written if known.writes.get(one[ID]) != one[SEQUENCE]]
        for at in range(0, len(left), SUMMED_AT_ONCE):
            for raw in await self._mongo.find_raw(name, {ID: {"$in": left[at : at + SUMMED_AT_ONCE]}}):
                known.replace(raw)
        shown = {
            group: {name: value for name, value in of.items() if value}
            for group, of in known.totals.items()
            if shows(group)
        }
        return Summed({group: of for group, of in shown.items() if of}, settled)


class _Known:
    """The buckets of a generation as they were read, and what they add up to. Several readers may bring it up to date at
    once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.writes: dict[DocumentId, int] = {}
        self.totals = no_totals()
        self._stored: dict[DocumentId, bytes] = {}

    def replace(self, raw: bytes) -> None:
        """Replaces in the totals what a bucket was by what it is, unless a later one is there."""
        bucket = Frozen(raw).thawed()
        id, count = bucket[ID], bucket[SEQUENCE]
        if count <= self.writes.get(id, 0):
            return
        if id in self._stored:
            add_stored(self.totals, Frozen(self._stored[id]).thawed(), -1)
        add_stored(self.totals, bucket)
        self.writes[id], self._stored[id] = count, raw
