"""`<CRM_DATA>/run.json`: where the servers and processes of a running `crm up` are, for the other commands."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = "run.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Process:
    """A process, with the time when it began, because another process may get its number later. `url` is of
    its health."""

    pid: int
    began: str | None
    url: str | None = None

    @classmethod
    def of(cls, pid: int, url: str | None = None) -> "Process":
        """A running process by its number."""
        from devservers import process_began

        return cls(pid, process_began(pid), url)

    @property
    def runs(self) -> bool:
        """Whether the process still runs."""
        from devservers import process_began

        return self.began is not None and process_began(self.pid) == self.began


@dataclass(frozen=True, slots=True)
class Run:
    """A running `crm up`. `urls` are environment variables by name, secrets as the environment had them."""

    supervisor: Process
    web: str
    environment: str
    urls: Mapping[str, str]
    parts: Mapping[str, Process] = field(default_factory=dict)
    servers: Mapping[str, int] = field(default_factory=dict)


def path_of(data: Path) -> Path:
    """The file of that data folder."""
    return data / NAME


def write(data: Path, run: Run) -> None:
    """Replaces the file in one step; readable by its owner alone."""
    path = path_of(data)
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump({"version": VERSION, **asdict(run)}, file, indent=1)
    part.replace(path)


def read(data: Path) -> Run | None:
    """Returns the file of the last `crm up`; None where there is none or it cannot be read.

    That run may have ended.
    """
    try:
        found: dict[str, Any] = json.loads(path_of(data).read_text(encoding="utf-8"))
        if found.pop("version") != VERSION:
            return None
        return Run(
            supervisor=Process(**found["supervisor"]),
            web=found["web"],
            environment=found["environment"],
            urls=found["urls"],
            parts={name: Process(**each) for name, each in found["parts"].items()},
            servers=found["servers"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove(data: Path) -> None:
    """Removes the file at the end of the run."""
    path_of(data).unlink(missing_ok=True)
