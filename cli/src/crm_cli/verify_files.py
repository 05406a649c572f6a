"""Checks that every file that is kept is there and opens with its digest, or that its key was destroyed (I11)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from uuid import UUID

from chassis.clock import Clock
from chassis.files import FilesSettings, Storage, objects_of
from chassis.files.contents import ContentStore
from chassis.files.deciding import ATTACHED, FILES_OF_SUBJECT, FileAttached, Files
from chassis.files.objects import ObjectMissing
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey, KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.store import Recorder
from chassis.write.store.items import NIL

from crm_cli.contexts import Context
from crm_cli.verify_keys import ring_of_login
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store


class _Looked(NamedTuple):
    """What the check of a context reads."""

    context: Context
    catalogue: Catalogue
    recorder: Recorder
    storage: Storage
    ring: KeyRing | None


async def check_files(
    settings: FilesSettings, context: Context, store: Store, report: Report, clock: Clock
) -> None:
    """Reads every file of a context, and counts the objects that no file has. Raises psycopg.Error, StoreUnavailable,
    StorageUnavailable."""
    catalogue = context.catalogue()
    if ATTACHED not in catalogue.names or not await asyncio.to_thread(store.streams_with, ATTACHED):
        return
    async with AsyncExitStack() as stack:
        recorder = Recorder(settings.postgres_url, context.schema, as_login=True)
        stack.callback(recorder.close)
        storage = Storage(objects_of(settings, context.name))
        stack.push_async_callback(storage.close)
        ring = await asyncio.to_thread(ring_of_login, settings, clock)
        if ring is not None:
            stack.callback(ring.close)
        looked = _Looked(context, catalogue, recorder, storage, ring)
        kept = gone = 0
        async for files in _states(store, looked, report):
            found = await _checked(looked, files, report)
            kept, gone = kept + len(files.kept), gone + found
        without = await _without_file(looked)
    report.figures.setdefault("files", {})[context.name] = {
        "kept": kept,
        "key_gone": gone,
        "objects_without_file": without,
        "opened": ring is not None,
    }


async def _states(store: Store, looked: _Looked, report: Report) -> AsyncIterator[Files]:
    after = NIL
    while page := await asyncio.to_thread(store.streams_with, ATTACHED, after):
        for stream in page:
            if (found := await _readable(looked, stream, report)) is not None:
                yield found
        after = page[-1]


async def _readable(looked: _Looked, stream: UUID, report: Report) -> Files | None:
    with report.reading("I11", f"{looked.context.name}: the files of the stream {stream}"):
        return await asyncio.to_thread(_state, looked, stream)
    return None


def _state(looked: _Looked, stream: UUID) -> Files:
    stored = looked.recorder.read_streams({stream: 0})[stream]
    events: list[Any] = [looked.catalogue.decode(one).event for one in stored]
    return FILES_OF_SUBJECT.fold(events)


async def _checked(looked: _Looked, files: Files, report: Report) -> int:
    """Checks the files of a subject; how many have no key any more."""
    contents, gone = ContentStore(looked.catalogue.store, looked.storage), 0
    for held in files.kept.values():
        where = f"{looked.context.name}: the file {held.file} of {held.subject}"
        with report.reading("I11", where):
            key = None if looked.ring is None else await asyncio.to_thread(_key, looked.ring, held.subject)
            if looked.ring is not None and key is None:
                gone += 1
                continue
            report.passed("I11")
            try:
                if key is None:
                    await contents.find(held)
                else:
                    await contents.verify(held, key)
            except (ObjectMissing, Tampered) as error:
                if await asyncio.to_thread(_is_kept, looked, contents.name_of(held).stream, held):
                    report.broken("I11", f"{where}: {error}")
    return gone


def _key(ring: KeyRing, subject: UUID) -> DataKey | None:
    return ring.keys_for([subject], create=False).get(subject)


def _is_kept(looked: _Looked, stream: UUID, held: FileAttached) -> bool:
    """Whether it is still kept: it may have been removed since its stream was read."""
    return held.file in _state(looked, stream).kept


async def _without_file(looked: _Looked) -> int:
    count, named_before = 0, Report()
    async for page in looked.storage.found():
        streams = {found.name.stream for found in page}
        states = {stream: await _readable(looked, stream, named_before) for stream in streams}
        known = [(one.name.object, state) for one in page if (state := states[one.name.stream]) is not None]
        count += sum(not state.refers_to(object) for object, state in known)
    return count
