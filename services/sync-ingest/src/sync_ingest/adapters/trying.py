"""Reads a file with a mapping as an ingest would, and books nothing.

Shows the rows to book and the refused ones.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sync_ingest.adapters.port import Adapter, FeedFile, Item
from sync_ingest.domain.records import ControlRecord, Posting, Unreadable

SHOWN_MAX: Final = 20
"""The number of first rows and first refusals that are kept. All of them are counted."""


@dataclass(slots=True)
class Trial:
    """The result of reading a file: its first rows and refusals, and counts and sums of all rows."""

    rows: list[tuple[int, Posting]] = field(default_factory=list)
    refusals: list[tuple[int, Unreadable]] = field(default_factory=list)
    controls: list[tuple[int, ControlRecord]] = field(default_factory=list)
    posted: int = 0
    refused: int = 0
    credits_minor: Counter[str] = field(default_factory=Counter)
    debits_minor: Counter[str] = field(default_factory=Counter)

    def add(self, item: Item) -> None:
        """Counts one item."""
        content = item.content
        if isinstance(content, Unreadable):
            self.refused += 1
            if len(self.refusals) < SHOWN_MAX:
                self.refusals.append((item.line, content))
        elif isinstance(content, ControlRecord):
            if len(self.controls) < SHOWN_MAX:
                self.controls.append((item.line, content))
        elif isinstance(content, Posting):
            self.posted += 1
            side = self.credits_minor if content.amount_minor > 0 else self.debits_minor
            side[content.currency] += abs(content.amount_minor)
            if len(self.rows) < SHOWN_MAX:
                self.rows.append((item.line, content))


def tried(adapter: Adapter, feed_file: FeedFile) -> Trial:
    """Reads the whole file."""
    trial = Trial()
    for batch in adapter.read([feed_file]):
        for item in batch.items:
            trial.add(item)
    return trial
