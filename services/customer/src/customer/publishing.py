"""Maps private events to public events. Each stored name has a public event, or None on purpose.

Sealed values are published as they are stored. A source's own number of the customer and the declared
assets are not published, because no consumer needs them; nor are the evidence of a consent and the amounts that a tier was assessed by.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from chassis.bulk import BULK_RUNS
from chassis.exports import EXPORTS
from chassis.files import FILES
from chassis.lists.searching import SEARCHES
from chassis.notices import NOTICES
from chassis.proposals import PROPOSALS
from chassis.sagas import SAGAS
from chassis.write.events import StoredEvent
from chassis.write.operations import OPERATIONS
from contracts import customer as public

from customer.domain.events import DETAILS, registered_v1_to_v2
from customer.domain.tier_rules import TIER_RULES


class Published(NamedTuple):
    """The public event of one stored event."""

    event: type[public.CustomerContextEvent]
    body: bytes


class _Body(msgspec.Struct):
    data: dict[str, Any]


PUBLIC: Final[dict[str, type[public.CustomerContextEvent]]] = {
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
    "customer-contact-erased": public.CustomerContactErased,
    "named-key-customer": public.CustomerNamedKeyCustomer,
    "no-longer-key-customer": public.CustomerNoLongerKeyCustomer,
    "customer-reviewed": public.CustomerReviewed,
    "review-fell-due": public.CustomerReviewDue,
    "erasure-preparation-begun": public.CustomerErasurePreparationBegun,
    "erasure-prepared": public.CustomerErasurePrepared,
    "erasure-preparation-ended": public.CustomerErasurePreparationEnded,
    "tag-added": public.CustomerTagAdded,
    "tag-removed": public.CustomerTagRemoved,
    "tier-assessed": public.CustomerTierAssessed,
    "tier-overridden": public.CustomerTierOverridden,
    "tier-override-ended": public.CustomerTierOverrideEnded,
    "need-recorded": public.CustomerNeedRecorded,
    "need-corrected": public.CustomerNeedCorrected,
    "need-closed": public.CustomerNeedClosed,
    "consent-given": public.CustomerConsentGiven,
    "consent-withdrawn": public.CustomerConsentWithdrawn,
    "profile-extended": public.CustomerProfileExtended,
    "tag-defined": public.TagDefined,
    "tag-renamed": public.TagRenamed,
    "tag-merged": public.TagMerged,
    "tag-retired": public.TagRetired,
    "tag-reinstated": public.TagReinstated,
    "tag-accepted": public.TagAccepted,
    "business-day-opened": public.BusinessDayOpened,
}
_TOLD_IN_FULL: Final[dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    ("customer-registered", 1): registered_v1_to_v2,
}
"""Old versions whose public event had, from the beginning, fields that the stored event lacked."""
STORED_NAMES_TOLD: Final = frozenset(PUBLIC)
_KEPT_HERE: Final = frozenset(
    {"v", "key", "stated_assets", "claim", "number_claim", "evidence", "consent"}
) | {
    "average_minor",
    "average_before_minor",
    "averages_earlier_minor",
}
_OF_ANOTHER: Final = frozenset(DETAILS)
"""Fields that describe the party of a disputed reference. It may be another person, so they are not
published."""

SAID_ALREADY: Final = frozenset({"tag-took-over"})
"""Who reads the topic is told by `tag.merged`."""
NOT_TOLD: Final = frozenset({"legal-hold-placed", "legal-hold-lifted", "erasure-deferred"})
"""Who reads the topic need not know of a legal hold, and its customer must not learn of it through somebody who does."""
_UNPUBLISHED: Final = frozenset().union(
    OPERATIONS,
    PROPOSALS,
    BULK_RUNS,
    SEARCHES,
    SAGAS,
    FILES,
    EXPORTS,
    NOTICES,
    TIER_RULES,
    NOT_TOLD,
    SAID_ALREADY,
)

_bodies: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def published(stored: StoredEvent) -> Published | None:
    """Returns the public event of a stored event, of any version; None for acts of operators, proposals, bulk
    runs, searches, sagas, files, exports, notices, rules of tiers, legal holds, and what another event says already."""
    if stored.name in _UNPUBLISHED:
        return None
    data = _bodies.decode(stored.body).data
    if (lift := _TOLD_IN_FULL.get((stored.name, data["v"]))) is not None:
        data = lift(data)
    kept = _KEPT_HERE | _OF_ANOTHER if stored.name == "reference-disputed" else _KEPT_HERE
    return Published(PUBLIC[stored.name], _encode({k: v for k, v in data.items() if k not in kept}))
