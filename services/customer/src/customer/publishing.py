"""Private events to public words, on purpose: for each stored name what the others may know.

Sealed values go out as they are stored. The key a source knows the customer under, and what the customer stated to
own, stay here: a reader needs neither to follow the customer.
"""

from typing import Any, Final, NamedTuple

import msgspec
from chassis.write.events import StoredEvent
from chassis.write.operations import OPERATIONS
from contracts import customer as public

from customer.domain.events import DETAILS, registered_v1_to_v2


class Published(NamedTuple):
    """What goes out for one stored event."""

    event: type[public.CustomerContextEvent]
    body: bytes


class _Body(msgspec.Struct):
    data: dict[str, Any]


_WORDS: Final[dict[str, tuple[type[public.CustomerContextEvent], int]]] = {
    "customer-registered": (public.CustomerRegistered, 2),
    "reference-linked": (public.CustomerReferenceLinked, 1),
    "reference-claimed": (public.CustomerReferenceClaimed, 1),
    "reference-confirmed": (public.CustomerReferenceConfirmed, 1),
    "reference-disputed": (public.CustomerReferenceDisputed, 1),
    "reference-rejected": (public.CustomerReferenceRejected, 1),
    "reference-unlinked": (public.CustomerReferenceUnlinked, 1),
    "customer-renamed": (public.CustomerRenamed, 1),
    "contact-details-changed": (public.CustomerContactDetailsChanged, 1),
    "identity-details-corrected": (public.CustomerIdentityDetailsCorrected, 1),
    "branch-assigned": (public.CustomerBranchAssigned, 1),
    "details-confirmed": (public.CustomerDetailsConfirmed, 1),
    "details-contradicted": (public.CustomerDetailsContradicted, 1),
    "contradiction-resolved": (public.CustomerContradictionResolved, 1),
    "identity-number-shared": (public.CustomerIdentityNumberShared, 1),
    "customer-erased": (public.CustomerErased, 1),
}
STORED_NAMES_TOLD: Final = frozenset(_WORDS)
_KEPT_HERE: Final = frozenset({"v", "key", "stated_assets", "claim", "number_claim"})
_OF_ANOTHER: Final = frozenset(DETAILS)
"""What a source says of the party of a disputed reference: it may be somebody else, so nobody learns of it."""

_bodies: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def published(stored: StoredEvent) -> Published | None:
    """The public words for a stored event, an old version of it included; None for what operators did."""
    if stored.name in OPERATIONS:
        return None
    event, current = _WORDS[stored.name]
    data = _bodies.decode(stored.body).data
    if data["v"] < current:
        data = registered_v1_to_v2(data)
    kept = _KEPT_HERE | _OF_ANOTHER if stored.name == "reference-disputed" else _KEPT_HERE
    return Published(event, _encode({k: v for k, v in data.items() if k not in kept}))
