"""The jars of Kafka: fetched once from Maven Central, checked against the hashes in `kafka-jars.txt`, and kept.

The list is what `jgo`'s resolver gives for kafka_2.13:4.1.1 and slf4j-simple:1.7.36, written down: to resolve takes
longer than to fetch, and a written list has hashes. log4j-core is not asked for by name: its bill of materials would
pull kafka-clients back to 3.8.0.
"""

import hashlib
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from devservers.processes import ServerUnavailable

FETCHES_AT_ONCE = 8
FETCH_SECONDS_MAX = 30.0
FETCH_TRIES_MAX = 3
PAUSE_SECONDS = 1.0
FOLDER = "kafka-4.1.1"


@dataclass(frozen=True, slots=True)
class Jar:
    """Where a jar is in a Maven repository, and what it must be."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


def jars() -> list[Jar]:
    """The list, largest first."""
    text = (files("devservers") / "kafka-jars.txt").read_text("ascii")
    parts = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [Jar(path, sha256, int(size)) for path, sha256, size in parts]


def cache_folder() -> Path:
    """Where downloads are kept from run to run and shared between checkouts: `CRM_CACHE`, or the user's cache."""
    if said := os.environ.get("CRM_CACHE"):
        return Path(said).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "crm"


def fetched(
    log: Callable[[str], None],
    stopping: threading.Event,
    *,
    wanted: Sequence[Jar] | None = None,
    pause_seconds: float = PAUSE_SECONDS,
) -> Path:
    """A folder with all jars in it, those of the list unless others are wanted.

    Raises `ServerUnavailable` where one cannot be had.
    """
    folder = cache_folder() / FOLDER
    wanted = jars() if wanted is None else wanted
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [jar for jar in wanted if not _is_there(folder, jar)]
    except OSError as error:
        raise ServerUnavailable(
            f"Kafka: no folder for its jars: {folder}: {error.strerror}; CRM_CACHE may name another one"
        ) from error
    if missing:
        _fetch(folder, missing, log, stopping, pause_seconds)
    return folder


def _is_there(folder: Path, jar: Jar) -> bool:
    try:
        return (folder / jar.name).stat().st_size == jar.size_bytes
    except FileNotFoundError:
        return False


def _fetch(
    folder: Path,
    missing: Sequence[Jar],
    log: Callable[[str], None],
    stopping: threading.Event,
    pause_seconds: float,
) -> None:
    total_mb = sum(jar.size_bytes for jar in missing) / 1e6
    log(f"Kafka: fetching {len(missing)} jars ({total_mb:.0f} MB), once")
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        pending = [pool.submit(_fetch_one, folder, jar, stopping, pause_seconds) for jar in missing]
        try:
            for done, each in enumerate(pending, 1):
                each.result()
                if done % 12 == 0 or done == len(pending):
                    log(f"Kafka: {done} of {len(pending)} jars are here")
        except BaseException:
            stopping.set()
            raise


def _fetch_one(folder: Path, jar: Jar, stopping: threading.Event, pause_seconds: float) -> None:
    kept = Path.home() / ".m2" / "repository" / jar.path
    content = kept.read_bytes() if os.access(kept, os.R_OK) else b""
    if hashlib.sha256(content).hexdigest() != jar.sha256:
        content = _downloaded(jar, stopping, pause_seconds)
    part = folder / f"{jar.name}.{os.getpid()}.part"
    try:
        part.write_bytes(content)
        part.replace(folder / jar.name)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ServerUnavailable(f"Kafka: {folder / jar.name} cannot be written: {error.strerror}") from error


def _downloaded(jar: Jar, stopping: threading.Event, pause_seconds: float) -> bytes:
    # the address of Maven Central is the resolver's, as is the way to say another one
    from jgo.constants import MAVEN_CENTRAL_URL

    address = f"{os.environ.get('CRM_MAVEN_URL', MAVEN_CENTRAL_URL).rstrip('/')}/{jar.path}"
    reason = "stopped"
    for attempt in range(FETCH_TRIES_MAX):
        if stopping.wait(pause_seconds * attempt):
            break
        for context in _trust():
            try:
                with urllib.request.urlopen(address, timeout=FETCH_SECONDS_MAX, context=context) as answer:  # noqa: S310
                    content: bytes = answer.read(jar.size_bytes + 1)
            except (OSError, urllib.error.URLError, ValueError) as error:
                reason = str(error)
                continue
            if hashlib.sha256(content).hexdigest() == jar.sha256:
                return content
            reason = "its content is not what it should be"
    raise ServerUnavailable(f"Kafka: {jar.name} cannot be had from {address}: {reason}")


def _trust() -> list[ssl.SSLContext]:
    """The certificates that this machine trusts, then those that come with the packages."""
    import certifi

    named = [os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
    bundles = [name for name in [*named, certifi.where()] if Path(name).is_file()]
    return [ssl.create_default_context(), *(ssl.create_default_context(cafile=name) for name in bundles)]
