"""What the glossary says is in the code is in the code."""

import re
from pathlib import Path

import pytest

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
