"""Opens ingest over the servers that the settings name: connections, keys, the tables it needs."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Final

import psycopg
from chassis.clock import SystemClock
from chassis.deciding import Refusal
from chassis.privacy import FileKeyEncryption, KeyRing
from chassis.store import Recorder, prepare
from contracts.identity import OUTSIDE_IDS, OutsideIds

from sync_ingest.archive import Archive, create
from sync_ingest.crashing import crash_at
from sync_ingest.ingesting import ITSELF, Acting, Ingest, Progress
from sync_ingest.journal import SCHEMA, KeptVault, StoreLedger
from sync_ingest.settings import SyncIngestSettings

IDLE_MAX: Final = 4


def prepared(settings: SyncIngestSettings) -> None:
    """Makes the store and ingest's own tables where they are missing; safe to repeat."""
    prepare(settings.postgres_url, SCHEMA)
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        create(connection)


def stand(settings: SyncIngestSettings) -> bool:
    """Whether both are there, so that nothing need be locked to find out."""
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        found = connection.execute(
            "select to_regclass(%s) is not null and to_regclass('ingest.requests') is not null",
            (f"{SCHEMA}.snapshots",),
        ).fetchone()
    return found is not None and bool(found[0])


@contextmanager
def opened(
    settings: SyncIngestSettings,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    acting: Acting = ITSELF,
    ready: bool = False,
) -> Iterator[Ingest]:
    """An `Ingest` with connections of its own; not shared between threads. `ready`: the tables are known to be there."""
    clock = SystemClock()
    if not ready and not stand(settings):
        prepared(settings)
    with ExitStack() as stack:
        reader, writer = Recorder(settings.postgres_url, SCHEMA), Recorder(settings.postgres_url, SCHEMA)
        stack.callback(reader.close)
        stack.callback(writer.close)
        encryption = FileKeyEncryption.at(settings.key_encryption_file)
        keys = KeyRing.open(settings.keys_url, encryption, clock.monotonic)
        stack.callback(keys.close)
        ids = OutsideIds(keys.secret(OUTSIDE_IDS))
        archive = stack.enter_context(Archive.connect(settings.postgres_url, ids))
        yield Ingest(
            archive,
            ids,
            StoreLedger(reader, writer, keys, now=clock.now),
            KeptVault(keys),
            clock.now,
            clock.monotonic,
            settings.ingest,
            crash_at(settings.crash_at, settings.environment),
            progress,
            acting,
        )


class IngestPool:
    """Ingests for the threads of one process: opened when needed, kept while they work, dropped after an error."""

    def __init__(self, settings: SyncIngestSettings) -> None:
        self._settings = settings
        self._idle: deque[tuple[ExitStack, Ingest]] = deque()
        self._lock = Lock()
        self._prepared = False

    def look(self) -> None:
        """Looks whether a run could begin; raises where none could."""
        with self.opened() as ingest:
            ingest.ledger.head_position()

    @contextmanager
    def opened(self) -> Iterator[Ingest]:
        """One that nobody else uses."""
        stack, ingest = self._taken()
        ingest.acting = ITSELF
        try:
            yield ingest
        except Refusal:
            self._kept(stack, ingest)
            raise
        except BaseException:
            stack.close()
            raise
        else:
            self._kept(stack, ingest)

    def close(self) -> None:
        """Lets the idle ones go."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for stack, _ in idle:
            stack.close()

    def _taken(self) -> tuple[ExitStack, Ingest]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        if not self._prepared:
            if not stand(self._settings):
                prepared(self._settings)
            self._prepared = True
        with ExitStack() as stack:
            ingest = stack.enter_context(opened(self._settings, ready=True))
            return stack.pop_all(), ingest

    def _kept(self, stack: ExitStack, ingest: Ingest) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append((stack, ingest))
                return
        stack.close()
