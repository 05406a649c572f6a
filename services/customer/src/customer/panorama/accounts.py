"""What one account adds to the figures: its balances, its loans and what was spent from it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from chassis.money import decimal_text
from chassis.write.events import event_id

from customer.panorama.figures import Block, SummedAccount
from customer.panorama.rules import LIABILITIES, SPENDING_KINDS, section_of
from customer.panorama.schema import HeldBalance, HeldLoan

_NO_BALANCE: Final = {"minor": 0, "movements": 0, "booked_through": None}
"""The balance of an account that is open in a currency and has no movement yet."""


def add_balances(
    document: Mapping[str, Any], account: SummedAccount, blocks: dict[str, Block]
) -> list[HeldBalance]:
    """Counts the balances of an account, and returns them with the section in which each counts."""
    held: list[HeldBalance] = []
    balances = document["balances"]
    if not balances and document["currency"] is not None:
        balances = {document["currency"]: _NO_BALANCE}
    for currency, balance in balances.items():
        minor = balance["minor"]
        section = section_of(account.product, minor)
        link = f"{account.link}?currency={currency}"
        if minor or not document.get("closed"):
            block = blocks.get(currency) or blocks.setdefault(currency, Block())
            block.sections[section].add(-minor if section in LIABILITIES else minor, account, link)
        held.append(
            {
                "currency": currency,
                "balance_minor": minor,
                "balance": decimal_text(minor, currency),
                "movements": balance["movements"],
                "section": section,
                "booked_through": balance["booked_through"],
                "events": link,
            }
        )
    return held


def loans_of(account_id: str, document: Mapping[str, Any], movements: str) -> list[HeldLoan]:
    """Loans that master data states. Without an account of its own a loan is owed as granted less repaid.

    Repayments do not say which loan they are for: they go to the loans of their currency in the order of
    granting. `movements` is the link to the account's movements.
    """
    found: list[HeldLoan] = []
    own_account = document["product"] == "loan"
    unassigned = dict(document["repaid"])
    for loan in sorted(document["loans"], key=lambda one: (one["granted_on"], one["loan"])):
        currency, granted = loan["currency"], loan["amount_minor"]
        repaid = None if own_account else max(0, min(granted, unassigned.get(currency, 0)))
        unassigned[currency] = unassigned.get(currency, 0) - (repaid or 0)
        found.append(
            {
                "loan": loan["loan"],
                "granted_by": str(event_id(UUID(account_id), loan["sequence"])),
                "currency": currency,
                "granted_minor": granted,
                "repaid_minor": repaid,
                "outstanding_minor": None if repaid is None else granted - repaid,
                "payment_minor": loan["payment_minor"],
                "duration_months": loan["duration_months"],
                "granted_on": loan["granted_on"],
                "status": loan["status"],
                "events": f"{movements}?currency={currency}&kind=loan_repayment",
            }
        )
    return found


def add_loans(loans: Sequence[HeldLoan], account: SummedAccount, blocks: dict[str, Block]) -> None:
    """Counts loans without an account of their own; the link is to the loans, whose sum is the figure."""
    for loan in loans:
        currency, outstanding = loan["currency"], loan["outstanding_minor"]
        if outstanding is not None:
            block = blocks.get(currency) or blocks.setdefault(currency, Block())
            link = f"{account.link.removesuffix('movements')}loans?currency={currency}"
            block.sections["loans"].add(outstanding, account, link)


def add_spending(
    document: Mapping[str, Any], account: SummedAccount, month: str, blocks: dict[str, Block]
) -> None:
    """Counts what was spent from an account in a month."""
    for currency, months in document["outflows"].items():
        kinds = months.get(month)
        if kinds is None:
            continue
        spent = {kind: minor for kind, minor in kinds.items() if kind in SPENDING_KINDS}
        if not spent:
            continue
        block = blocks.get(currency) or blocks.setdefault(currency, Block())
        link = f"{account.link}?currency={currency}&month={month}&spending=true"
        block.spending.add(sum(spent.values()), account, link)
        for kind, minor in spent.items():
            block.by_kind[kind] = block.by_kind.get(kind, 0) + minor
