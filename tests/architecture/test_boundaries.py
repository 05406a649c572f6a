"""The packages keep their boundaries, and every boundary has been seen to break."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chassis.service import services

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("*/*/src/*/__init__.py")) + sorted(ROOT.glob("cli/src/*/__init__.py"))
PACKAGE_PARENTS = tuple(source.parents[2].relative_to(ROOT) for source in SOURCES)

# contract -> files with which it is broken
BROKEN: dict[str, dict[str, str]] = {
    "layers": {"chassis/x.py": "import customer"},
    "services": {"customer/x.py": "import sync_ingest"},
    "devservers": {"devservers/x.py": "import chassis"},
    "production": {"chassis/x.py": "import devservers"},
    "contracts": {"contracts/x.py": "import psycopg"},
    "domain": {"sync_ingest/domain/x.py": "import psycopg"},
    "inward": {"sync_ingest/domain/x.py": "import sync_ingest.adapters.port"},
    "siblings": {"chassis/xx.py": "import chassis.yy", "chassis/yy.py": "import chassis.xx"},
}


def contracts_of(configuration: Path) -> dict[str, str]:
    """Identifier and name of each contract."""
    parser = configparser.ConfigParser()
    parser.read(configuration, encoding="utf-8")
    prefix = "importlinter:contract:"
    return {s.removeprefix(prefix): parser[s]["name"] for s in parser.sections() if s.startswith(prefix)}


def lint(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Runs the linter over the packages in `folder`, not over the installed ones."""
    chosen = [word for contract in contracts for word in ("--contract", contract)]
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--config",
            ROOT / ".importlinter",
            "--no-cache",
            *chosen,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy_of_the_packages(tmp_path: Path) -> Path:
    """All our packages side by side in a folder that may be broken."""
    for parent in PACKAGE_PARENTS:
        for package in (ROOT / parent / "src").iterdir():
            if (package / "__init__.py").exists():
                shutil.copytree(
                    package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__")
                )
    return tmp_path


@pytest.mark.requirement("D01")
def test_the_packages_keep_their_boundaries(copy_of_the_packages: Path) -> None:
    result = lint(copy_of_the_packages)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_boundary_is_broken_once_here() -> None:
    assert set(BROKEN) == set(contracts_of(ROOT / ".importlinter"))


@pytest.mark.parametrize("contract", BROKEN)
def test_a_broken_boundary_is_seen(contract: str, copy_of_the_packages: Path) -> None:
    for path, text in BROKEN[contract].items():
        (copy_of_the_packages / path).write_text(f'"""Planted."""\n\n{text}\n')
    result = lint(copy_of_the_packages, contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contracts_of(ROOT / '.importlinter')[contract]} BROKEN" in " ".join(result.stdout.split())


def test_every_package_of_the_tree_is_within_the_boundaries():
    """A service that the linter has not heard of would be free to import what it likes."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    packages = {source.parent.name for source in SOURCES}
    of_services = {source.parent.name for source in SOURCES if source.parents[3].name == "services"}
    assert set(parser["importlinter"]["root_packages"].split()) == packages
    assert set(parser["importlinter:contract:services"]["modules"].split()) == of_services


def test_no_package_ships_what_only_tests_use():
    """What is kept in memory for tests, and their tools, are in `tests/support`, not in a wheel."""
    shipped = {path.relative_to(ROOT) for source in SOURCES for path in source.parent.rglob("*.py")}
    assert len(shipped) > len(SOURCES)
    of_tests = {path for path in shipped if path.stem in {"memory", "testing", "conftest"}}
    assert not of_tests | {path for path in shipped if path.stem.startswith("test_")}


def test_every_service_of_the_tree_is_declared():
    """What is not declared is neither started nor verified."""
    of_services = {source.parents[2].name for source in SOURCES if source.parents[3].name == "services"}
    assert {service.name for service in services()} == of_services
