"""The retention period (法定保存期限): within it no customer is erased."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, ClassVar, Final

from chassis.write.deciding import Refusal

RETENTION_YEARS: Final = 10
"""Anti-Money-Laundering Law of the People's Republic of China, article 34, in force since 2025-01-01: identity records
from the end of the business relation on, transaction records from the transaction on. The rules of 2007 said five."""
ACCOUNTS_MAX: Final = 1_000


class RetentionHolds(Refusal):
    """The retention period has not ended; the text says until when it lasts, or which right is still open."""

    code: ClassVar[str] = "retention-holds"
    title: ClassVar[str] = "The customer's records have to be kept"
    title_zh: ClassVar[str] = "客户资料仍在法定保存期限内"


class TooManyAccounts(Refusal):
    """More accounts than one erasure names."""

    code: ClassVar[str] = "too-many-accounts"
    title: ClassVar[str] = f"One erasure names at most {ACCOUNTS_MAX} accounts"
    title_zh: ClassVar[str] = "账户数量超过单次销毁上限"


def check_retention(
    accounts: Iterable[Mapping[str, Any]],
    described: Iterable[Mapping[str, Any]],
    parties: Mapping[str, str | None],
    *,
    day: str,
    years: int,
) -> None:
    """Raises RetentionHolds where a right over an account stands, or an end of the relation is too young.

    `accounts` and `described` are documents of the panorama's view, `day` the bank day. `parties` are those that are or
    were the customer's, each with the day on which its link ended, so that unlinking shortens no retention. A relation
    ends with the account, with the right over it or with the link; a later posting, or a later description by the
    source, counts as its end as long as the link stood.
    """
    last = max((_no_later(one["described_at"][:10], parties[one["_id"]]) for one in described), default="")
    for account in accounts:
        closed = account.get("closed_on")
        for holder in account["holders"]:
            if holder["party_id"] in parties:
                unlinked = parties[holder["party_id"]]
                ends = [end for end in (closed, holder.get("until"), unlinked) if end is not None]
                if not ends or min(ends) > day:
                    raise RetentionHolds(f"the account {account['_id']} is open")
                last = max(last, min(ends), _no_later(account["booked_through"] or "", unlinked))
    if last and (until := _years_after(last, years)) > day:
        raise RetentionHolds(f"until {until}")


def _no_later(day: str, until: str | None) -> str:
    return day if until is None else min(day, until)


def _years_after(day: str, years: int) -> str:
    """The same day so many years later; 1 March for a leap day."""
    then = date.fromisoformat(day)
    if (then.month, then.day) == (2, 29):
        return date(then.year + years, 3, 1).isoformat()
    return then.replace(year=then.year + years).isoformat()
