"""A view for tests: each subject's list of words in order, and an entry for every word; some words are poison."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec
from chassis.messaging.delivered import Delivered, read
from chassis.messaging.records import Record
from chassis.read.documents import GONE, Document, DocumentKey
from chassis.read.projecting import Collection, Index, View
from contracts.envelope import Envelope, Watermark

NAMESPACE = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b13")
SUBJECTS = tuple(uuid5(NAMESPACE, f"subject-{number}") for number in range(5))
TOPIC = "crm.customer.events"
START = datetime(2026, 1, 5, 8, tzinfo=UTC)
WORD = "customer.renamed"
OTHER = "customer.reference_linked"


class Poison(ValueError):
    """A word that nobody can digest."""


@dataclass
class Words:
    """A log of words, in partitions, as a relay would publish it; and what must come of it."""

    partitions: int = 2
    topic: str = TOPIC
    position: int = 0
    traceparent: str | None = None
    sequences: dict[UUID, int] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    records: list[list[Record]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.records = [[] for _ in range(self.partitions)]

    def say(
        self, subject: int, word: str, *, type: str = WORD, version: int = 1, body: bytes | None = None
    ) -> Record:
        of = SUBJECTS[subject]
        self.position += 1
        self.sequences[of] = sequence = self.sequences.get(of, 0) + 1
        self.counts[subject % self.partitions] += 1
        at = START + timedelta(seconds=self.position)
        envelope = Envelope(
            uuid5(of, str(sequence)), type, version, "customer", of, sequence, self.position, at, at, "renamed", of, of,
            self.traceparent,
        )  # fmt: skip
        return self.add(
            subject % self.partitions, envelope.headers(), body or msgspec.json.encode({"name": word})
        )

    def mark(self) -> None:
        for partition in range(self.partitions):
            at = START + timedelta(seconds=self.position)
            mark = Watermark("customer", self.position, at, self.counts[partition])
            self.add(partition, mark.headers(partition), mark.body)

    def add(self, partition: int, headers: Any, value: bytes) -> Record:
        of = self.records[partition]
        of.append(Record(self.topic, partition, b"", headers, value, len(of)))
        return of[-1]

    def all(self) -> list[Record]:
        return [record for partition in self.records for record in partition]


@dataclass
class Repairs:
    """Whether poison is digestible by now."""

    done: bool = False


def lists(repairs: Repairs | None = None, version: int = 1, topic: str = TOPIC) -> View:
    repaired = repairs or Repairs()

    def project(key: DocumentKey, document: Document | None, event: Delivered) -> Document | None:
        word = event.data["name"]
        if key.collection == "entries":
            return None if word == "silent" else {"word": word, "position": event.position}
        changed = {"words": [], "length": 0} if document is None else document
        changed["words"].append(word)
        changed["length"] += len(word)
        if word.startswith("poison") and not repaired.done:
            raise Poison(word)
        if word == "huge":
            changed["number"] = 2**70
        return None if word == "gone" else changed

    def keys(event: Delivered) -> Sequence[DocumentKey]:
        if event.data["name"] == "poison-key" and not repaired.done:
            raise Poison("poison-key")
        subject = str(event.subject)
        return [DocumentKey("lists", subject), DocumentKey("entries", f"{subject}:{event.sequence}")]

    return View(
        "lists",
        version,
        (topic,),
        frozenset({WORD}),
        (Collection("lists", (Index((("length", 1),)),)), Collection("entries", insert_only=True)),
        keys,
        project,
    )


def folded(
    view: View, records: Iterable[Record], *, until_poison: bool = False
) -> dict[str, dict[Any, Document]]:
    """The plain fold of a log: what a view must be; a subject ends at its poison where `until_poison` says so."""
    found: dict[str, dict[Any, Document]] = {}
    stopped: set[UUID] = set()
    for record in records:
        event = read(record)
        if not isinstance(event, Delivered) or event.type not in view.events or event.subject in stopped:
            continue
        try:
            after = {}
            for key in view.keys(event):
                before = found.get(key.collection, {}).get(key.id)
                known = (
                    None
                    if before is None or GONE in before
                    else msgspec.msgpack.decode(msgspec.msgpack.encode(before))
                )
                document = view.project(key, known, event)
                if document is not None:
                    after[key] = {**document, "_id": key.id, "_seq": event.sequence}
                elif known is not None:
                    after[key] = {"_id": key.id, "_seq": event.sequence, GONE: True}
        except Poison:
            assert until_poison
            stopped.add(event.subject)
            continue
        for key, document in after.items():
            found.setdefault(key.collection, {})[key.id] = document
    return found
