"""The servers start from nothing, keep their data over kills and restarts, and leave nothing behind."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from devservers import DataFolderUnusable, ServerFailed, servers
from pymongo import MongoClient


def put(url: str, value: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("create table if not exists kept (word text)")
        connection.execute("insert into kept values (%s)", [value])


def kept(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("select word from kept order by word")]


def quiet(_: str) -> None:
    """Takes what the servers say."""


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_URL", "MONGO_URL", "KAFKA_URL", "SERVERS"):
        monkeypatch.delenv(name, raising=False)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_three_answer_and_nothing_is_left(tmp_path: Path) -> None:
    with servers(tmp_path, {"postgres", "mongo", "kafka"}, quiet, durable=False) as running:
        pids = dict(running.pids)
        assert set(pids) == {"postgres", "mongo", "kafka"}
        assert running.poll() == []
        put(running.urls["POSTGRES_URL"], "a")
        host, port = running.urls["KAFKA_URL"].split(":")
        socket.create_connection((host, int(port)), 1).close()
        with MongoClient(running.urls["MONGO_URL"]) as client, client.start_session() as session:
            client.test.create_collection("kept")
            with session.start_transaction():
                client.test.kept.insert_one({"_id": 1}, session=session)
    assert all(gone(pid) for pid in pids.values())


@pytest.mark.parametrize("name", ["postgres", "mongo", "kafka"])
def test_a_killed_one_is_seen_and_comes_back_at_the_same_place(tmp_path: Path, name: str) -> None:
    with servers(tmp_path, {name}, quiet, durable=False) as running:
        before = dict(running.urls)
        if name == "postgres":
            put(before["POSTGRES_URL"], "a")
        os.kill(running.pids[name], signal.SIGKILL)
        wait_for(lambda: running.poll() == [name])
        running.restart(name)
        assert running.poll() == []
        assert dict(running.urls) == before
        if name == "postgres":
            assert kept(before["POSTGRES_URL"]) == ["a"]


RUN = """
import sys, time
from pathlib import Path
from devservers import servers
with servers(Path(sys.argv[1]), {sys.argv[2]}, lambda _: None, durable=False) as running:
    print(running.pids[sys.argv[2]], dict(running.urls), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def another_run() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(data: Path, name: str) -> subprocess.Popen[str]:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(data), name], stdout=subprocess.PIPE, text=True
        )
        started.append(run)
        return run

    yield start
    for run in started:
        run.kill()
        run.wait()
        assert run.stdout is not None
        run.stdout.close()


def test_two_runs_do_not_share_a_folder(
    tmp_path: Path, another_run: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    run = another_run(tmp_path, "mongo")
    assert run.stdout is not None
    assert run.stdout.readline()
    with pytest.raises(DataFolderUnusable, match="another run"), servers(tmp_path, {"mongo"}, quiet):
        pass
    run.terminate()


@pytest.mark.parametrize("name", ["postgres", "mongo"])
def test_a_killed_run_takes_its_servers_along(
    tmp_path: Path, another_run: Callable[[Path, str], subprocess.Popen[str]], name: str
) -> None:
    run = another_run(tmp_path, name)
    assert run.stdout is not None
    pid = int(run.stdout.readline().split()[0])
    run.kill()
    wait_for(lambda: gone(pid))


def test_one_left_over_is_stopped_and_its_data_used(tmp_path: Path) -> None:
    with servers(tmp_path, {"postgres"}, quiet, durable=False) as running:
        url, pid = running.urls["POSTGRES_URL"], running.pids["postgres"]
        put(url, "a")
        note = json.loads((tmp_path / "servers" / "postgres" / "process.json").read_text())
    # as if the first run had been killed where the system does not tell its children
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    stat = Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()
    began = f"{note['began'].partition('/')[0]}/{stat[19]}"
    (tmp_path / "servers" / "postgres" / "process.json").write_text(
        json.dumps({"pid": left.pid, "began": began})
    )
    said: list[str] = []
    with servers(tmp_path, {"postgres"}, said.append, durable=False) as running:
        assert left.wait(5) == -signal.SIGINT
        assert running.pids["postgres"] != pid
        assert kept(running.urls["POSTGRES_URL"]) == ["a"]
    assert any("left over" in line for line in said)


def test_a_stranger_with_the_same_process_id_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "servers" / "mongo"
    folder.mkdir(parents=True)
    (folder / "process.json").write_text(json.dumps({"pid": os.getpid(), "began": "another boot/1"}))
    with servers(tmp_path, {"mongo"}, quiet, durable=False) as running:
        assert running.pids["mongo"] != os.getpid()


@pytest.mark.parametrize("name", ["mongo", "kafka"])
def test_a_taken_port_is_given_up_for_another(tmp_path: Path, name: str) -> None:
    with servers(tmp_path, {name}, quiet, durable=False) as running:
        url = running.urls["MONGO_URL" if name == "mongo" else "KAFKA_URL"]
    ports = json.loads((tmp_path / "servers" / name / "ports.json").read_text())
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", ports[0]))
        with servers(tmp_path, {name}, quiet, durable=False) as running:
            assert running.urls["MONGO_URL" if name == "mongo" else "KAFKA_URL"] != url


def test_a_given_server_is_used_and_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://elsewhere/crm")
    with servers(tmp_path, {"postgres"}, quiet) as running:
        assert dict(running.urls) == {"POSTGRES_URL": "postgresql://elsewhere/crm"}
        assert dict(running.pids) == {}
    assert not (tmp_path / "servers").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataFolderUnusable, match="cannot be written"),
        servers(tmp_path / "file", {"mongo"}, quiet),
    ):
        pass


def test_one_that_cannot_start_says_how_its_log_ends(tmp_path: Path) -> None:
    data = tmp_path / "servers" / "mongo" / "data"
    data.mkdir(parents=True)
    (data / "storage.bson").write_bytes(b"not a database")
    with pytest.raises(ServerFailed, match=r"MongoDB ended with \d+"), servers(tmp_path, {"mongo"}, quiet):
        pass


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "servers" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(ServerFailed, match="is of PostgreSQL 16"), servers(tmp_path, {"postgres"}, quiet):
        pass


def test_permissions_of_folders_above_the_data_stay_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with servers(home / "data", {"postgres"}, quiet, durable=False) as running:
        put(running.urls["POSTGRES_URL"], "a")
        assert home.stat().st_mode & 0o777 == 0o700


def test_a_long_path_of_the_data_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("path" * 20)
    with servers(deep, {"postgres"}, quiet, durable=False) as running:
        put(running.urls["POSTGRES_URL"], "a")


@pytest.mark.parametrize("name", ["数据" * 20, "o'k \"b\\a%20c#$d"])
def test_a_path_in_another_script_or_with_signs_is_no_obstacle_and_all_data_is_in_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    for value in ("a", "b"):
        with servers(tmp_path / name, {"postgres", "kafka"}, quiet, durable=False) as running:
            put(running.urls["POSTGRES_URL"], value)
    with servers(tmp_path / name, {"postgres"}, quiet, durable=False) as running:
        assert kept(running.urls["POSTGRES_URL"]) == ["a", "b"]
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name / "servers" / "kafka" / "data" / "meta.properties").exists()


@pytest.mark.parametrize("name", ["a,b", "a\nb", "a\udcffb"])
def test_a_path_that_the_servers_cannot_take_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFolderUnusable, match="a comma, or"), servers(tmp_path / name, {"mongo"}, quiet):
        pass
    assert os.listdir(tmp_path) == []


def test_what_the_environment_tells_the_clients_of_another_postgres_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6432")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with servers(tmp_path, {"postgres"}, quiet, durable=False) as running:
        put(running.urls["POSTGRES_URL"], "数据")
        assert kept(running.urls["POSTGRES_URL"]) == ["数据"]


def test_containers_without_an_engine_are_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERS", "docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # the client forgets to close a socket that did not connect
        with pytest.raises(ServerFailed, match="no Docker engine"), servers(tmp_path, {"mongo"}, quiet):
            pass
        gc.collect()
