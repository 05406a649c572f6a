"""An update while all goes on: relays, views and policies are replaced one after the other, and some go back for a while.

One of the services is new from the beginning, so what its clients store is of a version that the other processes do not
know. A relay of the version before must not publish it, and a view or a policy of the version before must not park a
subject because of it: they wait, and whoever is newer goes on.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from chassis.messaging.delivered import Delivered
from chassis.read.mongo_checkpoints import PARKED
from chassis.write.catalogue import UnknownEvent
from chassis.write.events import StoredEvent
from contracts.ingest import PostingBooked
from contracts.topics import INGEST_EVENTS, Topic

from tests.simulation import delivery, reactions
from tests.simulation.commands import Overdrawn
from tests.simulation.delivery import (
    CONSUMERS,
    RELAYS,
    TOPIC,
    DataOf,
    Delivery,
    Parts,
    Poison,
    Words,
    WordsOf,
    consuming,
    freezing,
    operating,
    reading,
    relaying,
    supervising,
)
from tests.simulation.kernel import Faults
from tests.simulation.mongo_server import MongoFlaws
from tests.simulation.scenario import (
    CLIENTS_PER_SERVICE,
    SERVICES,
    Broken,
    body_of,
    honest_appender,
    sealer,
    service,
)
from tests.simulation.servers import Flaws

FAULTS = Faults(crashes_max=10, unanswered_max=20, freeze=0.001, freezes_max=4)
STEP_SECONDS_MAX = 0.3
GOES_BACK = 0.2
"""Chance that a step of the update takes one back."""


class PostingBookedNewer(PostingBooked):
    """A version of the public event that only new processes know."""

    VERSION = PostingBooked.VERSION + 1


def is_newer(stored: StoredEvent) -> bool:
    """Whether a client of the last service stored it, which is new."""
    client, _, _ = body_of(stored).deed.partition("-")
    return int(client) >= (SERVICES - 1) * CLIENTS_PER_SERVICE


def words(stored: StoredEvent) -> Words | None:
    """The public words of a stored event, as a new process says them."""
    found = delivery.words(stored)
    return found._replace(event=PostingBookedNewer) if found is not None and is_newer(stored) else found


def words_before(stored: StoredEvent) -> Words | None:
    """The same of a process of the version before; raises as its catalogue does."""
    if is_newer(stored):
        raise UnknownEvent("moved version 2 is newer than this code")
    return delivery.words(stored)


def data(event: Delivered) -> Mapping[str, Any]:
    """The body of an event, as a new process reads it. The contracts of these processes end with the version before."""
    if event.version == PostingBookedNewer.VERSION:
        found: Mapping[str, Any] = msgspec.json.decode(event.record.value)
        return found
    return delivery.data(event)


Main = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Before:
    """What the processes of the version before are made of; a planted bug is another part."""

    words: WordsOf = words_before
    data: DataOf = delivery.data


@dataclass(slots=True)
class Update:
    """What is between the log and its readers, and who is new by now."""

    delivery: Delivery
    before: Before
    names: list[str] = field(default_factory=list)
    """Who is replaced."""
    new: set[str] = field(default_factory=set)

    def spawn(self, name: str, new: Main, before: Main) -> None:
        """Starts a process that is of the version that its name has when it starts."""

        async def main() -> None:
            await (new if name in self.new else before)()

        self.names.append(name)
        self.delivery.world.kernel.spawn(name, main)

    def spawn_services_and_relays(self, topic: Topic = TOPIC) -> None:
        """Starts services, of which the last is new, and relays."""
        made, kernel = self.delivery, self.delivery.world.kernel
        for number in range(SERVICES):
            kernel.spawn(f"service-{number}", service(made.world, number, honest_appender))
        for number in range(RELAYS):
            new, before = (relaying(made, Parts(), topic, one) for one in (words, self.before.words))
            self.spawn(f"relay-{number}", new, before)


def updating(update: Update) -> Main:
    """Replaces one process after the other, and takes one back now and then; when the world is healed, all are new."""
    kernel = update.delivery.world.kernel

    async def main() -> None:
        while old := sorted(set(update.names) - update.new):
            if not kernel.healed:
                await kernel.sleep(kernel.chance.random() * STEP_SECONDS_MAX)
            back = update.new and not kernel.healed and kernel.chance.random() < GOES_BACK
            name = kernel.chance.choice(sorted(update.new) if back else old)
            update.new ^= {name}
            kernel.replace(name)

    return main


def watching(update: Update) -> Main:
    """Looks all the time whether a subject is parked for another reason than what cannot be done with its event."""
    world = update.delivery.world

    async def main() -> None:
        while not world.over:
            await world.kernel.sleep(0.01)
            for one in update.delivery.mongo.there.get(PARKED, {}).values():
                if not one["reason"].startswith((Poison.__name__, Overdrawn.__name__)):
                    update.delivery.broken.append(
                        Broken("I4", f"{one['subject']} is parked: {one['reason']}")
                    )

    return main


async def lived(seed: int, before: Before | None = None) -> Update:
    """All that is left after a seed's schedule of relays and a view."""
    made = Delivery.of(seed, Flaws(), MongoFlaws(), FAULTS)
    made.words = words
    update = Update(made, before or Before())
    update.spawn_services_and_relays()
    for number in range(CONSUMERS):
        new, old = (consuming(made, Parts(), one) for one in (data, update.before.data))
        update.spawn(f"consumer-{number}", new, old)
    made.world.kernel.spawn("sealer", sealer(made.world))
    for name, main in {
        "operator": operating(made),
        "reader": reading(made),
        "freezer": freezing(made, for_good=False),
        "updater": updating(update),
        "watcher": watching(update),
        "supervisor": supervising(made),
    }.items():
        made.world.kernel.spawn(name, main, mortal=False)
    await made.world.kernel.run()
    return update


async def lived_with_policies(seed: int, before: Before | None = None) -> reactions.Reactions:
    """All that is left after a seed's schedule of relays and policies."""
    run = reactions.Reactions.of(seed)
    run.delivery.words = words
    update = Update(run.delivery, before or Before())
    update.spawn_services_and_relays(INGEST_EVENTS)
    for number in range(reactions.PROCESSES):
        new, old = (reactions.reacting(run, reactions.Reacting(), one) for one in (data, update.before.data))
        update.spawn(f"policies-{number}", new, old)
    for name, main in {
        "looking": reactions.looking(run),
        "operator": reactions.paying_in(run),
        "updater": updating(update),
        "watcher": watching(update),
        "supervisor": reactions.supervising(run),
    }.items():
        run.delivery.world.kernel.spawn(name, main, mortal=False)
    await run.delivery.world.kernel.run()
    return run


def check(update: Update) -> list[Broken]:
    """Everything, when all is over."""
    return delivery.check(update.delivery)
