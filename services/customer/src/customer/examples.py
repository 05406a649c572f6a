"""An example for each name of a field of customer's HTTP, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from chassis.bulk.routes import EXAMPLES as BULK_EXAMPLES
from chassis.exports.routes import EXAMPLES as EXPORT_EXAMPLES
from chassis.files.routes import EXAMPLES as FILES_EXAMPLES
from chassis.lists.describing import EXAMPLES as CONDITION_EXAMPLES
from chassis.notices.routes import EXAMPLES as NOTICE_EXAMPLES
from chassis.proposals.routes import EXAMPLES as PROPOSAL_EXAMPLES
from chassis.sagas.routes import EXAMPLES as SAGA_EXAMPLES
from chassis.watching.routes import EXAMPLES as WATCHING_EXAMPLES

EXAMPLES: Final[Mapping[str, Any]] = {
    **PROPOSAL_EXAMPLES,
    **BULK_EXAMPLES,
    **WATCHING_EXAMPLES,
    **SAGA_EXAMPLES,
    **FILES_EXAMPLES,
    **EXPORT_EXAMPLES,
    **NOTICE_EXAMPLES,
    **CONDITION_EXAMPLES,
    "Idempotency-Key": "register-2026-01-05-1",
    "If-Match": '"3"',
    "account": "622202******6789",
    "actor": "teller-7",
    "address": "北京市海淀区中关村大街1号",
    "amount": "12500.00",
    "amount_minor": 1250000,
    "at_least": "customer-12",
    "aum": "assets-without-deducting-liabilities",
    "balance": "12500.00",
    "balance_minor": 1250000,
    "born_on": "1949-12-31",
    "branch": "北京中关村支行",
    "card": "622202******0003",
    "channel": "counter",
    "counted_month": "2026-01",
    "core_transaction_id": "T1",
    "counterparty_account": "622848******0001",
    "counterparty_bank": "ICBC",
    "counterparty_name": "李*",
    "currency": "CNY",
    "email": "zhang.wei@example.com",
    "events": "/customers/8522d6b8-a7a8-5035-9121-0c738edd57b0/accounts/9df7fd7d-0a0c-5f6e-8f8b-1f0e2f3a4b5c/movements",
    "hundredths": 10_000,
    "identity_number": "11010519491231002X",
    "invalid": [],
    "joint_accounts": "in-full-for-each-holder",
    "key": "P000001",
    "kind": "card",
    "loan": "L1",
    "loans": "debt-of-the-loan-account-or-granted-less-repaid",
    "month": "2026-01",
    "name": "张伟",
    "order": "S1",
    "outflow_minor": 35640,
    "percent": "100.00",
    "phone": "13800001234",
    "post": "P1",
    "reason": "the customer showed the card at the counter",
    "reasons": ["quarantine-waiting"],
    "reference": "branch:4711",
    "sort": "-branch",
    "source": "branch",
    "sources": "branch",
    "spending_kinds": ["card", "cash", "fee"],
    "stale": [],
    "stated": "139****5678",
    "status": "A",
    "text": "工*",
    "tag": "tag-sobk5xmthvl5l75v",
    "rule": "loan-granted",
    "en": "assets under management is at least CNY 500,000.00",
    "zh": "管理资产不低于 CNY 500,000.00",
    "rest_from": "2036-01-06",
    "where": "aum >= CNY 500,000.00 and products has wealth",
    "field": "phone",
    "value": "13800001234",
    "tier": "potential",
    "valid_until": "2026-12-31",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
