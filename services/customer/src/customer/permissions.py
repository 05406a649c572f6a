"""The roles that may call each route of customer (R082), and over which rows (R083), by the name of the route.

No role may call a missing route.
"""

from typing import Final

from chassis.privacy.rights import OWN, WHOLE, Rights, RowScope, no_rows, roles_of
from contracts.roles import (
    ADMINISTRATOR,
    ANALYST,
    AUDITOR,
    COMPLIANCE,
    FEED,
    MARKETER,
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
_DEFINING: Final = frozenset({ADMINISTRATOR, MARKETER})
_TRYING: Final = frozenset({ADMINISTRATOR, ANALYST, COMPLIANCE})
"""Who proposes rules, who approves them, and who studies what they do. They see the whole bank."""
_SELECTING: Final = _LOOKING | {ANALYST}
"""What they may ask for is in `customer.facts`."""

ERASURE_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject the erasure of a customer which another person proposed."""
BULK_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject the start of a bulk run which another person proposed."""
TIER_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject an override of a tier, or rules of tiers, which another person proposed."""
EXPORT_APPROVERS: Final = frozenset({COMPLIANCE})
"""The roles that may approve or reject a large export which another person proposed (R090)."""

_APPROVERS: Final = ERASURE_APPROVERS | BULK_APPROVERS | TIER_APPROVERS | EXPORT_APPROVERS

BRANCH: Final = RowScope("branch")
"""The customers that `lists.scope_of` gives the caller. Who is of a branch sees those of that branch and of none; the other
roles see all."""
_NEW_CUSTOMER: Final = no_rows("the customer is registered by it, and has no branch yet")
_NO_ROWS: Final = no_rows("it says what lists can be asked for, and shows no customer")
_A_TAG: Final = no_rows("it is about a tag of the whole bank, and shows no customer")
_RULES: Final = no_rows("it is about the rules of the whole bank, and shows no customer")
_KINDS: Final = no_rows("it shows a dictionary of the whole bank, and no customer")
_A_NOTICE: Final = no_rows("a provider names the message that it was given, and is told nothing")

_ASKS: Final = "it shows what is there when it is asked"
_OF_RUNS: Final = "a run is prepared, started, paused and undone when that is commanded, and a customer is of its branch from its item on"
_DESTROYS: Final = (
    "keys are destroyed, and sources stop, once it is approved: neither can have been so earlier"
)
_HOLDS: Final = "a hold forbids what is commanded while it stands; the day on which it ends is in its body"
_CLAIMS: Final = "a claim shows no account, and one that is confirmed shows them from then on; the day on which a link ends is that of unlinking"
_DECIDES: Final = "what is proposed is decided by who decides it, at that moment"
_OF_FILES: Final = "a file is kept from when its content is there until it is gone"
_CALLED: Final = "a tag is called so, and stands for another one, for everybody from when it is commanded"
_OVERRIDES: Final = (
    "a tier is overridden from when that is commanded, or approved; the day on which it lapses is in its body"
)
_ADOPTS: Final = "rules begin with a later month, which is in the body"
_READS: Final = "it says that the caller has read it now"

ROUTES: Final[dict[str, Rights]] = {
    "get_panorama": Rights(_LOOKING, BRANCH),
    "list_customers": Rights(_LOOKING, BRANCH),
    "get_customer": Rights(_LOOKING, BRANCH),
    "list_accounts": Rights(_LOOKING, BRANCH),
    "list_movements": Rights(_LOOKING, BRANCH),
    "list_loans": Rights(_LOOKING, BRANCH),
    "list_events": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "select_customers": Rights(_SELECTING, BRANCH),
    "count_customers": Rights(_SELECTING, BRANCH),
    "funnel_customers": Rights(_SELECTING, BRANCH),
    "sum_branches": Rights(_SELECTING - {TELLER}, BRANCH),
    "search_customers": Rights(_LOOKING, BRANCH, _ASKS),
    "explain_customer": Rights(_SELECTING, BRANCH),
    "watch_customers": Rights(_SELECTING, BRANCH),
    "get_customer_conditions": Rights(_SELECTING | _MANY, _NO_ROWS),
    "list_unlinked": Rights(_LOOKING | {OPERATOR, ANALYST}, BRANCH),
    "register_customer": Rights(_SERVING, _NEW_CUSTOMER),
    "edit_details": Rights(_SERVING, BRANCH),
    "rename_customer": Rights(_SERVING, BRANCH),
    "change_contact_details": Rights(_SERVING, BRANCH),
    "correct_identity_details": Rights(_SERVING, BRANCH),
    "link_reference": Rights(_SERVING, BRANCH, _CLAIMS),
    "confirm_reference": Rights(_SERVING, BRANCH, _CLAIMS),
    "reject_reference": Rights(_SERVING, BRANCH, _CLAIMS),
    "unlink_reference": Rights(_SERVING, BRANCH),
    "move_reference": Rights(_SERVING, BRANCH),
    "resolve_contradiction": Rights(_SERVING, BRANCH),
    "list_questions": Rights(_LOOKING, BRANCH),
    "name_key_customer": Rights(_SERVING - {TELLER}, BRANCH),
    "end_key_customer": Rights(_SERVING - {TELLER}, BRANCH),
    "review_customer": Rights(_SERVING - {TELLER}, BRANCH),
    "override_tier": Rights(_SERVING - {TELLER}, BRANCH, _OVERRIDES),
    "propose_tier_override": Rights(_SERVING - {TELLER}, BRANCH, _OVERRIDES),
    "end_tier_override": Rights(_SERVING - {TELLER}, BRANCH, _OVERRIDES),
    "get_tier": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "list_tier_history": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "list_tier_rules": Rights(_STAFF, _RULES),
    "try_tier_rules": Rights(_TRYING, WHOLE),
    "list_tier_moves": Rights(_TRYING, WHOLE),
    "explain_tier_moves": Rights(_TRYING, BRANCH),
    "propose_tier_rules": Rights(frozenset({ADMINISTRATOR}), _RULES, _ADOPTS),
    "record_need": Rights(_SERVING, BRANCH),
    "correct_need": Rights(_SERVING, BRANCH),
    "close_need": Rights(_SERVING, BRANCH),
    "list_needs": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "list_need_kinds": Rights(_STAFF, _KINDS),
    "give_consent": Rights(_SERVING | {SERVICE}, BRANCH),
    "withdraw_consent": Rights(_SERVING | {SERVICE}, BRANCH),
    "list_consents": Rights(_LOOKING | {AUDITOR, SERVICE}, BRANCH),
    "extend_profile": Rights(_SERVING, BRANCH),
    "get_profile": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "list_profile_history": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "list_profile_fields": Rights(_STAFF, _KINDS),
    "attach_file": Rights(_SERVING, BRANCH, _OF_FILES),
    "list_files": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "read_file": Rights(_LOOKING, BRANCH, _ASKS),
    "remove_file": Rights(_SERVING - {TELLER}, BRANCH, _OF_FILES),
    "prepare_erasure": Rights(frozenset({COMPLIANCE}), BRANCH, _DESTROYS),
    "end_erasure_preparation": Rights(frozenset({COMPLIANCE}), BRANCH, _DESTROYS),
    "erase_customer": Rights(frozenset({COMPLIANCE}), BRANCH, _DESTROYS),
    "get_erasure": Rights(frozenset({COMPLIANCE, AUDITOR}), BRANCH),
    "place_legal_hold": Rights(frozenset({COMPLIANCE}), BRANCH, _HOLDS),
    "lift_legal_hold": Rights(frozenset({COMPLIANCE}), BRANCH, _HOLDS),
    "get_customer_proposal": Rights(frozenset({COMPLIANCE, AUDITOR}), WHOLE),
    "approve_customer_proposal": Rights(_APPROVERS, WHOLE, _DECIDES),
    "reject_customer_proposal": Rights(_APPROVERS, WHOLE, _DECIDES),
    "withdraw_customer_proposal": Rights(_MANY | _SELECTING, OWN, _DECIDES),
    "request_customer_export": Rights(_SELECTING, BRANCH, _ASKS),
    "list_customer_exports": Rights(_SELECTING, OWN),
    "get_customer_export": Rights(_SELECTING, OWN),
    "propose_customer_export": Rights(_SELECTING, OWN, _DECIDES),
    "read_customer_export": Rights(_SELECTING, OWN, _ASKS),
    "list_customer_inbox": Rights(_STAFF, OWN),
    "count_customer_inbox": Rights(_STAFF, OWN),
    "read_customer_notice": Rights(_STAFF, OWN, _READS),
    "receive_customer_receipt": Rights(frozenset({SERVICE}), _A_NOTICE),
    "define_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "rename_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "merge_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "retire_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "reinstate_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "accept_tag": Rights(_DEFINING, _A_TAG, _CALLED),
    "list_tags": Rights(_STAFF, _A_TAG),
    "get_tag": Rights(_STAFF, _A_TAG),
    "change_tags": Rights(_SERVING, BRANCH),
    "change_tags_by_rule": Rights(frozenset({SERVICE}), BRANCH),
    "remove_tags": Rights(frozenset({ADMINISTRATOR, COMPLIANCE}), BRANCH),
    "list_tag_history": Rights(_LOOKING | {AUDITOR}, BRANCH),
    "prepare_tagging": Rights(_MANY, BRANCH, _OF_RUNS),
    "prepare_tier_overrides": Rights(_MANY, BRANCH, _OF_RUNS),
    "prepare_branch_assignment": Rights(_MANY, BRANCH, _OF_RUNS),
    "get_customer_bulk": Rights(_MANY | BULK_APPROVERS | {AUDITOR}, WHOLE),
    "preview_customer_bulk": Rights(_MANY | BULK_APPROVERS | {AUDITOR}, WHOLE),
    "list_customer_bulk_items": Rights(_MANY | BULK_APPROVERS | {AUDITOR}, WHOLE),
    "list_customer_bulk_results": Rights(_MANY | BULK_APPROVERS | {AUDITOR}, WHOLE),
    "propose_customer_bulk": Rights(_MANY, WHOLE, _OF_RUNS),
    "start_customer_bulk": Rights(_MANY, WHOLE, _OF_RUNS),
    "pause_customer_bulk": Rights(_MANY, WHOLE, _OF_RUNS),
    "undo_customer_bulk": Rights(_MANY, WHOLE, _OF_RUNS),
    "list_customer_sagas": Rights(_MANY | {COMPLIANCE, AUDITOR}, WHOLE),
    "get_customer_saga": Rights(_MANY | {COMPLIANCE, AUDITOR}, WHOLE),
}
ROLES: Final = roles_of(ROUTES)
"""The roles that may call each route."""

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
        "remove_tags",
        "propose_tier_rules",
        "override_tier",
        "propose_tier_override",
        "end_tier_override",
        "prepare_tagging",
        "prepare_tier_overrides",
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
