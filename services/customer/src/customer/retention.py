"""The retention periods (法定保存期限): within them nothing of a customer is erased.

Both count from the day on which the relation ended (`relation_ended_on`), a business date of the bank.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import MAXYEAR, date, datetime, timedelta
from typing import Any, ClassVar, Final, NamedTuple

from chassis.write.deciding import Refusal

RETENTION_YEARS: Final = 10
"""Anti-Money-Laundering Law of the People's Republic of China, article 34, in force since 2025-01-01: identity records
from the end of the business relation on, transaction records from the transaction on. The rules of 2007 said five."""
CONTACT_RETENTION_DAYS: Final = 3 * 365
"""How a customer is reached is kept as long as either may sue the other: Civil Code of the People's Republic of China,
article 188, three years. A bank that counts it among the identity records of the law above sets 3,653."""
ACCOUNTS_MAX: Final = 1_000


class Retention(NamedTuple):
    """How long values are kept after the end of the relation: those for contact, and all others."""

    contact_days: int = CONTACT_RETENTION_DAYS
    years: int = RETENTION_YEARS


RETENTION: Final = Retention()


class Kept(NamedTuple):
    """The first days on which values may be erased: those for contact, and all. The first is never the later one."""

    contact_until: date
    until: date


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


def kept_until(
    accounts: Iterable[Mapping[str, Any]],
    described: Iterable[Mapping[str, Any]],
    parties: Mapping[str, str | None],
    *,
    day: date,
    retention: Retention,
    dated: Callable[[datetime], date],
) -> Kept:
    """Until when the values of a customer are kept; the business date itself where there was no relation.

    Raises RetentionHolds where a right over an account stands. The other arguments are those of `relation_ended_on`.
    """
    last = relation_ended_on(accounts, described, parties, day=day, dated=dated)
    if last is None:
        return Kept(day, day)
    until = years_after(last, retention.years)
    left_days = (until - last).days
    return Kept(last + timedelta(days=min(retention.contact_days, left_days)), until)


def relation_ended_on(
    accounts: Iterable[Mapping[str, Any]],
    described: Iterable[Mapping[str, Any]],
    parties: Mapping[str, str | None],
    *,
    day: date,
    dated: Callable[[datetime], date],
) -> date | None:
    """The day on which the relation to a customer ended; None where there was none. Raises RetentionHolds where a right over
    an account stands on the business date `day`.

    `accounts` and `described` are documents of the panorama's view. `parties` are those that are or
    were the customer's, each with the day on which its link ended, so that unlinking shortens no retention. A relation
    ends with the account, with the right over it or with the link; a later posting, or a later description by the
    source, counts as its end as long as the link stood. `dated` gives the business date of an instant.
    """
    today = day.isoformat()
    said = ((dated(datetime.fromisoformat(one["described_at"])), parties[one["_id"]]) for one in described)
    last = max((_no_later(on.isoformat(), unlinked) for on, unlinked in said), default="")
    for account in accounts:
        closed = account.get("closed_on")
        for holder in account["holders"]:
            if holder["party_id"] in parties:
                unlinked = parties[holder["party_id"]]
                ends = [end for end in (closed, holder.get("until"), unlinked) if end is not None]
                if not ends or min(ends) > today:
                    raise RetentionHolds(f"the account {account['_id']} is open")
                last = max(last, min(ends), _no_later(account["booked_through"] or "", unlinked))
    return date.fromisoformat(last) if last else None


def _no_later(day: str, until: str | None) -> str:
    return day if until is None else min(day, until)


def years_after(day: date, years: int) -> date:
    """The same day so many years later; 1 March for a leap day, and the last day of all where there is none so late."""
    if day.year + years > MAXYEAR:
        return date.max
    if (day.month, day.day) == (2, 29):
        return date(day.year + years, 3, 1)
    return day.replace(year=day.year + years)
