"""The roles that may call each route of ingest (R082), and over which rows, by the name of the route. A source belongs to no
branch: who may call a route sees those of the whole bank.

No role may call a missing route.
"""

from typing import Final

from chassis.privacy.rights import WHOLE, Rights, no_rows, roles_of
from contracts.roles import ADMINISTRATOR, ANALYST, AUDITOR, COMPLIANCE, FEED, OPERATOR, SERVICE
from contracts.roles import ROLES as ANYBODY

_OPERATING: Final = frozenset({OPERATOR, ADMINISTRATOR})
_WATCHING: Final = _OPERATING | {COMPLIANCE, AUDITOR, ANALYST}

_OF_RECORDS: Final = "each record states the days on which it is booked and has value"
_OF_WAITING: Final = "what waits is booked under its own days, and decided on when somebody decides"
_OF_SOURCES: Final = "releases are closed and opened when another context asks for it"
_SEEN: Final = "it says that a certificate was seen, by whom and when"

ROUTES: Final[dict[str, Rights]] = {
    "take_batch_in": Rights(_OPERATING | {FEED}, WHOLE, _OF_RECORDS),
    "list_quarantine": Rights(_OPERATING | {COMPLIANCE, AUDITOR}, WHOLE),
    "release": Rights(_OPERATING, WHOLE, _OF_WAITING),
    "approve": Rights(_OPERATING, WHOLE, _OF_WAITING),
    "reject": Rights(_OPERATING, WHOLE, _OF_WAITING),
    "withdraw": Rights(_OPERATING, WHOLE, _OF_WAITING),
    "dismiss": Rights(_OPERATING, WHOLE, _OF_WAITING),
    "close_releases": Rights(frozenset({SERVICE}), WHOLE, _OF_SOURCES),
    "open_releases": Rights(frozenset({SERVICE}), WHOLE, _OF_SOURCES),
    "list_certificates": Rights(_WATCHING | {FEED}, WHOLE),
    "get_certificate": Rights(_WATCHING | {FEED}, WHOLE),
    "acknowledge": Rights(_OPERATING, WHOLE, _SEEN),
    "get_schema": Rights(ANYBODY, no_rows("it is the published schema of records")),
}
ROLES: Final = roles_of(ROUTES)
"""The roles that may call each route."""

HIGH_PRIVILEGE: Final = frozenset(
    {"release", "approve", "reject", "withdraw", "dismiss", "close_releases", "open_releases"}
)
"""The routes whose events are marked as of high privilege (R091)."""

COMMANDS: Final[dict[str, frozenset[str]]] = {"schedule": _OPERATING}
"""The same of what has a command and no route."""
