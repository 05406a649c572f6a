"""The specification form, also where it must fail."""

from typing import Any
from uuid import UUID

import pytest
from chassis.bulk.deciding import BULK_RUN
from chassis.files.deciding import FILES_OF_SUBJECT
from chassis.notices.deciding import NOTICE
from chassis.proposals.deciding import PROPOSAL
from chassis.sagas.deciding import saga_decider
from chassis.timers.business_days import business_days_decider
from chassis.write.deciding import Decider
from msgspec.structs import replace

from tests.support.jars import (
    JAR,
    EmptyJar,
    FillJar,
    Jar,
    JarAlreadyOpened,
    JarEmptied,
    JarEvent,
    JarFilled,
    JarNotOpened,
    JarOpened,
    OpenJar,
    context,
)
from tests.support.specification import Specification

jar = Specification(JAR)
OPENED = JarOpened("Li Wei", None, "bean")


def test_a_story() -> None:
    (
        jar.given()
        .when(OpenJar("Li Wei"))
        .then(OPENED)
        .when(FillJar(5))
        .then(JarFilled(5))
        .when(EmptyJar())
        .then(JarEmptied())
        .when(EmptyJar())
        .then_nothing()
        .then_state(Jar(True, 0, "Li Wei"))
    )


def test_refusals() -> None:
    jar.given().when(FillJar(1)).then_rejected(JarNotOpened)
    jar.given(OPENED).when(OpenJar("Wang Fang")).then_rejected(JarAlreadyOpened)


def test_a_specification_can_fail() -> None:
    with pytest.raises(AssertionError, match="gave"):
        jar.given(OPENED).when(FillJar(1)).then(JarFilled(2))
    with pytest.raises(AssertionError, match="gave"):
        jar.given(OPENED).when(FillJar(1)).then()
    with pytest.raises(AssertionError, match="was rejected"):
        jar.given().when(FillJar(1)).then(JarFilled(1))
    with pytest.raises(AssertionError, match="was accepted"):
        jar.given(OPENED).when(FillJar(1)).then_rejected(JarNotOpened)
    with pytest.raises(AssertionError, match="rejected with"):
        jar.given().when(FillJar(1)).then_rejected(JarAlreadyOpened)
    with pytest.raises(AssertionError, match="state is"):
        jar.given(OPENED).then_state(Jar())


def test_a_decision_that_changes_its_state_is_noticed() -> None:
    def decide(command: int, state: list[int]) -> list[JarEvent]:
        state.append(command)
        return []

    def evolve(state: list[int], event: JarEvent) -> list[int]:
        return state

    sticky = Specification(Decider[int, list[int], JarEvent]([], decide, evolve, JarEvent))
    with pytest.raises(AssertionError, match="changed the state"):
        sticky.given().when(1)


@pytest.mark.parametrize(
    "decider", [BULK_RUN, FILES_OF_SUBJECT, NOTICE, PROPOSAL, saga_decider({}), business_days_decider]
)
def test_no_stream_of_a_mechanism_has_a_key_of_its_own(decider: Decider[Any, Any, Any]) -> None:
    assert len(decider.classes) >= 1
    assert not decider.keyed
    assert JAR.keyed


def test_metadata_says_who_and_why() -> None:
    bare = context("c").metadata()
    assert bare.correlation_id == bare.causation_id == bare.command_id
    assert bare.effective_at == bare.recorded_at
    assert replace(bare, post="teller").post == "teller"
    assert context("c", idempotency_key="k").key == "6:tester:k"
    assert UUID(context("c").key) == bare.command_id
