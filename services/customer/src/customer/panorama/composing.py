"""A customer's asset panorama from the documents of its accounts: pure, integers only, one block per
currency.

Assets are positive balances, liabilities are amounts owed; both are positive numbers. AUM is the sum of
the assets, and net worth is assets less liabilities. A figure names its accounts' sources, the date up to
which they are booked, their freshness, and links to its events, which sum to it exactly. Amounts of
different currencies are never added.

A joint account counts in full for each of its owners, and every figure says how much of it is held
jointly. A closed account counts only with a balance that is left on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from customer.holdings import SIGNATORY, owners, role_of
from customer.panorama.accounts import add_balances, add_loans, add_spending, loans_of
from customer.panorama.figures import Block, SummedAccount, currency_block
from customer.panorama.rules import SPENDING_KINDS, SPENDING_PRODUCTS
from customer.panorama.schema import HeldAccount, Panorama
from customer.panorama.sources import STALE_AFTER_SECONDS, all_booked_through, last_received, source_shown


def panorama(
    customer: Mapping[str, Any],
    accounts: Sequence[Mapping[str, Any]],
    sources: Iterable[Mapping[str, Any]],
    *,
    now: datetime,
    today: str,
    month: str | None = None,
    stale_after_seconds: int = STALE_AFTER_SECONDS,
    customers: Mapping[str, str] | None = None,
) -> Panorama:
    """The panorama of a customer; documents as the views keep them, personal values opened and masked before.

    The accounts are those of `holdings.held`, and `customers` says whose the parties of others are.

    `month` is YYYY-MM, by default the month in which the newest movement was booked, and without one that of `today`, the
    business date. Of an account that no
    longer keeps the month (see `keeps`) the documents must hold it all the same.
    """
    received = last_received(accounts, sources, now, stale_after_seconds)
    parties = {one["party_id"] for one in customer["parties"]}
    roles = {one["_id"]: role_of(one["holders"], parties) for one in accounts}
    owned = [one for one in accounts if roles[one["_id"]] != SIGNATORY]
    month = month or _newest_month(owned, today)
    base = f"/customers/{customer['_id']}"
    blocks: dict[str, Block] = {}
    held: list[HeldAccount] = []
    for document in accounts:
        role = roles[document["_id"]]
        holders = owners(document["holders"], parties, customers or {})
        account = SummedAccount(
            document["_id"],
            document["source"],
            document["product"] or "deposit",
            role != SIGNATORY and holders > 1,
            document["changed_at"],
            document["position"],
            f"{base}/accounts/{document['_id']}/movements",
        )
        # A signatory's accounts belong to others: they are listed, and summed in blocks that are not returned.
        counted = {} if role == SIGNATORY else blocks
        balances = add_balances(document, account, counted)
        loans = loans_of(account.id, document, account.link) if document["loans"] else []
        add_loans(loans, account, counted)
        if account.product in SPENDING_PRODUCTS:
            add_spending(document, account, month, counted)
        of_source = received[account.source]
        held.append(
            {
                "account_id": account.id,
                "account": document["account"],
                "source": account.source,
                "product": account.product,
                "role": role,
                "holders": holders,
                "joint": account.joint,
                "opened_on": document["opened_on"],
                "closed_on": document.get("closed_on"),
                "balances": balances,
                "cards": [
                    {"card": one["card"], "kind": one["kind"], "issued_on": one["issued_on"]}
                    for one in document["cards"]
                ],
                "loans": loans,
                "standing_orders": len(document["orders"]),
                "source_status": of_source.status,
                "as_of": of_source.booked_through,
                "recorded_at": account.recorded_at,
                "freshness_seconds": of_source.freshness_seconds,
            }
        )
    return {
        "customer_id": customer["_id"],
        "name": customer["name"],
        "kind": customer["kind"],
        "month": month,
        "as_of": all_booked_through({one["source"] for one in owned}, received),
        "currencies": [currency_block(code, blocks[code], received, month) for code in sorted(blocks)],
        "accounts": held,
        "sources": [source_shown(name, received[name]) for name in sorted(received)],
        "rules": {
            "joint_accounts": "in-full-for-each-holder",
            "aum": "assets-without-deducting-liabilities",
            "loans": "debt-of-the-loan-account-or-granted-less-repaid",
            "spending_kinds": list(SPENDING_KINDS),
            "stale_after_seconds": stale_after_seconds,
        },
    }


def _newest_month(accounts: Sequence[Mapping[str, Any]], today: str) -> str:
    newest = max((one["booked_through"] for one in accounts if one["booked_through"]), default=None)
    return (newest or today)[:7]
