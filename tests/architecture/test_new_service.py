"""The recipe "Add a service", followed in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from contracts.topics import CONTEXTS

from tests.architecture.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("libs", "services", "cli", "deploy", "tools", "tests", "docs", "pyproject.toml", ".importlinter")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")
NAME = next(each for each in ("ticket", "parcel", "errand") if each not in CONTEXTS)
"""A context that does not exist yet."""
TOPICS = "libs/contracts/src/contracts/topics.py"
SECONDS_MAX = 240
TABLE_TEST = """
import pytest
from chassis.connections.postgres import connect
from chassis.write.store import writer_role
from psycopg.errors import InsufficientPrivilege


async def test_the_role_writes_the_table_and_changes_no_event(events_url, store):
    with connect(events_url, role=writer_role(store.schema)) as connection:
        connection.execute("insert into ticket.seen values (gen_random_uuid(), 'lin')")
        assert connection.execute("select by_whom from ticket.seen").fetchall() == [("lin",)]
        with pytest.raises(InsufficientPrivilege):
            connection.execute(f"delete from {store.schema}.events")
"""
METADATA = f"Metadata-Version: 2.1\nName: crm-{NAME}\nVersion: 0.1.0\n"
ENTRY_POINT = f"[crm.services]\n{NAME} = {NAME}.service:SERVICE\n"


class Copy:
    """A copy of the repository in which our packages are found before the installed ones."""

    def __init__(self, root: Path, postgres_url: str) -> None:
        self.root = root
        self.postgres_url = postgres_url
        self.installed = root / "installed"

    def run(self, *command: str | Path) -> str:
        """What a command prints; it must succeed."""
        sources = [self.root, self.installed, *self.root.glob("*/*/src"), self.root / "cli" / "src"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "MYPYPATH": os.pathsep.join(map(str, sources[2:])),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DEBUG_TEMPROOT": str(self.root.parent),  # pytest removes the folders of earlier runs
            "POSTGRES_URL": self.postgres_url,
        }
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self) -> dict[str, bytes]:
        """Every file of the copy by its path."""
        return contents(self.root)


def contents(root: Path) -> dict[str, bytes]:
    paths = [
        path
        for name in COPIED
        for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
    ]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


def changed_outside(copy: Copy, before: dict[str, bytes]) -> set[str]:
    """What is changed or added beside the folder of the service, its events and generated files."""
    after = copy.files()
    changed = {path for path in after if after[path] != before.get(path)}
    own = tuple(
        f"{each}{NAME}" for each in ("services/", "libs/contracts/src/contracts/", "libs/contracts/golden/")
    )
    generated = set(
        copy.run(sys.executable, "-c", "import tools.generate as t; print(*t.generated())").split()
    )
    assert any(path.startswith(own[0]) for path in changed)
    return {path for path in changed if not path.startswith(own)} - generated


@pytest.fixture(scope="module")
def before() -> dict[str, bytes]:
    return contents(ROOT)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Copy:
    """The copy with the skeleton in it and everything generated. Its tests use the PostgreSQL of this run."""
    copy = Copy(tmp_path_factory.mktemp("copy"), postgres_url)
    for name in COPIED:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy.root / name)
        else:
            shutil.copytree(ROOT / name, copy.root / name, ignore=LEFT_OUT)
    copy.run(sys.executable, "tools/new-service", NAME)
    # As `tools/setup` installs it: a distribution with an entry point.
    installed = copy.installed / f"crm_{NAME}-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(METADATA)
    (installed / "entry_points.txt").write_text(ENTRY_POINT)
    copy.run(sys.executable, "-m", "tools.generate")
    return copy


def test_a_service_is_its_folder_its_events_one_line_and_generated_files(
    copy: Copy, before: dict[str, bytes]
) -> None:
    after = copy.files()
    assert changed_outside(copy, before) == {TOPICS}
    old, new = (set(each[TOPICS].decode().splitlines()) for each in (before, after))
    names = ", ".join([f'"{each}"' for each in (*CONTEXTS, NAME)])
    assert list(new - old) == [f"CONTEXTS: Final = ({names})"]
    assert not before.keys() - after.keys()


def test_the_skeleton_keeps_style_types_and_boundaries(copy: Copy) -> None:
    copy.run("ruff", "check", "services", "libs", "tools")
    copy.run("ruff", "format", "--check", "services", "libs", "tools")
    assert "0 broken" in copy.run("lint-imports", "--no-cache")
    copy.run("mypy", "--cache-dir", os.devnull, "-p", NAME)


def test_the_skeleton_passes_its_own_tests_and_those_of_all_services(copy: Copy) -> None:
    of_all = [
        "tests/contract/test_events.py::test_every_version_of_every_event_has_its_golden_file",
        f"tests/contract/test_events.py::test_views_digest_every_event_that_they_take[{NAME}s]",
        "tests/contract/test_documents.py",
        "tests/architecture/test_services.py",
        "tests/architecture/test_manifests.py::test_nothing_is_missing",
        "tests/architecture/test_manifests.py::test_compose_runs_the_same_roles_and_tells_them_the_same",
    ]
    said = copy.run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "not parser",
        "-p",
        "no:cacheprovider",
        f"services/{NAME}",
        *of_all,
    )
    assert " passed" in said
    assert "skipped" not in said


@pytest.mark.parametrize("name", [NAME, "class", "email", "chassis", "tests", "two-words", "Upper", ""])
def test_a_name_that_cannot_be_is_refused(copy: Copy, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "tools/new-service", name],
        cwd=copy.root,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 2
    assert "new-service" in done.stderr


def test_the_recipes_show_code_that_is_in_the_skeleton(copy: Copy) -> None:
    """Each line of Python in CONTRIBUTING stands in a file of the skeleton."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    shown = {
        line.strip()
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    }
    files = [*copy.root.glob(f"services/{NAME}/**/*.py")]
    there = {line.strip() for path in files for line in path.read_text().splitlines()}
    assert len(shown) > 20
    assert shown - there - {""} == set()


def test_a_table_of_its_own_is_added_as_the_recipe_says(copy: Copy) -> None:
    """The fixture of the skeleton's tests makes its tables, and its role may write to them."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().split("## Add a table")[1].split("\n## ")[0]
    [block] = re.findall(r"```\n(.*?)```", recipe, re.DOTALL)
    connections = copy.root / f"services/{NAME}/src/{NAME}/connections.py"
    imported = "from chassis.write.store import EventStore, tables"
    connections.write_text(
        re.sub(r"TABLES: Final.*\n", lambda _: textwrap.dedent(block), connections.read_text()).replace(
            imported, f"{imported}, writer_role"
        )
    )
    test = copy.root / f"services/{NAME}/tests/test_table.py"
    test.write_text(TABLE_TEST)
    said = copy.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    assert "1 passed" in said


@pytest.fixture(scope="module")
def followed(copy: Copy) -> Copy:
    """The copy in which every recipe was followed, each in what the ones before left."""
    for recipe in RECIPES:
        recipe.follow(copy.root, NAME)
    package = f"services/{NAME}"
    copy.run("ruff", "check", "--select", "I", "--fix", package)
    copy.run("ruff", "format", package, "libs/contracts")
    copy.run(sys.executable, "-m", "tools.generate")
    return copy


def test_what_is_followed_are_the_recipes_of_the_page() -> None:
    """Those for the inside of a service: from the first one to that of timers."""
    page = re.findall(r"^## (.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    inside = page[page.index("Add a command") : page.index("Add a timer") + 1]
    assert {one.heading for one in RECIPES} == set(inside)


def test_the_recipes_change_the_folder_of_the_service_its_events_and_generated_files(
    followed: Copy, before: dict[str, bytes]
) -> None:
    assert changed_outside(followed, before) == {TOPICS}


def test_what_the_recipes_made_passes_its_tests(followed: Copy) -> None:
    """Each recipe has some of its own."""
    said = followed.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"services/{NAME}")
    assert " passed" in said
    assert "skipped" not in said


def test_what_the_recipes_made_keeps_style_types_and_documents(followed: Copy) -> None:
    """After all of them."""
    followed.run("ruff", "check", "services", "libs", "tools")
    assert "0 broken" in followed.run("lint-imports", "--no-cache")
    followed.run("mypy", "--cache-dir", os.devnull, "-p", NAME)
    of_all = [
        "tests/contract/test_events.py::test_every_version_of_every_event_has_its_golden_file",
        "tests/contract/test_documents.py",
        "tests/architecture/test_services.py",
        "tests/architecture/test_manifests.py::test_nothing_is_missing",
    ]
    followed.run(sys.executable, "-m", "pytest", "-q", "-k", "not parser", "-p", "no:cacheprovider", *of_all)
