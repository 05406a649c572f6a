"""Objects in a folder of a file system that all processes share.

`<folder>/<context>/<two digits>/<stream>/<object>`; what is not whole yet lies in `<context>/unfinished`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from typing_extensions import override

from chassis.files.objects import (
    Found,
    Name,
    ObjectMissing,
    Objects,
    Reading,
    StorageUnavailable,
    Writing,
    name_of,
)

_UNFINISHED: Final = "unfinished"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_RENAMES_MAX: Final = 100


class Folder(Objects):
    """The objects of a context below a folder. `create`, for development alone, makes the folder."""

    def __init__(self, folder: Path, context: str, *, create: bool = False) -> None:
        self._folder = folder
        self._own = folder / context
        self._create = create

    @override
    def write(self, name: Name) -> Writing:
        with _told():
            if self._create:
                self._folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
            self._made(self._own / _UNFINISHED)
            draft = self._own / _UNFINISHED / f"{name.object.hex}.{os.urandom(4).hex()}"
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            return _Draft(self, handle, draft, self._place(name))

    @override
    def read(self, name: Name) -> Reading:
        with _told():
            try:
                return _Opened(self._place(name).open("rb"))
            except FileNotFoundError:
                # Of a folder that is not mounted nothing is there: that says nothing about one object.
                self._own.stat()
                raise ObjectMissing(f"{name.object} is not there") from None

    @override
    def delete(self, name: Name) -> None:
        place = self._place(name)
        with _told():
            with suppress(FileNotFoundError):
                place.unlink()
                _keep(place.parent)
            with suppress(OSError):  # other objects of the stream are there
                place.parent.rmdir()

    @override
    def found(self) -> Iterator[Found]:
        with _told():
            if not self._own.exists():
                return
        for first in self._inside(self._own):
            for stream in self._inside(first) if len(first.name) == 2 else ():
                for place in self._inside(stream):
                    if (found := _found(stream.name, place)) is not None:
                        yield found

    @override
    def forget_unfinished(self, before: datetime) -> int:
        count = 0
        for draft in self._inside(self._own / _UNFINISHED):
            with suppress(FileNotFoundError), _told(FileNotFoundError):
                if draft.is_file() and _written_at(draft) < before:
                    draft.unlink()
                    count += 1
        return count

    def _place(self, name: Name) -> Path:
        stream = name.stream.hex
        return self._own / stream[:2] / stream / name.object.hex

    def _inside(self, folder: Path) -> list[Path]:
        with _told():
            try:
                return sorted(folder.iterdir())
            except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile, or nothing of ours
                return []

    def _made(self, folder: Path) -> None:
        """Makes a folder below the one that is shared, which must be there, and keeps its name on the disk."""
        if folder == self._folder or folder.is_dir():
            return
        self._made(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER_MODE)
        _keep(folder.parent)


class _Draft(Writing):
    def __init__(self, folder: Folder, handle: int, draft: Path, place: Path) -> None:
        self._folder = folder
        self._file = os.fdopen(handle, "wb", buffering=0)
        self._draft = draft
        self._place = place

    @override
    def write(self, part: bytes) -> None:
        with _told():
            rest = memoryview(part)
            while rest:
                rest = rest[self._file.write(rest) :]

    @override
    def commit(self) -> None:
        with _told():
            os.fsync(self._file.fileno())
            self._file.close()
            for left in reversed(range(_RENAMES_MAX)):
                self._folder._made(self._place.parent)
                try:
                    self._draft.rename(self._place)
                except FileNotFoundError:  # whoever deleted the stream's last object took its folder away
                    if not left:
                        raise
                else:
                    break
            with suppress(FileNotFoundError):  # the object has been deleted already
                _keep(self._place.parent)

    @override
    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._draft.unlink()


class _Opened(Reading):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @override
    def read(self, size: int) -> bytes:
        with _told():
            return self._file.read(size)

    @override
    def close(self) -> None:
        self._file.close()


def _keep(folder: Path) -> None:
    """Writes the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _found(stream: str, place: Path) -> Found | None:
    """The object in a place; None where it is nothing of ours, or has been deleted meanwhile."""
    name = name_of(stream, place.name)
    with suppress(FileNotFoundError), _told(FileNotFoundError):
        return None if name is None or not place.is_file() else Found(name, _written_at(place))
    return None


def _written_at(place: Path) -> datetime:
    return datetime.fromtimestamp(place.stat().st_mtime, UTC)


@contextmanager
def _told(*passed: type[OSError]) -> Iterator[None]:
    """Raises StorageUnavailable in place of what the system says, whose text holds a path."""
    try:
        yield
    except OSError as error:
        if isinstance(error, passed):
            raise
        raise StorageUnavailable(f"the folder of files: {os.strerror(error.errno or 0)}") from error
