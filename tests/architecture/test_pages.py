"""There is a page for each kind of user, every link of a page leads somewhere, and the commands of the developers' page work.

The commands of the other pages run in `tests/e2e/test_up.py`, `cli/tests/test_auditor.py` and
`services/sync-ingest/tests/test_branch_page.py`.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from crm_cli.main import COMMANDS
from customer.settings import CrashPoint as CustomerCrashPoint
from sync_ingest.settings import CrashPoint as IngestCrashPoint

from tests.simulation.run import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
USERS = (
    "docs/branch.md",
    "docs/bff.md",
    "docs/analyst.md",
    "docs/auditor.md",
    "docs/operator.md",
    "CONTRIBUTING.md",
)
DEVELOPERS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
COMMAND = re.compile(r"(make |python |pytest |crm |\.venv/|CRM_\w+=|tools/new)")
SECONDS_MAX = 60

RUN_HERE = {
    "python -m tests.requirements --run",
    "python -m tests.simulation.run --kind KIND --first SEED --schedules 1",
}
RUN_ELSEWHERE = {
    "make test": "CI itself (.ci/run)",
    "make lint": "CI itself, as a part of make test",
    "make format": "CI itself checks with make lint what it makes",
    "make generate": "tests/architecture/test_generated.py compares every file that it makes",
    "tools/new-service NAME": "tests/architecture/test_new_service.py, in a copy of the repository",
    "tools/new-service ticket": "tests/architecture/test_new_service.py, in a copy of the repository",
    "pytest services/NAME": "tests/architecture/test_new_service.py",
    "make lock": "a person, because it needs the package index",
    "make bench": "a person, because it takes long; tests/architecture/test_benchmarks.py starts each",
    "crm rebuild --accept-differences": "libs/chassis/tests/read/test_rebuilding.py",
    "make chaos": "a person, because it takes long",
    "pytest services/customer": "CI itself, as a part of make test",
    'pytest "tests/simulation/test_delivery.py::test_everything_arrives_once_and_in_order[7]"': "make test",
    "python -m tests.hostile.run SEED SEED+1": "tests/hostile/test_hostile.py plays seeds with the same functions",
    "CRM_CRASH_AT=after-append crm ingest ...": "cli/tests/test_frozen_ingest.py and the tests of crashes in ingest",
    "crm verify": "cli/tests/test_verify.py",
    "crm rebuild": "cli/tests/test_rebuild.py",
    "crm status": "cli/tests/test_status.py",
    "crm migrate": "every test with a database of its own",
    "crm up": "tests/e2e/test_up.py",
}


def commands(page: str) -> set[str]:
    """The commands in the text of a page; its fenced blocks show files."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    quoted = (" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text))
    return {each for each in quoted if COMMAND.match(each)}


def run(command: str, where: Path) -> str:
    """What a command of the page prints; it must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=where,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_links_a_page_for_each_kind_of_user():
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(USERS) <= linked
    assert all((ROOT / page).is_file() for page in USERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_of_the_developers_page_is_run_somewhere():
    assert commands(DEVELOPERS) == RUN_HERE | RUN_ELSEWHERE.keys()


def test_new_markers_are_entered_as_the_page_says():
    assert run("python -m tests.requirements", ROOT).strip().endswith("unchanged")


def test_one_schedule_is_played_as_the_page_says():
    command = "python -m tests.simulation.run --kind KIND --first SEED --schedules 1"
    run(command.replace("KIND", "delivery").replace("SEED", "7"), ROOT)


def test_the_kinds_of_schedules_of_the_page_are_those_that_are_played():
    named = DEVELOPERS.split("Its kinds are")[1].split("A failing seed")[0]
    assert set(re.findall(r"`([a-z_]+)`", named)) == set(KINDS)


def test_every_scenario_is_played_with_fresh_seeds_too():
    """Each module of schedules is one of those that `make chaos` plays."""
    folder = ROOT / "tests/simulation"
    played = (folder / "run.py").read_text(encoding="utf-8")
    scenarios = {
        path.stem
        for path in folder.glob("*.py")
        if re.search(r"^async def (?:lived|run)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(scenarios) > 15
    assert {
        name for name in scenarios if f"{name}.lived(" not in played and f"{name}.run(" not in played
    } == set()
    assert sum(share for share, _ in KINDS.values()) == 100


def test_what_the_page_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in commands(DEVELOPERS):
        if command.startswith("make "):
            assert command.split()[1] in targets
        if command.startswith("crm "):
            assert command.split()[1] in COMMANDS
    for path in re.findall(r"\b(?:tests|services|libs|tools|docs)/[\w/.-]+\.(?:py|toml|md)\b", DEVELOPERS):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(
    ("after", "before", "sources", "points"),
    [
        ("points are", "in development only", ["services/sync-ingest/src"], IngestCrashPoint),
        (
            "The service customer has",
            "Tests give",
            ["services/customer/src", "libs/chassis/src/chassis/write", "libs/chassis/src/chassis/sagas"],
            CustomerCrashPoint,
        ),
    ],
)
def test_the_crash_points_of_the_page_are_those_of_the_code(after, before, sources, points):
    named = DEVELOPERS.split(after)[1].split(before)[0]
    calls = (
        call
        for source in sources
        for file in (ROOT / source).rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("reached") and call.args
    )
    in_code = {each.args[0].value for each in calls if isinstance(each.args[0], ast.Constant)}
    assert set(re.findall(r"`([a-z-]+)`", named)) == in_code == set(get_args(points))
