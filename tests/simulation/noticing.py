"""Notices over the event store: clients request them while two processes hand them over to a gateway that answers late.

The loop, the lease, the notices, the command handler and the store are those of the chassis; what the table does in SQL is
done in a dictionary. A message to the gateway is an actor of its own: whoever sent it may be dead when it arrives. The
gateway carries out each message id once, and sends receipts until each is acknowledged, some of them twice.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.notices import NOTICES, Notices, NoticeUnknown, Template, Wanted
from chassis.notices.deciding import NOTICE, Channel, Notice, NoticeEvent
from chassis.notices.loop import NoticeLoop
from chassis.notices.providers import Accepted, Answer, Message, Provider, ProviderUnanswered, Rejected
from chassis.notices.table import Due, Folded, Later, Limit, NoticeTable, Requested
from chassis.privacy.keys import DataKey
from chassis.process.leases import Lease
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, TooManyConflicts
from chassis.write.store.items import Fenced
from typing_extensions import override

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer, PositionServer
from tests.simulation.store import SimulatedKeys, StoreClient

REQUESTED = 10
PROCESSES = 2
CLIENTS = 2
TRIES_MAX = 200
REFUSED = 0.15
BUSY = 0.15
LATE, LATE_SECONDS_MAX = 0.2, 0.6
ANSWER_SECONDS_MAX = 0.2
BOUNCED = 0.3
TWICE = 0.3
REQUESTING_SECONDS = 1.0
CATCH_UP_SECONDS_MAX = 60.0
LIMIT = Limit(4, 2.0)
FREELY = Limit(1_000, 1.0)
LEASE_SECONDS, RENEWED_SECONDS, MARGIN_SECONDS, ASKED_SECONDS = 0.5, 0.1, 0.1, 0.05
FAULTS = Faults(crash=0.006, unanswered=0.02, freeze=0.004, freezes_max=4, freeze_seconds=0.8)
CATALOGUE = Catalogue(store="simulation", entries=NOTICES)
TEMPLATE = Template("told", 1, "sms", "This is ${number}.", {"number": 5}, lives=timedelta(days=1))


@dataclass(frozen=True, slots=True)
class TableFlaws:
    """What the table does not do in a planted bug."""

    position_first: bool = False
    limit_of_each_process: bool = False


@dataclass(slots=True)
class Row:
    """A notice as the table has it."""

    requested: Requested
    run_at: datetime
    tries: int = 0


@dataclass(slots=True)
class NoticeServer:
    """The tables of the notices, and the lease of who may write them."""

    kernel: Kernel
    flaws: TableFlaws
    lease: PositionServer
    rows: dict[UUID, Row] = field(default_factory=dict)
    position: int = 0
    free_at: dict[str, float] = field(default_factory=dict)


class NoticeClient(NoticeTable):
    """The table as one process has it."""

    def __init__(self, server: NoticeServer) -> None:
        self._server = server
        self._free_at = dict[str, float]() if server.flaws.limit_of_each_process else server.free_at

    @override
    async def position(self) -> int:
        return await self._ask("notices position", lambda: self._server.position)

    @override
    async def fold(self, epoch: int, folded: Folded) -> None:
        def keep() -> None:
            self._checked(epoch)
            for one in folded.requested:
                self._server.rows.setdefault(one.id, Row(one, one.requested_at))
            for id in folded.settled:
                self._server.rows.pop(id, None)
            self._server.position = folded.position

        def position() -> None:
            self._checked(epoch)
            self._server.position = folded.position

        if self._server.flaws.position_first:
            await self._ask("notices fold", position)
        await self._ask("notices fold", keep)

    @override
    async def due(self, now: datetime, free: Mapping[Channel, int]) -> list[Due]:
        def found() -> list[Due]:
            rows = [row for row in self._server.rows.values() if row.run_at <= now]
            rows.sort(key=lambda row: (row.run_at, str(row.requested.id)))
            return [
                Due(one.id, one.channel, one.subject, row.tries, one.expires_at)
                for row in rows[: free.get("sms", 0)]
                for one in [row.requested]
            ]

        return await self._ask("notices due", found)

    @override
    async def later(self, epoch: int, later: Later) -> None:
        def keep() -> None:
            self._checked(epoch)
            if (row := self._server.rows.get(later.id)) is not None:
                row.run_at, row.tries = later.run_at, later.tries

        await self._ask("notices later", keep)

    @override
    async def done(self, id: UUID) -> None:
        await self._ask("notices done", lambda: self._server.rows.pop(id, None))

    @override
    async def take(self, key: str, limit: Limit) -> float:
        def taken() -> float:
            now, each = self._server.kernel.seconds, limit.seconds / limit.most
            free_at = max(self._free_at.get(key, now), now)
            wait = free_at - now - each * (limit.most - 1)
            if wait > 1e-9:
                return wait
            self._free_at[key] = free_at + each
            return 0.0

        return await self._ask("notices take", taken)

    @override
    async def next_at(self, channels: Sequence[Channel]) -> datetime | None:
        return await self._ask(
            "notices next", lambda: min((row.run_at for row in self._server.rows.values()), default=None)
        )

    @override
    async def prune(self, epoch: int, before: datetime) -> bool:
        return False

    def _checked(self, epoch: int) -> None:
        if epoch != self._server.lease.epoch:
            self._server.kernel.met["fenced"] += 1
            raise Fenced(f"epoch {epoch} is over")

    async def _ask(self, point: str, effect: Callable[[], Any]) -> Any:
        try:
            return await self._server.kernel.call(point, effect)
        except Injected as error:
            raise StoreUnavailable(point) from error


@dataclass(frozen=True, slots=True)
class Parts:
    """What the processes work with; a planted bug is another part."""

    loop: Callable[..., NoticeLoop] = NoticeLoop
    notices: Callable[..., Notices] = Notices
    provider: "Callable[[Telling], Provider]" = lambda run: GatewayClient(run)  # noqa: PLW0108 (it stands below)
    table: TableFlaws = TableFlaws()


@dataclass(slots=True)
class Telling:
    """All there is in one run."""

    kernel: Kernel
    parts: Parts
    log: LogServer
    table: NoticeServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    wanted: list[UUID] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    messages: dict[UUID, set[Message]] = field(default_factory=dict)
    carried: Counter[str] = field(default_factory=Counter)
    """How often a text reached its recipient."""
    answers: dict[UUID, Answer] = field(default_factory=dict)
    acknowledged: list[tuple[UUID, str]] = field(default_factory=list)
    receipts_open: int = 0
    stopping: list[asyncio.Event] = field(default_factory=list)
    clients_left: int = CLIENTS
    actors: int = 0
    over: bool = False
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, parts: Parts) -> "Telling":
        """Everything for a seed."""
        kernel = Kernel(seed, FAULTS)
        table = NoticeServer(kernel, parts.table, PositionServer(kernel, Flaws()))
        return cls(kernel, parts, LogServer(kernel, Flaws()), table)

    def opened(self) -> tuple[StoreClient, Notices]:
        """Store and notices of a process that starts."""
        store = StoreClient(self.log)
        keys = SimulatedKeys(self.kernel, self.keys)
        return store, self.parts.notices(store, CATALOGUE, keys, [TEMPLATE])

    def spawned(self, what: str, main: Callable[[], Awaitable[None]]) -> None:
        """Starts what is under way by itself."""
        self.actors += 1
        self.kernel.spawn(f"{what}-{self.actors}", main, mortal=False)

    def notice(self, id: UUID) -> Notice:
        """A notice as the store has it."""
        events = [CATALOGUE.decode(row).event for row in self.log.rows if row.stream_id == id]
        return NOTICE.fold(cast("list[NoticeEvent]", events))

    def receipts_of(self, id: UUID) -> frozenset[str]:
        """The receipts that are stored of a notice."""
        return self.notice(id).receipts


class GatewayClient(Provider):
    """The gateway as one process has it. A message arrives late, or after its sender is dead."""

    name = "gateway"

    def __init__(self, run: Telling) -> None:
        self._run = run

    @override
    async def hand_over(self, message: Message) -> Answer:
        run, answers = self._run, list[Answer | None]()
        kernel = run.kernel
        late_seconds = 0.0
        if not kernel.healed and kernel.chance.random() < LATE:
            late_seconds = kernel.chance.random() * LATE_SECONDS_MAX
            kernel.met["late"] += 1

        async def arrives() -> None:
            await kernel.gate("message", after_seconds=late_seconds)
            answers.append(carried_out(run, message))

        run.spawned("message", arrives)
        if not await kernel.comes(lambda: bool(answers), ANSWER_SECONDS_MAX):
            raise ProviderUnanswered("no answer")
        try:
            answer = await kernel.call("answer", lambda: answers[0])
        except Injected:
            raise ProviderUnanswered("the answer is lost") from None
        if answer is None:
            raise ProviderUnanswered("busy", 0.1)
        return answer


def carried_out(run: Telling, message: Message) -> Answer | None:
    """What the gateway makes of a message; None where it has no time for it."""
    kernel = run.kernel
    run.arrived_at.append(kernel.seconds)
    run.messages.setdefault(message.id, set()).add(message)
    if not any(row.stream_id == message.id for row in run.log.rows) and message.id in run.wanted:
        run.broken.append(Broken("I7", f"{message.id} was sent before it was stored"))
    if message.id in run.answers:
        kernel.met["again"] += 1
        return run.answers[message.id]
    if not kernel.healed and kernel.chance.random() < BUSY:
        return None
    if kernel.chance.random() < REFUSED:
        run.answers[message.id] = Rejected("number-unknown", "no such number")
        return run.answers[message.id]
    run.answers[message.id] = Accepted(f"g-{len(run.answers)}", "queued")
    run.carried[message.text] += 1
    run.receipts_open += 1
    run.spawned("receipt", lambda: told_back(run, message.id))
    return run.answers[message.id]


async def told_back(run: Telling, id: UUID) -> None:
    """The gateway sends a receipt until it is acknowledged, and sometimes once more."""
    kernel = run.kernel
    await kernel.gate("receipt", after_seconds=kernel.chance.random() * LATE_SECONDS_MAX)
    outcome: Any = "bounced" if kernel.chance.random() < BOUNCED else "delivered"
    receipt, occurred_at = f"r-{id}", kernel.now()
    for _ in range(1 + (kernel.chance.random() < TWICE)):
        for _ in range(TRIES_MAX):
            _, notices = run.opened()
            try:
                await notices.receive(id, receipt, "sms", outcome, "absent", occurred_at, kernel.now())
            except (StoreUnavailable, Injected, TooManyConflicts):
                await kernel.sleep(0.05)
            except NoticeUnknown:
                break
            else:
                run.acknowledged.append((id, receipt))
                break
    run.receipts_open -= 1


def requesting(run: Telling, number: int) -> Callable[[], Awaitable[None]]:
    """A client that requests all notices; another one requests the same."""
    done = [0]

    async def main() -> None:
        _, notices = run.opened()
        while done[0] < REQUESTED:
            subject = uuid5(NAMESPACE, f"told-{done[0] % 4}")
            id = uuid5(subject, f"notice-{done[0]}")
            context = CommandContext(actor="policy", now=run.kernel.now(), command_id=uuid5(id, "request"))
            wanted = Wanted(subject, f"+86138{done[0]:08}", TEMPLATE.name, {"number": str(done[0])})
            for _ in range(TRIES_MAX):
                try:
                    await notices.request(id, wanted, context)
                except (StoreUnavailable, Injected, TooManyConflicts):
                    await run.kernel.sleep(0.01)
                else:
                    break
            if id not in run.wanted:
                run.wanted.append(id)
            done[0] += 1
            await run.kernel.sleep(run.kernel.chance.random() * REQUESTING_SECONDS / REQUESTED)
        run.clients_left -= 1

    return main


def sending(run: Telling) -> Callable[[], Awaitable[None]]:
    """A process that hands notices over."""

    async def main() -> None:
        store, notices = run.opened()
        stopping = asyncio.Event()
        run.stopping.append(stopping)
        if run.over:
            stopping.set()
        lease = Lease(
            run.table.lease,
            run.kernel,
            seconds=LEASE_SECONDS,
            renewed_seconds=RENEWED_SECONDS,
            margin_seconds=MARGIN_SECONDS,
            asked_seconds=ASKED_SECONDS,
        )
        loop = run.parts.loop(
            "simulation",
            notices,
            store,
            CATALOGUE,
            NoticeClient(run.table),
            {"sms": run.parts.provider(run)},
            lease,
            run.kernel,
            limits={"sms": LIMIT},
            to_each=FREELY,
            read_events_max=3,
            at_once_max=3,
            poll_seconds=0.05,
        )
        await loop.run(stopping)

    return main


def supervising(run: Telling) -> Callable[[], Awaitable[None]]:
    """Heals the world once all is requested; everything must be settled then."""

    async def main() -> None:
        while run.clients_left:
            await run.kernel.sleep(0.05)
        await run.kernel.sleep(REQUESTING_SECONDS)
        run.kernel.heal()

        def settled() -> bool:
            return not run.receipts_open and not any(
                run.notice(id).status == "requested" for id in run.wanted
            )

        if not await run.kernel.comes(settled, CATCH_UP_SECONDS_MAX):
            run.broken.append(Broken("I10", "not everything was settled"))
        await run.kernel.sleep(2 * LATE_SECONDS_MAX)  # what arrives late does so now
        if not await run.kernel.comes(settled, CATCH_UP_SECONDS_MAX):
            run.broken.append(Broken("I10", "a receipt was not taken"))
        run.over = True
        for stopping in run.stopping:
            stopping.set()

    return main


def check(run: Telling) -> list[Broken]:
    """Everything, when all is over."""
    return [*run.broken, *_of_notices(run), *_of_limit(run)]


def _of_notices(run: Telling) -> Iterator[Broken]:
    for number, id in enumerate(run.wanted):
        notice, answer = run.notice(id), run.answers.get(id)
        text = TEMPLATE.rendered({"number": str(number)}).text
        times = run.carried[text]
        if times > 1:
            yield Broken("I2", f"{text} came {times} times")
        if len(run.messages.get(id, ())) > 1:
            yield Broken("I2", f"{id} had different bytes")
        known = {"handed-over": Accepted, "delivered": Accepted, "bounced": Accepted, "refused": Rejected}
        if not isinstance(answer, known.get(notice.status, type(None))):
            yield Broken("I1", f"{id} is {notice.status}, and the gateway says {answer}")
        requests = [row for row in run.log.rows if row.stream_id == id and row.name == "notice-requested"]
        if len(requests) != 1:
            yield Broken("I2", f"{id} was requested {len(requests)} times")
    for id, receipt in run.acknowledged:
        if id in run.wanted and receipt not in run.receipts_of(id):
            yield Broken("I8", f"the receipt {receipt} was acknowledged and is not stored")


def _of_limit(run: Telling) -> Iterator[Broken]:
    """As many as the limit allows from the beginning on; lateness only spreads them."""
    for count, at in enumerate(run.arrived_at, 1):
        if count > LIMIT.most + at * LIMIT.most / LIMIT.seconds + 1e-6:
            yield Broken("limit", f"{count} messages arrived within {at:.3f} s")
            return


async def lived(seed: int, parts: Parts | None = None) -> Telling:
    """All that is left after a seed's schedule."""
    run = Telling.of(seed, parts or Parts())
    kernel = run.kernel
    for number in range(CLIENTS):
        kernel.spawn(f"client-{number}", requesting(run, number))
    for number in range(PROCESSES):
        kernel.spawn(f"notices-{number}", sending(run))
    kernel.spawn("supervisor", supervising(run), mortal=False)
    await kernel.run()
    return run
