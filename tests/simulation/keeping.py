"""Persons who attach and remove files of the same content at once, while a sweep deletes what no file has, and processes die.

A file that is kept has its content, whatever was removed, swept, frozen or sent again meanwhile; in the end nothing else is
in the storage.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.files import (
    FILES,
    FileGone,
    FileKeeper,
    FileUnreadable,
    Offered,
    Storage,
    StorageUnavailable,
    sweep,
)
from chassis.files.contents import ContentStore
from chassis.files.deciding import UploadOverdue
from chassis.files.objects import Found, Name, ObjectMissing
from chassis.files.storage import Download, Upload
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, TooManyConflicts
from typing_extensions import override

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

SUBJECT = uuid5(NAMESPACE, "subject of files")
CONTENTS = {"letter": b"Dear customer\n", "other": b"Another letter\n"}
PERSONS = 3
FILES_EACH = 4
UPLOAD_SECONDS_MAX = 0.1
"""So short that a slow upload is overdue."""
TRIES_MAX = 200
CATALOGUE = Catalogue(store="simulation", entries=FILES)
FAULTS = Faults(
    crash=0.015,
    crashes_max=8,
    unanswered=0.03,
    unanswered_max=20,
    freeze=0.01,
    freezes_max=6,
    freeze_seconds=0.5,
)

T = TypeVar("T")
MakeKeeper = Callable[..., FileKeeper]
MakeStorage = Callable[["Archive"], Storage]


@dataclass(slots=True)
class Archive:
    """All there is in one run. `objects`: what the server of the storage has, with when it was written."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    objects: dict[Name, tuple[bytes, datetime]] = field(default_factory=dict)
    kept: dict[UUID, bytes] = field(default_factory=dict)
    """Files that somebody was told are kept, with their content."""
    removing: set[UUID] = field(default_factory=set)
    """Files that somebody asked to be removed."""
    read: int = 0
    left: int = PERSONS
    broken: list[Broken] = field(default_factory=list)


class Keys(SimulatedKeys):
    """The keys, of which none is destroyed."""

    @override
    def erased(self, subjects: Any, purpose: str | None = None) -> set[UUID]:
        return set()


class ArchiveStorage(Storage):
    """The storage as one process has it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def asked(self, point: str, effect: Callable[[], T]) -> T:
        """One call to the server."""
        try:
            return await self._archive.kernel.call(point, effect)
        except Injected as error:
            raise StorageUnavailable(point) from error

    def put(self, name: Name, content: bytes) -> None:
        """The server has an object from now on."""
        self._archive.objects[name] = content, self._archive.kernel.now()

    @override
    def write(self, name: Name) -> Upload:
        return ArchiveUpload(self, name)

    @override
    async def read(self, name: Name) -> Download:
        found = await self.asked("object read", lambda: self._archive.objects.get(name))
        if found is None:
            raise ObjectMissing(f"{name.object} is not there")
        return ArchiveDownload(found[0])

    @override
    async def delete(self, name: Name) -> None:
        await self.asked("object deleted", lambda: self._archive.objects.pop(name, None))

    @override
    async def found(self) -> AsyncIterator[list[Found]]:
        there = await self.asked(
            "objects listed", lambda: [Found(name, at) for name, (_, at) in self._archive.objects.items()]
        )
        for each in there:
            yield [each]

    @override
    async def forget_unfinished(self, before: datetime) -> int:
        return 0


class ArchiveUpload(Upload):
    """An object that is being written."""

    def __init__(self, storage: ArchiveStorage, name: Name) -> None:
        self._storage = storage
        self._name = name
        self._content = b""

    @override
    async def write(self, part: bytes) -> None:
        self._content += part

    @override
    async def commit(self) -> None:
        await self._storage.asked("object written", lambda: self._storage.put(self._name, self._content))

    @override
    async def abandon(self) -> None:
        self._content = b""


class ArchiveDownload(Download):
    """An object that is being read."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    @override
    async def read(self, size: int) -> bytes:
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    @override
    async def close(self) -> None:
        self._rest = b""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process keeps files with; a planted bug is another part."""

    keeper: MakeKeeper = FileKeeper
    storage: MakeStorage = ArchiveStorage


def over(archive: Archive, parts: Parts) -> tuple[FileKeeper, Keys]:
    """As a process that starts has it."""
    ring = Keys(archive.kernel, archive.keys)
    return parts.keeper(StoreClient(archive.log), CATALOGUE, ring, parts.storage(archive)), ring


def by(archive: Archive, key: str) -> CommandContext:
    """What somebody does."""
    # The id of a command is another one at each request; the key is the caller's.
    made = uuid5(NAMESPACE, f"{key}|{archive.kernel.turns}")
    return CommandContext(actor="anna", now=archive.kernel.now(), command_id=made, idempotency_key=key)


async def answered(archive: Archive, act: Callable[[], Awaitable[T]]) -> T | None:
    """Acts until it is answered."""
    for _ in range(TRIES_MAX):
        try:
            return await act()
        except (StoreUnavailable, StorageUnavailable, UploadOverdue, TooManyConflicts):
            await archive.kernel.sleep(0.01)
    archive.broken.append(Broken("I10", "no answer"))
    return None


async def sent(content: bytes) -> AsyncIterator[bytes]:
    """The body of a request."""
    yield content


def person(archive: Archive, parts: Parts, number: int) -> Callable[[], Awaitable[None]]:
    """Attaches files of the same few contents, reads each, and removes every other one."""

    async def main() -> None:
        keeper, _ = over(archive, parts)
        for count in range(FILES_EACH):
            purpose = "letter" if count != 1 else "other"
            content, key = CONTENTS[purpose], f"{number}-{count}"
            offered = Offered("letter.txt", "text/plain", purpose)
            kept = await answered(
                archive,
                lambda offered=offered, content=content, key=key: keeper.attach(
                    SUBJECT, offered, sent(content), by(archive, key)
                ),
            )
            if kept is None:
                return
            file = kept.shown.file_id
            archive.kept[file] = content
            await reading(archive, keeper, file)
            if count % 2 == 0:
                archive.removing.add(file)
                await answered(
                    archive,
                    lambda file=file, key=key: keeper.remove(SUBJECT, file, by(archive, f"remove-{key}")),
                )
        archive.left -= 1

    return main


async def reading(archive: Archive, keeper: FileKeeper, file: UUID) -> None:
    """Reads a file, which is there unless it is being removed."""
    try:
        content = await answered(
            archive, lambda: keeper.read(SUBJECT, file, by(archive, f"read-{archive.kernel.turns}"))
        )
    except FileUnreadable:
        archive.broken.append(Broken("I11", f"{file} has lost its content"))
        return
    except FileGone:
        if file not in archive.removing:
            archive.broken.append(Broken("I8", f"{file} is gone"))
        return
    if content is not None:
        found = b"".join([part async for part in content.parts])
        archive.read += 1
        if found != archive.kept[file]:
            archive.broken.append(Broken("I11", f"{file} has the content {found!r}"))


def sweeper(archive: Archive, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Sweeps again and again until the persons are done."""

    async def main() -> None:
        keeper, ring = over(archive, parts)
        while archive.left > 0 and archive.kernel.seconds < 120.0:
            with suppress(StoreUnavailable, StorageUnavailable, TooManyConflicts):
                await sweep(keeper, ring, archive.kernel, UPLOAD_SECONDS_MAX)
            await archive.kernel.sleep(0.05)

    return main


async def checked(archive: Archive, parts: Parts) -> list[Broken]:
    """Everything, when all is over: after one more sweep, later."""
    archive.kernel.heal()
    keeper, ring = over(archive, parts)
    archive.kernel.seconds += 10 * UPLOAD_SECONDS_MAX
    await sweep(keeper, ring, archive.kernel, UPLOAD_SECONDS_MAX)
    files = await keeper.state_of(keeper.stream_of(SUBJECT))
    return [*archive.broken, *[one async for one in _wrong(archive, keeper, files.kept)]]


async def _wrong(archive: Archive, keeper: FileKeeper, kept: Any) -> AsyncIterator[Broken]:
    wanted = archive.kept.keys() - archive.removing
    if kept.keys() != wanted:
        yield Broken("I8", f"kept are {sorted(kept)} and not {sorted(wanted)}")
    contents = ContentStore(CATALOGUE.store, keeper.storage)
    for file, held in kept.items():
        try:
            await contents.verify(held, archive.keys[SUBJECT])
        except (ObjectMissing, Tampered) as error:
            yield Broken("I11", f"{file}: {type(error).__name__}")
    if len({held.digest for held in kept.values()}) != len({held.object for held in kept.values()}):
        yield Broken("I2", "the same content lies twice")
    objects = {held.object for held in kept.values()}
    if left := {name.object for name in archive.objects} - objects:
        yield Broken("I10", f"{len(left)} objects are left that no file has")


async def lived(
    seed: int, parts: Parts | None = None, flaws: Flaws | None = None
) -> tuple[Archive, list[Broken]]:
    """All that is left after a seed's schedule, and what does not hold."""
    kernel = Kernel(seed, FAULTS)
    archive, parts = Archive(kernel, LogServer(kernel, flaws or Flaws())), parts or Parts()
    for number in range(PERSONS):
        kernel.spawn(f"person-{number}", person(archive, parts, number))
    kernel.spawn("sweeper", sweeper(archive, parts))
    await kernel.run()
    return archive, await checked(archive, parts)
