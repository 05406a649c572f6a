"""`crm up` as its user meets it: it comes up, heals itself, says what is wrong, ends cleanly, and keeps the data."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from crm_cli import run_file
from devservers import process_began

READY_SECONDS_MAX = 120.0
HEALED_SECONDS_MAX = 60.0
STOPPED_SECONDS_MAX = 60.0
CRM = (sys.executable, "-m", "crm_cli.main")
BANK = ("demo", "--customers", "120", "--days", "150")


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data: Path, **more: str) -> dict[str, str]:
    dropped = ("POSTGRES_URL", "MONGO_URL", "KAFKA_URL", "SERVERS", "CRM_ENVIRONMENT")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "CRM_DATA": str(data), "CRM_DEMO": "0", **more}


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


class Up:
    """A `crm up` in a process of its own, on a port and a data folder; `more` is added to its environment."""

    def __init__(self, data: Path, **more: str) -> None:
        self.data = data
        self.more = more
        self.port = port()
        self.output = data.parent / f"{data.name}.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.earlier: set[int] = set()
        """The parts of the run before, which may still answer while they end."""

    def start(self) -> None:
        before = run_file.read(self.data)
        self.earlier = set() if before is None else {part.pid for part in before.parts.values()}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*CRM, "up"],
                env=environment(self.data, CRM_PORT=str(self.port), **self.more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.wait_ready(READY_SECONDS_MAX)

    def run(self) -> run_file.Run:
        found = run_file.read(self.data)
        assert found is not None, self.said()
        return found

    def wait_ready(self, seconds: float) -> None:
        """All parts say that they are ready."""

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            found = run_file.read(self.data)
            return bool(
                found
                and found.parts
                and self.earlier.isdisjoint(part.pid for part in found.parts.values())
                and all(status(f"{part.url}/health/ready") == 200 for part in found.parts.values())
            )

        wait_for(ready, seconds, self.said)

    def crm(self, *arguments: str) -> Any:
        done = subprocess.run(
            [*CRM, *arguments],
            env=environment(self.data, **self.more),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.said()
        return json.loads(done.stdout)

    def ingesting(self, source: str) -> subprocess.Popen[str]:
        """The bank's feed coming in under another source's name, in the background."""
        return subprocess.Popen(
            [*CRM, "ingest", str(self.feed), "--source", source, "--json"],
            env=environment(self.data),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def feed(self) -> Path:
        return self.data.parent / "bank.jsonl"

    def figures(self, source: str) -> dict[str, int]:
        """The sums of a customer that every source of this module has."""
        found = self.crm("panorama", "--reference", f"{source}:P000001", "--json")
        names = ("aum", "liabilities", "net_worth")
        return {
            f"{each['currency']} {name}": each[name]["amount_minor"]
            for each in found["currencies"]
            for name in names
        }

    def settled(self) -> bool:
        found = self.crm("status", "--json")
        return bool(found["lag"] == 0 and found["outbox"] == 0)

    def processes(self) -> dict[str, int]:
        run = self.run()
        return {**run.servers, **{name: part.pid for name, part in run.parts.items()}}

    def said(self) -> str:
        logs = sorted((self.data / "logs").glob("*.log"))
        ends = [f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-5:]) for log in logs]
        return self.output.read_text() + "\n".join(ends)

    def interrupt(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOPPED_SECONDS_MAX)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(STOPPED_SECONDS_MAX)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def gone(pid: int) -> bool:
    return process_began(pid) is None


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, servers_can_be_had: None) -> Iterator[Up]:
    """One run for the tests of this module, with a small demo bank in it.

    Its environment names a proxy and the port of another PostgreSQL, and its folder is in Chinese, as on many machines of
    banks.
    """
    strange = {"http_proxy": f"http://127.0.0.1:{port()}", "PGPORT": "6432"}
    running = Up(tmp_path_factory.mktemp("up") / "数据", **strange)
    try:
        running.start()
        subprocess.run([*CRM, *BANK, "--write", str(running.feed)], check=True, timeout=60)
        taken_in = running.crm("ingest", str(running.feed), "--source", "first", "--json")
        assert taken_in["certificate"] == "GREEN"
        wait_for(running.settled, HEALED_SECONDS_MAX, running.said)
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def servers_can_be_had(postgres_url: str, mongo_url: str, kafka_url: str) -> None:
    """Skips, loudly, where `crm up` could not start its servers either."""


def test_it_answers_and_the_run_file_is_its_owners_alone(up: Up) -> None:
    web = f"http://127.0.0.1:{up.port}"
    assert status(f"{web}/health/live") == 200
    assert status(f"{web}/health/ready") == 200
    assert status(f"{web}/docs") == 200
    assert status(f"{web}/customers") == 401
    assert up.run().web == web
    assert run_file.path_of(up.data).stat().st_mode & 0o777 == 0o600
    for part in up.run().parts.values():
        assert status(f"{part.url}/metrics") == 200


def test_no_proxy_of_the_environment_is_asked_for_its_own_processes(up: Up) -> None:
    wait_for(lambda: f"ready on http://127.0.0.1:{up.port}" in up.said(), READY_SECONDS_MAX, up.said)

    def shown() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{up.port}/metrics", timeout=5) as page:
            return b"crm_lag_events{" in page.read()

    wait_for(shown, READY_SECONDS_MAX, up.said)


def test_the_page_for_front_ends_runs_as_it_stands(up: Up) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bff.md").read_text(encoding="utf-8")
    token = subprocess.run(
        [*CRM, "token", "--role", "teller"],
        env=environment(up.data),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    asked = {"CRM_URL": up.run().web, "CRM_TOKEN": token.stdout.strip()}
    example = page.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", example],
        env=environment(up.data, **asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["304", "goes on"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["operator", "analyst"])
def test_the_commands_of_a_page_run_as_they_stand(up: Up, name: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    program = Path(sys.executable).parent
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment(up.data, PATH=f"{program}{os.pathsep}{os.environ['PATH']}"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (block, done.stderr)
    for question in re.findall(r"```sql\n(.*?)```", page, re.DOTALL):
        rows = duckdb.sql(question.replace("'postings", f"'{tmp_path}/postings")).fetchall()
        postings = (tmp_path / "postings.jsonl").read_text(encoding="utf-8").splitlines()
        assert sum(row[2] for row in rows) == len(postings)
        assert sum(row[3] for row in rows) == sum(json.loads(each)["amount_minor"] for each in postings)


@pytest.mark.requirement("D02")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["web", "views", "workers", "kafka", "mongo", "postgres"])
def test_what_is_killed_under_load_comes_back_by_itself_and_nothing_is_lost(up: Up, name: str) -> None:
    pid, source = up.processes()[name], f"under-{name}"
    with up.ingesting(source) as ingesting:
        assert ingesting.stderr is not None
        assert ingesting.stderr.readline()
        os.kill(pid, signal.SIGKILL)
        said, problems = ingesting.communicate(timeout=120)
    assert ingesting.returncode == 0, problems + up.said()
    assert json.loads(said)["certificate"] == "GREEN"
    wait_for(lambda: up.processes()[name] != pid, HEALED_SECONDS_MAX, up.said)
    up.wait_ready(HEALED_SECONDS_MAX)
    wait_for(up.settled, HEALED_SECONDS_MAX, up.said)
    assert up.figures(source) == up.figures("first")


def failing(data: Path, **more: str) -> str:
    done = subprocess.run(
        [*CRM, "up"], env=environment(data, **more), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_named(up: Up, tmp_path: Path) -> None:
    assert f"port {up.port} of 127.0.0.1 is taken" in failing(tmp_path / "other", CRM_PORT=str(up.port))
    assert not list((tmp_path / "other").glob("servers/*"))


def test_a_second_run_on_the_same_data_is_refused(up: Up) -> None:
    assert "another run uses the data" in failing(up.data, CRM_PORT=str(port()))
    assert up.run().supervisor.runs


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"the folder {tmp_path}/file/data cannot be written" in failing(
        tmp_path / "file" / "data", CRM_PORT=str(port())
    )


def test_a_port_that_is_none_is_named(tmp_path: Path) -> None:
    assert "CRM_PORT=70000" in failing(tmp_path, CRM_PORT="70000")


def test_a_given_server_that_does_not_answer_is_named(tmp_path: Path, postgres_url: str) -> None:
    nowhere = f"127.0.0.1:{port()}"
    said = failing(
        tmp_path,
        CRM_PORT=str(port()),
        POSTGRES_URL=f"postgresql://nobody@{nowhere}/crm",
        MONGO_URL=f"mongodb://{nowhere}",
        KAFKA_URL=nowhere,
    )
    assert "the stores cannot be prepared" in said


def test_a_command_without_a_run_says_what_to_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CRM, "certificate", "--source", "demo"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "make run" in done.stderr


@pytest.mark.timeout(200)
def test_killed_it_takes_its_children_along_and_the_next_run_goes_on(up: Up) -> None:
    before, children = up.figures("first"), up.processes()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    up.start()
    assert all(gone(pid) for pid in children.values())
    assert up.figures("first") == before


@pytest.mark.timeout(200)
def test_interrupted_it_leaves_no_process_and_the_data_stays(up: Up) -> None:
    before, children = up.figures("first"), up.processes()
    assert len(children) == 6
    assert up.interrupt() == 0
    assert all(gone(pid) for pid in children.values())
    assert not run_file.path_of(up.data).exists()
    up.start()
    assert up.crm("certificate", "--source", "first", "--json")["status"] == "GREEN"
    assert up.figures("first") == before
    assert up.interrupt() == 0
