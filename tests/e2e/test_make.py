"""What `make` says, and how the set-up ends where it cannot do its work."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("cat", "cksum", "mkdir", "rm", "dirname", "grep", "tail", "flock", "sh", "env")


@pytest.mark.requirement("D11")
def test_bare_make_lists_every_target_and_runs_none() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    assert {"run", "test", "bench", "lint"} <= set(targets)
    assert re.findall(r"^  make ([a-z-]+) +\S", said, flags=re.M) == targets


@pytest.mark.requirement("D11")
def test_ci_calls_the_test_command_with_servers_required() -> None:
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert last == "CRM_REQUIRE_SERVERS=1 make test"


def test_what_sets_up_is_pinned_as_in_the_other_lists() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements" / name).read_text(), flags=re.M))

    assert pins("setup.txt") <= pins("dev.txt")
    assert pins("run.txt") <= pins("dev.txt")
    assert any(pin.startswith("uv==") for pin in pins("setup.txt"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the repository as the set-up looks at before it installs."""
    for name in ("tools", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for project in ROOT.glob("*/*/pyproject.toml"):
        (tmp_path / project.parent.relative_to(ROOT)).mkdir(parents=True)
        shutil.copy(project, tmp_path / project.relative_to(ROOT))
    (tmp_path / "cli").mkdir()
    shutil.copy(ROOT / "cli" / "pyproject.toml", tmp_path / "cli")
    return tmp_path


def set_up(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "tools/setup", "run"],
        cwd=checkout,
        env={"HOME": str(checkout), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_a_recent_python_it_says_so(checkout: Path) -> None:
    tools = checkout / "bin"
    tools.mkdir()
    for name in NEEDED:
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = set_up(checkout, PATH=str(tools))
    assert done.returncode == 1
    assert "no Python 3.11 or later found" in done.stderr


@pytest.mark.requirement("D11")
def test_without_a_way_to_the_packages_it_says_so_and_tries_again_next_time(checkout: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    done = set_up(
        checkout, PATH=os.environ["PATH"], PIP_INDEX_URL=nowhere, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull
    )
    assert done.returncode == 1
    assert "is there a way to the package index?" in done.stderr
    assert not list((checkout / ".venv").glob("made-from-*"))
