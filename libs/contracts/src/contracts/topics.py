"""The topics there are, with their partitions and keys, and who reads them.

Nothing else creates a topic: what is missing here does not exist on the broker. The number of partitions is for ever,
because a subject's records stay in order only as long as its partition does.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from struct import unpack_from
from typing import Final, NamedTuple
from uuid import UUID

from contracts.groups import GROUPS

PARTITIONS: Final = 6
DEAD_LETTERS_KEPT_DAYS: Final = 90
DEAD_LETTER_BYTES_MAX: Final = 2 << 20
"""A letter holds a sealed copy of a record, which may be as large as the broker takes."""
PARTITIONS_CACHED_MAX: Final = 65_536
_MURMUR2_SEED: Final = 0x9747B28C
_MURMUR2_FACTOR: Final = 0x5BD1E995
_32_BITS: Final = 0xFFFFFFFF
_OF_A_VIEW: Final = re.compile(r"([^.]+\.[^.]+)\.v[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic; `key` says in words what its records are keyed by, `kept_days` None that they are kept for ever.

    Events are kept for ever, because a view that is built again reads them from the first. What is `private` to us is
    kept for no longer than `kept_days`: nobody else may want it for longer. `record_bytes_max` is the largest record
    that the broker takes, where that is not its own limit of 1 MiB.
    """

    name: str
    partitions: int
    key: str
    description: str
    kept_days: int | None = None
    private: bool = False
    record_bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A reader: `<service>.<view>.v<n>` for a view, `<service>.<policy>` for a policy."""

    name: str
    topics: tuple[str, ...]

    @property
    def view(self) -> str | None:
        """`<service>.<view>` where it is the reader of a view."""
        found = _OF_A_VIEW.fullmatch(self.name)
        return None if found is None else found[1]

    @property
    def dead_letters(self) -> Topic:
        """The topic of the records that this reader could not process."""
        return dead_letters(self.name)


def dead_letters(group: str) -> Topic:
    """The dead letters of a consumer group, with the reason and the origin in their headers, and nothing in clear."""
    return Topic(
        f"{group}.dead-letters",
        1,
        "nothing",
        f"Records that {group} could not process, and why",
        kept_days=DEAD_LETTERS_KEPT_DAYS,
        private=True,
        record_bytes_max=DEAD_LETTER_BYTES_MAX,
    )


COREBANK_POSTINGS: Final = Topic(
    "corebank.postings",
    PARTITIONS,
    "the branch system's own key",
    "Postings in the canonical schema, one per record",
    kept_days=14,
)
CONTEXTS: Final = ("ingest", "customer")
"""Each context has its public events in `contracts.<context>` and publishes them to a topic of its own."""

EVENTS: Final[dict[str, Topic]] = {
    context: Topic(
        f"crm.{context}.events", PARTITIONS, "subject id", f"Public events of the context {context}"
    )
    for context in CONTEXTS
}
"""The topic of each context's public events."""

INGEST_EVENTS: Final = EVENTS["ingest"]
CUSTOMER_EVENTS: Final = EVENTS["customer"]

CONSUMERS: Final = tuple(ConsumerGroup(name, topics) for name, topics in GROUPS.items())

TOPICS: Final[tuple[Topic, ...]] = (
    COREBANK_POSTINGS,
    *EVENTS.values(),
    *(group.dead_letters for group in CONSUMERS),
)


def partition_of(subject: UUID, partitions: int = PARTITIONS) -> int:
    """The partition that holds a subject, whose key is its canonical text."""
    return partition_of_key(str(subject).encode(), partitions)


class Place(NamedTuple):
    """Where the events of a subject lie on a topic."""

    key: bytes
    partition: int


@lru_cache(PARTITIONS_CACHED_MAX)
def place_of(subject: int, partitions: int) -> Place:
    """The place of a subject that is given as an integer, for whoever asks tens of thousands of times a second: a UUID
    computes its hash, and its text, in Python each time."""
    key = str(UUID(int=subject)).encode()
    return Place(key, partition_of_key(key, partitions))


def partition_of_key(key: bytes, partitions: int = PARTITIONS) -> int:
    """The partition of a key by the default partitioner of Kafka's Java client (`toPositive(murmur2(key)) % partitions`).

    A topic of others with the same keys and as many partitions is co-partitioned: Kafka Streams can join the two.
    """
    return _positive_murmur2(key) % partitions


@lru_cache(PARTITIONS_CACHED_MAX)
def _positive_murmur2(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), without a sign."""
    length = len(key)
    found = _MURMUR2_SEED ^ length
    for four in unpack_from(f"<{length // 4}I", key):
        mixed = four * _MURMUR2_FACTOR & _32_BITS
        mixed = (mixed ^ mixed >> 24) * _MURMUR2_FACTOR & _32_BITS
        found = (found * _MURMUR2_FACTOR & _32_BITS) ^ mixed
    if rest := key[length - length % 4 :]:
        found = (found ^ int.from_bytes(rest, "little")) * _MURMUR2_FACTOR & _32_BITS
    found = (found ^ found >> 13) * _MURMUR2_FACTOR & _32_BITS
    return found ^ found >> 15
