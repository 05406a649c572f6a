"""The page of events in the repository is the one that the registry makes."""

from pathlib import Path

from contracts.page import page
from contracts.registry import BY_CONTEXT

PAGE = Path(__file__).parents[3] / "docs" / "events.md"


def test_the_page_is_fresh():
    assert PAGE.read_text() == page(), "python -m contracts.page > docs/events.md"


def test_every_event_and_every_sealed_field_is_on_it():
    text = page()
    for events in BY_CONTEXT.values():
        for event in events:
            section = text.partition(f"### {event.TYPE} v{event.VERSION}\n")[2].partition("\n### ")[0]
            assert section.count("**sealed**") == len(event.PERSONAL), event
            assert all(f"| `{name}` |" in section for name in event.model_fields), event
