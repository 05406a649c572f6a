"""The view `tags`: the dictionary of tags and the free ones. One document per tag, with its code as id.

A tag that was merged names the one that it was merged into, which may be merged itself. `keys` are the names that it has and
had, in the form in which two spellings of one name are equal.
"""

from typing import Final

from chassis.read.documents import Document
from chassis.read.projecting import Collection, Delivered, DocumentKey, Index, View
from contracts import topics

from customer.domain.spelling import key_of
from customer.lists import TAGS_LIST

TAGS: Final = TAGS_LIST.collection
KEYS: Final = "keys"
INTO: Final = "into"


class NotTaken(ValueError):
    """An event of a type that the view does not take."""


class NotDefined(ValueError):
    """An event of a tag came before its definition: the order is broken."""


def keys(event: Delivered) -> list[DocumentKey]:
    """The tag's one document."""
    return [DocumentKey(TAGS, event.data["code"])]


def project(_: DocumentKey, document: Document | None, event: Delivered) -> Document:
    """The tag's document after an event; raises NotDefined."""
    at = event.recorded_at.isoformat()
    if event.type == "tag.defined":
        name = event.data["name"]
        begun: Document = {
            "subject": str(event.subject),
            "kind": event.data["kind"],
            "former": [],
            INTO: None,
            "status": "active",
            "defined_at": at,
            **_named(name, []),
        }
    elif document is None:
        raise NotDefined(event.type)
    else:
        begun = {**document, **_changed(document, event)}
    return {**begun, "position": event.position, "changed_at": at}


def _changed(document: Document, event: Delivered) -> Document:
    match event.type:
        case "tag.renamed":
            name = event.data["name"]
            former = [one for one in (*document["former"], document["name"]) if one != name]
            return {"former": former, **_named(name, former)}
        case "tag.merged":
            return {INTO: event.data[INTO], "status": "merged"}
        case "tag.retired":
            return {"status": "retired"}
        case "tag.reinstated":
            return {"status": "active"}
        case "tag.accepted":
            return {"kind": "dictionary"}
        case _:
            raise NotTaken(event.type)


def _named(name: str, former: list[str]) -> Document:
    return {"name": name, KEYS: sorted({key_of(one) for one in (*former, name)})}


VIEW: Final = View(
    name=TAGS_LIST.view,
    version=2,
    sources=(topics.CUSTOMER_EVENTS.name,),
    events=frozenset(
        {"tag.defined", "tag.renamed", "tag.merged", "tag.retired", "tag.reinstated", "tag.accepted"}
    ),
    collections=(Collection(TAGS, (Index(((KEYS, 1),)), Index(((INTO, 1),)), *TAGS_LIST.indexes)),),
    keys=keys,
    project=project,
)
