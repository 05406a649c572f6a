"""The view `customers`: the details and external ids of a customer. One document per customer.

Personal values stay sealed. A source's own number is not in the document, only the party that it names.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from chassis.read.documents import Document, sealed
from chassis.read.projecting import Collection, Delivered, DocumentKey, Index, View
from contracts import topics

from customer.domain.events import DETAILS
from customer.domain.refusals import REFERENCES_MAX
from customer.lists import CUSTOMERS_LIST

CUSTOMERS: Final = CUSTOMERS_LIST.collection
TAG_CODES: Final = "tags.code"
_SEALED: Final = tuple(field for field in DETAILS if field != "branch")
_PARTIES_MAX: Final = 2 * REFERENCES_MAX
"""The domain refuses more than `REFERENCES_MAX` that stand; there is room for as many that have ended."""


class NotRegistered(ValueError):
    """An event of a customer came before its registration: the order is broken."""


def keys(event: Delivered) -> list[DocumentKey]:
    """The customer's one document."""
    return [DocumentKey(CUSTOMERS, str(event.subject))]


def project(_: DocumentKey, document: Document | None, event: Delivered) -> Document:
    """The customer's document after an event; raises NotRegistered."""
    if event.type == "customer.registered":
        empty: Document = {"parties": [], "tags": [], "consents": [], "profile": {}}
        begun = {**empty, "registered_at": event.recorded_at.isoformat()}
    elif document is None:
        raise NotRegistered(event.type)
    else:
        begun = document
    changed = {**begun, **_CHANGES[event.type](begun, event)}
    return {
        **changed,
        "questions": questions(changed),
        "position": event.position,
        "changed_at": event.recorded_at.isoformat(),
    }


def _registered(_: Document, event: Delivered) -> Document:
    data = event.data
    stated = [field for field in DETAILS if data.get(field) is not None]
    return {
        "kind": data["kind"],
        "origin": data["origin"],
        "branch": data.get("branch"),
        **{field: sealed(event, field) for field in _SEALED},
        "provenance": {field: _provenance(event) for field in stated},
        "invalid": list(data.get("invalid") or ()),
    }


def _provenance(event: Delivered) -> Document:
    """The author of a field, and the event of the customer's stream that stated it."""
    data = event.data
    return {
        "source": data.get("source"),
        "party_id": data.get("party_id"),
        "at": event.recorded_at.isoformat(),
        "sequence": event.sequence,
    }


def _value(event: Delivered, field: str) -> Any:
    return event.data.get(field) if field == "branch" else sealed(event, field)


def _changed(*fields: str) -> Callable[[Document, Delivered], Document]:
    def change(document: Document, event: Delivered) -> Document:
        changed = [field for field in fields if field in (event.data.get("changed") or fields)]
        invalid = [field for field in document.get("invalid", ()) if field not in changed]
        return {
            **{field: _value(event, field) for field in fields},
            "provenance": {**document.get("provenance", {}), **{f: _provenance(event) for f in changed}},
            "invalid": [*invalid, *(event.data.get("invalid") or ())],
            "contradictions": _contradictions(document, lambda one: one["field"] not in changed),
        }

    return change


def _identity_corrected(document: Document, event: Delivered) -> Document:
    """Another identity number is shared with nobody. Where it is, the event that says so comes after this one."""
    corrected = _changed("born_on", "identity_number")(document, event)
    other = "identity_number" in (event.data.get("changed") or ())
    return {**corrected, "shares_number_with": []} if other else corrected


def _contradictions(document: Document, kept: Callable[[Document], bool]) -> list[Document]:
    return [one for one in document.get("contradictions", ()) if kept(one)]


def _contradicted(document: Document, event: Delivered) -> Document:
    """Adds a source's value beside staff's. It replaces the source's earlier value of the field."""
    data = event.data
    fields = [field for field in DETAILS if data.get(field) is not None]
    others = _without(document, data["party_id"], fields)
    new = [
        {
            "field": field,
            "value": _value(event, field),
            "invalid": field in (data.get("invalid") or ()),
            **_provenance(event),
        }
        for field in fields
    ]
    return {"contradictions": [*others, *new]}


def _agreed(document: Document, event: Delivered) -> Document:
    return _settled(document, _without(document, event.data["party_id"], event.data["fields"]))


def _settled(document: Document, left: list[Document]) -> Document:
    """The contradictions that are left. The number that staff stated, or accept, is shared with nobody: once no other
    one is stated beside it, that question is closed."""
    before, after = (
        any(one["field"] == "identity_number" for one in those)
        for those in (document.get("contradictions", ()), left)
    )
    return {"contradictions": left, **({"shares_number_with": []} if before and not after else {})}


def _without(document: Document, party: str, fields: Sequence[str]) -> list[Document]:
    return _contradictions(document, lambda one: one["party_id"] != party or one["field"] not in fields)


def _resolved(document: Document, event: Delivered) -> Document:
    data = event.data
    field, party = data["field"], data["party_id"]
    if not data["accepted"]:
        return _settled(document, _without(document, party, [field]))
    found = _contradictions(document, lambda one: (one["field"], one["party_id"]) == (field, party))
    if not found:
        return {}
    [stated] = found
    invalid = [one for one in document.get("invalid", ()) if one != field]
    return {
        field: stated["value"],
        "provenance": {**document.get("provenance", {}), field: _provenance(event)},
        "invalid": [*invalid, field] if stated["invalid"] else invalid,
        **_settled(document, _contradictions(document, lambda one: one["field"] != field)),
    }


def _shared(document: Document, event: Delivered) -> Document:
    others = [one for one in document.get("shares_number_with", ()) if one != event.data["customer_id"]]
    return {"shares_number_with": [*others, event.data["customer_id"]]}


def _erased(_: Document, event: Delivered) -> Document:
    """Removes the open questions, the tags, the consents, the tier and the profile. Sealed values no longer open once the key is destroyed."""
    return {"erased_at": event.recorded_at.isoformat(), **_closed_questions()}


def _closed_questions() -> Document:
    return {
        "invalid": [],
        "contradictions": [],
        "claimed": [],
        "shares_number_with": [],
        "review": None,
        "tags": [],
        "consents": [],
        "tier": None,
        "profile": {},
    }


def _contact_erased(_: Document, event: Delivered) -> Document:
    """As an erasure, but for the time: the values for contact no longer open."""
    return {"contact_erased_at": event.recorded_at.isoformat(), **_closed_questions()}


def _named_key_customer(_: Document, event: Delivered) -> Document:
    due_on = event.data["review_due_on"]
    return {"review": {"due_on": due_on, "reviewed_on": None, "reminded_at": None}}


def _no_longer_key_customer(_: Document, __: Delivered) -> Document:
    return {"review": None}


def _reviewed(document: Document, event: Delivered) -> Document:
    due_on, before = event.data["review_due_on"], document["review"]
    reminded_at = before["reminded_at"] if before is not None and before["due_on"] == due_on else None
    reviewed_on = event.data["reviewed_on"]
    return {"review": {"due_on": due_on, "reviewed_on": reviewed_on, "reminded_at": reminded_at}}


def _review_due(document: Document, event: Delivered) -> Document:
    review = document["review"]
    return {"review": None if review is None else {**review, "reminded_at": event.recorded_at.isoformat()}}


def _tag_added(document: Document, event: Delivered) -> Document:
    data = event.data
    added = {
        "code": data["code"],
        "origin": data["origin"],
        "rule": data.get("rule"),
        "since": event.effective_at.isoformat(),
        "sequence": event.sequence,
    }
    return {"tags": [*document["tags"], added]}


def _tag_removed(document: Document, event: Delivered) -> Document:
    return {"tags": [one for one in document["tags"] if one["code"] != event.data["code"]]}


def _tier_assessed(document: Document, event: Delivered) -> Document:
    data, before = event.data, document.get("tier")
    assessed = {name: data[name] for name in ("because", "month", "rules")}
    override = None if before is None else before["override"]
    return _tier(document, event, {"assessed": data.get("tier"), **assessed}, override)


_NOT_ASSESSED: Final = {"assessed": None, "because": None, "month": None, "rules": None}


def _tier_overridden(document: Document, event: Delivered) -> Document:
    override = {
        "tier": event.data["tier"],
        "valid_until": event.data["valid_until"],
        "since": event.effective_at.isoformat(),
    }
    return _tier(document, event, document.get("tier") or _NOT_ASSESSED, override)


def _tier_override_ended(document: Document, event: Delivered) -> Document:
    return _tier(document, event, document.get("tier") or _NOT_ASSESSED, None)


def _tier(
    document: Document, event: Delivered, assessed: Mapping[str, Any], override: Document | None
) -> Document:
    """The tier in force: that of the override while one stands, else the assessed one; none where there is neither."""
    before = document.get("tier")
    tier = assessed["assessed"] if override is None else override["tier"]
    if tier is None:
        return {"tier": None}
    since = before["since"] if before and before["tier"] == tier else event.effective_at.isoformat()
    of_rules = {name: assessed[name] for name in _NOT_ASSESSED}
    return {"tier": {"tier": tier, "since": since, **of_rules, "override": override}}


def _consent(document: Document, event: Delivered) -> Document:
    """What is effective last stands, of two at the same instant a withdrawal (`customer.domain.consenting`)."""
    data = event.data
    new = {
        "channel": data["channel"],
        "purpose": data["purpose"],
        "given": event.type == "customer.consent_given",
        "since": event.effective_at.isoformat(),
        "valid_until": data.get("valid_until"),
        "sequence": event.sequence,
    }
    others, same = list[Document](), [new]
    for one in document["consents"]:
        of_pair = (one["channel"], one["purpose"]) == (new["channel"], new["purpose"])
        (same if of_pair else others).append(one)
    return {
        "consents": [*others, max(same, key=lambda one: (one["since"], not one["given"], one["sequence"]))]
    }


def _profile_extended(document: Document, event: Delivered) -> Document:
    """Of the values of a field the one that is effective last stands, of two at the same instant the later event's
    (`customer.domain.profile`)."""
    profile, since = dict(document["profile"]), _in_order(event.data["since"])
    for field in event.data["changed"]:
        if field not in profile or profile[field]["since"] <= since:
            profile[field] = {"value": sealed(event, field), "since": since, "sequence": event.sequence}
    return {"profile": profile}


def _in_order(instant: str) -> str:
    """An instant in a form that sorts as the instants do."""
    return datetime.fromisoformat(instant).astimezone(UTC).isoformat(timespec="microseconds")


def _party(event: Delivered) -> Document:
    return {"party_id": event.data["party_id"], "source": event.data["source"], "sequence": event.sequence}


def _linked(document: Document, event: Delivered) -> Document:
    """Adds a link. One that begins before an earlier link of the same party has ended, or on the day of its end, continues it.

    What has ended is kept, so that a query can ask for a day on which it held. Of more than `_PARTIES_MAX` the one that ended
    first is left out, and `parties_since` is the day of its end.
    """
    new = {**_party(event), "from": event.data.get("linked_from"), "until": None}
    continued = [one for one in document["parties"] if _continues(new, one)]
    starts = [one["from"] for one in (*continued, new)]
    new["from"] = None if None in starts else min(starts)
    parties = [*(one for one in document["parties"] if one not in continued), new]
    changed = {"parties": parties, "claimed": _unclaimed(document, event)}
    if len(parties) <= _PARTIES_MAX:
        return changed
    first = min((one for one in parties if one["until"] is not None), key=itemgetter("until"))
    since = max(document.get("parties_since") or "", first["until"])
    return {**changed, "parties": [one for one in parties if one is not first], "parties_since": since}


def _continues(link: Document, earlier: Document) -> bool:
    if link["party_id"] != earlier["party_id"]:
        return False
    return link["from"] is None or earlier["until"] is None or link["from"] <= earlier["until"]


def _unclaimed(document: Document, event: Delivered) -> list[Document]:
    return [one for one in document.get("claimed", ()) if one["party_id"] != event.data["party_id"]]


def _claimed(document: Document, event: Delivered) -> Document:
    return {"claimed": [*_unclaimed(document, event), {**_party(event), "disputed": False}]}


def _disputed(document: Document, event: Delivered) -> Document:
    return {"claimed": [*_unclaimed(document, event), {**_party(event), "disputed": True}]}


def _rejected(document: Document, event: Delivered) -> Document:
    return {"claimed": _unclaimed(document, event)}


def _unlinked(document: Document, event: Delivered) -> Document:
    """Gives a claim up, or leaves of the party's links what is before their end. None becomes longer by it."""
    claimed = _unclaimed(document, event)
    if len(claimed) < len(document.get("claimed", ())):
        return {"claimed": claimed}
    until, party = event.data["until"], event.data["party_id"]
    ended = [
        {**one, "until": min(one["until"] or until, until)} if one["party_id"] == party else one
        for one in document["parties"]
    ]
    return {"parties": [one for one in ended if not _empty(one)]}


def _empty(link: Document) -> bool:
    return None not in (link["from"], link["until"]) and bool(link["until"] <= link["from"])


_CHANGES: Final[dict[str, Callable[[Document, Delivered], Document]]] = {
    "customer.registered": _registered,
    "customer.reference_linked": _linked,
    "customer.reference_claimed": _claimed,
    "customer.reference_confirmed": _linked,
    "customer.reference_disputed": _disputed,
    "customer.reference_rejected": _rejected,
    "customer.reference_unlinked": _unlinked,
    "customer.renamed": _changed("name"),
    "customer.contact_details_changed": _changed("phone", "email", "address"),
    "customer.identity_details_corrected": _identity_corrected,
    "customer.branch_assigned": _changed("branch"),
    "customer.details_confirmed": _agreed,
    "customer.details_contradicted": _contradicted,
    "customer.contradiction_resolved": _resolved,
    "customer.identity_number_shared": _shared,
    "customer.erased": _erased,
    "customer.contact_erased": _contact_erased,
    "customer.named_key_customer": _named_key_customer,
    "customer.no_longer_key_customer": _no_longer_key_customer,
    "customer.reviewed": _reviewed,
    "customer.review_due": _review_due,
    "customer.tag_added": _tag_added,
    "customer.tag_removed": _tag_removed,
    "customer.tier_assessed": _tier_assessed,
    "customer.tier_overridden": _tier_overridden,
    "customer.tier_override_ended": _tier_override_ended,
    "customer.consent_given": _consent,
    "customer.consent_withdrawn": _consent,
    "customer.profile_extended": _profile_extended,
}


def questions(document: Document) -> list[str]:
    """The open data-quality questions of a customer."""
    found = {
        "contradiction": document.get("contradictions"),
        "invalid": document.get("invalid"),
        "reference": document.get("claimed"),
        "identity-number": document.get("shares_number_with"),
    }
    return [name for name, of in found.items() if of]


VIEW: Final = View(
    name=CUSTOMERS_LIST.view,
    version=12,
    sources=(topics.CUSTOMER_EVENTS.name,),
    events=frozenset(_CHANGES),
    collections=(
        Collection(
            CUSTOMERS, (Index((("parties.party_id", 1),)), Index(((TAG_CODES, 1),)), *CUSTOMERS_LIST.indexes)
        ),
    ),
    keys=keys,
    project=project,
)
