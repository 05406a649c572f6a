"""The jars are what the list says, from wherever they come; what cannot be had is named."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from devservers import ServerUnavailable, jars
from devservers.jars import Jar
from typing_extensions import override


class Quiet(SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Maven repository on loopback, and a cache and a home with nothing in them."""
    folder = tmp_path / "repository"
    (folder / "org").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CRM_CACHE", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        monkeypatch.setenv("CRM_MAVEN_URL", f"http://127.0.0.1:{server.server_address[1]}")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield folder
        server.shutdown()
        serving.join()


def fetched(wanted: list[Jar], said: Callable[[str], None] = lambda _: None) -> Path:
    return jars.fetched(said, threading.Event(), wanted=wanted, pause_seconds=0.0)


def listed(*contents: bytes) -> list[Jar]:
    return [
        Jar(f"org/{number}.jar", hashlib.sha256(content).hexdigest(), len(content))
        for number, content in enumerate(contents)
    ]


def test_the_list_names_the_broker_once_and_every_hash() -> None:
    found = jars.jars()
    assert len({jar.name for jar in found}) == len(found) == 46
    assert "kafka_2.13-4.1.1.jar" in {jar.name for jar in found}
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in found)


def test_what_is_missing_is_fetched_and_what_is_there_is_not(
    repository: Path,
) -> None:
    wanted = listed(b"one", b"two")
    (repository / "org" / "0.jar").write_bytes(b"one")
    (repository / "org" / "1.jar").write_bytes(b"two")
    said: list[str] = []
    folder = fetched(wanted, said.append)
    assert sorted(file.name for file in folder.iterdir()) == ["0.jar", "1.jar"]
    (repository / "org" / "0.jar").unlink()
    (folder / "1.jar").unlink()
    assert fetched(wanted, said.append) == folder
    assert (folder / "1.jar").read_bytes() == b"two"
    assert "Kafka: fetching 1 jars (0 MB), once" in said


def test_content_that_is_not_what_it_should_be_is_refused(
    repository: Path,
) -> None:
    wanted = listed(b"right")
    (repository / "org" / "0.jar").write_bytes(b"wrong")
    with pytest.raises(ServerUnavailable, match=r"0\.jar cannot be had .* not what it should be"):
        fetched(wanted)
    assert not list((repository.parent / "cache").rglob("*.jar"))


def test_a_jar_that_nobody_has_is_named(repository: Path) -> None:
    wanted = listed(b"one")
    with pytest.raises(ServerUnavailable, match=r"Kafka: 0\.jar cannot be had from http://127.*404"):
        fetched(wanted)


def test_a_cache_that_cannot_be_made_is_named(repository: Path) -> None:
    (repository.parent / "cache").touch()
    with pytest.raises(ServerUnavailable, match="CRM_CACHE may name another one"):
        fetched(jars.jars())
