"""Objects in a folder: a stream takes its folder with its last object, while others write into it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from chassis.files.folder import Folder
from chassis.files.objects import Name

STREAM = UUID(int=7)
WRITERS = 4
TURNS = 300


def _written(folder: Folder, name: Name) -> None:
    writing = folder.write(name)
    writing.write(b"content")
    writing.commit()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files", "jars", create=True)


def test_the_folder_of_a_stream_goes_with_its_last_object(folder: Folder, tmp_path: Path) -> None:
    names = [Name(STREAM, UUID(int=number)) for number in (1, 2)]
    for name in names:
        _written(folder, name)
    place = tmp_path / "files" / "jars" / STREAM.hex[:2] / STREAM.hex
    folder.delete(names[0])
    assert [path.name for path in place.iterdir()] == [names[1].object.hex]
    folder.delete(names[1])
    folder.delete(names[1])
    assert not place.exists()
    place.mkdir()  # as a deletion that was cut off leaves it
    folder.delete(names[1])
    assert not place.exists()


def test_writing_and_deleting_in_one_stream_at_once_loses_nothing(folder: Folder) -> None:
    def work(writer: int) -> Name:
        for turn in range(TURNS):
            name = Name(STREAM, uuid5(STREAM, f"{writer} {turn}"))
            _written(folder, name)
            reading = folder.read(name)
            assert reading.read(10) == b"content"
            reading.close()
            if turn + 1 < TURNS:
                folder.delete(name)
        return name

    with ThreadPoolExecutor(WRITERS) as pool:
        kept = list(pool.map(work, range(WRITERS)))
    assert {found.name for found in folder.found()} == set(kept)
