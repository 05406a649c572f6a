"""Opens ingest over the servers that the settings name: connections, keys, the tables it needs."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Final, NamedTuple

from chassis.clock import Clock, SystemClock
from chassis.connections.migrating import require
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KeyRing
from chassis.process.crashing import crash_at
from chassis.write.deciding import Refusal
from chassis.write.secret_checks import secret_of
from chassis.write.store import Recorder, tables
from contracts.identity import EXTERNAL_IDS, ExternalIds

from sync_ingest.archive import schema
from sync_ingest.archive.archive import Archive
from sync_ingest.ledger import SCHEMA, KeptVault, StoreLedger
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.ports import ITSELF, Acting
from sync_ingest.runs.results import Progress
from sync_ingest.settings import SyncIngestSettings

IDLE_MAX: Final = 4


TABLES: Final = (tables(SCHEMA), schema.TABLES)
"""What this service needs of its database, for `migrate`."""


def opened_keys(settings: SyncIngestSettings, clock: Clock) -> KeyRing:
    """The data keys, over a connection of their own."""
    return KeyRing.of(settings, clock.monotonic)


@contextmanager
def opened(
    settings: SyncIngestSettings,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    acting: Acting = ITSELF,
    ready: bool = False,
    keys: KeyRing | None = None,
) -> Iterator[Ingest]:
    """An `Ingest` with connections of its own; not shared between threads. `ready`: the tables are known to be there.

    `keys` are those of the whole process, where several are opened: what is cached of them is then cached once.
    """
    clock = SystemClock()
    if not ready:
        require(settings.postgres_url, TABLES)
    with ExitStack() as stack:
        reader, writer = Recorder(settings.postgres_url, SCHEMA), Recorder(settings.postgres_url, SCHEMA)
        stack.callback(reader.close)
        stack.callback(writer.close)
        if keys is None:
            keys = opened_keys(settings, clock)
            stack.callback(keys.close)
        ids = ExternalIds(secret_of(keys, settings.postgres_url, SCHEMA, EXTERNAL_IDS))
        yield Ingest(
            stack.enter_context(Archive.connect(settings.postgres_url, ids, clock.monotonic)),
            ids,
            StoreLedger(reader, writer, keys, now=clock.now, places_cached_max=settings.accounts_kept_max),
            KeptVault(keys),
            clock.now,
            clock.monotonic,
            settings.ingest,
            crash_at(settings.crash_at, settings.environment, freeze_at=settings.freeze_at),
            progress,
            acting,
        )


class _SharedKeys:
    """The keys of a process, closed when the last who uses them has let them go."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self._users = 1
        self._lock = Lock()

    def taken(self) -> "_SharedKeys":
        """The same for one more user."""
        with self._lock:
            self._users += 1
        return self

    def let_go(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self.keys.close()


class _Kept(NamedTuple):
    """An ingest with what it is opened over."""

    stack: ExitStack
    ingest: Ingest
    shared: _SharedKeys


class IngestPool:
    """Ingests for the threads of one process: opened when needed, kept while they work, dropped after an error."""

    def __init__(self, settings: SyncIngestSettings) -> None:
        self._settings = settings
        self._idle: deque[_Kept] = deque()
        self._lock = Lock()
        self._shared: _SharedKeys | None = None

    def look(self) -> None:
        """Looks whether a run could begin; raises where none could."""
        with self.opened() as ingest:
            ingest.ledger.head_position()

    @contextmanager
    def opened(self) -> Iterator[Ingest]:
        """One that nobody else uses."""
        used = self._taken()
        used.ingest.acting = ITSELF
        try:
            yield used.ingest
        except Refusal:
            self._keep(used)
            raise
        except BaseException:
            used.stack.close()
            raise
        else:
            self._keep(used)

    def close(self) -> None:
        """Lets the idle ones go. Another thread may be at work with one still: that goes when it comes back."""
        with self._lock:
            idle, self._idle = self._idle, deque()
            shared, self._shared = self._shared, None
        for kept in idle:
            kept.stack.close()
        if shared is not None:
            shared.let_go()

    def _taken(self) -> _Kept:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        shared = self._shared_keys()
        with ExitStack() as stack:
            stack.callback(shared.let_go)
            ingest = stack.enter_context(opened(self._settings, ready=True, keys=shared.keys))
            return _Kept(stack.pop_all(), ingest, shared)

    def _shared_keys(self) -> _SharedKeys:
        """The keys of the process; the tables are asked for before the first of all.

        The key file is read each time: a process that could not start again says so before it has to.
        """
        with self._lock:
            if self._shared is None:
                require(self._settings.postgres_url, TABLES)
                self._shared = _SharedKeys(opened_keys(self._settings, SystemClock()))
            elif self._settings.kms_key is None:
                FileKeyEncryption.at(self._settings.key_encryption_file)
            return self._shared.taken()

    def _keep(self, used: _Kept) -> None:
        with self._lock:
            if used.shared is self._shared and len(self._idle) < IDLE_MAX:
                self._idle.append(used)
                return
        used.stack.close()
