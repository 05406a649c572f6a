"""The roles that may call each route of customer (R082), by the name of the route.

No role may call a missing route.
"""

from typing import Final

from contracts.roles import (
    ADMINISTRATOR,
    ANALYST,
    AUDITOR,
    COMPLIANCE,
    OPERATOR,
    RELATIONSHIP_MANAGER,
    TELLER,
)

_SERVING: Final = frozenset({RELATIONSHIP_MANAGER, TELLER, ADMINISTRATOR})
_LOOKING: Final = _SERVING | {COMPLIANCE}

ROLES: Final[dict[str, frozenset[str]]] = {
    "get_panorama": _LOOKING,
    "list_customers": _LOOKING,
    "get_customer": _LOOKING,
    "list_accounts": _LOOKING,
    "list_movements": _LOOKING,
    "list_loans": _LOOKING,
    "list_events": _LOOKING | {AUDITOR},
    "list_unlinked": _LOOKING | {OPERATOR, ANALYST},
    "register_customer": _SERVING,
    "rename_customer": _SERVING,
    "change_contact_details": _SERVING,
    "correct_identity_details": _SERVING,
    "link_reference": _SERVING,
    "confirm_reference": _SERVING,
    "reject_reference": _SERVING,
    "unlink_reference": _SERVING,
    "move_reference": _SERVING,
    "resolve_contradiction": _SERVING,
    "list_questions": _LOOKING,
    "erase_customer": frozenset({COMPLIANCE}),
}
