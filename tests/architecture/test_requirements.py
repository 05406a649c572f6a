"""Markers name requirements that there are, and the page in the repository lists them; a full run writes the results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import requirements

COUNTS = {"R": 94, "D": 12, "M": 48}
HOW = "python -m tests.requirements --run"
TRIED = """
import pytest

@pytest.mark.requirement("R001", "M02")
@pytest.mark.parametrize("number", [1, 2])
def test_one(number):
    assert number == 1

@pytest.mark.requirement("R001")
def test_another():
    pass

@pytest.mark.requirement("D01")
def test_left_out():
    pytest.skip("not here")

class TestSome:
    @pytest.mark.requirement("M03", "M04")
    def test_within(self):
        pass
"""
KNOWN = """
[R001]
holds = "One."
[D01]
holds = "Two."
missing = "Half of it."
[M01]
holds = "Nobody shows it."
[M02]
holds = "Three."
[M03]
holds = "Four."
[M04]
holds = "Five."
missing = "The rest."
"""


def test_every_number_is_there_once_with_one_sentence() -> None:
    known = requirements.numbers()
    assert list(known) == [
        *(f"R{number:03}" for number in range(1, COUNTS["R"] + 1)),
        *(f"D{number:02}" for number in range(1, COUNTS["D"] + 1)),
        *(f"M{number:02}" for number in range(1, COUNTS["M"] + 1)),
    ]
    for number, entry in known.items():
        assert entry.keys() <= {"holds", "missing"}, number
        assert all(re.fullmatch(r"[A-Z0-9][^\n]*\.", text) for text in entry.values()), number


def test_markers_name_numbers_that_there_are() -> None:
    known, tests = requirements.numbers(), requirements.marked()
    assert {number: where for number, where in tests.items() if number not in known} == {}
    for number, entry in known.items():
        assert "missing" not in entry or number in tests, f"{number} is open: nothing of it is shown"


def test_the_page_lists_the_tests_that_the_markers_name() -> None:
    text = requirements.PAGE.read_text(encoding="utf-8")
    assert requirements.names_agree(text, requirements.numbers(), requirements.marked()), HOW


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with three marked tests and the plugin."""
    for folder in (*requirements.FOLDERS, "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "requirements.py").write_bytes(Path(requirements.__file__).read_bytes())
    (tmp_path / "tests" / "requirements.toml").write_text(KNOWN)
    (tmp_path / "libs" / "test_some.py").write_text(TRIED)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--strict-markers -p tests.requirements"\n'
        'pythonpath = ["."]\ntestpaths = ["libs", "services", "cli", "tests"]\n'
    )
    return tmp_path


def tried(repository: Path, *arguments: str) -> int:
    return subprocess.run(
        [sys.executable, *(arguments or ("-m", "pytest", "-q", "-p", "no:cacheprovider"))],
        cwd=repository,
        # Folders of its own: it removes those of earlier runs, and they may be large.
        env=os.environ
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_DEBUG_TEMPROOT": str(repository.parent)},
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def test_a_full_run_writes_what_became_of_each_test_and_another_one_leaves_it_alone(repository: Path) -> None:
    page = repository / "docs" / "requirements.md"
    assert tried(repository) == 1
    text = page.read_text()
    shown = text[text.index("## R:") :]
    assert "- **R001** failed: One." in shown
    assert "  - `libs/test_some.py::test_another`: passed" in shown
    assert "  - `libs/test_some.py::test_one`: failed" in shown
    assert (
        "- **D01** not run: Two.\n  Missing: Half of it.\n  - `libs/test_some.py::test_left_out`: skipped"
        in shown
    )
    assert "- **M01** open: Nobody shows it.\n- **M02** failed: Three." in shown
    assert "- **M03** shown: Four.\n  - `libs/test_some.py::test_within`: passed" in shown
    assert (
        "- **M04** in part: Five.\n  Missing: The rest.\n  - `libs/test_some.py::test_within`: passed"
        in shown
    )
    assert "| all | 1 | 1 | 1 | 2 | 1 |" in text
    page.write_text(re.sub(r"(with these results: ).*", r"\1another day, commit abc.", text))
    before = page.read_text()
    assert tried(repository) == 1
    assert page.read_text() == before, "nothing but the day would change"


SHARED = ["-p", "xdist", "-n", "2"]


def test_a_full_run_of_two_processes_writes_the_same_page(repository: Path) -> None:
    page = repository / "docs" / "requirements.md"
    tried(repository)
    text = page.read_text()
    page.unlink()
    assert tried(repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SHARED) == 1
    assert page.read_text() == text


@pytest.mark.parametrize(
    "selection",
    [
        [*SHARED, "-k", "one"],
        ["libs"],
        ["-k", "one"],
        ["-x"],
        ["-o", "testpaths=libs"],
        ["--deselect", "libs/test_some.py::test_one"],
        ["--collect-only"],
    ],
)
def test_a_run_that_leaves_tests_out_writes_nothing(repository: Path, selection: list[str]) -> None:
    tried(repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", *selection)
    assert not (repository / "docs" / "requirements.md").exists()


def test_new_markers_are_entered_and_known_results_kept(repository: Path) -> None:
    page = repository / "docs" / "requirements.md"
    tried(repository)
    some = repository / "libs" / "test_some.py"
    some.write_text(TRIED.replace('"D01"', '"M01", "D01", "M99"'))
    stale = page.read_text()
    known = requirements.numbers(repository)
    assert not requirements.names_agree(stale, known, requirements.marked(repository))
    assert tried(repository, "-m", "tests.requirements") == 0
    fresh = page.read_text()
    assert requirements.names_agree(fresh, known, requirements.marked(repository))
    assert "- **M01** not run: Nobody shows it.\n  - `libs/test_some.py::test_left_out`: skipped" in fresh
    assert requirements.marked(repository).keys() - known == {"M99"}


def test_a_test_that_was_marked_after_the_full_run_gets_a_result_by_itself(repository: Path) -> None:
    page = repository / "docs" / "requirements.md"
    tried(repository)
    later = repository / "libs" / "test_later.py"
    later.write_text(TRIED.replace('"R001"', '"M01"').replace("test_one", "test_later"))
    assert tried(repository, "-m", "tests.requirements") == 0
    assert "libs/test_later.py::test_another`: not run yet" in page.read_text()
    assert tried(repository, "-m", "tests.requirements", "--run") == 0
    after = page.read_text()
    assert "not run yet" not in after
    assert "  - `libs/test_later.py::test_another`: passed" in after
    assert "  - `libs/test_some.py::test_one`: failed" in after


def test_a_run_that_names_all_folders_is_a_full_one(repository: Path) -> None:
    tried(repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", *requirements.FOLDERS)
    assert (repository / "docs" / "requirements.md").exists()
