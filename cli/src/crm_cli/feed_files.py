"""Selects the files of a path that are a feed: the files taken, the files left out, and the reasons."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from sync_ingest.runs.results import FeedContent
from sync_ingest.runs.running import FEED_FILES_MAX

DEPTH_MAX: Final = 16
ENTRIES_MAX: Final = 100_000
NAMED_MAX: Final = 1_000
LEFTOVERS: Final = (
    ".bak", ".backup", ".old", ".orig", ".save", ".tmp", ".temp", ".part", ".partial", ".filepart",
    ".crdownload", ".download", ".swp", ".lock", ".lck", "~",
)  # fmt: skip
"""How copies end that people and programs leave behind, and files that are still being written."""

WHY: Final = {
    "hidden": "its name begins with a point",
    "leftover": "the name of a copy, or of a file that is still being written",
    "link-broken": "a link to nothing",
    "link-leads-out": "refused: a link that leads out of the folder",
    "link-to-folder": "a link to a folder",
    "link-to-taken": "a link to a file that is taken itself",
    "no-file": "neither a file nor a folder",
    "too-deep": f"more than {DEPTH_MAX} folders deep",
}


class FeedUnreadable(Exception):
    """The path given holds no feed."""


class LeftOut(NamedTuple):
    """A file that is not taken, by its name below the folder, and the code of the reason."""

    name: str
    reason: str


@dataclass(slots=True)
class FeedFiles:
    """The files of a feed in the order of their names below the folder."""

    contents: list[FeedContent] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """What was taken and left, with at most NAMED_MAX names of each."""
        return {
            "taken": [content.name for content in self.contents[:NAMED_MAX]],
            "taken_total": len(self.contents),
            "left": [{"file": name, "reason": reason} for name, reason in self.left[:NAMED_MAX]],
            "left_total": len(self.left),
        }


def feed_of(path: Path) -> FeedFiles:
    """One file, or every file of a folder and of the folders in it; raises FeedUnreadable."""
    if path.is_file():
        return FeedFiles([FeedContent(path.name, lambda: path.open("rb"))])
    if not path.is_dir():
        wrong = "neither a file nor a folder" if path.exists() else "no such file or folder"
        raise FeedUnreadable(f"{wrong}: {path}")
    found = _of_folder(path.resolve())
    if not found.contents:
        left = f"; {len(found.left)} left out" if found.left else ""
        raise FeedUnreadable(f"no files in {path}{left}")
    if len(found.contents) > FEED_FILES_MAX:
        raise FeedUnreadable(f"more than {FEED_FILES_MAX} files in {path}")
    return found


def _of_folder(root: Path) -> FeedFiles:
    files: dict[str, Path] = {}
    links: dict[str, Path] = {}
    left: list[LeftOut] = []
    for number, (name, path) in enumerate(_walked(root, root, left)):
        if number >= ENTRIES_MAX:
            raise FeedUnreadable(f"more than {ENTRIES_MAX} entries in {root}")
        reason = _reason(path, root)
        if reason:
            left.append(LeftOut(name, reason))
        elif path.is_symlink():
            links[name] = path.resolve()
        else:
            files[name] = path
    taken = set(files.values())
    for name, target in sorted(links.items()):
        if target in taken:
            left.append(LeftOut(name, "link-to-taken"))
        else:
            taken.add(target)
            files[name] = target
    contents = [FeedContent(name, _Opening(path)) for name, path in sorted(files.items())]
    return FeedFiles(contents, sorted(left))


def _walked(folder: Path, root: Path, left: list[LeftOut]) -> Iterator[tuple[str, Path]]:
    """Everything below a folder that is no folder itself, and folders that are not entered."""
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root)
        name = relative.as_posix()
        if path.is_symlink() or path.name.startswith(".") or not path.is_dir():
            yield name, path
        elif len(relative.parts) > DEPTH_MAX:
            left.append(LeftOut(name, "too-deep"))
        else:
            yield from _walked(path, root, left)


def _reason(path: Path, root: Path) -> str | None:
    """Why a file is left out, if it is."""
    if path.name.startswith("."):
        return "hidden"
    if not path.exists():
        return "link-broken"
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "link-leads-out"
    if path.is_dir():
        return "link-to-folder"
    if not path.is_file():
        return "no-file"
    return "leftover" if path.name.lower().endswith(LEFTOVERS) else None


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens a file that was looked at, and no link that somebody has put in its place since."""

    path: Path

    def __call__(self) -> BinaryIO:
        return open(self.path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))
