"""Ids that ingest derives, beside those every service shares: the same input always gives the same id."""

from collections.abc import Sequence
from hashlib import blake2b, sha1
from typing import Final, NewType
from uuid import UUID, SafeUUID, uuid5

import msgspec
from contracts.identity import CRM_NAMESPACE

from sync_ingest.domain.records import AnyRecord, Posting

IntakeId = NewType("IntakeId", UUID)
ContentId = NewType("ContentId", UUID)
QuarantineId = NewType("QuarantineId", UUID)
CertificateId = NewType("CertificateId", UUID)
FeedId = NewType("FeedId", UUID)

_NAMESPACE: Final = uuid5(CRM_NAMESPACE, "sync-ingest")
_UUID_CLEAR: Final = ~((0xF000 << 64) | (0xC000 << 48))
_UUID_5: Final = (5 << 76) | (0x8000 << 48)
_UNKNOWN: Final = SafeUUID.unknown
_new_uuid: Final = object.__new__
_number: Final = int.from_bytes
_set_int: Final = UUID.__dict__["int"].__set__
_set_safe: Final = UUID.__dict__["is_safe"].__set__
_encode: Final = msgspec.json.Encoder().encode


def feed_id(source: str) -> FeedId:
    """The stream of everything that happens to one source's feed."""
    return FeedId(uuid5(_NAMESPACE, f"feed:{source}"))


def content_id(source: str, sha256: bytes) -> ContentId:
    """What the same bytes from the same source are kept under, once."""
    return ContentId(uuid5(_NAMESPACE, f"content:{source}:{sha256.hex()}"))


def intake_id(source: str, sha256: bytes, reading: str) -> IntakeId:
    """The same bytes from the same source, read in the same way, are the same intake."""
    return IntakeId(uuid5(_NAMESPACE, f"intake:{source}:{sha256.hex()}:{reading}"))


def quarantine_id(source: str, raw: bytes, reason: str, ordinal: int) -> QuarantineId:
    """By content and count, not by place: a shuffled feed quarantines the same entries."""
    digest = blake2b(raw, digest_size=16).hexdigest()
    return QuarantineId(uuid5(_NAMESPACE, f"quarantine:{source}:{reason}:{digest}:{ordinal}"))


def certificate_id(source: str, previous: UUID | None, intakes: list[IntakeId]) -> CertificateId:
    """A certificate follows the source's previous one and is of a set of intakes."""
    joined = ",".join(sorted(intake.hex for intake in intakes))
    return CertificateId(uuid5(_NAMESPACE, f"certificate:{source}:{previous}:{joined}"))


def released_id(quarantined: QuarantineId) -> UUID:
    """Identity of the release of a quarantined record: it happens once."""
    return uuid5(_NAMESPACE, f"released:{quarantined}")


def posting_ids(source: str, postings: Sequence[Posting]) -> list[UUID]:
    """`contracts.identity.posting_id` of each posting, without what the standard library adds to each UUID."""
    if not source or ":" in source:
        raise ValueError(f"a source name is not empty and holds no colon: {source!r}")
    started = sha1(CRM_NAMESPACE.bytes + f"posting:{source}:".encode(), usedforsecurity=False).copy
    made = []
    for p in postings:
        hasher = started()
        account = p.account
        rest = f"{len(account)}:{account}:{p.core_transaction_id}:{p.leg}"
        hasher.update(rest.encode("utf-8", "surrogatepass"))
        identity = _new_uuid(UUID)
        _set_int(identity, _number(hasher.digest()[:16], "big") & _UUID_CLEAR | _UUID_5)
        _set_safe(identity, _UNKNOWN)
        made.append(identity)
    return made


def seen_id(account: UUID) -> UUID:
    """Identity of the first sight of an account: it happens once."""
    return uuid5(_NAMESPACE, f"seen:{account}")


def described_id(subject: str, revision: int) -> UUID:
    """Identity of the n-th description of one thing in the source's master data."""
    return uuid5(_NAMESPACE, f"described:{subject}:{revision}")


def subject_id(subject: str) -> UUID:
    """Key under which the last description of one thing is remembered."""
    return uuid5(_NAMESPACE, f"subject:{subject}")


class Digester:
    """Digests what records say under one key, so that a digest tells nothing to whom the key is not given."""

    __slots__ = ("_started",)

    def __init__(self, key: bytes) -> None:
        self._started = blake2b(digest_size=12, key=key[:64])

    def __call__(self, record: AnyRecord) -> str:
        """The digest of a record."""
        hasher = self._started.copy()
        hasher.update(_encode(record))
        return hasher.hexdigest()


def content_digest(record: AnyRecord, key: bytes) -> str:
    """The digest of one record alone."""
    return Digester(key)(record)
