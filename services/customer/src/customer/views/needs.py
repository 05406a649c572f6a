"""The view `needs`: what customers need, as staff noted it. One document per need, of the customer `customer`.

`at` is when it came up, `recorded_at` when that was stored. Kinds in other words and texts stay sealed.
"""

from typing import Final

from chassis.read.documents import Document, sealed
from chassis.read.projecting import Collection, Delivered, DocumentKey, Index, View
from contracts import topics

NEEDS: Final = "needs"


class NotTaken(ValueError):
    """An event of a type that the view does not take."""


class NotRecorded(ValueError):
    """An event of a need came before its recording: the order is broken."""


def keys(event: Delivered) -> list[DocumentKey]:
    """The need's one document."""
    return [DocumentKey(NEEDS, event.data["need"])]


def project(_: DocumentKey, document: Document | None, event: Delivered) -> Document:
    """The need's document after an event; raises NotRecorded."""
    if event.type == "customer.need_recorded":
        begun = {
            "customer": str(event.subject),
            **{name: event.data.get(name) for name in ("channel", "branch", "served_by")},
            **_stated(event),
            "at": event.effective_at.isoformat(),
            "recorded_at": event.recorded_at.isoformat(),
            "corrections": 0,
            "closed": None,
        }
    elif document is None:
        raise NotRecorded(event.type)
    else:
        begun = {**document, **_changed(document, event)}
    return {**begun, "position": event.position}


def _changed(document: Document, event: Delivered) -> Document:
    match event.type:
        case "customer.need_corrected":
            return {**_stated(event), "corrections": document["corrections"] + 1}
        case "customer.need_closed":
            closed = {
                "outcome": event.data["outcome"],
                "text": sealed(event, "text"),
                "at": event.effective_at.isoformat(),
                "recorded_at": event.recorded_at.isoformat(),
            }
            return {"closed": closed}
        case _:
            raise NotTaken(event.type)


def _stated(event: Delivered) -> Document:
    personal = {field: sealed(event, field) for field in ("kind_text", "text")}
    return {"kind": event.data.get("kind"), **personal}


VIEW: Final = View(
    name="needs",
    version=1,
    sources=(topics.CUSTOMER_EVENTS.name,),
    events=frozenset({"customer.need_recorded", "customer.need_corrected", "customer.need_closed"}),
    collections=(Collection(NEEDS, (Index((("customer", 1), ("at", -1), ("_id", -1))),)),),
    keys=keys,
    project=project,
)
