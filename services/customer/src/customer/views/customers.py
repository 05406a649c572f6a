"""The view `customers`: who a customer is and by which outside numbers it is found. One document per customer.

Personal values stay sealed; the number of a source is not here at all, only the party that it names.
"""

from collections.abc import Callable
from typing import Final

from chassis.documents import Document, sealed
from chassis.projecting import Collection, Delivered, DocumentKey, Index, View
from contracts import topics

from customer.domain.customer import REFERENCES_MAX

CUSTOMERS: Final = "customers"
_DETAILS: Final = ("name", "phone", "email", "address", "born_on", "identity_number")
_PARTIES_MAX: Final = REFERENCES_MAX
"""The domain refuses more; a log that has them all the same is broken and parks its subject."""


class NotRegistered(ValueError):
    """Something happened to a customer before it was registered: the order is broken."""


def keys(event: Delivered) -> list[DocumentKey]:
    """The customer's one document."""
    return [DocumentKey(CUSTOMERS, str(event.subject))]


def project(_: DocumentKey, document: Document | None, event: Delivered) -> Document:
    """The customer's document after an event; raises NotRegistered."""
    if event.type == "customer.registered":
        begun = {"parties": [], "registered_at": event.recorded_at.isoformat()}
    elif document is None:
        raise NotRegistered(event.type)
    else:
        begun = document
    return {
        **begun,
        **_CHANGES[event.type](begun, event),
        "position": event.position,
        "changed_at": event.recorded_at.isoformat(),
    }


def _registered(_: Document, event: Delivered) -> Document:
    data = event.data
    return {
        "kind": data["kind"],
        "origin": data["origin"],
        "branch": data.get("branch"),
        **{field: sealed(event, field) for field in _DETAILS},
    }


def _linked(document: Document, event: Delivered) -> Document:
    parties = [one for one in document["parties"] if one["party_id"] != event.data["party_id"]]
    if len(parties) >= _PARTIES_MAX:
        raise ValueError(f"more than {_PARTIES_MAX} references")
    party = {"party_id": event.data["party_id"], "source": event.data["source"], "sequence": event.sequence}
    return {"parties": [*parties, party]}


def _changed(*fields: str) -> Callable[[Document, Delivered], Document]:
    return lambda _, event: {field: sealed(event, field) for field in fields}


_CHANGES: Final[dict[str, Callable[[Document, Delivered], Document]]] = {
    "customer.registered": _registered,
    "customer.reference_linked": _linked,
    "customer.renamed": _changed("name"),
    "customer.contact_details_changed": _changed("phone", "email", "address"),
    "customer.identity_details_corrected": _changed("born_on", "identity_number"),
}


VIEW: Final = View(
    name="customers",
    version=1,
    sources=(topics.CUSTOMER_EVENTS.name,),
    events=frozenset(_CHANGES),
    collections=(Collection(CUSTOMERS, (Index((("parties.party_id", 1),)),)),),
    keys=keys,
    project=project,
)
