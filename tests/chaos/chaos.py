"""`make chaos`: everything is killed under load, one after another and two at once, and heals without a hand.

Minutes long, so it is no part of `make test`; CRM_CHAOS_SEED and CRM_CHAOS_ROUNDS choose another order and number of
kills. While servers and roles die, feeds come in and customers are registered over HTTP. At the end `crm verify` must
be green, every acknowledged command be there once, and every feed have come to the same figures.
"""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from threading import Event, Thread
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import TokenSettings
from chassis.privacy.tokens import development_token
from typing_extensions import override

from tests.e2e.test_up import BANK, CRM, HEALED_SECONDS_MAX, Up, wait_for

SEED = int(os.environ.get("CRM_CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CRM_CHAOS_ROUNDS", "12"))
EVERYTHING = ("web", "views", "workers", "kafka", "mongo", "postgres")
TWO_AT_ONCE = 0.4
INGEST_SECONDS_MAX = 240.0
TRY_AGAIN_SECONDS = 0.3
ENTERED: dict[str, Any] = {
    "phone": "13800001234",
    "stated_assets": [{"product": "fund", "amount": "100.00", "currency": "CNY"}],
}


class Clients(Thread):
    """Register customers one after another, each until it is acknowledged, whatever dies meanwhile."""

    def __init__(self, up: Up, token: str) -> None:
        super().__init__(daemon=True)
        self.up = up
        self.token = token
        self.enough = Event()
        self.acknowledged: dict[str, str] = {}
        self.tries = 0

    @override
    def run(self) -> None:
        """Until `enough`; the command under way is brought to its end."""
        while not self.enough.is_set():
            number = len(self.acknowledged)
            key = f"chaos-{number}"
            answer = None
            while answer is None:
                self.tries += 1
                answer = self._registered(key, number)
            self.acknowledged[key] = answer
            self.enough.wait(0.05)

    def _registered(self, key: str, number: int) -> str | None:
        request = self._request("/customers", ENTERED | {"name": f"客户{number}"}, {"Idempotency-Key": key})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - ours
                return str(json.load(answer)["customer_id"])
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise
        except OSError:
            pass
        time.sleep(TRY_AGAIN_SECONDS)
        return None

    def there(self, customer_id: str) -> bool:
        """Whether a view shows the customer."""
        with urllib.request.urlopen(  # noqa: S310 - ours
            self._request(f"/customers/{customer_id}/events"), timeout=10
        ) as answer:
            events: list[dict[str, Any]] = json.load(answer)["items"]
        return len(events) == 1

    def _request(
        self, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> urllib.request.Request:
        return urllib.request.Request(
            f"http://127.0.0.1:{self.up.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )


@contextmanager
def loaded(up: Up) -> Iterator[Clients]:
    """Customers are registered as long as this lasts."""
    settings = TokenSettings(data=up.data, environment="development")
    clients = Clients(up, development_token(settings, SystemClock().now()))
    clients.start()
    try:
        yield clients
    finally:
        clients.enough.set()
        clients.join(HEALED_SECONDS_MAX)


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, mongo_url: str, kafka_url: str
) -> Iterator[Up]:
    """A run with one feed in it. The servers asked for are not used: where they cannot be had, neither can these."""
    running = Up(tmp_path_factory.mktemp("chaos") / "data")
    try:
        running.start()
        subprocess.run([*CRM, *BANK, "--write", str(running.feed)], check=True, timeout=60)
        assert (
            running.crm("ingest", str(running.feed), "--source", "first", "--json")["certificate"] == "GREEN"
        )
        wait_for(running.settled, HEALED_SECONDS_MAX, running.said)
        yield running
    finally:
        running.close()


@pytest.mark.timeout(3_600)
def test_everything_is_killed_and_heals_without_a_hand(up: Up) -> None:
    chance, sources, healed = Random(SEED), ["first"], []
    print(f"seed {SEED}, {ROUNDS} rounds")
    order = [victims(chance, number) for number in range(ROUNDS)]
    with loaded(up) as clients:
        for number, names in enumerate(order):
            source = f"round-{number}"
            began = len(clients.acknowledged)
            with up.ingesting(source) as ingesting:
                assert ingesting.stderr is not None
                ingesting.stderr.readline()
                time.sleep(chance.random())
                killed = {name: up.processes()[name] for name in names}
                for pid in killed.values():
                    os.kill(pid, signal.SIGKILL)
                at = time.monotonic()
                said, problems = ingesting.communicate(timeout=INGEST_SECONDS_MAX)
            finished = ingesting.returncode == 0
            wait_for(lambda killed=killed: back(up, killed), HEALED_SECONDS_MAX, up.said)  # type: ignore[misc]
            up.wait_ready(HEALED_SECONDS_MAX)
            healed.append(time.monotonic() - at)
            if not finished:  # a feed that its operator's command lost its store under is sent again
                assert "postgres" in names, problems
                said = json.dumps(up.crm("ingest", str(up.feed), "--source", source, "--json"))
            assert json.loads(said)["certificate"] == "GREEN"
            sources.append(source)
            fresh = len(clients.acknowledged) - began
            print(f"{'+'.join(names):18} healed in {healed[-1]:5.1f} s, {fresh} customers meanwhile")
    wait_for(up.settled, HEALED_SECONDS_MAX, up.said)
    report = up.crm("verify", "--json")
    print({name: one["checked"] for name, one in report["invariants"].items()})
    assert report["green"] is True, report
    expected = up.figures("first")
    assert {source: up.figures(source) for source in sources} == dict.fromkeys(sources, expected)
    assert len(set(clients.acknowledged.values())) == len(clients.acknowledged) > 0
    assert [key for key, customer in clients.acknowledged.items() if not clients.there(customer)] == []
    print(
        f"{len(clients.acknowledged)} customers in {clients.tries} tries; slowest healing {max(healed):.1f} s"
    )


def victims(chance: Random, number: int) -> tuple[str, ...]:
    """Who dies in a round: each in turn, now and then with another one."""
    first = EVERYTHING[number % len(EVERYTHING)]
    others = [name for name in EVERYTHING if name != first]
    return (first, chance.choice(others)) if chance.random() < TWO_AT_ONCE else (first,)


def back(up: Up, killed: dict[str, int]) -> bool:
    """Whether others run in the place of those that were killed."""
    now = up.processes()
    return all(now.get(name, pid) != pid for name, pid in killed.items())


def test_every_one_dies_in_a_run_of_this_length() -> None:
    chance = Random(SEED)
    assert {name for number in range(ROUNDS) for name in victims(chance, number)} == set(EVERYTHING)
