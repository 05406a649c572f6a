"""Golden files are the promise to readers: what was published once is read the same for ever."""

import json
from pathlib import Path

import pytest
from contracts.customer import EVENTS, CustomerContextEvent

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_of(event):
    """What a version was at first, and what it was after each optional field that was added to it."""
    return sorted(GOLDEN.glob(f"{event.TYPE}.v{event.VERSION}*.json"), key=lambda path: len(path.name))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_what_was_published_is_read_and_written_the_same(event):
    shown = set()
    for path in golden_of(event):
        text = path.read_text(encoding="utf-8")
        read = event.model_validate_json(text)
        added = {
            name: json.loads(json.dumps(event.model_fields[name].default))
            for name in event.model_fields.keys() - json.loads(text)
        }
        assert json.loads(read.model_dump_json()) == json.loads(text) | added
        shown |= set(json.loads(text))
    assert shown == set(event.model_fields), "the golden files show every field"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_a_reader_ignores_what_it_does_not_know(event):
    values = json.loads(golden_of(event)[0].read_text(encoding="utf-8"))
    assert event.model_validate(values | {"of_a_later_version": 1}) == event.model_validate(values)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_personal_fields_are_fields(event):
    assert set(event.model_fields) >= event.PERSONAL


def test_every_type_is_there_once():
    assert len({(event.TYPE, event.VERSION) for event in EVENTS}) == len(EVENTS)
    assert {event.TYPE for event in _below(CustomerContextEvent)} == {event.TYPE for event in EVENTS}


def _below(base):
    return [each for direct in base.__subclasses__() for each in (direct, *_below(direct))]
