"""Private events to public words, on purpose: for each stored name what the others may know.

Sealed values go out as they are stored. The key a source knows the customer under, and what the customer stated to
own, stay here: a reader needs neither to follow the customer.
"""

from collections.abc import Callable
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


_WORDS: Final[dict[str, type[public.CustomerContextEvent]]] = {
    "customer-registered": public.CustomerRegistered,
    "reference-linked": public.CustomerReferenceLinked,
    "reference-claimed": public.CustomerReferenceClaimed,
    "reference-confirmed": public.CustomerReferenceConfirmed,
    "reference-disputed": public.CustomerReferenceDisputed,
    "reference-rejected": public.CustomerReferenceRejected,
    "reference-unlinked": public.CustomerReferenceUnlinked,
    "customer-renamed": public.CustomerRenamed,
    "contact-details-changed": public.CustomerContactDetailsChanged,
    "identity-details-corrected": public.CustomerIdentityDetailsCorrected,
    "branch-assigned": public.CustomerBranchAssigned,
    "details-confirmed": public.CustomerDetailsConfirmed,
    "details-contradicted": public.CustomerDetailsContradicted,
    "contradiction-resolved": public.CustomerContradictionResolved,
    "identity-number-shared": public.CustomerIdentityNumberShared,
    "customer-erased": public.CustomerErased,
}
_TOLD_IN_FULL: Final[dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    ("customer-registered", 1): registered_v1_to_v2,
}
"""Old versions whose public words said from the first day on what the stored event did not."""
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
    data = _bodies.decode(stored.body).data
    if (lift := _TOLD_IN_FULL.get((stored.name, data["v"]))) is not None:
        data = lift(data)
    kept = _KEPT_HERE | _OF_ANOTHER if stored.name == "reference-disputed" else _KEPT_HERE
    return Published(_WORDS[stored.name], _encode({k: v for k, v in data.items() if k not in kept}))
