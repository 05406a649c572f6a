"""Files over a real store, in a folder and in S3: kept once, read by whom it is noted, removed, swept, and unreadable as it should be."""

import asyncio
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import boto3
import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import is_transient
from chassis.files import (
    FILES,
    FileGone,
    FileHeld,
    FileKeeper,
    FileUnknown,
    FileUnreadable,
    Limits,
    Offered,
    Storage,
)
from chassis.files.checking import FileEmpty, FileNameInvalid, FileOversized, FileTypeRefused
from chassis.files.deciding import (
    FILES_MAX,
    FILES_OF_SUBJECT,
    Attach,
    FileAttached,
    FileRemoved,
    Remove,
    TooManyFiles,
)
from chassis.files.folder import Folder
from chassis.files.keeping import Content, Kept
from chassis.files.objects import Name, Objects, StorageUnavailable
from chassis.files.routes import disposition
from chassis.files.s3 import Bucket
from chassis.files.sealing import CHUNK_BYTES
from chassis.files.storage import ABANDON_SECONDS_MAX
from chassis.files.sweeping import Swept, sweep
from chassis.privacy.keys import ERASED, KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, CommandKeyReused
from chassis.write.store import EventStore
from msgspec import structs

from tests.support.aws import STRANGE, answering
from tests.support.jars import NAMESPACE, NOW
from tests.support.specification import ManualClock, Specification
from tests.support.waiting import until

CATALOGUE = Catalogue(store="jars", entries=FILES)
ANNA, BORIS = (uuid5(NAMESPACE, name) for name in ("anna", "boris"))
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 1_000
LETTER = Offered("Vertrag Müller 合同.pdf", "application/pdf", "letter")
PART_BYTES = 5 << 20
SOMETIME = timedelta(days=2)
_COMMANDS = count(1)


@pytest.fixture
def bucket(endpoint: str) -> Any:
    """An empty bucket, as boto3 has it."""
    made = boto3.resource("s3", endpoint_url=endpoint).create_bucket(
        Bucket="files", CreateBucketConfiguration={"LocationConstraint": "cn-north-1"}
    )
    yield made
    for upload in made.multipart_uploads.all():
        upload.abort()
    made.objects.all().delete()
    made.delete()


class Shelf:
    """The files of a context, and what lies in its storage."""

    def __init__(self, store: EventStore, ring: KeyRing, objects: Objects, places: Any) -> None:
        self.held: set[UUID] = set()
        self.held_from_second_look: set[UUID] = set()
        self.keeper = FileKeeper(store, CATALOGUE, ring, Storage(objects), holds=self.holds)
        self.ring = ring
        self.objects = objects
        self.places = places

    async def holds(self, subject: UUID) -> bool:
        held = subject in self.held
        if subject in self.held_from_second_look:
            self.held.add(subject)
        return held

    async def attach(
        self, subject: UUID = ANNA, content: bytes = PDF, key: str = "1", offered: Offered = LETTER
    ) -> Kept:
        return await self.keeper.attach(subject, offered, pieces(content), by("anna", key))

    async def read(
        self, file: UUID, subject: UUID = ANNA, key: str = "r", at: timedelta = timedelta()
    ) -> bytes:
        content = await self.keeper.read(subject, file, by("boris", key, at))
        return await whole(content)

    def there(self) -> list[Name]:
        return [found.name for found in self.objects.found()]

    async def sweep(self, at: timedelta = timedelta()) -> Swept:
        return await sweep(self.keeper, self.ring, ManualClock(NOW + at))


@pytest.fixture(params=["folder", "s3"])
async def shelf(
    request: pytest.FixtureRequest, store: EventStore, key_ring: KeyRing, tmp_path: Path
) -> AsyncIterator[Shelf]:
    if request.param == "folder":
        objects: Objects = Folder(tmp_path / "files", "jars", create=True)
        places: Any = FolderPlaces(tmp_path / "files")
    else:
        made = request.getfixturevalue("bucket")
        objects = Bucket("files", "jars", request.getfixturevalue("endpoint"), part_bytes=PART_BYTES)
        places = BucketPlaces(made)
    shelf = Shelf(store, key_ring, objects, places)
    yield shelf
    await shelf.keeper.storage.close()


class FolderPlaces:
    """Where a folder has its objects, for who harms them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self._folder.rglob("*")) if path.is_file()}

    def put(self, place: str, content: bytes) -> None:
        Path(place).write_bytes(content)

    def delete(self, place: str) -> None:
        Path(place).unlink()


class BucketPlaces:
    """The same of a bucket."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    def all(self) -> dict[str, bytes]:
        return {one.key: one.get()["Body"].read() for one in self._bucket.objects.all()}

    def put(self, place: str, content: bytes) -> None:
        self._bucket.put_object(Key=place, Body=content)

    def delete(self, place: str) -> None:
        self._bucket.Object(place).delete()


def by(actor: str, key: str, at: timedelta = timedelta()) -> CommandContext:
    return CommandContext(
        actor=actor,
        now=NOW + at,
        command_id=uuid5(NAMESPACE, f"{actor}|{next(_COMMANDS)}"),
        idempotency_key=key,
        reason="the counter asks",
    )


async def pieces(content: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]
    yield b""


async def names_in(store: EventStore) -> set[str]:
    """The names of all events of a store."""
    return {one.name for one in await store.read_after(0)}


async def whole(content: Content) -> bytes:
    async with content.download:
        return b"".join([part async for part in content.parts])


async def test_a_file_is_kept_listed_read_and_removed(shelf: Shelf, store: EventStore) -> None:
    kept = (await shelf.attach()).shown
    assert (kept.name, kept.size_bytes, kept.attached_by) == (LETTER.name, len(PDF), "anna")
    assert await shelf.keeper.files(ANNA, NOW) == [kept]
    assert await shelf.read(kept.file_id) == PDF
    [read] = await store.read_stream(kept.file_id)
    meta = CATALOGUE.metadata_of(read)
    assert (read.name, meta.actor, meta.reason) == ("file-read", "boris", "the counter asks")
    for number in range(2):
        await shelf.keeper.remove(ANNA, kept.file_id, by("boris", f"remove-{number}"))
    assert (await shelf.keeper.files(ANNA, NOW), shelf.there()) == ([], [])
    with pytest.raises(FileGone):
        await shelf.read(kept.file_id)
    names = [one.name for one in await store.read_stream(shelf.keeper.stream_of(ANNA))]
    assert names == ["upload-announced", "file-attached", "file-removed"]


@pytest.mark.parametrize(
    ("name", "plain", "whole"),
    [
        ('a"b;c\\d%.pdf', "a_b_c_d_.pdf", "a%22b%3Bc%5Cd%25.pdf"),
        ("é.pdf", "_.pdf", "%C3%A9.pdf"),
        ("=?utf-8?q?a=0d=0ab?=.pdf", "=_utf-8_q_a=0d=0ab_=.pdf", "%3D%3Futf-8%3Fq%3Fa%3D0d%3D0ab%3F%3D.pdf"),
    ],
)
def test_no_name_of_a_file_ends_the_header_that_it_is_in(name: str, plain: str, whole: str) -> None:
    assert disposition(name) == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}"


async def test_no_key_is_made_for_a_file(shelf: Shelf) -> None:
    kept = (await shelf.attach()).shown
    await shelf.read(kept.file_id)
    of_others = [kept.file_id, shelf.keeper.stream_of(ANNA)]
    assert list(shelf.ring.keys_for([*of_others, ANNA], create=False)) == [ANNA]


async def test_nothing_of_a_file_lies_in_clear(shelf: Shelf, store: EventStore) -> None:
    text = "a letter to 张伟 about his loan\n".encode() * 3
    kept = await shelf.attach(content=text, offered=Offered("张伟.txt", "text/plain", "letter"))
    stored = b"".join(one.body for one in await store.read_after(0))
    lying = b"".join(shelf.places.all().values())
    for clear in (text[:20], "张伟".encode(), "张伟".encode("ascii", "backslashreplace")):
        assert clear not in stored + lying
    [attached] = kept.outcome.events
    assert isinstance(attached, FileAttached)
    other = await shelf.attach(BORIS, text, offered=Offered("b.txt", "text/plain", "letter"), key="2")
    [same_content] = other.outcome.events
    assert same_content.digest != attached.digest, (
        "who has the digests does not learn that two have one letter"
    )  # type: ignore[union-attr]


async def test_a_large_file_goes_in_parts_and_comes_back_whole(shelf: Shelf) -> None:
    content = b"%PDF-" + bytes(2 * PART_BYTES + 3 * CHUNK_BYTES)
    kept = (await shelf.attach(content=content)).shown
    assert await shelf.read(kept.file_id) == content


async def test_the_same_key_keeps_a_file_once_and_another_content_is_refused(shelf: Shelf) -> None:
    first, again = [(await shelf.attach()).shown for _ in range(2)]
    assert (first, len(shelf.there())) == (again, 1)
    for content, offered in ((PDF + b".", LETTER), (PDF, Offered("b.pdf", "application/pdf", "letter"))):
        with pytest.raises(CommandKeyReused):
            await shelf.attach(content=content, offered=offered)
    assert len(shelf.there()) == 1


async def test_the_same_content_twice_is_one_object_that_goes_with_the_last_file(shelf: Shelf) -> None:
    one, two = [(await shelf.attach(key=key)).shown for key in "12"]
    assert len(shelf.there()) == 1
    await shelf.keeper.remove(ANNA, one.file_id, by("boris", "a"))
    assert await shelf.read(two.file_id) == PDF
    await shelf.sweep(SOMETIME)
    assert await shelf.read(two.file_id, key="again") == PDF
    await shelf.keeper.remove(ANNA, two.file_id, by("boris", "b"))
    assert shelf.there() == []
    three = (await shelf.attach(key="3")).shown
    assert await shelf.read(three.file_id) == PDF


async def test_attaching_and_removing_at_once_leaves_no_file_without_its_content(shelf: Shelf) -> None:
    first = (await shelf.attach(key="0")).shown

    async def again(number: int) -> UUID:
        kept = (await shelf.attach(key=f"k{number}")).shown
        await shelf.keeper.remove(ANNA, kept.file_id, by("boris", f"rm{number}"))
        return (await shelf.attach(key=f"l{number}")).shown.file_id

    remove = shelf.keeper.remove(ANNA, first.file_id, by("boris", "rm"))
    *files, _ = await asyncio.gather(*(again(number) for number in range(3)), remove)
    assert [await shelf.read(file, key=str(file)) for file in files] == [PDF] * 3
    assert len(shelf.there()) == 1


async def test_what_is_left_by_a_crash_is_swept_and_its_upload_is_refused_then(shelf: Shelf) -> None:
    kept = (await shelf.attach()).shown
    left = Name(shelf.keeper.stream_of(ANNA), uuid5(NAMESPACE, "left"))
    of_another_store = Name(shelf.keeper.stream_of(BORIS), uuid5(NAMESPACE, "of another store"))
    for name in (left, of_another_store):
        writing = shelf.objects.write(name)
        writing.write(b"whole, and without an event")
        writing.commit()
    begun = shelf.objects.write(Name(left.stream, uuid5(NAMESPACE, "begun")))
    begun.write(bytes(PART_BYTES))
    since = min(found.written_at for found in shelf.objects.found()) - NOW
    young = await shelf.sweep(since + timedelta(hours=23))
    assert (young.objects, young.deleted) == (3, 0)
    if isinstance(shelf.objects, Folder):  # moto says of every upload that it was begun in 2010
        assert young.unfinished == 0
        assert len(shelf.places.all()) == 4
    swept = await shelf.sweep(since + SOMETIME)
    begun.abandon()
    assert (swept.deleted, young.unfinished + swept.unfinished) == (1, 1)
    assert {name.stream for name in shelf.there()} == {left.stream, of_another_store.stream}
    assert len(shelf.there()) == 2
    assert left.object in (await shelf.keeper.state_of(left.stream)).abandoned
    assert await shelf.read(kept.file_id) == PDF


class Crash(BaseException):
    """The process is killed here."""


class Dying(Objects):
    """Objects of a process that dies as soon as one of them is whole."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.read, self.delete, self.found = objects.read, objects.delete, objects.found
        self.forget_unfinished = objects.forget_unfinished

    def write(self, name: Name) -> Any:
        writing = self.objects.write(name)

        def commit(whole: Callable[[], None] = writing.commit) -> None:
            whole()
            raise Crash

        writing.commit = commit  # type: ignore[method-assign]
        return writing


async def test_what_a_crash_leaves_of_a_subject_s_first_file_is_swept(
    shelf: Shelf, store: EventStore
) -> None:
    dying = FileKeeper(store, CATALOGUE, shelf.ring, Storage(Dying(shelf.objects)))
    with pytest.raises(Crash):
        await dying.attach(ANNA, LETTER, pieces(PDF), by("anna", "1"))
    assert len(shelf.there()) == 1
    since = shelf.objects.found().__next__().written_at - NOW
    assert (await shelf.sweep(since + timedelta(hours=23))).deleted == 0
    assert (await shelf.sweep(since + SOMETIME)).deleted == 1
    assert shelf.there() == []


class Hanging(Dying):
    """Objects of which no write returns before `goes_on` is set."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.goes_on = threading.Event()

    def write(self, name: Name) -> Any:
        writing = self.objects.write(name)

        def hang(_: bytes, write: Callable[[bytes], None] = writing.write) -> None:
            self.goes_on.wait()
            write(_)

        writing.write = hang  # type: ignore[method-assign]
        return writing


async def test_a_storage_that_hangs_is_not_waited_for_and_leaves_nothing_when_it_goes_on(
    shelf: Shelf, store: EventStore
) -> None:
    objects = Hanging(shelf.objects)
    storage = Storage(objects, threads_max=2, call_seconds_max=0.2)
    keeper = FileKeeper(store, CATALOGUE, shelf.ring, storage)
    began = SystemClock().monotonic()
    for number in range(4):
        with pytest.raises(StorageUnavailable):
            await keeper.attach(ANNA, LETTER, pieces(PDF), by("anna", f"{number}"))
    assert SystemClock().monotonic() - began < 4 * (0.2 + ABANDON_SECONDS_MAX) + 10
    objects.goes_on.set()
    await until(lambda: not shelf.places.all())
    await storage.close()
    assert shelf.there() == []


async def test_an_object_that_cannot_be_opened_in_time_is_said_to_be_unavailable(
    store: EventStore, key_ring: KeyRing, tmp_path: Path
) -> None:
    storage = Storage(Folder(tmp_path / "files", "jars", create=True), call_seconds_max=0.2)
    keeper = FileKeeper(store, CATALOGUE, key_ring, storage)
    kept = (await keeper.attach(ANNA, LETTER, pieces(PDF), by("anna", "1"))).shown
    [place] = [each for each in (tmp_path / "files").rglob("*") if each.is_file()]
    place.unlink()
    os.mkfifo(place)  # it opens once somebody writes
    with pytest.raises(StorageUnavailable):
        await keeper.read(ANNA, kept.file_id, by("boris", "r"))
    place.write_bytes(b"")
    await storage.close()


async def test_a_file_expires_to_the_instant_for_readers_and_is_swept(
    shelf: Shelf, store: EventStore
) -> None:
    expiring = Offered("a.pdf", "application/pdf", "letter", NOW + SOMETIME)
    kept = (await shelf.attach(offered=expiring)).shown
    assert await shelf.read(kept.file_id, at=SOMETIME - timedelta(microseconds=1)) == PDF
    with pytest.raises(FileGone):
        await shelf.read(kept.file_id, at=SOMETIME)
    assert await shelf.keeper.files(ANNA, NOW + SOMETIME) == []
    assert (await shelf.sweep(timedelta(days=1))).ended == 0
    assert (await shelf.sweep(SOMETIME)).ended == 1
    *_, last = await store.read_stream(shelf.keeper.stream_of(ANNA))
    assert (b'"because":"expired"' in last.body, shelf.there()) == (True, [])


async def test_nothing_of_a_subject_that_is_held_is_removed_and_nothing_expires_until_it_is_free(
    shelf: Shelf,
) -> None:
    expiring = Offered("a.pdf", "application/pdf", "letter", NOW + SOMETIME)
    kept, other = (await shelf.attach(offered=expiring)).shown, (await shelf.attach(key="2")).shown
    removed = await shelf.keeper.remove(ANNA, other.file_id, by("boris", "before"))
    shelf.held.add(ANNA)
    assert await shelf.keeper.remove(ANNA, other.file_id, by("boris", "before")) == structs.replace(
        removed, replayed=True
    )
    assert (await shelf.sweep(2 * SOMETIME)).ended == 0
    assert await shelf.keeper.files(ANNA, NOW + 2 * SOMETIME) == [kept]
    assert await shelf.read(kept.file_id, at=2 * SOMETIME) == PDF
    with pytest.raises(FileHeld):
        await shelf.keeper.remove(ANNA, kept.file_id, by("boris", "a"))
    shelf.held.clear()
    with pytest.raises(FileGone):
        await shelf.read(kept.file_id, at=2 * SOMETIME)
    assert ((await shelf.sweep(2 * SOMETIME)).ended, shelf.there()) == (1, [])


async def test_after_an_erasure_nothing_opens_and_the_sweep_deletes_what_is_left(shelf: Shelf) -> None:
    kept, other = (await shelf.attach()).shown, (await shelf.attach(BORIS, key="2")).shown
    shelf.ring.erase([ANNA])
    [shown] = await shelf.keeper.files(ANNA, NOW)
    assert shown.name == ERASED
    for refused in (shelf.read(kept.file_id), shelf.attach(key="3")):
        with pytest.raises(FileGone):
            await refused
    swept = await shelf.sweep()
    assert (swept.ended, await shelf.keeper.files(ANNA, NOW)) == (1, [])
    assert [name.stream for name in shelf.there()] == [shelf.keeper.stream_of(BORIS)]
    assert await shelf.read(other.file_id, BORIS) == PDF


async def test_a_content_that_was_changed_cut_off_swapped_or_lost_is_not_given(
    shelf: Shelf, store: EventStore
) -> None:
    kept, other = (await shelf.attach()).shown, (await shelf.attach(content=PDF + b"2", key="2")).shown
    own, lying = await object_of(shelf, kept.file_id), shelf.places.all()
    [place] = [place for place in lying if place.endswith(own.hex)]
    [theirs] = [content for at, content in lying.items() if at != place]
    whole = lying[place]
    changed = bytearray(whole)
    changed[-1] ^= 1
    for content in (bytes(changed), whole[:-1], whole + b"x", theirs, b"", whole[: len(whole) // 2]):
        shelf.places.put(place, content)
        with pytest.raises(FileUnreadable):
            await shelf.read(kept.file_id)
    shelf.places.delete(place)
    with pytest.raises(FileUnreadable):
        await shelf.read(kept.file_id)
    assert await store.read_stream(kept.file_id) == [], "nothing was read, and nothing is noted"
    again = (await shelf.attach(key="3")).shown
    assert await shelf.read(again.file_id) == PDF, "what was lost can be attached again"
    assert await shelf.read(other.file_id) == PDF + b"2"


async def object_of(shelf: Shelf, file: UUID) -> UUID:
    return (await shelf.keeper.state_of(shelf.keeper.stream_of(ANNA))).kept[file].object


@pytest.mark.parametrize(
    ("offered", "content", "refusal"),
    [
        (Offered("a.pdf", "application/x-msdownload", "letter"), PDF, FileTypeRefused),
        (Offered("a.pdf", "application/pdf", "letter"), b"MZ" + PDF, FileTypeRefused),
        (Offered("a.txt", "text/plain", "letter"), PDF, FileTypeRefused),
        (Offered("a.txt", "text/plain", "letter"), b"a\x00b", FileTypeRefused),
        (Offered("a.pdf", "application/pdf", "letter"), b"", FileEmpty),
        (Offered("a.pdf", "application/pdf", "letter"), PDF + bytes(1 << 20), FileOversized),
        *(
            (Offered(name, "application/pdf", "letter"), PDF, FileNameInvalid)
            for name in (
                "",
                "../a.pdf",
                "a\\b.pdf",
                ".pdf",
                "a\x00.pdf",
                "a\n.pdf",
                "a\u202efdp.pdf",
                "a.exe",
                " a.pdf",
                "é" * 126 + ".pdf",
                "\ud800.pdf",
            )
        ),
    ],
)
async def test_what_may_not_be_kept_leaves_nothing(
    store: EventStore, key_ring: KeyRing, tmp_path: Path, offered: Offered, content: bytes, refusal: Any
) -> None:
    storage = Storage(Folder(tmp_path / "files", "jars", create=True))
    keeper = FileKeeper(store, CATALOGUE, key_ring, storage, Limits(size_bytes_max=1 << 20))
    with pytest.raises(refusal):
        await keeper.attach(ANNA, offered, pieces(content), by("anna", "1"))
    assert FolderPlaces(tmp_path / "files").all() == {}
    assert await store.head_position() == 0
    await storage.close()


async def test_the_largest_file_and_the_longest_name_are_kept_and_no_larger_ones(
    store: EventStore, key_ring: KeyRing, tmp_path: Path
) -> None:
    storage = Storage(Folder(tmp_path / "files", "jars", create=True))
    keeper = FileKeeper(store, CATALOGUE, key_ring, storage, Limits(size_bytes_max=len(PDF)))
    longest = "a" * 251 + ".pdf"
    for name, content, refusal in (
        (longest, PDF, None),
        (f"a{longest}", PDF, FileNameInvalid),
        (longest, PDF + b".", FileOversized),
    ):
        offered, context = (
            Offered(name, "application/pdf", "letter"),
            by("anna", f"{len(name)} {len(content)}"),
        )
        if refusal is None:
            assert (await keeper.attach(ANNA, offered, pieces(content), context)).shown.name == name
        else:
            with pytest.raises(refusal):
                await keeper.attach(ANNA, offered, pieces(content), context)
    assert len(FolderPlaces(tmp_path / "files").all()) == 1
    await storage.close()


def test_a_subject_has_as_many_files_as_it_may_and_no_more() -> None:
    def attached(number: int) -> FileAttached:
        one = uuid5(NAMESPACE, str(number))
        return FileAttached(ANNA, one, one, str(number), 1, "text/plain", "k1.a.b", "letter", "anna", NOW)

    files = Specification(FILES_OF_SUBJECT)
    full = files.given(*map(attached, range(FILES_MAX)))
    full.when(Attach(attached(FILES_MAX))).then_rejected(TooManyFiles)
    removed = FileRemoved(attached(0).file, "removed", attached(0).object)
    after = full.when(Remove(attached(0).file, "removed", NOW)).then(removed)
    after.when(Attach(attached(FILES_MAX))).then(attached(FILES_MAX))


async def test_a_hold_that_comes_while_a_sweep_runs_stops_the_removal_and_not_the_sweep(shelf: Shelf) -> None:
    expiring = Offered("a.pdf", "application/pdf", "letter", NOW + SOMETIME)
    anna, boris = (await shelf.attach(offered=expiring)).shown, (await shelf.attach(BORIS, key="2")).shown
    await shelf.attach(BORIS, key="3", content=PDF + b".", offered=expiring)
    shelf.held_from_second_look.add(ANNA)
    assert (await shelf.sweep(SOMETIME)).ended == 1
    assert await shelf.keeper.files(ANNA, NOW) == [anna]
    assert await shelf.keeper.files(BORIS, NOW + SOMETIME) == [boris]


async def test_a_subject_that_is_erased_while_its_file_is_sent_keeps_nothing_that_opens(shelf: Shelf) -> None:
    async def sends() -> AsyncIterator[bytes]:
        yield PDF
        shelf.ring.erase([ANNA])

    kept = (await shelf.keeper.attach(ANNA, LETTER, sends(), by("anna", "1"))).shown
    with pytest.raises(FileGone):
        await shelf.read(kept.file_id)
    assert (await shelf.sweep()).ended == 1
    assert (shelf.there(), await shelf.keeper.files(ANNA, NOW)) == ([], [])


async def test_a_full_disk_is_transient_and_leaves_nothing(
    store: EventStore, key_ring: KeyRing, tmp_path: Path
) -> None:
    storage = Storage(Folder(tmp_path / "files", "jars", create=True))
    keeper = FileKeeper(store, CATALOGUE, key_ring, storage)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(PDF) // 2, before[1]))
    try:
        with pytest.raises(StorageUnavailable, match="the folder of files: File too large"):
            await keeper.attach(ANNA, LETTER, pieces(PDF), by("anna", "1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (FolderPlaces(tmp_path / "files").all(), await store.head_position()) == ({}, 0)
    await storage.close()


async def test_a_caller_who_goes_while_he_sends_leaves_nothing(shelf: Shelf) -> None:
    gone = asyncio.Event()

    async def sends() -> AsyncIterator[bytes]:
        yield PDF
        gone.set()
        await asyncio.Event().wait()

    sending = asyncio.ensure_future(shelf.keeper.attach(ANNA, LETTER, sends(), by("anna", "1")))
    await gone.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (shelf.places.all(), await shelf.keeper.files(ANNA, NOW)) == ({}, [])


async def test_a_file_of_another_subject_is_unknown(shelf: Shelf) -> None:
    kept = (await shelf.attach()).shown
    for refused in (shelf.read(kept.file_id, BORIS), shelf.keeper.remove(BORIS, kept.file_id, by("a", "b"))):
        with pytest.raises(FileUnknown):
            await refused


@pytest.mark.parametrize("trouble", ["not mounted", "no bucket", "wrong credentials", "silent", "nobody"])
async def test_a_storage_that_cannot_be_used_is_transient_and_keeps_no_file(
    trouble: str,
    endpoint: str,
    store: EventStore,
    key_ring: KeyRing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        objects: Objects
        if trouble == "not mounted":
            objects = Folder(tmp_path / "nowhere", "jars")
        elif trouble == "no bucket":
            objects = Bucket("nothing", "jars", endpoint)
        elif trouble == "wrong credentials":
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(name)
            objects = Bucket("files", "jars", endpoint)
        else:
            port = silent.getsockname()[1]
            if trouble == "nobody":
                silent.close()
            objects = Bucket("files", "jars", f"http://127.0.0.1:{port}", answer_seconds=0.2)
        storage = Storage(objects)
        keeper = FileKeeper(store, CATALOGUE, key_ring, storage)
        with pytest.raises(StorageUnavailable) as refused:
            await keeper.attach(ANNA, LETTER, pieces(PDF), by("anna", "1"))
        assert is_transient(refused.value)
        with pytest.raises(StorageUnavailable):
            await storage.read(Name(ANNA, BORIS))
        await storage.close()
    assert await names_in(store) <= {"upload-announced"}


@pytest.mark.parametrize("answer", STRANGE)
async def test_what_is_no_answer_of_s3_keeps_no_file(
    answer: str, endpoint: str, store: EventStore, key_ring: KeyRing
) -> None:
    with answering(STRANGE[answer]) as strange:
        for content in (PDF, PDF + bytes(PART_BYTES)):
            storage = Storage(Bucket("files", "jars", strange, answer_seconds=0.3, part_bytes=PART_BYTES))
            with pytest.raises(StorageUnavailable):
                await FileKeeper(store, CATALOGUE, key_ring, storage).attach(
                    ANNA, LETTER, pieces(content), by("anna", "1")
                )
            await storage.close()
    assert await names_in(store) <= {"upload-announced"}


async def test_what_is_nothing_of_ours_in_the_folder_stops_no_sweep(
    store: EventStore, key_ring: KeyRing, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    shelf = Shelf(store, key_ring, Folder(folder, "jars", create=True), FolderPlaces(folder))
    expiring = Offered("a.pdf", "application/pdf", "letter", NOW + SOMETIME)
    kept = (await shelf.attach(offered=expiring)).shown
    [place] = (Path(one) for one in shelf.places.all())
    own, stream = folder / "jars", place.parent
    (own / "aa").write_text("a file where a folder should be")
    (own / "unfinished" / "a folder").mkdir()
    (stream / UUID(int=1).hex).mkdir()
    (stream / str(UUID(int=2))).write_text("a name with hyphens")
    loop = UUID(int=3).hex
    (stream / loop).symlink_to(loop)
    (stream / UUID(int=4).hex).symlink_to("/nowhere")
    assert [name.object.hex for name in shelf.there()] == [place.name]
    assert (await shelf.sweep(SOMETIME)).ended == 1
    assert (shelf.there(), await shelf.keeper.files(ANNA, NOW)) == ([], [])
    with pytest.raises(FileGone):
        await shelf.read(kept.file_id)
    await shelf.keeper.storage.close()
