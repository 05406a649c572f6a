"""The log against what it was when it was last verified: nothing before a checkpoint may change (I6)."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from chassis.connections.transient import why
from chassis.observability.reasons import reason_of
from chassis.write.events import StoredEvent

from crm_cli.verify_report import Report

CHECKPOINTS_KEPT_MAX: Final = 50


class Checkpoints:
    """The digests of a context's log up to some positions.

    What cannot be read or kept is told as broken: then nobody knows whether the log is what it was.
    """

    def __init__(self, folder: Path, context: str, report: Report) -> None:
        self._file = folder / f"{context}.json"
        self._context = context
        self._report = report
        self._readable = True
        self._known = self._read()
        self._ahead = sorted(self._known, reverse=True)
        """Checkpoints that the log has not passed yet; the next is the last."""
        self._digest = hashlib.sha256()
        self._last = 0

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Digests the next events of the log, and compares it with what it was at each checkpoint that they pass."""
        text: list[bytes] = []
        for event in events:
            position = event.position or 0
            if self._ahead and position > self._ahead[-1]:
                self._digest.update(b"".join(text))
                text.clear()
                self._check_up_to(position - 1)
            text += (
                b"%d|" % position,
                event.stream_id.bytes,
                b"|%d|%b|" % (event.version, event.name.encode()),
                event.body,
            )
            self._last = position
        self._digest.update(b"".join(text))

    def finish(self) -> None:
        """Compares the whole log with the checkpoints that are left, and keeps a new one."""
        if self._ahead:
            self._check_up_to(self._ahead[0])
        if self._last and self._readable:
            self._keep(self._last)

    def _check_up_to(self, position: int) -> None:
        while self._ahead and self._ahead[-1] <= position:
            self._check(self._ahead.pop())

    def _keep(self, position: int) -> None:
        self._known[position] = self._digest.hexdigest()
        kept = dict(sorted(self._known.items())[-CHECKPOINTS_KEPT_MAX:])
        partial = self._file.with_suffix(f".{os.getpid()}.partial")  # two may verify at once
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(kept), encoding="utf-8")
            partial.replace(self._file)
        except OSError as error:
            self._report.broken(
                "I6", f"{self._context}: the checkpoint cannot be kept in {self._file}: {why(error)}"
            )

    def _check(self, position: int) -> None:
        self._report.passed("I6")
        if self._digest.hexdigest() != self._known[position]:
            self._report.broken(
                "I6",
                f"{self._context}: the log up to position {position} is not what it was when last verified",
            )

    def _read(self) -> dict[int, str]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[int, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            self._readable = False  # it stays as it is, for whoever looks into it
            self._report.broken("I6", f"{self._context}: {self._file} cannot be read: {reason_of(error)}")
            return {}
