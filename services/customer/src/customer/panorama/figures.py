"""Figures while they are summed, one block per currency, and the figures that are returned.

Amounts of different currencies are never added.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chassis.money import decimal_text

from customer.panorama.rules import ASSETS, LIABILITIES, allocation
from customer.panorama.schema import CurrencyBlock, Figure, Product, Section, Spending
from customer.panorama.sources import ReceivedSource, all_booked_through

_NOTHING: Final[Figure] = {
    "amount_minor": 0,
    "amount": "0",
    "joint_minor": 0,
    "accounts": 0,
    "sources": [],
    "as_of": None,
    "recorded_at": None,
    "freshness_seconds": None,
    "stale": [],
    "position": None,
    "events": [],
}


@dataclass(slots=True)
class Sum:
    """A figure while it is summed."""

    minor: int = 0
    joint_minor: int = 0
    accounts: dict[str, None] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    recorded_at: str | None = None
    position: int = 0
    events: list[str] = field(default_factory=list)

    def add(self, minor: int, account: "SummedAccount", events: str) -> None:
        """Adds what one account contributes; `events` is the link to what sums to it."""
        self.minor += minor
        if account.joint:
            self.joint_minor += minor
        self.accounts[account.id] = None
        self.sources[account.source] = None
        if self.recorded_at is None or account.recorded_at > self.recorded_at:
            self.recorded_at = account.recorded_at
        self.position = max(self.position, account.position)
        if events not in self.events:
            self.events.append(events)

    def plus(self, other: "Sum", sign: int = 1) -> None:
        """Adds another figure, or subtracts it."""
        if not other.accounts:
            return
        self.minor += sign * other.minor
        self.joint_minor += sign * other.joint_minor
        self.accounts |= other.accounts
        self.sources |= other.sources
        if other.recorded_at is not None:
            self.recorded_at = max(self.recorded_at or "", other.recorded_at)
        self.position = max(self.position, other.position)
        self.events += other.events


@dataclass(slots=True)
class SummedAccount:
    """What a figure needs of an account that it sums; `link` is the one to its movements."""

    id: str
    source: str
    product: Product
    joint: bool
    recorded_at: str
    position: int
    link: str


class Block:
    """The figures of one currency while they are summed."""

    __slots__ = ("by_kind", "sections", "spending")

    def __init__(self) -> None:
        self.sections: defaultdict[Section, Sum] = defaultdict(Sum)
        """Only the sections that have an account."""
        self.spending = Sum()
        self.by_kind: dict[str, int] = {}


def currency_block(
    currency: str, block: Block, received: Mapping[str, ReceivedSource], month: str
) -> CurrencyBlock:
    """The figures of one currency as a panorama returns them."""
    aum, liabilities, net = Sum(), Sum(), Sum()
    sections = block.sections
    for of_side, names in ((aum, ASSETS), (liabilities, LIABILITIES)):
        for name in names:
            if name in sections:
                of_side.plus(sections[name])
    if liabilities.accounts:
        net.plus(aum)
        net.plus(liabilities, -1)
    else:
        net = aum

    nothing: Figure = {**_NOTHING, "amount": decimal_text(0, currency)}

    def figure(of: Sum | None) -> Figure:
        return _figure(of, currency, received) if of is not None and of.accounts else nothing

    spending: Spending = {
        **figure(block.spending),
        "month": month,
        "by_kind": [
            {"kind": kind, "amount_minor": minor, "amount": decimal_text(minor, currency)}
            for kind, minor in sorted(block.by_kind.items())
        ],
    }
    return {
        "currency": currency,
        "aum": figure(aum),
        "liabilities": figure(liabilities),
        "net_worth": figure(net),
        "deposits": figure(sections.get("deposits")),
        "wealth": figure(sections.get("wealth")),
        "credit_balances": figure(sections.get("credit_balances")),
        "loans": figure(sections.get("loans")),
        "cards": figure(sections.get("cards")),
        "overdrafts": figure(sections.get("overdrafts")),
        "spending": spending,
        "allocation": allocation(
            [(name, sections[name].minor if name in sections else 0) for name in ASSETS]
        ),
    }


def _figure(of: Sum, currency: str, received: Mapping[str, ReceivedSource]) -> Figure:
    sources = list(of.sources)
    if len(sources) == 1:
        only = received[sources[0]]
        as_of, freshness_seconds = only.booked_through, only.freshness_seconds
        stale = sources if only.stale else []
    else:
        sources.sort()
        as_of, stale = (
            all_booked_through(sources, received),
            [source for source in sources if received[source].stale],
        )
        freshness_seconds = max([received[source].freshness_seconds for source in sources])
    return {
        "amount_minor": of.minor,
        "amount": decimal_text(of.minor, currency),
        "joint_minor": of.joint_minor,
        "accounts": len(of.accounts),
        "sources": sources,
        "as_of": as_of,
        "recorded_at": of.recorded_at,
        "freshness_seconds": freshness_seconds,
        "stale": stale,
        "position": of.position,
        "events": of.events,
    }
