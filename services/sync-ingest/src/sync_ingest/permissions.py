"""The roles that may call each route of ingest (R082), by the name of the route.

No role may call a missing route.
"""

from typing import Final

from contracts.roles import ADMINISTRATOR, ANALYST, AUDITOR, COMPLIANCE, FEED, OPERATOR, SERVICE
from contracts.roles import ROLES as ANYBODY

_OPERATING: Final = frozenset({OPERATOR, ADMINISTRATOR})
_WATCHING: Final = _OPERATING | {COMPLIANCE, AUDITOR, ANALYST}

ROLES: Final[dict[str, frozenset[str]]] = {
    "take_batch_in": _OPERATING | {FEED},
    "list_quarantine": _OPERATING | {COMPLIANCE, AUDITOR},
    "release": _OPERATING,
    "approve": _OPERATING,
    "dismiss": _OPERATING,
    "close_releases": frozenset({SERVICE}),
    "open_releases": frozenset({SERVICE}),
    "list_certificates": _WATCHING | {FEED},
    "get_certificate": _WATCHING | {FEED},
    "acknowledge": _OPERATING,
    "get_schema": ANYBODY,
}

HIGH_PRIVILEGE: Final = frozenset({"release", "approve", "dismiss", "close_releases", "open_releases"})
"""The routes whose events are marked as of high privilege (R091)."""

COMMANDS: Final[dict[str, frozenset[str]]] = {"schedule": _OPERATING}
"""The same of what has a command and no route."""
