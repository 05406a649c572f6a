"""The roles that may call each route of customer (R082), by the name of the route.

No role may call a missing route.
"""

from typing import Final

from contracts.roles import (
    ADMINISTRATOR,
    ANALYST,
    AUDITOR,
    COMPLIANCE,
    FEED,
    OPERATOR,
    RELATIONSHIP_MANAGER,
    SERVICE,
    TELLER,
)
from contracts.roles import ROLES as EVERY_ROLE

_SERVING: Final = frozenset({RELATIONSHIP_MANAGER, TELLER, ADMINISTRATOR})
_MANY: Final = frozenset({OPERATOR, ADMINISTRATOR})
_LOOKING: Final = _SERVING | {COMPLIANCE}
_STAFF: Final = EVERY_ROLE - {FEED, SERVICE}
_SELECTING: Final = _LOOKING | {ANALYST}
"""What they may ask for is in `customer.facts`."""

ERASURE_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject the erasure of a customer which another person proposed."""
BULK_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject the start of a bulk run which another person proposed."""
EXPORT_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject a large export which another person proposed (R090)."""

ROLES: Final[dict[str, frozenset[str]]] = {
    "get_panorama": _LOOKING,
    "list_customers": _LOOKING,
    "get_customer": _LOOKING,
    "list_accounts": _LOOKING,
    "list_movements": _LOOKING,
    "list_loans": _LOOKING,
    "list_events": _LOOKING | {AUDITOR},
    "select_customers": _SELECTING,
    "count_customers": _SELECTING,
    "funnel_customers": _SELECTING,
    "search_customers": _LOOKING,
    "explain_customer": _SELECTING,
    "watch_customers": _SELECTING,
    "get_customer_conditions": _SELECTING | _MANY,
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
    "name_key_customer": _SERVING - {TELLER},
    "end_key_customer": _SERVING - {TELLER},
    "review_customer": _SERVING - {TELLER},
    "attach_file": _SERVING,
    "list_files": _LOOKING | {AUDITOR},
    "read_file": _LOOKING,
    "remove_file": _SERVING - {TELLER},
    "prepare_erasure": frozenset({COMPLIANCE}),
    "end_erasure_preparation": frozenset({COMPLIANCE}),
    "erase_customer": frozenset({COMPLIANCE}),
    "get_erasure": frozenset({COMPLIANCE, AUDITOR}),
    "place_legal_hold": frozenset({COMPLIANCE}),
    "lift_legal_hold": frozenset({COMPLIANCE}),
    "get_customer_proposal": frozenset({COMPLIANCE, AUDITOR}),
    "approve_customer_proposal": ERASURE_APPROVERS | BULK_APPROVERS | EXPORT_APPROVERS,
    "reject_customer_proposal": ERASURE_APPROVERS | BULK_APPROVERS | EXPORT_APPROVERS,
    "withdraw_customer_proposal": _MANY | _SELECTING,
    "request_customer_export": _SELECTING,
    "list_customer_exports": _SELECTING,
    "get_customer_export": _SELECTING,
    "propose_customer_export": _SELECTING,
    "read_customer_export": _SELECTING,
    "list_customer_inbox": _STAFF,
    "count_customer_inbox": _STAFF,
    "read_customer_notice": _STAFF,
    "receive_customer_receipt": frozenset({SERVICE}),
    "prepare_branch_assignment": _MANY,
    "get_customer_bulk": _MANY | BULK_APPROVERS | {AUDITOR},
    "preview_customer_bulk": _MANY | BULK_APPROVERS | {AUDITOR},
    "list_customer_bulk_items": _MANY | BULK_APPROVERS | {AUDITOR},
    "list_customer_bulk_results": _MANY | BULK_APPROVERS | {AUDITOR},
    "propose_customer_bulk": _MANY,
    "start_customer_bulk": _MANY,
    "pause_customer_bulk": _MANY,
    "undo_customer_bulk": _MANY,
    "list_customer_sagas": _MANY | {COMPLIANCE, AUDITOR},
    "get_customer_saga": _MANY | {COMPLIANCE, AUDITOR},
}

HIGH_PRIVILEGE: Final = frozenset(
    {
        "prepare_erasure",
        "end_erasure_preparation",
        "erase_customer",
        "place_legal_hold",
        "lift_legal_hold",
        "read_file",
        "request_customer_export",
        "propose_customer_export",
        "read_customer_export",
        "prepare_branch_assignment",
        "propose_customer_bulk",
        "start_customer_bulk",
        "pause_customer_bulk",
        "undo_customer_bulk",
        "approve_customer_proposal",
        "reject_customer_proposal",
        "withdraw_customer_proposal",
    }
)
"""The routes whose events are marked as of high privilege (R091)."""
