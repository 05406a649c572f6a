"""What the glossary says is in the code is in the code."""

import re
from pathlib import Path

import pytest
from contracts.registry import BY_CONTEXT
from customer import shapes
from customer.domain.events import STORED_NAMES
from customer.panorama import schema
from sync_ingest.domain.records import Posting

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("libs/*/src/**/*.py", "services/*/src/**/*.py", "cli/src/**/*.py")
ROW = re.compile(r"^\| (?P<word>[^|]+) \| (?P<chinese>[^|]+) \| (?P<code>[^|]+) \| (?P<means>[^|]+) \|$")
QUOTED = re.compile(r"`([^`]+)`")


def named() -> list[tuple[str, str]]:
    """Each word with each name that it has in the code."""
    rows = [ROW.match(line) for line in (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").splitlines()]
    return [(row["word"], name) for row in rows if row for name in QUOTED.findall(row["code"])]


@pytest.fixture(scope="module")
def code() -> str:
    """All of the code that is shipped, and the names of its files."""
    files = [file for pattern in SOURCES for file in sorted(ROOT.glob(pattern))]
    return "\n".join([*(str(file) for file in files), *(file.read_text(encoding="utf-8") for file in files)])


def parts_of(name: str) -> list[str]:
    """The parts of a name that stand in the code: of a route its last segment, of a call each word."""
    return [part for part in re.split(r"[^\w.\-]+", name) if len(part) > 1 and part not in {"GET", "POST"}]


def test_every_name_of_the_glossary_is_in_the_code(code):
    missing = [
        f"{word}: {name}"
        for word, name in named()
        if not all(
            re.search(rf"(?<![A-Za-z0-9]){re.escape(part.strip('._-'))}(?![a-z0-9])", code)
            for part in parts_of(name)
        )
    ]
    assert missing == []
    assert len(named()) > 80


def published_names() -> list[tuple[str, str]]:
    """Each field of the section of published names, with each place where it is published."""
    section = (
        (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").split("## Published names")[1].split("\n## ")[0]
    )
    rows = [ROW.match(line) for line in section.splitlines()]
    return [
        (own or QUOTED.findall(row["code"])[0], place)
        for row in rows
        if row and row["word"] != "word"
        for part in row["means"].split(";")
        for own in ["received_at" if "`received_at`" in part else None]
        for place in QUOTED.findall(part)
        if place != own
    ]


def fields_of(place: str) -> set[str]:
    """The fields of a public event, a stored event, a canonical record, or a body over HTTP, by its name there."""
    if "." in place:
        versions = [event for events in BY_CONTEXT.values() for event in events if place == event.TYPE]
        return set(versions[-1].model_json_schema()["properties"])
    if "-" in place:
        return set(STORED_NAMES[place].__struct_fields__)
    if place == "Posting":
        return set(Posting.__struct_fields__)
    [model] = [getattr(module, place) for module in (shapes, schema) if hasattr(module, place)]
    return set(model.__annotations__)


def test_every_published_name_is_a_field_where_the_glossary_says_so():
    assert [(field, place) for field, place in published_names() if field not in fields_of(place)] == []
    assert {field for field, _ in published_names()} == {
        "kind",
        "text",
        "stated_assets",
        "heard_at",
        "received_at",
    }


def test_no_field_bears_the_term_beside_its_published_name():
    """A reader would not know which of two is meant."""
    terms = {"transaction_type", "narrative", "declared_assets", "last_received", "last_received_at"}
    assert [place for _, place in published_names() if fields_of(place) & terms] == []
