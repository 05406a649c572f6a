"""Golden files are the promise to readers: what was published once is read the same for ever."""

import json
from pathlib import Path

import pytest
from contracts.customer import EVENTS, CustomerContextEvent

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_of(event):
    return GOLDEN / f"{event.TYPE}.v{event.VERSION}.json"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_what_was_published_is_read_and_written_the_same(event):
    text = golden_of(event).read_text(encoding="utf-8")
    read = event.model_validate_json(text)
    assert json.loads(read.model_dump_json()) == json.loads(text)
    assert set(json.loads(text)) == set(event.model_fields), "a golden file shows every field"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_a_reader_ignores_what_it_does_not_know(event):
    values = json.loads(golden_of(event).read_text(encoding="utf-8"))
    assert event.model_validate(values | {"of_a_later_version": 1}) == event.model_validate(values)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_personal_fields_are_fields(event):
    assert set(event.model_fields) >= event.PERSONAL


def test_every_type_is_there_once():
    assert len({(event.TYPE, event.VERSION) for event in EVENTS}) == len(EVENTS)
    assert {event.TYPE for event in _below(CustomerContextEvent)} == {event.TYPE for event in EVENTS}


def _below(base):
    return [each for direct in base.__subclasses__() for each in (direct, *_below(direct))]
