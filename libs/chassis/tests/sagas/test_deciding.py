"""What a saga stores and gives, as a plain fold."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from chassis.sagas import (
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    Move,
    Refused,
    Request,
    Saga,
    Started,
    TimedOut,
)
from chassis.sagas.deciding import (
    HEARD_MAX,
    Answer,
    CompensationBegun,
    Hear,
    MoveImpossible,
    Refuse,
    SagaCommand,
    SagaEnded,
    SagaEvent,
    SagaHeard,
    SagaStarted,
    SagaTimedOut,
    Skip,
    Start,
    StepAnswered,
    StepGiven,
    StepRefused,
    StepUndone,
    TimeOut,
    TryAgain,
    UndoRefused,
    UndoSkipped,
    UndoTriedAgain,
    saga_decider,
)
from chassis.sagas.declaring import STEPS_MAX
from chassis.sagas.running import SagaUnknown

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
DATA = '{"items":["a","b"]}'


def step(name: str) -> Give:
    """Closes an item, and opens it again."""
    return Give(name, "peer", Request.of(f"/{name}/close"), Request.of(f"/{name}/open"))


def given(name: str) -> StepGiven:
    """The event of it."""
    one = step(name)
    return StepGiven(name, "peer", one.request, one.undo)


def decide(left: tuple[str, ...], came: Came) -> Sequence[Move]:
    """Both items one after the other; then it waits for the news."""
    match came:
        case Started() | Answered():
            return [step(left[0])] if left else []
        case Refused(code=code):
            return [Compensate(code)]
        case Heard(type="over"):
            return [End("over")]
        case Heard(type="twice"):
            return [step("a")]
        case _:
            return []


def evolve(left: tuple[str, ...], came: Came) -> tuple[str, ...]:
    """What is left."""
    match came:
        case Started(data):
            return tuple(data["items"])
        case Answered():
            return left[1:]
        case _:
            return left


KIND: Saga[tuple[str, ...]] = Saga("close", (), evolve, decide, timedelta(days=1))
DECIDER = saga_decider({"close": KIND})
STARTED = SagaStarted("close", DATA, NOW + timedelta(days=1))
BOTH = [STARTED, given("a"), StepAnswered("a"), given("b"), StepAnswered("b")]


def decided(events: Sequence[SagaEvent], command: SagaCommand) -> list[SagaEvent]:
    """The events of a command after these."""
    return list(DECIDER.decide(command, DECIDER.fold(events)))


def pending(events: Sequence[SagaEvent]) -> list[tuple[str, bool]]:
    """What is to be given after these."""
    return [(one.step, one.undoes) for one in DECIDER.fold(events).pending()]


@pytest.mark.parametrize(
    ("events", "command", "after"),
    [
        ([], Start("close", DATA, NOW), [STARTED, given("a")]),
        ([STARTED, given("a")], Start("close", DATA, NOW), []),
        ([STARTED, given("a")], Answer("a", undoes=False), [StepAnswered("a"), given("b")]),
        ([STARTED, given("a"), StepAnswered("a"), given("b")], Answer("a", undoes=False), []),
        (BOTH, Hear(UUID(int=1), "over", "{}"), [SagaHeard(UUID(int=1), "over", "{}"), SagaEnded("over")]),
        ([*BOTH, SagaHeard(UUID(int=1), "else", "{}")], Hear(UUID(int=1), "else", "{}"), []),
        ([], Hear(UUID(int=1), "over", "{}"), []),
        ([*BOTH, SagaEnded("over")], TimeOut(), []),
        (BOTH, TimeOut(), [SagaTimedOut(), CompensationBegun("timed-out")]),
        (
            [STARTED, given("a")],
            Refuse("a", undoes=False, code="no"),
            [StepRefused("a", "no"), CompensationBegun("no"), SagaEnded("compensated")],
        ),
        (
            BOTH[:4],
            Refuse("b", undoes=False, code="no"),
            [StepRefused("b", "no"), CompensationBegun("no")],
        ),
        ([*BOTH, CompensationBegun("x")], Answer("b", undoes=True), [StepUndone("b")]),
        (
            [*BOTH, CompensationBegun("x"), StepUndone("b")],
            Answer("a", undoes=True),
            [StepUndone("a"), SagaEnded("compensated")],
        ),
        ([*BOTH, CompensationBegun("x")], Refuse("b", undoes=True, code="no"), [UndoRefused("b", "no")]),
        ([*BOTH, CompensationBegun("x"), UndoRefused("b", "no")], TryAgain(), [UndoTriedAgain("b")]),
        ([*BOTH, CompensationBegun("x"), UndoRefused("b", "no")], Skip(), [UndoSkipped("b")]),
        (
            [*BOTH, CompensationBegun("x"), UndoRefused("b", "no"), UndoSkipped("b")],
            Answer("a", undoes=True),
            [StepUndone("a"), SagaEnded("compensated-in-part")],
        ),
        (
            [*BOTH, CompensationBegun("x"), StepUndone("b"), UndoRefused("a", "no")],
            Skip(),
            [UndoSkipped("a"), SagaEnded("compensated-in-part")],
        ),
        ([*BOTH, CompensationBegun("x"), UndoRefused("b", "no"), UndoSkipped("b")], Skip(), []),
        ([*BOTH, CompensationBegun("x")], Skip(), []),
        ([*BOTH, CompensationBegun("x")], TryAgain(), []),
        ([*BOTH, CompensationBegun("x"), UndoRefused("b", "no")], TimeOut(), []),
        # Too late: what came before is known, the saga is over, or it takes back what it did.
        ([*BOTH, SagaEnded("over")], Start("close", DATA, NOW), []),
        ([*BOTH, CompensationBegun("x")], Hear(UUID(int=1), "over", "{}"), []),
        ([*BOTH, SagaEnded("over")], Hear(UUID(int=1), "over", "{}"), []),
        (BOTH, Refuse("a", undoes=False, code="no"), []),
        (BOTH, Answer("a", undoes=True), []),
        (BOTH, Refuse("a", undoes=True, code="no"), []),
        ([*BOTH, SagaEnded("over")], Answer("a", undoes=True), []),
        ([*BOTH, SagaEnded("over")], Refuse("a", undoes=True, code="no"), []),
        ([*BOTH, CompensationBegun("x"), StepUndone("b")], Answer("b", undoes=True), []),
        ([*BOTH, CompensationBegun("x"), StepUndone("b")], Refuse("b", undoes=True, code="no"), []),
        (
            [*BOTH, CompensationBegun("x"), UndoRefused("b", "no")],
            Refuse("b", undoes=True, code="no"),
            [],
        ),
        # Two processes gave it: one was refused, and the other one's answer says that it was carried out.
        (
            [*BOTH, CompensationBegun("x"), UndoRefused("b", "no")],
            Answer("b", undoes=True),
            [StepUndone("b")],
        ),
    ],
)
def test_what_follows_from_what_came(
    events: list[SagaEvent], command: SagaCommand, after: list[SagaEvent]
) -> None:
    assert decided(events, command) == after


def test_what_is_open_is_answered_before_anything_is_taken_back_and_the_last_step_is_first() -> None:
    timed_out = [*BOTH[:4], SagaTimedOut(), CompensationBegun("timed-out")]
    assert pending(timed_out) == [("b", False)]
    assert decided(timed_out, Answer("b", undoes=False)) == [StepAnswered("b")]
    assert pending([*timed_out, StepAnswered("b")]) == [("b", True)]
    assert pending([*timed_out, StepAnswered("b"), StepUndone("b")]) == [("a", True)]
    assert pending([*timed_out, StepRefused("b", "no")]) == [("a", True)]


def test_a_step_without_a_way_back_is_left_out_of_what_is_taken_back() -> None:
    without = [STARTED, given("a"), StepAnswered("a"), StepGiven("b", "peer", step("b").request, None)]
    timed_out = [*without, StepAnswered("b"), SagaTimedOut(), CompensationBegun("timed-out")]
    assert pending(timed_out) == [("a", True)]
    assert decided(timed_out, Answer("a", undoes=True)) == [StepUndone("a"), SagaEnded("compensated")]
    alone = [STARTED, StepGiven("b", "peer", step("b").request, None), StepAnswered("b")]
    assert decided(alone, TimeOut())[1:] == [CompensationBegun("timed-out"), SagaEnded("compensated")]


def test_a_saga_may_end_when_its_time_is_over() -> None:
    kind: Saga[None] = Saga("wait", None, lambda _, __: None, _ends, timedelta(days=1))
    decider = saga_decider({"wait": kind})
    state = decider.fold(decider.decide(Start("wait", "{}", NOW), decider.initial))
    events = decider.decide(TimeOut(), state)
    assert events == [SagaTimedOut(), SagaEnded("late")]
    assert decider.decide(TimeOut(), decider.fold(events, state)) == []


def _ends(_: None, came: Came) -> Sequence[Move]:
    return [End("late")] if isinstance(came, TimedOut) else []


def test_nothing_follows_an_end() -> None:
    moves: dict[str, Sequence[Move]] = {
        "end": [End("over"), step("a")],
        "back": [Compensate("x"), End("over")],
    }
    kinds: dict[str, Saga[Any]] = {
        name: Saga(name, followed, lambda state, _: state, lambda state, _: state, timedelta(days=1))
        for name, followed in moves.items()
    }
    decider = saga_decider(kinds)
    for name in kinds:
        with pytest.raises(MoveImpossible):
            decider.decide(Start(name, "{}", NOW), decider.initial)


def test_steps_and_what_is_heard_are_bounded() -> None:
    def started(steps: int) -> list[SagaEvent]:
        gives = [step(f"s{number}") for number in range(steps)]
        kind: Saga[None] = Saga("many", None, lambda _, __: None, lambda _, __: gives, timedelta(days=1))
        decider = saga_decider({"many": kind})
        return list(decider.decide(Start("many", "{}", NOW), decider.initial))

    assert len(started(STEPS_MAX)) == 1 + STEPS_MAX
    with pytest.raises(MoveImpossible):
        started(STEPS_MAX + 1)
    heard = [SagaHeard(UUID(int=number), "else", "{}") for number in range(HEARD_MAX)]
    more = Hear(UUID(int=HEARD_MAX), "else", "{}")
    assert decided([*BOTH, *heard[1:]], more) == [SagaHeard(UUID(int=HEARD_MAX), "else", "{}")]
    with pytest.raises(MoveImpossible):
        decided([*BOTH, *heard], more)
    assert decided([*BOTH, *heard], Hear(UUID(int=1), "else", "{}")) == []


def test_a_saga_whose_code_is_gone_is_not_decided_any_more_and_is_shown() -> None:
    gone = saga_decider({})
    state = gone.fold(BOTH[:4])
    assert [one.step for one in state.pending()] == ["b"]
    with pytest.raises(SagaUnknown):
        gone.decide(Answer("b", undoes=False), state)


def test_a_stuck_saga_gives_nothing_until_it_is_tried_again() -> None:
    stuck = [*BOTH, CompensationBegun("x"), UndoRefused("b", "no")]
    assert pending(stuck) == []
    state = DECIDER.fold(stuck)
    assert (state.status, state.because, state.refused, state.code) == ("stuck", "x", "b", "no")
    assert pending([*stuck, UndoTriedAgain("b")]) == [("b", True)]


def test_a_saga_that_is_not_known_is_refused() -> None:
    with pytest.raises(SagaUnknown):
        decided([], Start("other", DATA, NOW))
    with pytest.raises(SagaUnknown):
        decided([], TryAgain())


def test_a_step_of_a_name_that_is_taken_is_a_fault_of_the_code() -> None:
    with pytest.raises(MoveImpossible):
        decided(BOTH, Hear(UUID(int=1), "twice", "{}"))


def test_an_end_with_an_open_step_is_a_fault_of_the_code() -> None:
    with pytest.raises(MoveImpossible):
        decided(BOTH[:2], Hear(UUID(int=1), "over", "{}"))


def test_the_body_of_a_request_is_bounded() -> None:
    large: dict[str, Any] = {"text": "中" * 6_000}
    with pytest.raises(ValueError, match="bytes"):
        Request.of("/", **large)
    assert msgspec.json.decode(Request.of("/", b=1, a="'\0\n").body) == {"a": "'\0\n", "b": 1}
