"""Puts ingest together from its settings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from chassis.clock import SystemClock
from chassis.privacy import FileKeyEncryption, KeyRing
from chassis.store import Recorder, prepare

from sync_ingest.archive import Archive
from sync_ingest.crashing import crash_at
from sync_ingest.ingesting import Ingest, Progress
from sync_ingest.journal import ACTOR, SCHEMA, KeptVault, StoreLedger
from sync_ingest.settings import SyncIngestSettings


@contextmanager
def opened(
    settings: SyncIngestSettings,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    actor: str = ACTOR,
    trace: Mapping[str, str] | None = None,
) -> Iterator[Ingest]:
    """An `Ingest` with connections of its own; not shared between threads."""
    clock = SystemClock()
    prepare(settings.postgres_url, SCHEMA)
    reader, writer = Recorder(settings.postgres_url, SCHEMA), Recorder(settings.postgres_url, SCHEMA)
    encryption = FileKeyEncryption.at(settings.key_encryption_file)
    keys = KeyRing.open(settings.keys_url, encryption, clock.monotonic)
    try:
        with Archive.connect(settings.postgres_url) as archive:
            yield Ingest(
                archive,
                StoreLedger(reader, writer, keys, now=clock.now, actor=actor, trace=trace),
                KeptVault(keys),
                clock.now,
                clock.monotonic,
                settings.ingest,
                crash_at(settings.crash_at, settings.environment),
                progress,
            )
    finally:
        reader.close()
        writer.close()
        keys.close()
