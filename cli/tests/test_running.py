"""Where the commands look for servers, what `crm up` reads from its environment, and when it gives up."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import pytest
import typer
from chassis.connections.settings import Settings
from crm_cli import run_file
from crm_cli.run_file import Process, Run
from crm_cli.running import running, settings_of
from crm_cli.up import (
    BACK_OFF_SECONDS_MAX,
    SERVER_FAILURES_MAX,
    Choices,
    Console,
    Part,
    Supervisor,
    UpFailed,
    choices_of,
    not_ready,
    pause,
)
from devservers import ServerFailed
from typing_extensions import override

HERE = Run(
    supervisor=Process.of(os.getpid()),
    web="http://127.0.0.1:8080",
    environment="development",
    urls={
        "POSTGRES_URL": "postgresql://here/",
        "MONGO_URL": "mongodb://here",
        "KAFKA_URL": "here:1",
        "CRM_KEYS_URL": "",
    },
    parts={"web": Process(1, None, "http://127.0.0.1:8080")},
    servers={"kafka": 2},
)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CRM_") or name.endswith("_URL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRM_DATA", str(tmp_path))


def test_the_run_file_comes_back_as_it_was_and_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        run_file.write(tmp_path, HERE)
    finally:
        os.umask(old)
    assert run_file.read(tmp_path) == HERE
    assert run_file.path_of(tmp_path).stat().st_mode & 0o777 == 0o600
    run_file.remove(tmp_path)
    assert run_file.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "supervisor": 7}'])
def test_an_unreadable_run_file_counts_as_none(tmp_path: Path, content: str) -> None:
    run_file.path_of(tmp_path).write_text(content)
    assert run_file.read(tmp_path) is None


def test_a_later_process_with_the_same_number_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    run_file.write(tmp_path, HERE)
    assert running() == HERE
    stale = Run(Process(os.getpid(), "another boot/1"), HERE.web, HERE.environment, HERE.urls)
    run_file.write(tmp_path, stale)
    assert running() is None


def test_settings_come_from_the_run_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file.write(tmp_path, HERE)
    monkeypatch.setenv("KAFKA_URL", "elsewhere:2")
    settings = settings_of(Settings)
    assert settings.postgres_url == "postgresql://here/"
    assert settings.kafka_url == "elsewhere:2"
    assert settings.environment == "development"
    assert settings.data == tmp_path
    monkeypatch.setenv("CRM_ENVIRONMENT", "production")
    assert settings_of(Settings).environment == "production"


def test_without_a_run_the_environment_must_say_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left:
        settings_of(Settings)
    assert left.value.exit_code == 2
    assert "make run" in capsys.readouterr().err
    monkeypatch.setenv("POSTGRES_URL", "postgresql://elsewhere/")
    assert settings_of(Settings).postgres_url == "postgresql://elsewhere/"
    assert settings_of(Settings).environment == "production"


def test_an_invalid_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://elsewhere/")
    monkeypatch.setenv("CRM_MONGO_DRIVER", "carrier-pigeon")
    with pytest.raises(typer.Exit):
        settings_of(Settings)
    assert "CRM_MONGO_DRIVER" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["customer", "sync_ingest"])
@pytest.mark.parametrize(
    ("variable", "value", "more"),
    [
        ("POSTGRES_URL", "garbage", {}),
        ("CRM_PORT", "x", {}),
        ("KAFKA_SECURITY_PROTOCOL", "carrier-pigeon", {}),
        ("KAFKA_SASL_USERNAME", "", {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}),
    ],
)
def test_a_role_names_an_invalid_setting_in_one_line(
    package: str, variable: str, value: str, more: dict[str, str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", package, "api"],
        env=os.environ | {variable: value} | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(variable), line
    assert not value or value not in line


def test_choices_are_read_from_the_environment(tmp_path: Path) -> None:
    assert choices_of({}) == Choices(tmp_path, "127.0.0.1", 8080, demo=True, environment="development")
    asked = choices_of({"CRM_PORT": "9000", "CRM_DEMO": "0", "CRM_ENVIRONMENT": "production"})
    assert (asked.port, asked.demo, asked.environment) == (9000, False, "production")
    assert choices_of({"CRM_PORT": "0"}).port > 0


@pytest.mark.parametrize("port", ["x", "-1", "65536", "80.5"])
def test_an_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(UpFailed, match="CRM_PORT"):
        choices_of({"CRM_PORT": port})


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [pause(failures) for failures in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == BACK_OFF_SECONDS_MAX


class Unready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"code": "not-ready", "reasons": ["MongoDB does not answer"]}'
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_process_that_is_not_ready_gives_its_reasons() -> None:
    with HTTPServer(("127.0.0.1", 0), Unready) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        answering = Thread(target=server.handle_request)
        answering.start()
        assert not_ready(url) == ["MongoDB does not answer"]
        answering.join()
    assert "no answer yet" in not_ready(url)[0]


class Doomed:
    """Servers of which one dies and does not start again, as one whose disk is full."""

    urls: Mapping[str, str] = {}
    pids: Mapping[str, int] = {}

    def poll(self) -> list[str]:
        return ["postgres"]

    def restart(self, name: str) -> None:
        raise ServerFailed(f"{name}: no space left on device")

    def stop(self) -> None:
        """Nothing to stop."""


class Healthy(Doomed):
    """None of which dies."""

    @override
    def poll(self) -> list[str]:
        return []


def supervisor(data: Path, said: list[str]) -> Supervisor:
    choices = Choices(data, "127.0.0.1", 8080, demo=False, environment="development")
    return Supervisor(choices, said.append, back_off_seconds_first=0.01)


def ticking(run: Supervisor, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run._tick()
        time.sleep(0.01)


def test_a_part_that_never_starts_ends_the_run_with_the_end_of_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    run = supervisor(tmp_path, said)
    dying = [sys.executable, "-c", "print('the dog ate it'); raise SystemExit(3)"]
    run.parts["views"] = Part("views", dying, os.environ, tmp_path / "views.log", "http://127.0.0.1:1")
    run.running = Healthy()
    run.parts["views"].start()
    with pytest.raises(UpFailed, match=r"(?s)views does not start.*the dog ate it"):
        ticking(run)
    assert "views ended with 3; it is started again" in said


def test_a_server_that_does_not_come_back_ends_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    run = supervisor(tmp_path, said)
    run.running = Doomed()
    with pytest.raises(UpFailed, match="postgres cannot be kept up: postgres: no space left"):
        ticking(run)
    assert said.count("postgres: no space left on device") == 4


def test_a_server_waits_for_room_on_a_full_disk_and_does_not_end_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    run = supervisor(tmp_path, said)
    run.running, run.disk_bytes_least = Doomed(), 1 << 62
    waits = "the disk is full; postgres waits until there is room"
    while said.count(waits) <= SERVER_FAILURES_MAX:
        ticking(run, 0.02)
    assert set(said) == {"postgres died; it is started again", waits}
    run.disk_bytes_least = 0
    with pytest.raises(UpFailed, match="postgres cannot be kept up"):
        ticking(run)


class Returning(Healthy):
    """Of which MongoDB dies once and comes back, while PostgreSQL is down."""

    urls: Mapping[str, str] = MappingProxyType(
        {"POSTGRES_URL": "postgresql://postgres@/postgres?host=/nowhere"}
    )

    def __init__(self) -> None:
        self.dead = ["mongo"]

    @override
    def poll(self) -> list[str]:
        return self.dead

    @override
    def restart(self, name: str) -> None:
        self.dead = []


def test_a_server_that_comes_back_while_postgresql_is_down_does_not_end_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    run = supervisor(tmp_path, said)
    run.running = Returning()
    run.logins = {Returning.urls["POSTGRES_URL"]: {"POSTGRES_URL": "postgresql://crm_service@/postgres"}}
    run._tick()
    assert said == ["mongo died; it is started again", "mongo is up again"]
    assert run.urls["POSTGRES_URL"] == "postgresql://crm_service@/postgres"


def test_a_run_file_that_a_full_disk_refused_is_written_once_there_is_room(tmp_path: Path) -> None:
    run = supervisor(tmp_path, [])
    run.running, run.noted, run.disk_bytes_least = Healthy(), False, 1 << 62
    blocked = run_file.path_of(tmp_path).with_suffix(".part")
    blocked.mkdir()
    ticking(run, 0.05)
    assert run_file.read(tmp_path) is None
    blocked.rmdir()
    ticking(run, 0.05)
    assert run_file.read(tmp_path) is not None


def test_a_line_for_a_full_disk_does_not_end_the_run() -> None:
    file = Path("/dev/full").open("w")  # noqa: SIM115 (closing it fails, too)
    with redirect_stdout(file):
        Console()("kafka died")
    with pytest.raises(OSError, match="No space left"):
        file.close()
