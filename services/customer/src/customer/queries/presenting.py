"""Documents of the views as responses show them: personal values opened and masked."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from chassis.privacy.keys import ERASED, Origin
from chassis.privacy.masking import (
    Mask,
    masked_birthday,
    masked_email,
    masked_identity_number,
    masked_name,
    masked_phone,
    masked_text,
)
from chassis.read.documents import Document
from chassis.read.showing import Keys
from chassis.write.events import event_id

from customer.catalogue import CONTEXT as CUSTOMER
from customer.catalogue import INGEST
from customer.holdings import owners, parties_on
from customer.masking import masked_account, masked_address, masked_company

IDS_CACHED_MAX: Final = 65_536


_MASKS: Final[dict[str, Mask]] = {
    "phone": masked_phone,
    "email": masked_email,
    "address": masked_address,
    "born_on": masked_birthday,
    "identity_number": masked_identity_number,
}


@lru_cache(IDS_CACHED_MAX)
def uuid_of(text: str) -> UUID:
    """The id of a document; those that were asked before come from a cache of `IDS_CACHED_MAX`."""
    return UUID(text)


def in_order(documents: Sequence[Document]) -> list[Document]:
    """Sorts by id: the database returns documents in the order of writing, which differs in a rebuilt view."""
    return sorted(documents, key=itemgetter("_id"))


def subjects_of(found: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """The subjects whose keys open the values of a customer and of these accounts."""
    return [uuid_of(found["_id"]), *(uuid_of(account["_id"]) for account in accounts)]


def customers_by_party(customers: Sequence[Document], day: str) -> dict[str, str]:
    """Returns the customers of the parties of these customers on a business date."""
    return {party: customer["_id"] for customer in customers for party in parties_on(customer, day)}


def mask_of(field: str, kind: str) -> Mask:
    """The mask of a detail of a person or company."""
    return _MASKS.get(field) or (masked_company if kind == "company" else masked_name)


def name_of(document: Mapping[str, Any], keys: Keys) -> str | None:
    """The masked name of a customer."""
    return keys.masked(
        document["name"],
        mask_of("name", document["kind"]),
        context=CUSTOMER,
        subject=uuid_of(document["_id"]),
        field="name",
    )


def customer_shown(
    document: Document, named: Collection[str], tags: Mapping[str, Document], keys: Keys
) -> Document:
    """A customer as `CustomerShown` has it. `named`: the other customers that are in the caller's scope. `tags`: by code, the
    tag that a tag stands for."""
    sharing = document.get("shares_number_with", ())
    subject = uuid_of(document["_id"])
    masked = {
        field: keys.masked(document[field], mask, context=CUSTOMER, subject=subject, field=field)
        for field, mask in _MASKS.items()
    }
    return {
        "customer_id": document["_id"],
        "version": document["_seq"],
        "kind": document["kind"],
        "origin": document["origin"],
        "name": name_of(document, keys),
        **masked,
        "branch": document["branch"],
        "provenance": document.get("provenance", {}),
        "invalid": document.get("invalid", []),
        "contradictions": [_contradiction(document, one, keys) for one in document.get("contradictions", ())],
        "shares_number_with": [one for one in sharing if one in named],
        "shares_number_out_of_scope": sum(one not in named for one in sharing),
        "references": [
            *(_reference(one, "confirmed") for one in document["parties"]),
            *(
                _reference(one, "disputed" if one["disputed"] else "pending")
                for one in document.get("claimed", ())
            ),
        ],
        "references_since": document.get("parties_since"),
        "review": document.get("review"),
        "tags": _tags(document.get("tags", ()), tags),
        "consents": document.get("consents", []),
        "tier": document.get("tier"),
        "registered_at": document["registered_at"],
        "erased_at": document.get("erased_at"),
        "contact_erased_at": document.get("contact_erased_at"),
        "changed_at": document["changed_at"],
    }


def _tags(had: Sequence[Mapping[str, Any]], tags: Mapping[str, Document]) -> list[Document]:
    """The tags of a customer. Of those that were merged into one, that one, as the first of them was added."""
    found: dict[str, Document] = {}
    for one in had:
        tag = tags.get(one["code"], {"_id": one["code"], "name": one["code"]})
        shown = {
            "tag": tag["_id"],
            "name": tag["name"],
            **{name: one[name] for name in ("origin", "rule", "since")},
        }
        found.setdefault(tag["_id"], shown)
    return list(found.values())


def _reference(party: Mapping[str, Any], status: str) -> Document:
    return {
        "source": party["source"],
        "party_id": party["party_id"],
        "status": status,
        "linked_from": party.get("from"),
        "until": party.get("until"),
    }


def _contradiction(document: Mapping[str, Any], one: Mapping[str, Any], keys: Keys) -> Document:
    """A source's value of a field that differs from staff's, masked.

    The current value is the customer's own field.
    """
    field, value = one["field"], one["value"]
    if field != "branch":
        mask = mask_of(field, document["kind"])
        value = keys.masked(value, mask, context=CUSTOMER, subject=uuid_of(document["_id"]), field=field)
    named = ("field", "source", "party_id", "invalid", "at", "sequence")
    return {**{name: one[name] for name in named}, "stated": value}


def opened_account(document: Document, keys: Keys) -> Document:
    """The document of an account with its number and its cards masked."""
    subject = uuid_of(document["_id"])
    return {
        **document,
        "account": keys.masked(
            document["account"], masked_account, context=INGEST, subject=subject, field="account"
        ),
        "cards": _cards(document["cards"], subject, keys) if document["cards"] else [],
    }


def _cards(cards: Sequence[Document], subject: UUID, keys: Keys) -> list[Document]:
    """The cards of an account; of one that was described twice, the later description."""
    found: dict[str, Document] = {}
    for card in cards:
        number = keys.opened(card["card"], context=INGEST, subject=subject, field="card")
        place = str(card["sequence"]) if number is None or number == ERASED else number
        found.pop(place, None)
        found[place] = {**card, "card": masked_account(number)}
    return list(found.values())


def account_shown(
    account: Document,
    own: set[str],
    described: Mapping[str, Document],
    linked: Mapping[str, str],
    hidden: Collection[str],
    keys: Keys,
) -> Document:
    """An opened account with all its holders, as `AccountHeld` has it.

    `own` are the parties of the customer in question, `described` parties as master data describes them, `linked` the
    customers of parties, and `hidden` the parties of customers out of the caller's scope, of whom neither id nor name is
    shown.
    """
    holders = []
    for holder in account["holders"]:
        out_of_scope = holder["party_id"] in hidden and holder["party_id"] not in own
        party = None if out_of_scope else described.get(holder["party_id"])
        kind = "person" if party is None else party["kind"]
        name = None if party is None else party["name"]
        holders.append(
            {
                "party_id": holder["party_id"],
                "role": holder["role"],
                "is_this_customer": holder["party_id"] in own,
                "customer_id": None if out_of_scope else linked.get(holder["party_id"]),
                "out_of_scope": out_of_scope,
                "name": keys.masked(
                    name,
                    masked_company if kind == "company" else masked_name,
                    context=INGEST,
                    subject=uuid_of(holder["party_id"]),
                    field="name",
                ),
            }
        )
    return {
        **account_known(account),
        "joint": owners(account["holders"], own, linked) > 1,
        "holders": holders,
        "cards": [
            {"card": card["card"], "kind": card["kind"], "issued_on": card["issued_on"]}
            for card in account["cards"]
        ],
        "standing_orders": [
            {
                "order": order["order"],
                "amount_minor": order["amount_minor"],
                "currency": order["currency"],
                "kind": order["kind"],
                "counterparty_bank": order["counterparty_bank"],
                "counterparty_account": keys.masked(
                    order["counterparty_account"],
                    masked_account,
                    context=INGEST,
                    subject=uuid_of(account["_id"]),
                    field="counterparty_account",
                ),
            }
            for order in account["orders"]
        ],
    }


def account_known(account: Document) -> Document:
    """An opened account as `AccountKnown` has it."""
    return {
        "account_id": account["_id"],
        "account": account["account"],
        "source": account["source"],
        "product": account["product"],
        "opened_on": account["opened_on"],
        "closed_on": account.get("closed_on"),
        "branch": account["branch"],
        "balances": [
            {"currency": currency, "balance_minor": one["minor"], "movements": one["movements"]}
            for currency, one in sorted(account["balances"].items())
        ],
        "holders_named": len(account["holders"]),
        "movements": account["movements"],
        "booked_through": account["booked_through"],
        "recorded_at": account["changed_at"],
    }


def movement_shown(account: UUID, document: Document, keys: Keys) -> Document:
    """A movement as `Movement` has it."""
    sequence = document["_seq"]
    origin = Origin(INGEST, account, sequence, document["stored_name"])

    def shown(field: str, mask: Mask) -> str | None:
        return keys.masked_token(document.get(field), mask, origin=origin, field=field)

    plain = (
        "posting_id",
        "core_transaction_id",
        "leg",
        "amount_minor",
        "currency",
        "booked_on",
        "value_on",
        "outflow_minor",
        "kind",
        "counted_kind",
        "counted_month",
        "channel",
        "reverses",
        "counterparty_bank",
        "source",
        "intake",
        "line",
        "position",
        "recorded_at",
    )
    return {
        "event_id": str(event_id(account, sequence)),
        "sequence": sequence,
        **{field: document.get(field) for field in plain},
        "counterparty_account": shown("counterparty_account", masked_account),
        "counterparty_name": shown("counterparty_name", masked_name),
        "text": shown("text", masked_text),
    }
