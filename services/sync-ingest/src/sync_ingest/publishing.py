"""Maps private events to public events. Each stored name has a public event, or None on purpose.

Sealed values are published as they are stored.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from chassis.write.events import StoredEvent
from contracts import ingest as public

Data = dict[str, Any]


class Published(NamedTuple):
    """The public event of one stored event."""

    event: type[public.IngestEvent]
    body: bytes


class _Body(msgspec.Struct):
    data: Data


def _same(data: Data) -> Data:
    return data


def _posting(data: Data) -> Data:
    data.pop("digest", None)
    return data


def _without_raw(data: Data) -> Data:
    for name in ("raw", "kind", "whole_file"):
        data.pop(name, None)
    return data


def _released(data: Data) -> Data:
    return {name: data[name] for name in ("source", "quarantine", "replaced_by")}


def _certificate(data: Data) -> Data:
    findings = data["findings"]
    red = sorted({p["account_id"] for p in findings["problems"] if p.get("account_id")})
    names = ("status", "records", "posted", "duplicates", "quarantined", "accounts", "late", "booked_through")
    return {
        "source": data["source"],
        "certificate": data["certificate"],
        **{name: findings[name] for name in names},
        "red_accounts": red,
    }


def _certificate_with_reasons(data: Data) -> Data:
    return _certificate(data) | {
        "reasons": data["findings"]["reasons"],
        "expected_every_seconds": data["expected_every_seconds"],
        "received_at": data.get("received_at"),
    }


PUBLIC: Final[dict[str, tuple[type[public.IngestEvent], Callable[[Data], Data]] | None]] = {
    "account-seen": (public.AccountSeen, _same),
    "account-opened": (public.AccountOpened, _same),
    "account-closed": (public.AccountClosed, _same),
    "account-reopened": (public.AccountReopened, _same),
    "holder-named": (public.AccountHolderNamed, _same),
    "holder-removed": (public.AccountHolderRemoved, _same),
    "card-issued": (public.CardIssued, _same),
    "loan-granted": (public.LoanGranted, _same),
    "standing-order-set": (public.StandingOrderSet, _same),
    "records-moved": (public.AccountRecordsMoved, _same),
    "posting-undone": None,
    "posting-booked": (public.PostingBooked, _posting),
    "posting-reversed": (public.PostingReversed, _posting),
    "party-described": (public.PartyDescribed, _same),
    "intake-received": None,
    "feed-record-quarantined": (public.FeedRecordQuarantinedV2, _without_raw),
    "quarantined-record-released": (public.FeedRecordReleased, _released),
    "quarantined-record-dismissed": (public.FeedRecordDismissed, _same),
    "quarantined-record-shown": None,
    "repair-proposed": None,
    "repair-rejected": None,
    "repair-withdrawn": None,
    "reconciliation-certified": (public.FeedCertifiedV2, _certificate_with_reasons),
    "contradictions-acknowledged": None,
    "source-scheduled": None,
    "releases-closed": None,
    "releases-opened": None,
}
OLDER: Final[dict[tuple[str, int], tuple[type[public.IngestEvent], Callable[[Data], Data]]]] = {
    ("feed-record-quarantined", 1): (public.FeedRecordQuarantined, _without_raw),
    ("reconciliation-certified", 1): (public.FeedCertified, _certificate),
}
"""What was published in an older version is published in it for ever. Readers lift it."""
STORED_NAMES_TOLD: Final = frozenset(PUBLIC)

_bodies: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def published(stored: StoredEvent) -> Published | None:
    """The public event of a stored event, of any version; None where it is private to ingest."""
    words = PUBLIC[stored.name]
    if words is None:
        return None
    data = _bodies.decode(stored.body).data
    event, choose = OLDER.get((stored.name, data.pop("v", 1)), words)
    return Published(event, _encode(choose(data)))
