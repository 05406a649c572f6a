"""Private events to public words, on purpose: for each stored name what the others may know, or nothing.

Sealed values go out as they are stored, so nobody who cannot open them learns more from the topic than from here.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from chassis.events import StoredEvent
from contracts import ingest as public

Data = dict[str, Any]


class Published(NamedTuple):
    """What goes out for one stored event."""

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


_WORDS: Final[dict[str, tuple[type[public.IngestEvent], Callable[[Data], Data]] | None]] = {
    "account-seen": (public.AccountSeen, _same),
    "account-opened": (public.AccountOpened, _same),
    "account-closed": (public.AccountClosed, _same),
    "account-reopened": (public.AccountReopened, _same),
    "holder-named": (public.AccountHolderNamed, _same),
    "holder-removed": (public.AccountHolderRemoved, _same),
    "card-issued": (public.CardIssued, _same),
    "loan-granted": (public.LoanGranted, _same),
    "standing-order-set": (public.StandingOrderSet, _same),
    "posting-undone": None,
    "posting-booked": (public.PostingBooked, _posting),
    "posting-reversed": (public.PostingReversed, _posting),
    "party-described": (public.PartyDescribed, _same),
    "intake-received": None,
    "feed-record-quarantined": (public.FeedRecordQuarantined, _without_raw),
    "quarantined-record-released": (public.FeedRecordReleased, _released),
    "quarantined-record-dismissed": (public.FeedRecordDismissed, _same),
    "quarantined-record-shown": None,
    "repair-proposed": None,
    "reconciliation-certified": (public.FeedCertified, _certificate),
}
STORED_NAMES_TOLD: Final = frozenset(_WORDS)

_bodies: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def published(stored: StoredEvent) -> Published | None:
    """The public words for a stored event, or None where it is nobody else's business."""
    words = _WORDS[stored.name]
    if words is None:
        return None
    event, choose = words
    data = _bodies.decode(stored.body).data
    data.pop("v", None)
    return Published(event, _encode(choose(data)))
