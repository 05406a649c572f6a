"""An update while all goes on: relays and consumers are replaced one after the other, and some go back for a while.

One of the services is new from the beginning, so what its clients store is of a version that the other processes do not
know. A relay of the version before must not publish it, and a view of the version before must not park a subject because
of it: they wait, and whoever is newer goes on.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from chassis.messaging.delivered import Delivered
from chassis.write.catalogue import UnknownEvent
from chassis.write.events import StoredEvent
from contracts.ingest import PostingBooked

from tests.simulation import delivery
from tests.simulation.delivery import (
    CONSUMERS,
    RELAYS,
    Delivery,
    Parts,
    Words,
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
    return event.data


def data_before(event: Delivered) -> Mapping[str, Any]:
    """The same of a process of the version before; raises as contracts do that do not know the version."""
    return event.data


@dataclass(frozen=True, slots=True)
class Before:
    """What the processes of the version before are made of; a planted bug is another part."""

    words: Callable[[StoredEvent], Words | None] = words_before
    data: Callable[[Delivered], Mapping[str, Any]] = data_before


@dataclass(slots=True)
class Update:
    """What is between the log and its readers, and who is new by now."""

    delivery: Delivery
    before: Before
    poison: frozenset[str]
    """What the view could not digest at the beginning."""
    new: set[str] = field(default_factory=set)

    def relay(self, name: str) -> Callable[[], Awaitable[None]]:
        """A relay, of the version that its name has when it starts."""

        async def main() -> None:
            of_now = words if name in self.new else self.before.words
            await relaying(self.delivery, Parts(), words=of_now)()

        return main

    def consumer(self, name: str) -> Callable[[], Awaitable[None]]:
        """A consumer, of the version that its name has when it starts."""

        async def main() -> None:
            await consuming(self.delivery, Parts(), data if name in self.new else self.before.data)()

        return main


def updating(update: Update, names: list[str]) -> Callable[[], Awaitable[None]]:
    """Replaces one process after the other, and takes one back now and then; when the world is healed, all are new."""
    kernel = update.delivery.world.kernel

    async def main() -> None:
        while update.new != set(names):
            if not kernel.healed:
                await kernel.sleep(kernel.chance.random() * STEP_SECONDS_MAX)
            back = update.new and not kernel.healed and kernel.chance.random() < GOES_BACK
            name = kernel.chance.choice(sorted(update.new if back else set(names) - update.new))
            update.new ^= {name}
            kernel.replace(name)

    return main


def watching(update: Update) -> Callable[[], Awaitable[None]]:
    """Looks all the time whether a subject is parked because of an event that is only newer."""
    world = update.delivery.world

    async def main() -> None:
        while not world.over:
            await world.kernel.sleep(0.01)
            update.delivery.broken.extend(check_parked(update))

    return main


def check_parked(update: Update) -> Iterator[Broken]:
    """Who is parked is parked because of what the view cannot digest, or because of an event before that."""
    parked = update.delivery.parked()
    for row in update.delivery.published():
        if parked.get(row.stream_id) == row.version and body_of(row).deed not in update.poison:
            yield Broken("I4", f"{row.stream_id} is parked at {row.version}, which is only newer")


async def lived(seed: int, before: Before | None = None) -> Update:
    """All that is left after a seed's schedule."""
    made = Delivery.of(seed, Flaws(), MongoFlaws(), FAULTS)
    made.words = words
    update = Update(made, before or Before(), frozenset(made.poison))
    world, kernel = made.world, made.world.kernel
    for number in range(SERVICES):
        kernel.spawn(f"service-{number}", service(world, number, honest_appender))
    relays = [f"relay-{number}" for number in range(RELAYS)]
    consumers = [f"consumer-{number}" for number in range(CONSUMERS)]
    for name in relays:
        kernel.spawn(name, update.relay(name))
    for name in consumers:
        kernel.spawn(name, update.consumer(name))
    kernel.spawn("sealer", sealer(world))
    for name, main in {
        "operator": operating(made),
        "reader": reading(made),
        "freezer": freezing(made, for_good=False),
        "updater": updating(update, [*relays, *consumers]),
        "watcher": watching(update),
        "supervisor": supervising(made),
    }.items():
        kernel.spawn(name, main, mortal=False)
    await kernel.run()
    return update


def check(update: Update) -> list[Broken]:
    """Everything, when all is over."""
    return delivery.check(update.delivery)
