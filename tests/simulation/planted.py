"""Parts of store, relay and view with one thing wrong each, as somebody might write them."""

import asyncio
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from textwrap import dedent
from typing import Any, TypeVar
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.bulk import Bulk
from chassis.bulk.deciding import BULK_RUN
from chassis.bulk.deciding import decide as decide_bulk
from chassis.clock import uuid7
from chassis.connections.transient import StoreUnavailable
from chassis.exports import Exports
from chassis.exports.deciding import EXPORT
from chassis.exports.deciding import decide as decide_export
from chassis.files import FileKeeper
from chassis.files.deciding import Because, FileEvent
from chassis.files.objects import Name
from chassis.messaging.delivered import Delivered
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition, PublishFailed
from chassis.notices import Notices
from chassis.notices.loop import NoticeLoop
from chassis.notices.providers import Accepted, Answer, Message, Provider
from chassis.proposals import FourEyes
from chassis.proposals.deciding import PROPOSAL
from chassis.proposals.deciding import decide as decide_proposal
from chassis.reactions.policies import PolicyRunner, Reactor
from chassis.read.arrivals import NOWHERE, Arrivals, further
from chassis.read.checkpoints import Held, Parked, Position
from chassis.read.generations import Generation, Generations, ViewReader
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.read.parking import Act, IsProcessed, Parking, PoisonEvent
from chassis.read.projecting import Projector
from chassis.read.rebuilding import rebuild
from chassis.read.viewing import ViewRunner
from chassis.relay.loop import Counted, Relay, _Batch
from chassis.sagas import Request, Sagas
from chassis.sagas.deciding import (
    CompensationBegun,
    Pending,
    SagaCommand,
    SagaEnded,
    SagaEvent,
    SagaState,
    StepRefused,
    TimeOut,
)
from chassis.sagas.declaring import command_id
from chassis.timers import Timer, TimerLoop, WithdrawTimer
from chassis.watching import Hub, Watcher
from chassis.watching.groups import Group
from chassis.watching.recalling import Recall
from chassis.write.deciding import CommandContext, Decider, Outcome
from chassis.write.handling import CommandHandler
from chassis.write.store.appender import Appender
from typing_extensions import override

from tests.simulation.keeping import Archive, ArchiveStorage
from tests.simulation.noticing import GatewayClient, Telling
from tests.simulation.scenario import Broken

T = TypeVar("T")
SEEDS_UNTIL_CAUGHT_MAX = 400
"""Most bugs are found within ten seeds. The rarest is in one schedule of a hundred, and other code draws other schedules."""


def changed(part: type[T], method: str, old: str, new: str, **names: Any) -> type[T]:
    """The class with `new`, which may use `names`, in the one place of a method where `old` stands."""
    scope = _executed(getattr(part, method), part.__module__, old, new, names)
    return type(f"Changed{part.__name__}", (part,), scope)


def changed_function(function: Callable[..., T], old: str, new: str) -> Callable[..., T]:
    """The function with `new` in the one place where `old` stands."""
    made: Callable[..., T] = _executed(function, function.__module__, old, new, {})[function.__name__]
    return made


def _executed(code: Any, module: str, old: str, new: str, names: Mapping[str, Any]) -> dict[str, Any]:
    source = dedent(inspect.getsource(code))
    assert source.count(old) == 1, f"{code.__name__} holds {source.count(old)} times: {old}"
    scope: dict[str, Any] = {}
    exec(source.replace(old, new), {**vars(sys.modules[module]), **names}, scope)  # noqa: S102
    return scope


def assert_caught(
    bug: str,
    invariants: set[str],
    played: Callable[[int], tuple[Sequence[Broken], str]],
    first: int = 0,
) -> None:
    """A seed from `first` on finds a planted bug by an invariant that it breaks, and replays.

    `played` plays a seed: what does not hold, and the digest of the history.
    """
    for seed in range(first, first + SEEDS_UNTIL_CAUGHT_MAX):
        broken, digest = played(seed)
        if broken:
            print(f"{bug}: seed {seed}: {broken[0]}")
            assert {one.invariant for one in broken} & invariants
            again, same = played(seed)
            assert list(map(str, again)) == list(map(str, broken))
            assert same == digest
            return
    pytest.fail(f"{bug} was not caught within {SEEDS_UNTIL_CAUGHT_MAX} seeds")


RetriesWithoutACommand = changed(Appender, "_written", "if not safe or", "if")
"""Sends again what the store cannot recognise."""

AcceptsTheSame = changed(Projector, "_fold", "sequence <= before", "sequence < before")
"""Applies an event once more to a document that has it."""

RefusesWhatWasDone = changed(CommandHandler, "_handle", "if seen is not None", "if False")
"""Refuses a command that was carried out, where its answer was lost and it would now be refused."""

RefusesOnAnOldState = changed(
    CommandHandler, "_handle", "if await self._is_stale(stream_id, loaded)", "if False"
)
"""Refuses by a cached state that others have changed."""

ExpectsNothing = changed(CommandHandler, "_handle", "if expected_version is not None and", "if False and")
"""Carries out a command on another version than its caller has read."""

DecidesOnce = changed(
    CommandHandler, "_handle", "self.forget(stream_id)\n        if isinstance(", "if isinstance("
)
"""Decides again after a conflict, on the state that met it."""

AnswersWithNothing = changed(
    CommandHandler, "_replayed", "after = seen.version - seen.event_count", "after = seen.version"
)
"""Gives the outcome of a repeated command without its events."""

SnapshotsTheStateBefore = changed(
    CommandHandler, "_done", "consider(stream_id, now.state", "consider(stream_id, loaded.state"
)
"""Keeps the state before a command as a snapshot of the version after it."""


class SavesFirst(Relay):
    """Saves the position before it publishes."""

    _epoch = 0

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        self._epoch = epoch
        await super()._lead(epoch, stopping)

    @override
    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        if batch.last is not None:
            self._counted = self._after(batch)
            await self._positions.save(self._epoch, batch.last, batch.held, self._counted)
        if batch.records:
            await self._publisher.publish(batch.records)
        return batch


class MarksFirst(Relay):
    """Publishes the watermark before what it covers is acknowledged."""

    @override
    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        if batch.last is not None:
            self.position, before = batch.last, self.position
            await self._mark(batch._replace(caught_up=True))
            self.position = before
        if batch.records:
            await self._publisher.publish(batch.records)
        return batch


class TrustsTheNetwork(Relay):
    """Takes a batch for published whatever the broker says."""

    @override
    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        with suppress(PublishFailed):
            await self._publisher.publish(batch.records)
        return batch


class ReadsAgainFromWhatItRead(Relay):
    """After a failure goes on behind what it had read, not behind what was acknowledged."""

    @override
    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        if batch.last is not None:
            self.position = batch.last
        await self._publisher.publish(batch.records)
        return batch


class CountsWhatItSends(Relay):
    """Counts at every try, not what was saved."""

    @override
    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        self._counted = self._after(batch)
        await self._publisher.publish(batch.records)
        return batch

    @override
    def _after(self, batch: _Batch) -> Counted | None:
        if self._counted is None or batch.last is None:
            return self._counted
        pairs = zip(self._counted.events, batch.counts, strict=True)
        return Counted(tuple(before + more for before, more in pairs), batch.last)


class CountsFromMemory(Projector):
    """Counts on from what it knew, though others had the partition meanwhile."""

    @override
    async def _before(self, records: Sequence[Record]) -> dict[Partition, Position]:
        return {place: self.positions.get(place, NOWHERE) for place in {record[0:2] for record in records}}


class PositionsFirst(Projector):
    """Says how far it is before the documents are written."""

    @override
    async def _apply(self, records: Sequence[Record]) -> None:
        arrivals = Arrivals()
        for _ in arrivals.events(records):
            pass
        positions: dict[Partition, Position] = {}
        further(positions, arrivals.positions)
        await self.parking.checkpoints.advance(positions)
        await super()._apply(records)


class EntriesLast(Projector):
    """Writes the balances before the entries behind them."""

    @override
    async def _apply(self, records: Sequence[Record]) -> None:
        self._order = sorted(self._order, key=lambda name: self._insert_only[name])
        await super()._apply(records)


class ForgetsConflicts(Projector):
    """Takes a document that another one wrote meanwhile for written."""

    @override
    async def _settle(self, prepared: object, conflicts: set[UUID], rejected: set[UUID]) -> None:
        await super()._settle(prepared, set(), rejected)  # type: ignore[arg-type]


class _NeverCleared(OrderedDict[Any, Any]):
    @override
    def clear(self) -> None:
        return


class KeepsStaleFolds(Projector):
    """Goes on from what it folded, though others wrote the document meanwhile."""

    @override
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._cache = _NeverCleared()


class HoldsNobodyBack(Parking):
    """Lets later events of a parked subject pass."""

    @override
    def holds(self, event: Delivered) -> bool:
        parked = self.parked.get(event.stream)
        return parked is not None and event.sequence == parked.sequence

    @override
    async def keep(self, events: Sequence[Delivered], act: Act) -> None:
        await self.give([event for event in events if not self.holds(event)], act)


class DropsWhatWaits(Parking):
    """Parks a subject and drops its later events."""

    @override
    async def keep(self, events: Sequence[Delivered], act: Act) -> None:
        return


class PassesPoisonOver(Parking):
    """Writes a dead letter and goes on with the subject."""

    @override
    async def give(self, events: Sequence[Delivered], act: Act) -> None:
        for event in events:
            reason = await self._tried(event, act)
            if reason is not None:
                await self.letters.write([(event.record, reason)], event)


class LosesTheFirst(MongoCheckpoints):
    """Parks a subject without the event that it waits for."""

    @override
    async def park(self, parked: Parked, first: Held) -> None:
        await super().park(parked, first)
        await self.mongo.delete("parked_events", {"_id": self._event(parked.stream, first.sequence)})


class ParksBeforeKeeping(MongoCheckpoints):
    """Parks a subject, and keeps the event that it waits for afterwards."""

    _keeps = True

    @override
    async def _keep(self, stream: Any, events: Sequence[Held]) -> int:
        return await super()._keep(stream, events) if self._keeps else len(events)

    @override
    async def park(self, parked: Parked, first: Held) -> None:
        self._keeps = False
        try:
            await super().park(parked, first)
        finally:
            self._keeps = True
        await super()._keep(parked.stream, [first])


class KeepsWhatWasProcessed(Parking):
    """Leaves a subject parked though others have processed its event meanwhile."""

    @override
    async def _park(self, event: Delivered, reason: str, act: Act) -> bool:
        async def fails(_: Delivered) -> None:
            raise PoisonEvent(reason)

        return await super()._park(event, reason, fails)

    @override
    async def release_processed(self, is_processed: IsProcessed, act: Act) -> list[UUID]:
        return []


class ReleasesWithoutLooking(MongoCheckpoints):
    """Ends the wait though something was laid to it meanwhile, and forgets all that was kept."""

    @override
    async def unpark(self, parked: Parked, up_to: int) -> bool:
        now = (await self.parked()).get(parked.stream)
        return now is not None and await super().unpark(now, 10**11)


class SavesWhatItHas(MongoCheckpoints):
    """Saves positions as they are, also when another consumer is further."""

    @override
    async def advance(self, positions: Mapping[Partition, Position]) -> None:
        changes: list[tuple[Mapping[str, object], Mapping[str, object]]] = [
            ({"_id": self._place(*place)}, {"$set": {"offset": now.offset, "position": now.position}})
            for place, now in positions.items()
        ]
        await self.mongo.update_each("positions", changes)


# policies


def runner_with(old: str, new: type) -> type[PolicyRunner]:
    """A runner that makes another part than the one named."""
    return changed(PolicyRunner, "__init__", f" {old}(", " planted(", planted=new)


class AdvancesFirst(Reactor):
    """Saves positions before the events have been reacted to."""

    @override
    async def apply(self, records: Sequence[Record]) -> None:
        arrivals = Arrivals()
        for _ in arrivals.events(records):
            pass
        reached = await self.parking.checkpoints.positions()
        await self.parking.checkpoints.advance(arrivals.positions)
        checkpoints, self.parking.checkpoints = (
            self.parking.checkpoints,
            _Known(self.parking.checkpoints, reached),
        )
        try:
            await super().apply(records)
        finally:
            self.parking.checkpoints = checkpoints


class _Known:
    """Checkpoints whose positions were read before."""

    def __init__(self, checkpoints: Any, reached: Mapping[Partition, Position]) -> None:
        self._checkpoints = checkpoints
        self._reached = reached

    async def positions(self) -> Mapping[Partition, Position]:
        return self._reached

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoints, name)


ReactsToAllThatComes = changed(
    Reactor, "_react_to", "if before is not None and event.position", "if before is None and event.position"
)
"""Reacts also to what lies before the position of its partition."""

_POSITIONS = "self.positions.update(await self.parking.checkpoints.positions())\n"
_PARKED = "await self.parking.refresh()\n"

ReadsPositionsLast = changed(
    Reactor,
    "open",
    f"{_POSITIONS}    {_PARKED}",
    f"{_PARKED}    await self.parking._clock.sleep(0.2)\n    {_POSITIONS}",
)
"""Reads the parked subjects before the positions, and pauses in between."""

ReactsWithoutKnowingWhoIsParked = changed(Reactor, "open", _PARKED, "pass\n")
"""Goes on from where another process was, and does not ask what that process parked."""

ProjectsWithoutKnowingWhoIsParked = changed(Projector, "_before", _PARKED, "pass\n")
"""Goes on from where another process was, and does not ask what that process parked."""


class StartsWhereItIs(MongoCheckpoints):
    """Does not record where a policy starts: whoever opens a checkpoint takes what is so then."""

    @override
    async def begin(
        self, partitions: Mapping[Partition, str], starts: Mapping[Partition, Position] | None = None
    ) -> None:
        await super().begin(partitions, starts)
        for (topic, partition), at in (starts or {}).items():
            now = {"$set": {"offset": at.offset, "position": at.position}}
            await self.mongo.update("positions", {"_id": self._place(topic, partition)}, now)


# generations of views

MovesAtOnce = changed(
    ViewReader, "live", "and not await shows_all_of(self.mongo, known[1], generation)", "and False"
)
"""Reads a generation as soon as it is live, whatever it lacks of what was shown before."""


async def _shows_all_that_was_saved(mongo: Mongo, one: Generation, later: Generation) -> bool:
    before, after = [
        await MongoCheckpoints(mongo, each.group, each.view).positions() for each in (one, later)
    ]
    return all(after.get(place, NOWHERE).position >= at.position for place, at in before.items())


MovesPastWhatWasNotSaved = changed(
    ViewReader, "live", " shows_all_of(", " planted(", planted=_shows_all_that_was_saved
)
"""Reads a later generation that is as far as the saved positions of the one before, whose documents are further."""

SwitchesBack = changed(Generations, "switch", '"live": {"$lt": to.number}', '"live": {"$gte": 0}')
"""Makes a generation live though a later one is."""

FollowsWhatWasReplaced = changed(
    ViewRunner,
    "__init__",
    " Generations(",
    " planted(",
    planted=changed(Generations, "still", "return False", "pass"),
)
"""Keeps a generation up to date after another one is live."""

comparing_with_what_was_replaced = changed_function(
    rebuild, "if shown is not None and shown.number == before.number:", "if True:"
)
"""Takes for a difference what a generation lacks that nobody keeps any more."""


SettlesFirst = changed(
    TimerLoop,
    "_give_due",
    "giving = [",
    "early = [Given(due, DONE) for due in first.values() if due.subject in ready]\n"
    "    await self._table.settle(epoch, now, early)\n    giving = [",
)
"""Takes a timer for done before its command is given."""

GivesOnAnyVersion = changed(TimerLoop, "_give", "context, version)", "context, None)")
"""Gives a command whatever was stored on its subject since the fold."""

GivesBeforeItFolds = changed(
    TimerLoop, "_give_due", "if ends.get(subject, (0, 0))[1] <= self._folded.position", "if True"
)
"""Gives a command on the last version of its subject, though it has not folded up to there."""

TakesNoAnswerForDone = changed(
    TimerLoop,
    "_give",
    "if is_transient(error):\n            raise\n",
    "if is_transient(error):\n            return self._settled(due, DONE)\n",
)
"""Takes a command for given whose store did not answer."""

WaitsForNothing = changed(TimerLoop, "_failed", "WAITS_MAX if waits else TRIES_MAX", "TRIES_MAX")
"""Gives a command up whose documents are late as one that fails."""

# many at once, four eyes

DoesItemsAnew = changed(Bulk, "_item", "command_id=uuid5(run, str(item.subject)),", "command_id=uuid7(now),")
"""Gives the command of an item another id each time."""

ForgetsRefusals = changed(Bulk, "_item", "if await self._settle(context, item.subject, code):", "if True:")
"""States a refusal that the store does not know."""

StatesResultsTwice = changed(
    Bulk,
    "__init__",
    "BULK_RUN, store",
    "planted, store",
    planted=replace(
        BULK_RUN, decide=changed_function(decide_bulk, "first != run.next or", "first > run.next or")
    ),
)
"""States the results of a chunk though another runner stated them."""

ApprovesApart = changed(
    CommandHandler,
    "_appended",
    "await self._store.append_together([item, context.approved.append])",
    "[await self._store.append_one(one) for one in (item, context.approved.append)]",
)
"""Stores the effect first, and then its approval."""

AcceptsTheProposer = changed(
    FourEyes,
    "__init__",
    "PROPOSAL, store",
    "planted, store",
    planted=replace(
        PROPOSAL,
        decide=changed_function(
            decide_proposal,
            "require_second_person((made.proposed_by, made.on_behalf_of), (actor, on_behalf_of))\n            if digest",
            "if digest",
        ),
    ),
)
"""Lets a person approve what it proposed."""

TellsTheOvertaken = changed(FourEyes, "_carried", "elif outcome.replayed and", "elif False and")
"""Tells a person that it approved what another one approved."""

StartsAlone = changed(Bulk, "begin", "context.approved is not None", "True")
"""Takes the approval of a run for given."""

ForgetsTheProposer = changed(
    Bulk, "_item", "if proposal is None or proposed_by is None else Approved(proposal, proposed_by)", ""
)
"""Does the items in the name of the approver alone."""

StartsForEachApproval = changed(
    Bulk,
    "__init__",
    "BULK_RUN, store",
    "planted, store",
    planted=replace(
        BULK_RUN,
        decide=changed_function(
            decide_bulk, "approved=approved", "approved=approved and run.status == 'ready'"
        ),
    ),
)
"""Approves again what was started before."""

StartsApart = changed(
    Bulk, "__init__", "CommandHandler[BulkCommand, Run, BulkEvent](", "planted(", planted=ApprovesApart
)
"""Stores the start first, and then its approval."""

# sagas


class GivesFirst(Sagas):
    """Gives the first commands of a saga, and stores afterwards that it does."""

    @override
    async def start(self, saga: str, id: UUID, data: Mapping[str, Any], context: CommandContext) -> None:
        for step in data["items"][:1]:
            request = Request.of("close", item=step)
            await self._peers["peer"].give(command_id(id, step, undoes=False), request, self._context(id, id))
        await super().start(saga, id, data, context)


GivesAnewEachTime = changed(
    Sagas,
    "_give",
    "command_id(id, pending.step, undoes=pending.undoes)",
    "uuid7(self._clock.now())",
    uuid7=uuid7,
)
"""Gives the command of a step under another id at each try."""


def _is_last(sagas: Sagas, state: SagaState, pending: Pending) -> bool:
    return pending.undoes and state.steps[-1].name == pending.step


LeavesTheLastStep = changed(
    Sagas,
    "_give",
    "outcome = await peer.give(",
    "last = is_last(self, await self._current(id), pending)\n"
    "        outcome = Carried() if last else await peer.give(",
    is_last=_is_last,
)
"""Takes the step that was done last for taken back."""


def never_withdrawn(timer: Timer) -> Timer:
    """The time of a saga ends though the saga has ended."""

    def changes(recorded: Any) -> Sequence[Any]:
        return [one for one in timer.changes(recorded) if not isinstance(one, WithdrawTimer)]

    return replace(timer, changes=changes)


def timing_out_what_has_ended(
    decider: Decider[SagaCommand, SagaState, SagaEvent],
) -> Decider[SagaCommand, SagaState, SagaEvent]:
    """Compensates a saga that has ended when its time is over."""

    def decide(command: SagaCommand, current: SagaState) -> Sequence[SagaEvent]:
        if isinstance(command, TimeOut) and current.status == "ended":
            current = msgspec.structs.replace(current, status="running")
        return decider.decide(command, current)

    return replace(decider, decide=decide)


def giving_up_what_is_open(
    decider: Decider[SagaCommand, SagaState, SagaEvent],
) -> Decider[SagaCommand, SagaState, SagaEvent]:
    """Compensates without the answers of commands that still travel."""

    def decide(command: SagaCommand, current: SagaState) -> Sequence[SagaEvent]:
        events = list(decider.decide(command, current))
        if any(isinstance(one, CompensationBegun) for one in events) and not isinstance(
            events[-1], SagaEnded
        ):
            given = [one for one in decider.fold(events, current).steps if one.status == "given"]
            events += [StepRefused(one.name, "given up") for one in given]
            if decider.fold(events, current).taken_back:
                events.append(SagaEnded("compensated"))
        return events

    return replace(decider, decide=decide)


# watching

WatchesTooLate = changed(
    Hub,
    "watching",
    "await self._joined(group, watcher, after)",
    "group.watchers.discard(watcher)\n"
    "        await self._joined(group, watcher, after)\n"
    "        await self._clock.sleep(0.05)\n"
    "        group.watchers.add(watcher)",
)
"""Tells a watcher of nothing between what it caught up with and its first event."""

CatchesUpWithTheFirst = changed(
    Hub,
    "__init__",
    " Recall(",
    " planted(",
    planted=changed(Recall, "_read_since", "(some or not reaches(changes.place, until))", "some is None"),
)
"""Tells a watcher that comes again of the first changes alone."""

MovesThePlaceFirst = changed(
    Hub,
    "_round",
    "told = await self._tell(found)",
    "self._told = found.place\n    told = await self._tell(found)",
)
"""Gives the id of an event from which nothing comes again before it has told what came before."""

SwitchesSilently = changed(Hub, "_begin", "watcher.reset(reason)", "pass")
"""Goes on in another generation, and tells nobody."""


def _grouping(method: str, old: str, new: str) -> type[Hub]:
    """A hub whose groups are changed."""
    return changed(Hub, "watching", " Group(", " planted(", planted=changed(Group, method, old, new))


_MIDDLE = "(id in again or ahead)"
ForgetsTheMiddle = _grouping("kinds", _MIDDLE, "ahead")
"""Does not tell of a document that met a condition for a moment, in which somebody read it."""

TakesMembersForHeard = _grouping("kinds", _MIDDLE, "id in again")
"""Takes what it loaded for what it has told."""

TellsOutOfScope = _grouping("may_be_told", "not self.wanted.hides or", "True or")
"""Names documents that the caller may not see."""

NamesWhatLeftMeanwhile = changed(Hub, "_caught_up", "wanted.hides and not", "False and not")
"""Names documents out of the caller's scope that changed while it was away."""

ComesAgainFromMemory = changed(Hub, "_caught_up", "from_memory=not wanted.hides", "from_memory=True")
"""Takes what it has heard for all that changed while a caller was away."""

DropsWhatIsTooMuch = changed(
    Hub,
    "watching",
    " Watcher(",
    " planted(",
    planted=changed(Watcher, "put", 'self.reset("slow")', "pending.clear()"),
)
"""Forgets what a slow watcher was not told."""


# files


class DeletesWithEachFile(FileKeeper):
    """Deletes the content of a file that is removed, whoever else has it."""

    @override
    async def remove(
        self, subject: UUID, file: UUID, context: CommandContext, because: Because = "removed"
    ) -> Outcome[FileEvent]:
        held = (await self.state_of(self.stream_of(subject))).kept.get(file)
        outcome = await super().remove(subject, file, context, because)
        if held is not None:
            await self.storage.delete(Name(self.stream_of(subject), held.object))
        return outcome


class SweepsWhatItSees(FileKeeper):
    """Deletes an object that no file has when it looks."""

    @override
    async def abandon(self, name: Name, context: CommandContext) -> bool:
        if (await self.state_of(name.stream)).refers_to(name.object):
            return False
        await self.storage.delete(name)
        return True


NamesByContent = changed(
    FileKeeper, "attach", "uuid7(context.now)", "uuid5(stream, offered.purpose)", uuid5=uuid5
)
"""Gives the same content the same name each time; in the scenario a purpose has one content."""


TrustsItsMemory = changed(
    FileKeeper,
    "attach",
    "if kept.object != at.object:",
    "if not (await self.handler.load(stream)).state.refers_to(at.object):",
)
"""Deletes what it has written where the state in memory does not have it."""


class WritesLater(ArchiveStorage):
    """Says that an object is whole, and writes it with the next call."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._later: list[tuple[Name, bytes]] = []

    @override
    async def asked(self, point: str, effect: Callable[[], T]) -> T:
        def also() -> T:
            while self._later:
                super(WritesLater, self).put(*self._later.pop())
            return effect()

        return await super().asked(point, also)

    @override
    def put(self, name: Name, content: bytes) -> None:
        self._later.append((name, content))


# exports

KeepsTriesUnderOneKey = changed(Exports, "_written", 'f"file-{one.number}"', '"file"')
"""Gives the file of each try the same key, although the list has changed between them."""

TidiesTooEarly = changed(Exports, "_tidy", 'state.status not in {"made", "failed"}', "False")
"""Removes the files of the other tries while one of them may end."""

KeepsForEver = changed(Exports, "_written", "kind.file_lives", "9 * kind.file_lives")
"""Keeps the files of tries longer than an export has its file."""


class FinishesTwice(Exports):
    """Says of each try that it has made the file."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        decide = changed_function(decide_export, "[made] if _is_at(export, made.attempt) else []", "[made]")
        store, catalogue, keys, *_ = given
        self._handler = CommandHandler(replace(EXPORT, decide=decide), store, catalogue, keys)


# notices

DoneBeforeItIsHandedOver = changed(
    NoticeLoop,
    "_sent",
    "answer = await provider.hand_over(message)",
    "await self._notices.answered(due.id, due.subject, provider.name, Accepted(None, ''), self._clock.now())\n"
    "    answer = await provider.hand_over(message)",
    Accepted=Accepted,
)
"""Stores that a notice is handed over before it is."""

TakesNoAnswerForAccepted = changed(
    NoticeLoop,
    "_send",
    "self._back_off(due.channel, error.retry_after_seconds)\n",
    "accepted = Accepted(None, '')\n        await self._notices.answered(due.id, due.subject, 'gateway', accepted, self._clock.now())\n"
    "        return\n",
    Accepted=Accepted,
)
"""Takes a provider that does not answer for one that has accepted."""


class MessageIdOfEachTry(Provider):
    """Hands each try over under an id of its own."""

    name = "gateway"

    def __init__(self, run: Telling) -> None:
        self._run = run
        self._client = GatewayClient(run)

    @override
    async def hand_over(self, message: Message) -> Answer:
        id = UUID(int=self._run.kernel.chance.getrandbits(128))
        return await self._client.hand_over(msgspec.structs.replace(message, id=id))


class AcknowledgesBeforeItStores(Notices):
    """Acknowledges a receipt that the database did not take."""

    @override
    async def receive(self, id: UUID, receipt: str, *rest: Any) -> Any:  # type: ignore[override]
        with suppress(StoreUnavailable):
            return await super().receive(id, receipt, *rest)
