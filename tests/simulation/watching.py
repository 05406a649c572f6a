"""Watchers over simulated servers: processes that tell, clients that come and go, and generations that are switched.

The hubs, the watchers, the readers of generations and their checkpoints are the chassis' own. Somebody writes the
documents of the live generation, as a projector does: what they will show is recorded, they are written, and the position
is saved. A client that is told reads what it was told of, in any process, and must end with what is so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from chassis.conditions import DataClass, Field, Fields, Label, Type, from_text
from chassis.ending import ended
from chassis.read.changes import reaches
from chassis.read.checkpoints import Position
from chassis.read.documents import ID, SEQUENCE, Change, Document, DocumentId, DocumentsUnavailable
from chassis.read.generations import Generation, Generations, NotBuilt, ViewReader, partitions_of
from chassis.read.projecting import Collection as OfView
from chassis.read.projecting import View
from chassis.watching import Hub, Wanted, Watched
from chassis.watching.watchers import CHANGED
from chassis.web.streams import Sent
from contracts.topics import EVENTS

from tests.simulation.change_log import ListedLog, place_of
from tests.simulation.kernel import Faults, Kernel
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import Broken

CONTEXT = "customer"
BOXES = "boxes"
SERVICE = "simulation"
IDS = tuple(f"box-{number}" for number in range(4))
FIELDS = Fields(
    [
        Field(name, Type.NUMBER, Label(zh, name), name, DataClass.INTERNAL)
        for name, zh in (("weight", "重量"), ("room", "房间"))
    ]
)
HEAVY = from_text("weight >= 3", FIELDS)
HERE = from_text("room = 1", FIELDS)
WANTED = (
    Wanted(frozenset(IDS[:2])),
    Wanted(frozenset(IDS[1:])),
    Wanted(None, HEAVY),
    Wanted(frozenset(IDS[1:]), HEAVY),
    Wanted(None, HEAVY, HERE),
    Wanted(frozenset(IDS[1:]), None, HERE),
)
"""What each client watches."""
DAY = date(2026, 1, 5)
PROCESSES = 2
BURSTS = 10
WRITES_OF_BURST = 6
SWITCHES = 2
WRITE_SECONDS_MAX = 0.04
QUIET_SECONDS_MAX = 0.3
LEAVES_OF_HUNDRED = 15
WAIT_SECONDS_MAX = 4.0
CAUGHT_UP_SECONDS_MAX = 30.0
FAULTS = Faults(crash=0.002, crashes_max=6, unanswered=0.004, unanswered_max=20)

Known = dict[DocumentId, int]
"""The count of writes of each document, as somebody read it."""


@dataclass(slots=True)
class Process:
    """An API process that lives: its hub, and the reader of its requests."""

    hub: Hub
    reader: ViewReader


@dataclass(slots=True)
class Client:
    """What one client watches, what it knows, and how often it was told."""

    wanted: Wanted
    known: Known = field(default_factory=dict)
    last: str | None = None
    told: int = 0
    connected: int = 0


@dataclass(slots=True)
class Watching:
    """All there is in one run."""

    kernel: Kernel
    mongo: MongoServer
    log: ListedLog
    generations: Generations
    clients: list[Client] = field(default_factory=lambda: [Client(wanted) for wanted in WANTED])
    processes: dict[int, Process] = field(default_factory=dict)
    truth: dict[str, Document] = field(default_factory=dict)
    been_here: set[DocumentId] = field(default_factory=set)
    """The documents that were in the room of the scope at any time."""
    position: int = 0
    written: int = 0
    switched: int = 0
    done: bool = False
    staying: bool = False
    """Whether clients stay connected."""
    over: bool = False
    broken: list[Broken] = field(default_factory=list)

    def caught_up(self) -> bool:
        """Whether each client knows what is so, and was told of everything that is written. Who reads for another reason may
        know it before: it then still reads what it is told of, and what moves moves between two rounds for whoever tells."""
        end = place_of(len(self.mongo.written))
        return all(
            client.known == self.wanted_truth(client.wanted)
            and reaches((client.last or "").rpartition(".")[2], end)
            for client in self.clients
        )

    def wanted_truth(self, wanted: Wanted) -> Known:
        """What a client should know in the end."""
        return {
            id: document["count"]
            for id, document in self.truth.items()
            if (wanted.ids is None or id in wanted.ids) and self.meets(wanted, document)
        }

    @staticmethod
    def meets(wanted: Wanted, document: Document) -> bool:
        """Whether a document is one of those that a client wants, by its weight, and may see, by its room."""
        heavy = wanted.condition is None or bool(document["weight"] >= 3)
        return heavy and (wanted.scope is None or document["room"] == 1)


def view() -> View:
    """A view whose documents are written by the simulation."""
    topic = EVENTS[CONTEXT].name
    collections = (OfView(BOXES),)
    return View(BOXES, 1, (topic,), frozenset({"customer.renamed"}), collections, lambda _: (), _nothing)


def _nothing(*_: Any) -> None:
    return None


# who acts


def writing(run: Watching) -> Callable[[], Awaitable[None]]:
    """Writes the documents of the live generation, and makes others live now and then. It is never in doubt for long."""
    kernel, generations = run.kernel, run.generations

    async def surely(act: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await act()
            except ConnectionError:
                await kernel.sleep(0.01)

    async def shown(generation: Generation, ids: Collection[str]) -> None:
        """The documents of a generation as they are, with the positions before and after."""
        checkpoints, documents = generations.checkpoints(generation), generations.documents(generation)
        places = partitions_of(generations.view.sources)
        await surely(lambda: checkpoints.reaching(dict.fromkeys(places, run.position)))

        async def write() -> None:
            there = await documents.load(BOXES, sorted(ids))
            changes = []
            for id in sorted(ids):
                document = run.truth[id]
                before = there[id][SEQUENCE] if id in there else None
                if before != document["count"]:
                    content = {**document, ID: id, SEQUENCE: document["count"]}
                    changes.append(Change(id, before, document["count"], documents.freeze(content)))
            if changes and (await documents.write(BOXES, changes)).conflicts:
                raise DocumentsUnavailable("once more")

        await surely(write)
        reached = {place: Position(run.position, CONTEXT, run.position, None) for place in places}
        await surely(lambda: checkpoints.advance(reached))

    async def main() -> None:
        live = await surely(generations.begin)
        await surely(lambda: generations.switch(live))
        writes = BURSTS * WRITES_OF_BURST
        switches = sorted(kernel.chance.sample(range(1, writes), SWITCHES))
        for number in range(writes):
            moves = number % WRITES_OF_BURST == 0
            if moves:
                await quiet(run)
            for id in kernel.chance.sample(IDS, kernel.chance.randrange(1, 3)):
                rewrite(run, id, moves=moves)
                await shown(live, [id])
            if number in switches:
                later = await surely(generations.begin)
                await shown(later, list(run.truth))
                await surely(lambda later=later: generations.switch(later))
                live = later
                run.switched += 1
            await kernel.sleep(kernel.chance.random() * WRITE_SECONDS_MAX)
        run.done = True

    return main


def rewrite(run: Watching, id: str, *, moves: bool) -> None:
    """What a document is from now on. It moves and then stays, until everybody knows: who reads it in a room in which it
    was for a moment keeps it."""
    chance, before = run.kernel.chance, run.truth.get(id, {"count": 0, "room": 0})
    room = chance.randrange(2) if moves else before["room"]
    run.truth[id] = {"count": before["count"] + 1, "weight": chance.randrange(6), "room": room}
    if room == 1:
        run.been_here.add(id)
    run.position += 1
    run.written += 1


async def quiet(run: Watching) -> None:
    """While nothing is written, everybody comes to know what is so; some go on leaving and coming for a while."""
    run.staying = False
    await run.kernel.sleep(run.kernel.chance.random() * QUIET_SECONDS_MAX)
    run.staying = True
    if not await run.kernel.comes(run.caught_up, CAUGHT_UP_SECONDS_MAX):
        run.broken += _ends(run)
    run.staying = False


def serving(run: Watching, number: int, hub: Callable[..., Hub]) -> Callable[[], Awaitable[None]]:
    """A process of the API."""
    kernel = run.kernel

    async def main() -> None:
        reader = ViewReader(run.mongo, kernel, [view()])
        telling = hub(Watched(view(), BOXES, FIELDS), reader, kernel, lambda: DAY, run.log, pending_max=3)
        run.processes[number] = Process(telling, ViewReader(run.mongo, kernel, [view()]))
        task = asyncio.create_task(telling.run())
        while not run.over:
            await kernel.sleep(0.05)
        await ended(task)

    return main


def forgetting(run: Watching) -> Callable[[], Awaitable[None]]:
    """The server's log is short now and then: what came before is not told any more."""

    async def main() -> None:
        while not run.done:
            await run.kernel.sleep(8.0)
            run.log.forget()

    return main


def watching(run: Watching, client: Client) -> Callable[[], Awaitable[None]]:
    """A client: it watches in some process, leaves, and comes again in another one."""
    kernel = run.kernel

    async def main() -> None:
        while not run.over:
            try:
                await connected(run, client)
            except (ConnectionError, NotBuilt):
                await kernel.sleep(0.05)

    return main


async def connected(run: Watching, client: Client) -> None:
    """One connection, until the client leaves or the process dies."""
    kernel = run.kernel
    if not run.processes:
        await kernel.sleep(0.05)
        return
    number = kernel.chance.choice(sorted(run.processes))
    process = run.processes[number]
    client.connected += 1
    async with process.hub.watching(client.wanted, client.last, lambda: None) as watcher:
        while not run.over and run.processes.get(number) is process:
            sent = watcher.next()
            if sent is None:
                client.last = watcher.place
                if not run.staying and kernel.chance.randrange(100) < 2:
                    return
                await kernel.sleep(0.03)
                continue
            if not run.staying and kernel.chance.randrange(100) < LEAVES_OF_HUNDRED:
                return  # the event was lost on its way
            client.told += 1
            await read(run, client, sent)
            client.last = sent.id


async def read(run: Watching, client: Client, sent: Sent) -> None:
    """Reads what a client was told of, in any process, as far as the event says."""
    before = there_now(run)
    process = run.processes[run.kernel.chance.choice(sorted(run.processes))]
    for token in filter(None, str(sent.data["at_least"]).split(",")):
        context, _, position = token.rpartition("-")
        if not await process.reader.wait_for(context, int(position), WAIT_SECONDS_MAX):
            raise DocumentsUnavailable("the view is behind")
    collection = await process.reader.collection(BOXES, BOXES)
    wanted: dict[str, Any] = (
        {} if client.wanted.ids is None else {ID: {"$in": sorted(client.wanted.ids, key=str)}}
    )
    if sent.event == CHANGED:
        named = [*sent.data["changed"], *sent.data["entered"], *sent.data["left"]]
        assert client.wanted.ids is None or client.wanted.ids.issuperset(named)
        if client.wanted.hides and not run.been_here.issuperset(named):
            run.broken.append(Broken("scope", f"{named} are told, of which only {run.been_here} may be"))
        wanted = {ID: {"$in": named}}
    else:
        named = []
    found = {one[ID]: one for one in await run.mongo.find(collection, wanted)}
    if sent.event != CHANGED:
        client.known.clear()
    for id in named:
        if id in before and found.get(id, {"count": 0})["count"] < before[id]:
            run.broken.append(
                Broken("I4", f"{id} was told, and is read at {found.get(id)} instead of {before[id]}")
            )
    left = sent.data.get("left", ())
    for id in {*named, *found}:
        document = found.get(id)
        if document is None or id in left or (not named and not run.meets(client.wanted, document)):
            client.known.pop(id, None)
        else:
            client.known[id] = document["count"]


def there_now(run: Watching) -> Known:
    """What every document has at least, in whatever generation it is told."""
    counts: list[Known] = [
        {id: one["count"] for id, one in there.items()}
        for name, there in run.mongo.there.items()
        if name.endswith(f"_{BOXES}")
    ]
    return {id: min(each.get(id, 0) for each in counts) for id in {id for each in counts for id in each}}


def supervising(run: Watching) -> Callable[[], Awaitable[None]]:
    """Heals the world when all is written, and ends it when all clients know it."""
    kernel = run.kernel

    async def main() -> None:
        await kernel.comes(lambda: run.done, BURSTS * CAUGHT_UP_SECONDS_MAX)
        kernel.heal()
        run.staying = True
        await kernel.comes(run.caught_up, CAUGHT_UP_SECONDS_MAX)
        run.over = True

    return main


# what must hold


def check(run: Watching) -> list[Broken]:
    """Everything, when all is over."""
    return [*run.broken, *_ends(run)]


def _ends(run: Watching) -> Iterator[Broken]:
    for client in run.clients:
        wanted = run.wanted_truth(client.wanted)
        if client.known != wanted:
            yield Broken("I1", f"a client of {client.wanted} knows {client.known}, it should know {wanted}")
        most = 2 * run.written + client.connected + 4 * run.switched + 10
        if client.told > most:
            yield Broken("I2", f"a client was told {client.told} times of {run.written} writes")


async def lived(seed: int, hub: Callable[..., Hub] = Hub) -> Watching:
    """All that is left after a seed's schedule."""
    kernel = Kernel(seed, FAULTS)
    mongo = MongoServer(kernel, MongoFlaws())
    run = Watching(kernel, mongo, ListedLog(mongo), Generations(mongo, view(), SERVICE, kernel))
    kernel.spawn("writer", writing(run), mortal=False)
    for number in range(PROCESSES):
        kernel.spawn(f"api-{number}", serving(run, number, hub))
    for number, client in enumerate(run.clients):
        kernel.spawn(f"client-{number}", watching(run, client), mortal=False)
    kernel.spawn("oplog", forgetting(run), mortal=False)
    kernel.spawn("supervisor", supervising(run), mortal=False)
    await kernel.run()
    return run
