"""An example for each name of a field of ingest's HTTP, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

POSTING: Final[dict[str, Any]] = {
    "record": "posting",
    "account": "6222021234566789",
    "core_transaction_id": "T3",
    "amount_minor": 123_400,
    "currency": "CNY",
    "booked_on": "2026-01-07",
}
"""A canonical record."""
EXAMPLES: Final[Mapping[str, Any]] = {
    "Idempotency-Key": "batch-2026-01-05-1",
    "account": "************6789",
    "amount": "12500.00",
    "code": "running-balance-differs",
    "column": "amount_minor",
    "control_currency": "CNY",
    "credits_minor": 1250000,
    "currency": "CNY",
    "debits_minor": 35640,
    "detail": "not an amount",
    "file": "branch.jsonl",
    "format": "canonical",
    "kind": "posting",
    "mapping": 'account = "6222021234566789"',
    "name": "branch.jsonl",
    "proposed_by": "teller-7",
    "reason": "the branch confirmed the amount",
    "reasons": ["quarantine-waiting"],
    "source": "branch",
}
