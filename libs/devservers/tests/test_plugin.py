"""The plugin says what a run could not have, also where several processes share it, and how many processes there are."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from devservers import VARIABLES
from devservers.plugin import PROCESSES_MAX, REQUIRED, pytest_xdist_auto_num_workers


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES.values(), REQUIRED):
        monkeypatch.delenv(name, raising=False)


NO_SERVERS = {"SERVERS": "docker", "DOCKER_HOST": "tcp://127.0.0.1:1"}


def pytest_in(folder: Path, *arguments: str, environment: Mapping[str, str] = NO_SERVERS) -> str:
    """What a run of the tests in a folder prints, by default where no server can be had."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "devservers.plugin", *arguments],
        cwd=folder,
        env=os.environ
        | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_DEBUG_TEMPROOT": str(folder),  # pytest removes the folders of earlier runs
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("shared", [[], ["-p", "xdist", "-n", "2"]], ids=["one", "two"])
def test_a_server_that_cannot_be_had_is_named_at_the_end(tmp_path: Path, shared: list[str]) -> None:
    (tmp_path / "test_some.py").write_text("def test_one(postgres_url): pass\n")
    said = pytest_in(tmp_path, *shared)
    assert "1 skipped" in said
    assert "tests without postgres" in said


def test_a_database_of_a_module_is_gone_before_the_next_and_one_of_the_run_stays(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import psycopg, pytest\n"
        "def run(url, statement):\n"
        "    with psycopg.connect(url, autocommit=True) as connection:\n"
        "        return connection.execute(statement)\n"
        "@pytest.fixture(scope='session')\n"
        "def postgres_url(postgres_url):\n"
        "    run(postgres_url, 'create database of_the_run')\n"
        "    return postgres_url\n"
        "@pytest.fixture\n"
        "def execute(postgres_url):\n"
        "    return lambda statement: run(postgres_url, statement)\n"
    )
    (tmp_path / "test_a.py").write_text(
        "def test_one(): pass\ndef test_two(execute): execute('create database of_a')\n"
    )
    (tmp_path / "test_b.py").write_text(
        "def test_three(execute):\n"
        "    names = {name for name, in execute('select datname from pg_database')}\n"
        "    assert ('of_a' in names, 'of_the_run' in names) == (False, True)\n"
    )
    assert "3 passed" in pytest_in(tmp_path, environment={})


def test_files_without_servers_come_first_and_each_file_stays_together(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_one(): pass\ndef test_two(mongo_url): pass\n")
    (tmp_path / "test_b.py").write_text("def test_three(): pass\n")
    said = pytest_in(tmp_path, "--collect-only", "-q").splitlines()
    assert said[:3] == ["test_b.py::test_three", "test_a.py::test_one", "test_a.py::test_two"]


def test_a_run_has_as_many_processes_as_cores_and_a_single_one_where_a_server_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = os.cpu_count() or 1
    assert pytest_xdist_auto_num_workers() == min(cores, PROCESSES_MAX)
    for name in VARIABLES.values():
        with monkeypatch.context() as given:
            given.setenv(name, "a server of somebody else")
            assert pytest_xdist_auto_num_workers() == 0
