"""A derived view over two others: two projectors for each, two derivers, and what must hold of the documents.

Owners name accounts, accounts have deeds; the derived document of an owner has the deeds of all its accounts. The
projectors, the derivers, the parking and the checkpoints are those of the chassis. Some deeds are poison to the
accounts' view until somebody repairs it. Where it is asked for, the deeds of each account are summed over all owners in
buckets, by two that sum at once; days pass, and each of them changes every document.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid5

from chassis.messaging.delivered import Delivered
from chassis.messaging.transport import Partition
from chassis.read.deriving import OWED, DerivedView, Deriver, InputGeneration, Inputs, MongoInputs, Touched
from chassis.read.documents import GONE, ID, Document, DocumentId, DocumentKey
from chassis.read.mongo import MongoDocuments
from chassis.read.mongo_checkpoints import PARKED, POSITIONS, MongoCheckpoints
from chassis.read.parking import Parking
from chassis.read.projecting import Collection, Projector, View
from chassis.read.summing import Summing, Sums, Totals, add_stored, bucket_id, no_totals, stored
from contracts.topics import EVENTS

from tests.simulation.kernel import Faults, Kernel
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import CATCH_UP_SECONDS_MAX, NAMESPACE, Broken
from tests.simulation.servers import BrokerServer
from tests.simulation.test_two_contexts import record_of

OWNERS = tuple(uuid5(NAMESPACE, f"owner-{number}") for number in range(2))
ACCOUNTS = tuple(uuid5(NAMESPACE, f"account-{number}") for number in range(3))
CONTEXT_OF = {"owners": "customer", "accounts": "ingest"}
SUBJECTS_OF = {"owners": OWNERS, "accounts": ACCOUNTS}
PARTITIONS = 2
EVENTS_OF = {"owners": 8, "accounts": 24}
FETCH_MAX = 4
PROJECTORS = 2
"""Of each input."""
DERIVERS = 3
SUMMERS = 2
DAYS = 4
DAY_SECONDS_MAX = 0.6
FAULTS = Faults(crash=0.002, unanswered=0.01, freeze=0.02, freezes_max=40, freeze_seconds=0.1)
HEALED_SECONDS = 2.0
OPERATOR_SECONDS = 0.6
OVERVIEWS, DEEDS_OF, OF_OWNER = "overviews", "deeds", "accounts"
DOCUMENTS, BUCKETS, MARKS = (f"{OVERVIEWS}_v1_{name}" for name in (OVERVIEWS, "sums", "sums_marks"))
DAY = date(2026, 1, 5)
GROUP = "simulation.overviews.v1"

Deed = tuple[UUID, int]


def places_of(view: str) -> list[Partition]:
    """The partitions that an input reads."""
    return [(EVENTS[CONTEXT_OF[view]].name, number) for number in range(PARTITIONS)]


ALL_PLACES = [*places_of("owners"), *places_of("accounts")]


def owned(owner: UUID, links: int) -> list[UUID]:
    """The accounts that an owner names after so many events: each event names one more, or one again."""
    named = [ACCOUNTS[(OWNERS.index(owner) + number) % len(ACCOUNTS)] for number in range(links)]
    return list(dict.fromkeys(named))


@dataclass(slots=True)
class Deriving:
    """All there is, and what readers were shown."""

    kernel: Kernel
    broker: BrokerServer
    mongo: MongoServer
    poison: set[Deed]
    published: int = 0
    over: bool = False
    day: date = DAY
    days_left: int = 0
    shown: dict[tuple[UUID, str], int] = field(default_factory=dict)
    """The most deeds of an account that an overview has shown."""
    summed: dict[tuple[str, str], int] = field(default_factory=dict)
    """The most deeds of an account that a bucket has shown."""
    marked: dict[int, dict[int, Totals]] = field(default_factory=dict)
    """By bucket and mark, what its documents added up to when they were last seen at that mark."""
    broken: list[Broken] = field(default_factory=list)

    def all_published(self) -> bool:
        """Whether no more events come."""
        return self.published == sum(EVENTS_OF.values())


def input_view(name: str, world: Deriving) -> View:
    """The owners with the accounts that they name, or the accounts with their deeds."""

    def project(_: DocumentKey, document: Document | None, event: Delivered) -> Document:
        if (event.subject, event.sequence) in world.poison:
            raise ValueError("poison")
        after = document or {DEEDS_OF: []} if name == "accounts" else {}
        if name == "accounts":
            after[DEEDS_OF].append(event.sequence)
        else:
            after = {OF_OWNER: owned(event.subject, event.sequence)}
        return after

    context = CONTEXT_OF[name]
    return View(
        name,
        1,
        (EVENTS[context].name,),
        frozenset({"customer.renamed", "posting.booked"}),
        (Collection(name),),
        lambda event: [DocumentKey(name, event.subject)],
        project,
    )


async def depending(inputs: Inputs, touched: Touched) -> Iterable[DocumentId]:
    """The owners themselves, and those that name an account."""
    accounts = touched.get(("accounts", "accounts"), ())
    naming = await inputs.having("owners", "owners", OF_OWNER, accounts, [ID]) if accounts else []
    return {*touched.get(("owners", "owners"), ()), *[one[ID] for one in naming]}


async def derive(inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
    """Each owner's accounts with their deeds."""
    owners = await inputs.by_id("owners", "owners", ids)
    named = {account for owner in owners.values() for account in owner[OF_OWNER]}
    accounts = await inputs.by_id("accounts", "accounts", sorted(named))
    return {
        id: {
            OF_OWNER: {str(one): list(accounts.get(one, {DEEDS_OF: []})[DEEDS_OF]) for one in owner[OF_OWNER]}
        }
        for id, owner in owners.items()
    }


async def everything(inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
    """All owners."""
    return await inputs.ids("owners", "owners", after, limit)


async def derive_daily(inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
    """The overviews of a day."""
    day = inputs.day()
    following = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
    found = await derive(inputs, ids)
    return {id: {**one, "on": day, "changes_on": following} for id, one in found.items()}


def summands(overview: Document) -> Iterable[tuple[str, Mapping[str, int]]]:
    """What an overview adds to the sums of its accounts."""
    for account, deeds in overview[OF_OWNER].items():
        yield account, {"owners": 1, "deeds": len(deeds), overview["on"]: 1}


SUMS = Sums("sums", 2, (OF_OWNER, "on"), summands)


MakeDeriver = Callable[..., Deriver]
MakeSumming = Callable[[Sums, MongoDocuments, str, str], Summing]


def publishing(world: Deriving, pause_seconds_max: float = 0.03) -> Callable[[], Awaitable[None]]:
    """Publishes the events of both contexts in some order, some of them twice."""

    async def main() -> None:
        chance, positions, counts = world.kernel.chance, dict[str, int](), dict[UUID, int]()
        left = [view for view, count in EVENTS_OF.items() for _ in range(count)]
        chance.shuffle(left)
        for view in left:
            subject = chance.choice(SUBJECTS_OF[view])
            counts[subject] = counts.get(subject, 0) + 1
            positions[view] = positions.get(view, 0) + 1
            record = record_of(CONTEXT_OF[view], subject, counts[subject], positions[view])
            for _ in range(1 + (chance.random() < 0.1)):
                world.broker.append(record)
            world.published += 1
            await world.kernel.sleep(chance.random() * pause_seconds_max)

    return main


def consuming(
    world: Deriving, places: Sequence[Partition], handler: Callable[[], tuple[MongoCheckpoints, Any]]
) -> Callable[[], Awaitable[None]]:
    """A consumer that gets other partitions now and then; nobody prevents two of them from having the same."""
    kernel, broker = world.kernel, world.broker

    async def main() -> None:
        checkpoints, handling = handler()
        offsets: dict[Partition, int] = {}
        while not world.over:
            try:
                if not offsets or kernel.chance.random() < 0.15:
                    await checkpoints.begin({place: _context_of(place) for place in places})
                    chosen = kernel.chance.sample(places, kernel.chance.randrange(1, len(places) + 1))
                    offsets = {place: await broker.offset(checkpoints.group, place) for place in chosen}
                records = [
                    record
                    for place, offset in offsets.items()
                    for record in await broker.fetch(place, offset, FETCH_MAX)
                ]
                if records:
                    await handling.apply(records)
                else:
                    await handling.tick()
                    await kernel.sleep(0.02)
                for record in records:
                    place = (record.topic, record.partition)
                    offsets[place] = (record.offset or 0) + 1
                    await broker.commit(checkpoints.group, place, offsets[place])
            except ConnectionError:
                offsets = {}
                await kernel.sleep(0.02)

    return main


def _context_of(place: Partition) -> str:
    return next(context for context in CONTEXT_OF.values() if EVENTS[context].name == place[0])


def projecting(world: Deriving, name: str) -> Callable[[], tuple[MongoCheckpoints, Projector]]:
    """What keeps an input."""

    def made() -> tuple[MongoCheckpoints, Projector]:
        checkpoints = MongoCheckpoints(world.mongo, f"simulation.{name}.v1", name)
        parking = Parking(checkpoints.group, checkpoints, world.broker, world.kernel)
        documents = MongoDocuments(world.mongo, f"{name}_v1_")
        return checkpoints, Projector(
            input_view(name, world), documents, parking, chunk_records=3, slice_records=2
        )

    return made


def deriving(
    world: Deriving, deriver: MakeDeriver, sums: Sums | None = None
) -> Callable[[], tuple[MongoCheckpoints, Deriver]]:
    """What keeps the derived view."""

    def made() -> tuple[MongoCheckpoints, Deriver]:
        inputs = tuple(input_view(name, world) for name in CONTEXT_OF)
        view = DerivedView(
            OVERVIEWS,
            1,
            inputs,
            Collection(OVERVIEWS),
            depending,
            derive if sums is None else derive_daily,
            everything,
            changes_on=None if sums is None else "changes_on",
            sums=sums,
        )
        pinned = [InputGeneration(one, f"{one.name}_v1_", f"simulation.{one.name}.v1") for one in inputs]
        checkpoints = MongoCheckpoints(world.mongo, GROUP, OVERVIEWS)
        documents = MongoDocuments(world.mongo, f"{OVERVIEWS}_v1_")
        made = deriver(
            view,
            documents,
            checkpoints,
            MongoInputs(world.mongo, pinned, lambda: world.day),
            world.kernel,
            at_once=1,
            wait_seconds_max=0.2,
            whole_seconds_max=0.05,
        )
        return checkpoints, made

    return made


def summing(world: Deriving, made: MakeSumming) -> Callable[[], Awaitable[None]]:
    """Sums the buckets that are marked; nobody prevents another one from doing so too."""

    async def still() -> bool:
        return not world.over

    async def main() -> None:
        of = made(SUMS, MongoDocuments(world.mongo, f"{OVERVIEWS}_v1_"), OVERVIEWS, "changes_on")
        while not world.over:
            with suppress(ConnectionError):
                await of.sum_marked(still)
            await world.kernel.sleep(0.02)

    return main


def passing(world: Deriving) -> Callable[[], Awaitable[None]]:
    """Lets days pass."""
    world.days_left = DAYS

    async def main() -> None:
        while world.days_left:
            await world.kernel.sleep(world.kernel.chance.random() * DAY_SECONDS_MAX)
            world.day += timedelta(days=1)
            world.days_left -= 1

    return main


def operating(world: Deriving, seconds: float = OPERATOR_SECONDS) -> Callable[[], Awaitable[None]]:
    """Repairs one thing after the other and asks for the release of whoever is parked, also in vain."""

    async def main() -> None:
        while not world.over:
            await world.kernel.sleep(seconds)
            if world.poison:
                world.poison.remove(world.kernel.chance.choice(sorted(world.poison)))
            for one in world.mongo.there.get(PARKED, {}).values():
                one["wanted"] = "release"

    return main


def watching(world: Deriving) -> Callable[[], Awaitable[None]]:
    """Looks at what callers are shown at any time."""

    async def main() -> None:
        while not world.over:
            await world.kernel.sleep(0.01)
            world.broken += [*check_shown(world), *check_marks(world)]

    return main


def supervising(world: Deriving) -> Callable[[], Awaitable[None]]:
    """Heals the world after a while, and ends it when all have caught up."""
    kernel = world.kernel

    async def main() -> None:
        await kernel.sleep(HEALED_SECONDS)
        kernel.heal()
        if not await kernel.comes(lambda: _caught_up(world), CATCH_UP_SECONDS_MAX):
            world.broken.append(Broken("I10", "the derived view did not catch up"))
        world.over = True

    return main


def _offsets(world: Deriving, group: str) -> dict[Partition, int]:
    saved = world.mongo.there.get(POSITIONS, {}).values()
    return {(one["topic"], one["partition"]): one["offset"] for one in saved if one["group"] == group}


def _caught_up(world: Deriving) -> bool:
    offsets, there = _offsets(world, GROUP), world.mongo.there
    level = all(offsets.get(place, 0) >= world.broker.end(place) for place in ALL_PLACES)
    waits = there.get(PARKED) or there.get(OWED) or _marked(world) or _due(world) or world.days_left
    return world.all_published() and level and not waits


def _due(world: Deriving) -> bool:
    """Whether a document is of a day before."""
    today = world.day.isoformat()
    return any(one.get("changes_on", "9") <= today for one in world.mongo.there.get(DOCUMENTS, {}).values())


def _marked(world: Deriving) -> bool:
    """Whether a bucket changed since it was summed."""
    return any(
        count > one.get("summed", {}).get(bucket, 0)
        for one in world.mongo.there.get(MARKS, {}).values()
        for bucket, count in one.get("changed", {}).items()
    )


# what must hold


def read_up_to(world: Deriving, offsets: Mapping[Partition, int]) -> dict[UUID, int]:
    """The highest sequence of each subject before these offsets."""
    found: dict[UUID, int] = {}
    for place, offset in offsets.items():
        for record in world.broker.logs.get(place, [])[:offset]:
            headers = dict(record.headers)
            subject = UUID(headers["ce_subject"].decode())
            found[subject] = max(found.get(subject, 0), int(headers["ce_sequence"]))
    return found


def check_shown(world: Deriving) -> Iterator[Broken]:
    """An overview shows whatever its view says it has read, and never less than it did."""
    there = world.mongo.there
    waiting = {one["subject"] for one in (*there.get(PARKED, {}).values(), *there.get(OWED, {}).values())}
    read = read_up_to(world, _offsets(world, GROUP))
    overviews = there.get(f"{OVERVIEWS}_v1_{OVERVIEWS}", {})
    for owner in OWNERS:
        shown = overviews.get(owner, {}).get(OF_OWNER, {})
        for account in owned(owner, read.get(owner, 0)):
            if str(account) not in shown:
                yield Broken("I4", f"{owner} does not show the account {account}")
            elif account not in waiting and len(shown[str(account)]) < read.get(account, 0):
                yield Broken("I4", f"{owner} shows {shown[str(account)]} of {read[account]} of {account}")
        for account, deeds in shown.items():
            if len(deeds) < world.shown.get((owner, account), 0):
                yield Broken("I3", f"{owner} went back to {deeds} of {account}")
            world.shown[owner, account] = len(deeds)
    for id, bucket in there.get(BUCKETS, {}).items():
        totals = no_totals()
        add_stored(totals, bucket)
        for one, sums in totals.items():
            if sums["deeds"] < world.summed.get((id, str(one)), 0):
                yield Broken("I3", f"the bucket {id} went back to {sums['deeds']} deeds of {one}")
            world.summed[id, str(one)] = sums["deeds"]


def check_marks(world: Deriving) -> Iterator[Broken]:
    """A bucket that is summed up to a mark shows what its documents were before that mark was made."""
    there = world.mongo.there
    for one in there.get(MARKS, {}).values():
        for name, count in one.get("changed", {}).items():
            bucket, shown = int(name), no_totals()
            add_stored(shown, there.get(BUCKETS, {}).get(bucket_id(bucket), {"groups": []}))
            marked = world.marked.setdefault(bucket, {})
            for mark in [mark for mark in marked if mark < one.get("summed", {}).get(name, 0)]:
                for account, sums in marked.pop(mark).items():
                    if shown[account]["deeds"] < sums["deeds"]:
                        yield Broken(
                            "I4", f"the bucket {bucket} has not the {sums['deeds']} deeds of {account}"
                        )
            marked[count] = no_totals()
            documents = there.get(DOCUMENTS, {}).values()
            SUMS.added(
                marked[count], [one for one in documents if one["_bucket"] == bucket and GONE not in one]
            )


def check_sums(world: Deriving) -> list[Broken]:
    """Each bucket is the sum of its documents, when all is over."""
    overviews = world.mongo.there.get(DOCUMENTS, {}).values()
    wanted, found = no_totals(), no_totals()
    SUMS.added(wanted, [one for one in overviews if GONE not in one])
    for bucket in world.mongo.there.get(BUCKETS, {}).values():
        add_stored(found, bucket)
    if stored(found) == stored(wanted):
        return []
    return [Broken("I1", f"the buckets add up to {stored(found)}, it should be {stored(wanted)}")]


def check(world: Deriving) -> list[Broken]:
    """Everything, when all is over."""
    broken = list(world.broken)
    read = read_up_to(world, {place: world.broker.end(place) for place in ALL_PLACES})
    overviews = world.mongo.there.get(f"{OVERVIEWS}_v1_{OVERVIEWS}", {})
    for owner in OWNERS:
        wanted = {str(one): list(range(1, read.get(one, 0) + 1)) for one in owned(owner, read.get(owner, 0))}
        shown = overviews.get(owner, {}).get(OF_OWNER, {})
        if shown != wanted:
            broken.append(Broken("I1", f"{owner} shows {shown}, it should be {wanted}"))
    return broken


async def lived(
    seed: int,
    deriver: MakeDeriver = Deriver,
    *,
    no_guard: bool = False,
    sums: MakeSumming | None = None,
) -> Deriving:
    """The world after a seed's schedule; with `sums`, deeds are summed."""
    kernel = Kernel(seed, FAULTS)
    deeds = [(account, number) for account in ACCOUNTS for number in range(4, 9)]
    poison = set(kernel.chance.sample(deeds, kernel.chance.randrange(4)))
    world = Deriving(kernel, BrokerServer(kernel), MongoServer(kernel, MongoFlaws(no_guard=no_guard)), poison)
    kernel.spawn("publisher", publishing(world), mortal=False)
    for name in CONTEXT_OF:
        for number in range(PROJECTORS):
            kernel.spawn(f"{name}-{number}", consuming(world, places_of(name), projecting(world, name)))
    for number in range(DERIVERS):
        derivers = deriving(world, deriver, None if sums is None else SUMS)
        kernel.spawn(f"deriver-{number}", consuming(world, ALL_PLACES, derivers))
    if sums is not None:
        for number in range(SUMMERS):
            kernel.spawn(f"summer-{number}", summing(world, sums))
        kernel.spawn("days", passing(world), mortal=False)
    for name, main in (("operator", operating), ("reader", watching), ("supervisor", supervising)):
        kernel.spawn(name, main(world), mortal=False)
    await kernel.run()
    return world
