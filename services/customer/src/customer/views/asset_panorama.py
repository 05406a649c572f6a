"""The view `asset_panorama`: accounts, their movements, the parties that hold them, and the state of each
source.

An account's document is the fold of all its events, so that one read of a customer's accounts gives every
figure. A movement's document is one event and is never changed. Money is signed minor units.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from chassis.read.documents import Document, sealed
from chassis.read.projecting import Collection, Delivered, DocumentKey, Index, View
from contracts import topics

from customer.months import add_posting

ACCOUNTS: Final = "accounts"
MOVEMENTS: Final = "movements"
PARTIES: Final = "parties"
SOURCES: Final = "sources"

MONTHS_KEPT_MAX: Final = 3
"""Months of outflow that an account's document keeps per currency; older ones are summed from the movements.

Thirteen months made documents three times as long and a panorama half as fast
(`benchmarks/panorama_read.py`).
"""
MEMBERS_MAX: Final = 1_000
"""The most holders, cards, loans or standing orders of one account. An account with more is parked."""

ACCOUNT_CHARACTERS: Final = 36
"""The id of a movement begins with the id of its account."""
INSTANTS_CACHED_MAX: Final = 1_024
SUBJECTS_CACHED_MAX: Final = 65_536

_POSTINGS: Final = frozenset({"posting.booked", "posting.reversed"})
_NO_KIND: Final = "other"
_EASTERNMOST: Final = timedelta(hours=14)
"""The largest offset from UTC: no time zone has a later date than UTC with this offset."""


class TooManyMembers(ValueError):
    """An account has more holders, cards, loans or standing orders than a document may hold."""


def keys(event: Delivered) -> list[DocumentKey]:
    """Collection and id of each document that an event changes."""
    subject, account = _subject(event.subject.int)
    if event.type in _POSTINGS:
        return [account, DocumentKey(MOVEMENTS, movement_id(subject, event.sequence))]
    if event.type in _CHANGES:
        return [account]
    if event.type == "party.described":
        return [DocumentKey(PARTIES, subject)]
    if event.type == "feed.certified":
        return [DocumentKey(SOURCES, subject)]
    return []


def movement_id(account: str, sequence: int) -> str:
    """Ids of an account's movements sort in the order in which they were recorded."""
    return f"{account}:{sequence:010d}"


def project(key: DocumentKey, document: Document | None, event: Delivered) -> Document:
    """The document of that collection after an event."""
    if key.collection == MOVEMENTS:
        return movement(str(key.id)[:ACCOUNT_CHARACTERS], event)
    if key.collection == ACCOUNTS:
        return account(document, event)
    if key.collection == PARTIES:
        return party(event)
    return source(document, event)


def account(document: Document | None, event: Delivered) -> Document:
    """The account after an event. The first event of an account may be of any type."""
    after = _blank(event) if document is None else document
    change = _moved if event.type in _POSTINGS else _CHANGES[event.type]
    change(after, event)
    after["position"] = event.position
    after["changed_at"] = written(event.recorded_at)
    return after


def movement(account: str, event: Delivered) -> Document:
    """The posting as published, with its position.

    Sealed values are tokens, opened with `stored_name` and `_seq`.
    """
    data = event.data
    kind, month = counted(data)
    return {
        **data,
        "kind": data.get("kind") or _NO_KIND,
        "account": account,
        "outflow_minor": outflow_minor(event),
        "counted_kind": kind,
        "counted_month": month,
        "stored_name": event.stored_name,
        "position": event.position,
        "recorded_at": written(event.recorded_at),
    }


def party(event: Delivered) -> Document:
    """A party as last described."""
    fields = ("name", "party", "born_on", "gender", "identity_number", "phone", "email", "address")
    return {
        "source": event.data["source"],
        "kind": event.data["kind"],
        "branch": event.data.get("branch"),
        **{field: sealed(event, field) for field in fields},
        "position": event.position,
        "described_at": written(event.recorded_at),
    }


def source(document: Document | None, event: Delivered) -> Document:
    """The dates of a source, and the findings of its last certificate."""
    data = event.data
    before = None if document is None else document["booked_through"]
    received_at = data.get("received_at")
    heard = {} if received_at is None else {"heard_at": written(datetime.fromisoformat(received_at))}
    return {
        "source": data["source"],
        "certificate": data["certificate"],
        "status": data["status"],
        "reasons": list(data.get("reasons") or ()),
        "expected_every_seconds": data.get("expected_every_seconds"),
        "red_accounts": list(data.get("red_accounts") or ()),
        "booked_through": _through(before, _past(data.get("booked_through"), event.recorded_at)),
        "certified_at": written(event.recorded_at),
        **heard,
        "position": event.position,
    }


def outflow_minor(event: Delivered) -> int:
    """The outflow of a posting: a debit adds, a reversal of a debit subtracts, a credit is 0.

    A reversal of a credit moves money out of the account and does not count as outflow.
    """
    amount: int = event.data["amount_minor"]
    went_out = amount > 0 if event.type == "posting.reversed" else amount < 0
    return -amount if went_out else 0


def counted(posting: Document) -> tuple[str, str]:
    """The transaction type and month (YYYY-MM) under which an outflow counts.

    A reversal counts under those of the posting that it reverses, where it names them.
    """
    reversed_on = posting.get("reversed_booked_on")
    if reversed_on is not None:
        return posting.get("reversed_kind") or _NO_KIND, reversed_on[:7]
    return posting.get("kind") or _NO_KIND, posting["booked_on"][:7]


def _through(before: str | None, day: str | None) -> str | None:
    """The later of two business dates."""
    return before if day is None or (before is not None and before >= day) else day


def _past(day: str | None, recorded_at: datetime) -> str | None:
    """A business date; None for one that was in the future when it was recorded."""
    return None if day is None or day > _latest_day(recorded_at) else day


@lru_cache(INSTANTS_CACHED_MAX)
def _latest_day(instant: datetime) -> str:
    return (instant + _EASTERNMOST).date().isoformat()


@lru_cache(INSTANTS_CACHED_MAX)
def written(instant: datetime) -> str:
    """An instant as text, because a date of BSON has no microseconds."""
    return instant.isoformat()


@lru_cache(SUBJECTS_CACHED_MAX)
def _subject(subject: int) -> tuple[str, DocumentKey]:
    """The text of a subject, and the key of the account that it may be.

    It is looked up by the integer of the UUID. Hashing the UUID itself is done in Python.
    """
    text = str(UUID(int=subject))
    return text, DocumentKey(ACCOUNTS, text)


def _blank(event: Delivered) -> Document:
    return {
        "source": event.data["source"],
        "account": None,
        "name": None,
        "product": None,
        "opened_on": None,
        "currency": None,
        "branch": None,
        "closed_on": None,
        "holders": [],
        "cards": [],
        "loans": [],
        "orders": [],
        "balances": {},
        "outflows": {},
        "months": {},
        "repaid": {},
        "movements": 0,
        "booked_through": None,
    }


def _moved(document: Document, event: Delivered) -> None:
    data = event.data
    currency, amount = data["currency"], data["amount_minor"]
    day = _past(data["booked_on"], event.recorded_at)
    balance = document["balances"].get(currency)
    if balance is None:
        balance = document["balances"][currency] = {"minor": 0, "movements": 0, "booked_through": None}
    balance["minor"] += amount
    balance["movements"] += 1
    balance["booked_through"] = _through(balance["booked_through"], day)
    add_posting(
        document["months"].setdefault(currency, {}),
        data.get("reversed_booked_on") or data["booked_on"],
        amount,
    )
    document["movements"] += 1
    document["booked_through"] = _through(document["booked_through"], day)
    if document["product"] is None:
        document["product"] = data.get("product")
    out = outflow_minor(event)
    if out:
        kind, month = counted(data)
        _add_outflow(document["outflows"].setdefault(currency, {}), month, kind, out)
        if kind == "loan_repayment":
            repaid = document["repaid"]
            repaid[currency] = repaid.get(currency, 0) + out


def _add_outflow(months: dict[str, dict[str, int]], month: str, kind: str, out: int) -> None:
    kinds = months.setdefault(month, {})
    kinds[kind] = kinds.get(kind, 0) + out
    if len(months) > MONTHS_KEPT_MAX:
        del months[min(months)]


def _seen(document: Document, event: Delivered) -> None:
    if document["account"] is None:
        document["account"] = sealed(event, "account")


def _opened(document: Document, event: Delivered) -> None:
    data = event.data
    document["account"] = sealed(event, "account")
    document["name"] = sealed(event, "name")
    document["product"] = data["product"]
    document["opened_on"] = data["opened_on"]
    document["currency"] = data.get("currency")
    document["branch"] = data.get("branch")


def _closed(document: Document, event: Delivered) -> None:
    document["closed_on"] = event.data.get("closed_on")


def _held(document: Document, event: Delivered) -> None:
    """A right as last stated. An ended right is kept, so that a query can ask for a day on which it held."""
    data = event.data
    holder = {
        "party_id": data["party_id"],
        "role": data["role"],
        "from": data.get("held_from"),
        "until": data.get("held_until"),
        "sequence": event.sequence,
    }
    document["holders"] = _replaced(document["holders"], holder, "party_id")


def _carded(document: Document, event: Delivered) -> None:
    # The number of a card is sealed again each time, so two records of one card can be matched only when opened.
    card = {
        "card": sealed(event, "card"),
        "kind": event.data.get("kind"),
        "issued_on": event.data["issued_on"],
        "party_id": event.data.get("party_id"),
        "sequence": event.sequence,
    }
    document["cards"] = _replaced(document["cards"], card, "sequence")


def _granted(document: Document, event: Delivered) -> None:
    data = event.data
    loan: dict[str, Any] = {
        "loan": data["loan"],
        "granted_on": data["granted_on"],
        "amount_minor": data["amount_minor"],
        "currency": data["currency"],
        "duration_months": data["duration_months"],
        "payment_minor": data["payment_minor"],
        "status": data.get("status"),
        "sequence": event.sequence,
    }
    document["loans"] = _replaced(document["loans"], loan, "loan")


def _ordered(document: Document, event: Delivered) -> None:
    data = event.data
    order = {
        "order": data["order"],
        "amount_minor": data["amount_minor"],
        "currency": data["currency"],
        "kind": data.get("kind"),
        "counterparty_bank": data.get("counterparty_bank"),
        "counterparty_account": sealed(event, "counterparty_account"),
        "sequence": event.sequence,
    }
    document["orders"] = _replaced(document["orders"], order, "order")


def _moved_away(document: Document, event: Delivered) -> None:
    gone = set(event.data["sequences"])
    for members in ("cards", "loans", "orders"):
        document[members] = [one for one in document[members] if one["sequence"] not in gone]


def _replaced(members: list[Document], new: Document, by: str) -> list[Document]:
    kept = [one for one in members if one[by] != new[by]]
    if len(kept) >= MEMBERS_MAX:
        raise TooManyMembers(f"more than {MEMBERS_MAX}")
    return [*kept, new]


_CHANGES: Final[dict[str, Callable[[Document, Delivered], None]]] = {
    "account.seen": _seen,
    "account.opened": _opened,
    "account.closed": _closed,
    "account.reopened": _closed,
    "account.holder_named": _held,
    "account.holder_removed": _held,
    "card.issued": _carded,
    "loan.granted": _granted,
    "standing_order.set": _ordered,
    "account.records_moved": _moved_away,
}


VIEW: Final = View(
    name="asset_panorama",
    version=7,
    sources=(topics.INGEST_EVENTS.name,),
    events=_POSTINGS | frozenset(_CHANGES) | {"party.described", "feed.certified"},
    collections=(
        Collection(ACCOUNTS, (Index((("holders.party_id", 1),)),)),
        Collection(MOVEMENTS, insert_only=True),
        Collection(PARTIES),
        Collection(SOURCES, (Index((("source", 1),)),)),
    ),
    keys=keys,
    project=project,
)
