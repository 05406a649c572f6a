"""The accounts that a customer holds on a business date, and in which role. Pure, from the documents of the views.

A right and a link each hold from one day on until before another day. Both days may lie in the future.
Only ownership counts in figures and in "joint": an authorised signatory (授权签字人) may act on an account and
does not own it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

Member = Mapping[str, Any]

OWNERSHIP: Final = frozenset({"owner", "joint"})
Role = Literal["owner", "joint", "signatory"]
SIGNATORY: Final[Role] = "signatory"


def stands_on(member: Member, day: str) -> bool:
    """Whether a right or a link holds on a business date, in ISO 8601."""
    since, until = member.get("from"), member.get("until")
    return (since is None or since <= day) and (until is None or day < until)


def standing(members: Iterable[Member], day: str) -> list[Member]:
    """The rights or links that hold on a business date."""
    return [one for one in members if stands_on(one, day)]


def parties_on(customer: Mapping[str, Any], day: str) -> set[str]:
    """The customer's parties on a business date."""
    return {one["party_id"] for one in standing(customer["parties"], day)}


def closed_on(account: Mapping[str, Any], day: str) -> bool:
    """Whether the account is closed on a business date."""
    closed = account.get("closed_on")
    return closed is not None and closed <= day


def held(accounts: Iterable[Mapping[str, Any]], parties: set[str], day: str) -> list[dict[str, Any]]:
    """The accounts over which one of these parties has a right on a business date, with the rights of that day
    only."""
    found = []
    for account in accounts:
        holders = standing(account["holders"], day)
        if not parties.isdisjoint([one["party_id"] for one in holders]):
            found.append({**account, "holders": holders, "closed": closed_on(account, day)})
    return found


def role_of(holders: Iterable[Member], parties: set[str]) -> Role:
    """The strongest role in which these parties hold an account."""
    roles = [one["role"] for one in holders if one["party_id"] in parties]
    return "owner" if "owner" in roles else "joint" if "joint" in roles else SIGNATORY


def owners(holders: Iterable[Member], parties: set[str], customers: Mapping[str, str]) -> int:
    """How many different persons or companies own an account.

    All parties of one customer count as one person. `parties` are those of the customer in question.
    `customers` has the customer of each other party. A party without a customer counts as a person of its
    own.
    """
    owning = [one["party_id"] for one in holders if one["role"] in OWNERSHIP]
    return len({"" if party in parties else customers.get(party, party) for party in owning})


def others(accounts: Sequence[Mapping[str, Any]], parties: set[str]) -> list[str]:
    """The other parties whose customers must be known to count the owners of these accounts."""
    found: dict[str, None] = {}
    for account in accounts:
        foreign = [
            one["party_id"]
            for one in account["holders"]
            if one["role"] in OWNERSHIP and one["party_id"] not in parties
        ]
        if len(foreign) > 1:
            found |= dict.fromkeys(foreign)
    return list(found)
