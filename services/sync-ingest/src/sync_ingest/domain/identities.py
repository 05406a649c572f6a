"""Ids that ingest derives, beside those every service shares: the same input always gives the same id."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NewType, cast
from uuid import UUID, uuid5

import msgspec
from contracts.identity import CRM_NAMESPACE, ExternalIds

from sync_ingest.domain.records import AnyRecord, Posting

IntakeId = NewType("IntakeId", UUID)
ContentId = NewType("ContentId", UUID)
QuarantineId = NewType("QuarantineId", UUID)
CertificateId = NewType("CertificateId", UUID)
FeedId = NewType("FeedId", UUID)

_NAMESPACE: Final = uuid5(CRM_NAMESPACE, "sync-ingest")
_encode: Final = msgspec.json.Encoder().encode
_encode_lines: Final = msgspec.json.Encoder().encode_lines


def feed_id(source: str) -> FeedId:
    """The stream of everything that happens to one source's feed."""
    return FeedId(uuid5(_NAMESPACE, f"feed:{source}"))


def content_id(ids: ExternalIds, source: str, sha256: bytes) -> ContentId:
    """The id under which the same bytes of the same source are kept once."""
    return ContentId(ids.of_source("content", source, sha256.hex()))


def intake_id(ids: ExternalIds, source: str, sha256: bytes, reading: str) -> IntakeId:
    """The same bytes from the same source, read in the same way, are the same intake."""
    return IntakeId(ids.of_source("intake", source, f"{sha256.hex()}:{reading}"))


def again_id(ids: ExternalIds, source: str, intake: IntakeId) -> IntakeId:
    """A certified intake that is read once more because more of it can be booked now."""
    return IntakeId(ids.of_source("again", source, intake.hex))


def quarantine_id(ids: ExternalIds, source: str, intake: UUID, line: int) -> QuarantineId:
    """By intake and place: the same bytes read in the same way give the same entry, any other bytes another
    one."""
    return QuarantineId(ids.of_source("quarantine", source, f"{intake}:{line}"))


def row_id(ids: ExternalIds, source: str, raw: bytes, ordinal: int) -> UUID:
    """The same row of a source, whichever of its files brings it: the n-th of those that read alike in one
    file."""
    return ids.of_source("row", source, f"{blake2b(raw, digest_size=32).hexdigest()}:{ordinal}")


def repair_id(ids: ExternalIds, source: str, quarantined: QuarantineId, repaired: bytes) -> UUID:
    """Names exactly these bytes as the repair of this entry, so that an approval covers no other bytes."""
    return ids.of_source("repair", source, f"{quarantined}:{blake2b(repaired, digest_size=32).hexdigest()}")


def request_fingerprint(ids: ExternalIds, digest: bytes) -> bytes:
    """Tells a request, by a digest of all of it, from another one under the same key.

    It is keyed: a plain digest of somebody's data can be found by trying, and would outlive the erasure.
    """
    return ids.of_source("request", "http", digest.hex()).bytes


def certificate_id(
    ids: ExternalIds, source: str, previous: UUID | None, intakes: list[IntakeId]
) -> CertificateId:
    """A certificate follows the source's previous one and is of a set of intakes."""
    joined = ",".join(sorted(intake.hex for intake in intakes))
    return CertificateId(ids.of_source("certificate", source, f"{previous}:{joined}"))


def resolved_id(quarantined: QuarantineId) -> UUID:
    """Identity of what resolves an entry, release or dismissal: one of them happens, once."""
    return uuid5(_NAMESPACE, f"released:{quarantined}")


def equals_id(ids: ExternalIds, source: str, posting: Posting) -> UUID:
    """The id that postings share which are equal in account, business date, amount and currency."""
    account = posting.account
    money = f"{posting.booked_on.isoformat()}:{posting.amount_minor}:{posting.currency}"
    return ids.of_source("equals", source, f"{len(account)}:{account}:{money}")


def ordinal_id(ids: ExternalIds, source: str, equals: UUID, ordinal: int) -> UUID:
    """The identity of a posting without a transaction id: the n-th, from 1, among its equals."""
    return ids.of_source("ordinal", source, f"{equals.hex}:{ordinal}")


def undone_id(original: UUID) -> UUID:
    """Identity of the reversal of a posting: a posting is reversed once."""
    return uuid5(_NAMESPACE, f"undone:{original}")


def posting_ids(ids: ExternalIds, source: str, postings: Sequence[Posting]) -> list[UUID]:
    """The identity of each posting; all of them have a transaction id."""
    legs = [(p.account, p.core_transaction_id, p.leg) for p in postings]
    return cast("list[UUID]", ids.postings(source, cast("list[tuple[str, str, int]]", legs)))


def seen_id(account: UUID) -> UUID:
    """Identity of the first sight of an account: it happens once."""
    return uuid5(_NAMESPACE, f"seen:{account}")


def described_id(subject: UUID, revision: int) -> UUID:
    """Identity of the n-th description of one thing in the source's master data."""
    return uuid5(_NAMESPACE, f"described:{subject}:{revision}")


class Digester:
    """Digests the content of records under one key, so that a digest reveals nothing without the key."""

    __slots__ = ("_started",)

    def __init__(self, key: bytes) -> None:
        self._started = blake2b(digest_size=12, key=key[:64])

    def __call__(self, content: bytes) -> str:
        """The digest of a record, of which this is the content."""
        hasher = self._started.copy()
        hasher.update(content)
        return hasher.hexdigest()


def contents(records: Sequence[AnyRecord]) -> list[bytes]:
    """What is digested of each record. JSON escapes line ends, so that all can be written at once."""
    return _encode_lines(records).splitlines() if records else []


def content_digest(record: AnyRecord, key: bytes) -> str:
    """The digest of one record alone."""
    return Digester(key)(_encode(record))
