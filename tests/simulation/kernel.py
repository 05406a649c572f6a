"""The machine of the simulation: actors that run in turns chosen by a seed, and faults.

Every port call of an actor passes a gate before and after its effect. When all actors stand at gates, the kernel
draws who goes on, or who dies there. Nothing else decides anything, so a seed is a whole history: the same seed
gives the same trace, byte for byte. Time is the kernel's too: it moves with every turn and jumps when all sleep. On a
`SimulatedLoop` the timers of asyncio run on it as well, and what is given to a thread is done at once.
"""

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")

EPOCH = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
TURN_SECONDS = 0.001
LOOK_SECONDS = 0.05
TURNS_MAX = 60_000
TRACE_LINES_KEPT = 400
TASKS_PRUNED = 200

_current: ContextVar["Actor | None"] = ContextVar("actor", default=None)


class Stuck(Exception):
    """The schedule did not come to an end: something waits or retries for ever."""


class Injected(ConnectionError):
    """A server that does not answer: the effect may have happened or not."""


@dataclass(slots=True, eq=False)
class Actor:
    """A process. After its death nothing it still tries has an effect."""

    name: str
    life: int
    main: Callable[[], Awaitable[None]]
    mortal: bool = True
    dead: bool = False
    frozen_until: float = 0.0
    """Until then it does nothing, as a process under SIGSTOP: it is not dead, and does not know."""
    tasks: "list[asyncio.Task[Any]]" = field(default_factory=list)
    """What it runs, in order; only a `SimulatedLoop` notes it."""

    def ends(self) -> None:
        """Nothing that it runs goes on."""
        self.dead = True
        for task in self.tasks:
            task.cancel()


@dataclass(slots=True, eq=False)
class _Gate:
    actor: Actor
    point: str
    future: "asyncio.Future[None]"
    not_before: float

    @property
    def opens_at(self) -> float:
        """When its actor may go on here."""
        return max(self.not_before, self.actor.frozen_until)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on a kernel's time, without threads."""

    kernel: "Kernel | None" = None

    @override
    def time(self) -> float:
        return super().time() if self.kernel is None else self.kernel.seconds

    @override
    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (whoever awaits it gets it)
            done.set_exception(error)
        return done

    @override
    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        task = super().create_task(coro, name=name, context=context)
        actor = _current.get() if context is None else context.get(_current)
        if actor is not None:
            if len(actor.tasks) >= TASKS_PRUNED:
                actor.tasks = [each for each in actor.tasks if not each.done()]
            actor.tasks.append(task)
        return task

    def next_timer(self) -> float | None:
        """When the next timer is due, in the kernel's seconds; None where there is none."""
        timers: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)


def simulated(main: Coroutine[Any, Any, T]) -> T:
    """Runs a schedule on a loop of its own. Not from within another loop."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


@dataclass(slots=True)
class Faults:
    """How often what goes wrong, as chances per turn, and how many times at most."""

    crash: float = 0.01
    crashes_max: int = 12
    unanswered: float = 0.02
    unanswered_max: int = 30
    restart_seconds_max: float = 0.2
    delay: float = 0.05
    delay_seconds_max: float = 0.3
    freeze: float = 0.0
    freezes_max: int = 3
    freeze_seconds: float = 2.0


@dataclass(slots=True)
class Kernel:
    """Runs actors in a drawn order until all are done, or says that they never will be."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    chance: Random = field(init=False)
    seconds: float = 0.0
    turns: int = 0
    trace: list[str] = field(default_factory=list)
    healed: bool = False
    met: Counter[str] = field(default_factory=Counter)
    """How many faults of each kind there were."""
    _waiting: list[_Gate] = field(default_factory=list)
    _tasks: dict[Actor, "asyncio.Task[None]"] = field(default_factory=dict)
    _ended: list[Actor] = field(default_factory=list)
    _crashes: int = 0
    _freezes: int = 0
    _unanswered: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)

    def now(self) -> datetime:
        """The simulated instant; the kernel is a `chassis.clock.Clock`."""
        return EPOCH + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Simulated seconds since the beginning."""
        return self.seconds

    def digest(self) -> str:
        """What happened, in one word: equal for equal histories."""
        return self._digest.hexdigest()

    def note(self, text: str) -> None:
        """Adds a line to the history."""
        line = f"{self.seconds:9.3f} {text}"
        self._digest.update(line.encode())
        self.trace.append(line)
        if len(self.trace) > 2 * TRACE_LINES_KEPT:
            del self.trace[:TRACE_LINES_KEPT]

    def spawn(self, name: str, main: Callable[[], Awaitable[None]], *, mortal: bool = True) -> None:
        """Starts an actor; after a crash it is started again with the same `main`. The immortal never crash."""
        self._begin(Actor(name, 1, main, mortal))

    def _begin(self, actor: Actor, delay_seconds: float = 0.0) -> None:
        context = copy_context()
        context.run(_current.set, actor)
        loop = asyncio.get_running_loop()
        task = self._tasks[actor] = loop.create_task(self._live(actor, delay_seconds), context=context)
        task.add_done_callback(lambda _: self._ended.append(actor))

    async def _live(self, actor: Actor, delay_seconds: float) -> None:
        if delay_seconds:
            await self.gate("restart", after_seconds=delay_seconds)
        await actor.main()

    async def gate(self, point: str, *, after_seconds: float = 0.0) -> None:
        """Waits for this actor's turn. Outside an actor it is no gate at all."""
        actor = _current.get()
        if actor is None:
            return
        if actor.dead:
            raise asyncio.CancelledError
        gate = _Gate(actor, point, asyncio.get_running_loop().create_future(), self.seconds + after_seconds)
        self._waiting.append(gate)
        try:
            await gate.future
        finally:
            if gate in self._waiting:  # given up from within the actor
                self._waiting.remove(gate)

    async def wait(self, future: "asyncio.Future[T]") -> T:
        """Waits for what another actor will say; a gate follows, so that one may die in between."""
        result = await asyncio.shield(future)
        await self.gate("answered")
        return result

    def actor(self) -> Actor | None:
        """Who is running."""
        return _current.get()

    def draw_cut(self, length: int) -> int:
        """After how many of `length` things a connection breaks; `length` means that it holds."""
        return self.chance.randrange(length + 1) if self._draws_unanswered() else length

    def draw_delay(self) -> float:
        """How many seconds the network takes; mostly none."""
        faults = self.faults
        if self.healed or self.chance.random() >= faults.delay:
            return 0.0
        self.met["delay"] += 1
        return self.chance.random() * faults.delay_seconds_max

    async def sleep(self, seconds: float) -> None:
        """Sleeps in simulated time."""
        await self.gate("sleep", after_seconds=max(seconds, TURN_SECONDS))

    async def comes(self, condition: Callable[[], bool], seconds_max: float) -> bool:
        """Waits until something holds; False where it does not within so many simulated seconds."""
        last = self.seconds + seconds_max
        while not condition():
            if self.seconds > last:
                return False
            await self.sleep(LOOK_SECONDS)
        return True

    async def call(self, point: str, effect: Callable[[], T], *, may_fail: bool = True) -> T:
        """One call to a server: a turn, the effect, a turn. It may fail before the effect or lose its answer."""
        await self.gate(f"{point}?")
        if may_fail and self._draws_unanswered():
            self.note(f"{self._who()} {point} not reached")
            raise Injected(point)
        result = effect()
        await self.gate(f"{point}!")
        if may_fail and self._draws_unanswered():
            self.note(f"{self._who()} {point} answer lost")
            raise Injected(point)
        return result

    async def run(self) -> None:
        """Takes turns until every actor is done. Raises what an actor raised, or Stuck."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, SimulatedLoop):
            loop.kernel = self
        while True:
            await self._settle()
            self._raise_failures()
            if not self._waiting and not self._passes(math.inf):
                return
            if self.turns >= TURNS_MAX:
                raise Stuck(
                    f"{len(self._waiting)} actors still wait after {self.turns} turns: {self._standing()}"
                )
            self._turn()

    def _turn(self) -> None:
        self.turns += 1
        self.seconds += TURN_SECONDS
        ready = self._ready()
        if not ready:
            opens_at = min((gate.opens_at for gate in self._waiting), default=math.inf)
            if self._passes(opens_at):
                return
            self.seconds = opens_at
            ready = self._ready()
        gate = ready[self.chance.randrange(len(ready))]
        if self._draws_freeze(gate.actor):
            self.freeze(gate.actor, self.faults.freeze_seconds)
            return
        if self._draws_crash(gate.actor):
            self._crash(gate)
            return
        self._waiting.remove(gate)
        self.note(f"{gate.actor.name}.{gate.actor.life} {gate.point}")
        gate.future.set_result(None)

    def _ready(self) -> list[_Gate]:
        """The gates that are open; written out, because every turn asks for them."""
        now = self.seconds
        return [gate for gate in self._waiting if gate.not_before <= now and gate.actor.frozen_until <= now]

    def _passes(self, until: float) -> bool:
        """Whether a timer is due before `until`; time is then as far."""
        loop = asyncio.get_running_loop()
        due = loop.next_timer() if isinstance(loop, SimulatedLoop) else None
        if due is None or due >= until:
            return False
        self.seconds = max(self.seconds, due)
        return True

    def stands_at(self, actor: Actor, point: str) -> bool:
        """Whether that is what an actor is about to do."""
        return any(gate.actor is actor and gate.point == point for gate in self._waiting)

    def standing_at(self, point: str) -> list[Actor]:
        """Who is about to do that."""
        return [gate.actor for gate in self._waiting if gate.point == point and not gate.actor.dead]

    def freeze(self, actor: Actor, seconds: float) -> None:
        """Stops everything that an actor does for so long; time and the servers go on."""
        self._freezes += 1
        self.met["freeze"] += 1
        self.note(f"{actor.name}.{actor.life} FREEZES")
        actor.frozen_until = self.seconds + seconds

    def _draws_freeze(self, actor: Actor) -> bool:
        faults = self.faults
        return (
            faults.freeze > 0
            and actor.mortal
            and not self.healed
            and self._freezes < faults.freezes_max
            and self.chance.random() < faults.freeze
        )

    def _draws_crash(self, actor: Actor) -> bool:
        faults = self.faults
        if (
            not actor.mortal
            or actor not in self._tasks  # it is done, and only what it left behind goes on
            or self.healed
            or self._crashes >= faults.crashes_max
            or self.chance.random() >= faults.crash
        ):
            return False
        self._crashes += 1
        return True

    def _draws_unanswered(self) -> bool:
        faults = self.faults
        if (
            self.healed
            or self._unanswered >= faults.unanswered_max
            or self.chance.random() >= faults.unanswered
        ):
            return False
        self._unanswered += 1
        self.met["unanswered"] += 1
        return True

    def _crash(self, gate: _Gate) -> None:
        actor = gate.actor
        self.met["crash"] += 1
        self.note(f"{actor.name}.{actor.life} {gate.point} CRASH")
        self._begin_again(actor)

    def replace(self, name: str) -> None:
        """Ends the actor of a name wherever it is, unless it is done, and starts it again, as an update does."""
        for actor in [each for each in self._tasks if each.name == name]:
            self.met["update"] += 1
            self.note(f"{actor.name}.{actor.life} IS REPLACED")
            self._begin_again(actor)

    def _begin_again(self, actor: Actor) -> None:
        actor.ends()
        for waiting in self._waiting:
            if waiting.actor is actor:
                waiting.future.cancel()
        self._waiting = [waiting for waiting in self._waiting if waiting.actor is not actor]
        self._tasks.pop(actor).cancel()
        delay_seconds = self.chance.random() * self.faults.restart_seconds_max
        self._begin(Actor(actor.name, actor.life + 1, actor.main), delay_seconds)

    def heal(self) -> None:
        """From here on nothing goes wrong any more."""
        self.healed = True

    async def _settle(self) -> None:
        ready = vars(asyncio.get_running_loop())[
            "_ready"
        ]  # the loop's own queue: empty when all stand at gates
        await asyncio.sleep(0)
        while ready:  # noqa: ASYNC110 - there is no event to wait for: the loop itself is asked
            await asyncio.sleep(0)

    def _raise_failures(self) -> None:
        while self._ended:
            task = self._tasks.pop(self._ended.pop(0), None)  # none of one that crashed
            if task is not None and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def close(self) -> None:
        """Ends what still runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        self._waiting.clear()

    def _standing(self) -> str:
        return ", ".join(sorted({f"{gate.actor.name} at {gate.point}" for gate in self._waiting}))

    @staticmethod
    def _who() -> str:
        actor = _current.get()
        return f"{actor.name}.{actor.life}" if actor else "-"
