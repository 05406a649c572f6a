"""Which test shows which requirement: the marker `requirement`, and the page that a full run of the tests writes.

`tests/requirements.toml` has a sentence for every number, and `missing` where its tests show only a part of it.
`@pytest.mark.requirement("R013")` stands on each test that asserts what the number asks for. A run of all tests, none
left out, writes their results into `docs/requirements.md`; it leaves the page alone where nothing but the day would
change. `python -m tests.requirements` enters new markers and keeps the results of the last full run; with `--run` it also
runs the tests that have no result yet.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "requirements.md"
FOLDERS: Final = ("libs", "services", "cli", "tests")
"""The folders of tests, as pytest's `testpaths` names them."""
PARTS: Final = {
    "R": "the users' guide",
    "D": "the design card",
    "M": "what comparable systems lack",
}
STATES: Final = ("shown", "in part", "open", "failed", "not run")
WORST_FIRST: Final = ("failed", "passed", "skipped")
"""The result of a test of many cases: one that failed counts before all, and one that passed before those left out."""
NOT_RUN: Final = "not run yet"
LEFT_OUT: Final = "requirements_left_out"
"""Under this name a process of a shared run says whether it left tests out."""
_RESULT: Final = re.compile(r"^  - `(?P<test>[^`]+)`: (?P<result>.+)$", re.MULTILINE)
_RUN: Final = re.compile(r"^The first full run with these results: .+$", re.MULTILINE)

Marked = Mapping[str, list[str]]
Results = Mapping[str, str]


def numbers(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Every number with what must hold, and with what is missing where the tests show a part."""
    return tomllib.loads((root / "tests" / "requirements.toml").read_text(encoding="utf-8"))


def marked(root: Path = ROOT) -> dict[str, list[str]]:
    """The tests of each number that a marker names, as `file::test`, whether the number is known or not."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("test_*.py")):
        for test, number in _markers(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(number, []).append(f"{path.relative_to(root)}::{test}")
    return found


def _markers(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and ast.unparse(decorator.func) == "pytest.mark.requirement"
                ):
                    yield from ((node.name, ast.literal_eval(argument)) for argument in decorator.args)


def page(known: Mapping[str, Mapping[str, str]], tests: Marked, results: Results, run: str) -> str:
    """The page, as text. `run` is the day and commit of a run, or what is said where there was none."""
    states = {number: _state(entry, tests.get(number, []), results) for number, entry in known.items()}
    lines = [
        "# Requirements",
        "",
        "Generated from `tests/requirements.toml` and the tests' markers: `make test` without a selection writes it, and",
        "`python -m tests.requirements --run` enters new markers and runs their tests. Do not edit.",
        "",
        "*shown*: tests assert all that the number asks of the back end. *in part*: they assert some of it, and what is",
        "missing is said. *open*: no test shows it. *failed*: a test of it failed in that run.",
        "*not run*: none of its tests was run yet, or all of them were left out for want of something.",
        "",
        f"The first full run with these results: {run}.",
        "A test that was marked later has the result of its own run.",
        "",
        f"| of {len(known)} | {' | '.join(STATES)} |",
        "|---" * (1 + len(STATES)) + "|",
    ]
    for letter, name in PARTS.items():
        of_part = Counter(state for number, state in states.items() if number.startswith(letter))
        lines.append(f"| {letter}: {name} | {' | '.join(str(of_part[state]) for state in STATES)} |")
    lines.append(f"| all | {' | '.join(str(list(states.values()).count(state)) for state in STATES)} |")
    for letter, name in PARTS.items():
        lines += ["", f"## {letter}: {name}", ""]
        for number, entry in known.items():
            if number.startswith(letter):
                lines += _entry(number, entry, states[number], tests.get(number, []), results)
    return "\n".join(lines) + "\n"


def _state(entry: Mapping[str, str], tests: list[str], results: Results) -> str:
    if not tests:
        return "open"
    became = {results.get(test, NOT_RUN) for test in tests}
    if "failed" in became:
        return "failed"
    if "passed" not in became:
        return "not run"
    return "in part" if "missing" in entry else "shown"


def _entry(
    number: str, entry: Mapping[str, str], state: str, tests: list[str], results: Results
) -> Iterator[str]:
    yield f"- **{number}** {state}: {entry['holds']}"
    if "missing" in entry:
        yield f"  Missing: {entry['missing']}"
    yield from (f"  - `{test}`: {results.get(test, NOT_RUN)}" for test in sorted(tests))


def written_results(text: str) -> dict[str, str]:
    """The results that a page shows."""
    return {match["test"]: match["result"] for match in _RESULT.finditer(text)}


def names_agree(text: str, known: Mapping[str, Mapping[str, str]], tests: Marked) -> bool:
    """Whether a page is the one of these numbers and markers, whatever its results."""
    return _RUN.sub("", text) == _RUN.sub("", page(known, tests, written_results(text), "none yet"))


def _refresh(results: Results | None, run: str | None) -> bool:
    """Writes the page where more than the day differs; whether it did."""
    was = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    before = re.search(r"with these results: (.+)\.$", was, re.MULTILINE)
    now = page(
        numbers(),
        marked(),
        written_results(was) if results is None else results,
        run or (before[1] if before else "none yet"),
    )
    if _RUN.sub("", now) == _RUN.sub("", was):
        return False
    PAGE.write_text(now, encoding="utf-8")
    return True


def _this_run() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{datetime.now(UTC):%Y-%m-%d}, {'commit ' + commit if commit else 'no commit'}"


def _test_of(nodeid: str) -> str:
    """The test of a case, as `file::test`."""
    file, *_, name = nodeid.partition("[")[0].split("::")
    return f"{file}::{name}"


def _results(outcomes_of_cases: Mapping[str, set[str]]) -> dict[str, str]:
    """What became of each test, by what became of its cases."""
    outcomes: dict[str, set[str]] = {}
    for nodeid, of_case in outcomes_of_cases.items():
        outcomes.setdefault(_test_of(nodeid), set()).update(of_case)
    return {
        test: next((outcome for outcome in WORST_FIRST if outcome in of_test), NOT_RUN)
        for test, of_test in outcomes.items()
    }


def _folders() -> list[Path]:
    return [ROOT / folder for folder in FOLDERS]


class _Seen:
    """Keeps what became of each case, also of those that other processes of the run have."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps what became of a case."""
        of_case = self.seen.setdefault(report.nodeid, set())
        if report.when == "call" or report.outcome != "passed":
            of_case.add(report.outcome)


class _Some(_Seen):
    """Runs the wanted tests alone."""

    def __init__(self, wanted: Collection[str]) -> None:
        super().__init__()
        self._wanted = wanted

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves the others out."""
        items[:] = [item for item in items if _test_of(item.nodeid) in self._wanted]


def _run_new() -> bool:
    """Runs the marked tests without a result, and enters what became of them; whether that changed the page."""
    known = written_results(PAGE.read_text(encoding="utf-8"))
    tests = {test for of_number in marked().values() for test in of_number}
    new = {test for test in tests if known.get(test, NOT_RUN) == NOT_RUN}
    if not new:
        return False
    some = _Some(new)
    pytest.main(["-q", *sorted({test.partition("::")[0] for test in new})], plugins=[some])
    return _refresh(known | _results(some.seen), None)


# the plugin


class _Run(_Seen):
    """A run of the tests. Where several processes share them, the first one has all results and writes the page."""

    def __init__(self) -> None:
        super().__init__()
        self._collected: set[str] = set()
        self._left_out = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keeps which cases are to run."""
        self._collected |= {item.nodeid for item in session.items}

    def pytest_deselected(self) -> None:
        """A run that leaves tests out is no full run."""
        self._left_out = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Keeps which cases the other processes have collected: each of them collects all."""
        self._collected |= set(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Keeps whether another process left tests out; of one that crashed nobody knows."""
        self._left_out |= getattr(node, "workeroutput", {}).get(LEFT_OUT, True)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the page after a full run."""
        config = session.config
        if hasattr(config, "workeroutput"):
            config.workeroutput[LEFT_OUT] = self._left_out
            return
        whole = (
            config.rootpath.resolve() == ROOT
            and {(config.invocation_params.dir / each).resolve() for each in config.args} == set(_folders())
            and not self._left_out
            and not config.option.ignore
            and not config.option.ignore_glob
            and not config.getoption("lf", default=False)
            and bool(self._collected)
            and self._collected == set(self.seen)
        )
        if not whole:
            return
        try:
            _refresh(_results(self.seen), _this_run())
        except OSError as error:
            config.get_terminal_writer().line(f"{PAGE} is not written: {error}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line("markers", "requirement(*numbers): the test asserts what these numbers ask for")
    config.pluginmanager.register(_Run())


if __name__ == "__main__":
    changed = _refresh(None, None)
    if sys.argv[1:] == ["--run"]:
        changed |= _run_new()
    sys.stdout.write(f"{PAGE}: {'written' if changed else 'unchanged'}\n")
