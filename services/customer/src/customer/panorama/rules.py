"""The rules of a panorama: where a balance counts, what is spending, and how AUM is divided.

Assets are positive balances, liabilities are amounts owed; both are positive numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from customer.panorama.schema import Section, Share
from customer.views.asset_panorama import MONTHS_KEPT_MAX

ASSETS: Final[tuple[Section, ...]] = ("deposits", "wealth", "credit_balances")
LIABILITIES: Final[tuple[Section, ...]] = ("loans", "cards", "overdrafts")
SPENDING_KINDS: Final = ("card", "cash", "household", "insurance", "fee", "penalty_interest", "other")
"""The transaction types that count as spending. Transfers, purchases of wealth products and repayments do
not."""
SPENDING_PRODUCTS: Final = frozenset({"deposit", "card"})
_ASSET_OF: Final[dict[str, Section]] = {"deposit": "deposits", "wealth": "wealth"}
_DEBT_OF: Final[dict[str, Section]] = {"loan": "loans", "card": "cards"}
HUNDRED_PERCENT: Final = 10_000


def allocation(parts: Sequence[tuple[Section, int]]) -> list[Share]:
    """Shares of non-negative amounts in hundredths of a per cent that sum to exactly 100.00; none of a sum of
    0.

    Largest remainder; equal remainders go to the part that stands first.
    """
    total = sum(amount for _, amount in parts)
    if total <= 0:
        return []
    floors = [divmod(amount * HUNDRED_PERCENT, total) for _, amount in parts]
    missing = HUNDRED_PERCENT - sum([whole for whole, _ in floors])
    up = set(sorted(range(len(parts)), key=lambda at: (-floors[at][1], at))[:missing])
    shares: list[Share] = []
    for at, (section, amount) in enumerate(parts):
        hundredths = floors[at][0] + (at in up)
        percent = f"{hundredths // 100}.{hundredths % 100:02d}"
        shares.append(
            {"section": section, "amount_minor": amount, "percent": percent, "hundredths": hundredths}
        )
    return shares


def section_of(product: str, balance_minor: int) -> Section:
    """The section of a balance: a debt on a deposit is an overdraft, a positive balance of a card or loan a
    credit balance."""
    if balance_minor < 0:
        return _DEBT_OF.get(product, "overdrafts")
    if product in _DEBT_OF:
        return _DEBT_OF[product] if balance_minor == 0 else "credit_balances"
    return _ASSET_OF.get(product, "deposits")


def keeps(months: Mapping[str, Any], month: str) -> bool:
    """Whether an account's kept months of outflow in a currency cover this month."""
    return len(months) < MONTHS_KEPT_MAX or month >= min(months)
