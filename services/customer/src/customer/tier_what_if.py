"""What-if (规则试算) over all customers: a candidate for the rules of tiers, replayed over what was assessed up to a position.

Only the event store is read, and nothing is written. A candidate, a position and the costs have one result, which its digest names.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b, sha256
from itertools import groupby
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple, cast
from uuid import UUID

import msgspec
from chassis.ending import ended
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import Refusal
from chassis.write.events import StoredEvent
from chassis.write.store import EventStore
from msgspec import structs

from customer.domain.events import STORED_NAMES, Tier
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.tier_replaying import REPLAYED, Move, Replayed, Trial, as_if, replayed
from customer.domain.tier_rules import (
    STREAM,
    TIER_RULES,
    TIERS,
    TierRules,
    TierRulesAdopted,
    month_number,
    require_rules,
    tier_rules_decider,
)

MONTHS_MAX: Final = 36
"""So many months before the running one a candidate may begin."""
COST_MINOR_MAX: Final = 10**10
"""What 900,000 customers cost is then less than 2**53: a number of JSON that every reader takes for what it is."""
EVENTS_AT_ONCE: Final = 10_000
"""They are in memory three times at most: replayed, waiting, and read."""
EVENTS_LOOKED_AT_MAX: Final = 50_000
"""To fill a page of moves. A page may therefore have fewer moves than asked for, or none, and another one after it."""
_NAMES: Final = sorted(name for name, event in STORED_NAMES.items() if event in REPLAYED)
_ERASED: Final = frozenset({"customer-erased", "customer-contact-erased"})
_NOBODY: Final = UUID(int=0)
_ALL_OF_ONE: Final = 2**31 - 1
"""The place after all moves of a customer, and the version after all of its events."""
_IDS: Final = 1 << 128
_encode: Final = msgspec.json.Encoder(order="sorted").encode

Costs = Mapping[Tier, int]
"""What a customer of a tier costs the bank in a year, in minor units of the currency of the candidate."""


class WhatIfOutOfRange(Refusal):
    """The first month is not over yet or too long ago, or nothing is stored at the position yet. The text says which."""

    code: ClassVar[str] = "what-if-out-of-range"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The bank does not try rules over these months, or up to this position"
    title_zh: ClassVar[str] = "规则试算的起始月份或位点超出范围"


class Asked(NamedTuple):
    """A candidate over what was stored up to a position."""

    trial: Trial
    candidate: TierRules
    position: int

    @property
    def digest(self) -> str:
        """Of the candidate: the cursor of a page belongs to it."""
        return blake2b(_encode(self.candidate), digest_size=16).hexdigest()


class Progress(NamedTuple):
    """How many customers were replayed, and how much of all was read, in hundredths of a per cent."""

    customers: int
    hundredths: int


class _Part(NamedTuple):
    """Customers replayed, how many events were read for them, and the last customer that was read whole, also where it is none of them."""

    customers: list[tuple[UUID, Replayed]]
    events: int
    through: UUID | None


class Moved(NamedTuple):
    """A move, of whom, the branch that the customer has, and its place among the moves of the customer, from 1 on."""

    customer: UUID
    branch: str | None
    place: int
    move: Move


class MovesFound(NamedTuple):
    """Moves in the order of the customers' ids, and the customer and place that the next page begins after; None on the last page."""

    moves: list[Moved]
    after: tuple[UUID, int] | None


@dataclass(slots=True)
class Counts:
    """Customers, those who moved at all, and those who moved up and down; who did both counts in both. `yearly_cost_minor`: what the
    candidate costs more in a year."""

    customers: int = 0
    moved: int = 0
    up: int = 0
    down: int = 0
    yearly_cost_minor: int = 0

    def add(self, up: bool, down: bool, cost_minor: int) -> None:
        """Counts a customer."""
        self.customers += 1
        self.moved += up or down
        self.up += up
        self.down += down
        self.yearly_cost_minor += cost_minor


class Sums:
    """What the customers come to that were replayed."""

    def __init__(self, asked: Asked, costs: Costs) -> None:
        self._asked = asked
        self._costs = costs
        self._digest = sha256()
        self._add(
            "what-if",
            1,
            asked.position,
            asked.trial.from_month,
            asked.trial.adopted,
            asked.candidate,
            dict(costs),
        )
        self.all = Counts()
        self.by_branch: dict[str | None, Counts] = {}
        self.tiers: Counter[Tier | None] = Counter()
        """Customers by tier in force at the end, and by that of the candidate."""
        self.candidate_tiers: Counter[Tier | None] = Counter()
        self.moves_up: Counter[str] = Counter()
        """Moves that begin in a month."""
        self.moves_down: Counter[str] = Counter()
        self.assessments = 0
        self.not_comparable = 0
        """Assessments of months that were compared in another currency than that of the candidate."""
        self.held = 0
        """Customers whom an override keeps where they are, and whom the candidate assesses otherwise."""

    def add(self, customer: UUID, found: Replayed) -> None:
        """Counts a customer. Customers come in the order of their ids."""
        tier, other = found.real.tier_in_force, found.candidate.tier_in_force
        up = down = False
        for move in found.moves:
            rises = _place(move.candidate_tier) > _place(move.tier)
            up, down = up or rises, down or not rises
            (self.moves_up if rises else self.moves_down)[move.since.isoformat()[:7]] += 1
            self._add(customer, *move)
        cost = self._cost(other) - self._cost(tier) if tier != other else 0
        branch = branch_of(found)
        for counts in (self.all, self.by_branch.setdefault(branch, Counts())):
            counts.add(up, down, cost)
        self.tiers[tier] += 1
        self.candidate_tiers[other] += 1
        self.assessments += len(found.months)
        self.not_comparable += sum(not self._asked.trial.comparable(one.real.month) for one in found.months)
        self.held += found.real.tier_override is not None and found.real.tier != found.candidate.tier

    def yearly_cost_minor(self, tiers: Counter[Tier | None]) -> int:
        """What customers of these tiers cost in a year."""
        return sum(count * self._cost(tier) for tier, count in tiers.items())

    def digest(self) -> str:
        """SHA-256 of what was asked, of every move, and of every figure, in hexadecimal."""
        whole = self._digest.copy()
        by_tier = [(tier, self.tiers[tier], self.candidate_tiers[tier]) for tier in (None, *TIERS)]
        months = sorted(self.moves_up.keys() | self.moves_down.keys())
        by_month = [(month, self.moves_up[month], self.moves_down[month]) for month in months]
        by_branch = sorted(self.by_branch.items(), key=lambda one: (one[0] is not None, one[0] or ""))
        others = (self.assessments, self.not_comparable, self.held, self.all)
        whole.update(_encode((by_tier, by_month, by_branch, others)))
        return whole.hexdigest()

    def _add(self, *values: Any) -> None:
        self._digest.update(_encode(values) + b"\n")

    def _cost(self, tier: Tier | None) -> int:
        return 0 if tier is None else self._costs.get(tier, 0)


def branch_of(found: Replayed) -> str | None:
    """The branch that the customer has."""
    return found.real.values.get("branch")


def _place(tier: Tier | None) -> int:
    return -1 if tier is None else TIERS.index(tier)


@dataclass(frozen=True, slots=True)
class TierWhatIf:
    """Replays candidates for the rules of tiers."""

    store: EventStore
    catalogue: Catalogue
    today: Callable[[], date]
    business_date: Callable[[datetime], date]
    events_at_once: int = EVENTS_AT_ONCE
    events_looked_at_max: int = EVENTS_LOOKED_AT_MAX
    """For one page of moves."""
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def asked(self, rules: TierRules, position: int | None) -> Asked:
        """A candidate over what is stored now, or up to an earlier position. It gets the number of the next version.

        Raises TierRulesInvalid, WhatIfOutOfRange.
        """
        begins = rules.from_month or ""
        if not 1 <= month_number(self.today().isoformat()) - month_number(begins) <= MONTHS_MAX:
            raise WhatIfOutOfRange(f"from_month is 1 to {MONTHS_MAX} months before the running one")
        head = await self.store.head_position()
        until = head if position is None else position
        if until > head:
            raise WhatIfOutOfRange(f"position is {head} at most")
        stored = [one async for one in self.store.read_named(STREAM, TIER_RULES) if _position(one) <= until]
        events = [cast(TierRulesAdopted, self.catalogue.open(one, None).event) for one in stored]
        adopted = tier_rules_decider.fold(events)
        candidate = structs.replace(rules, version=adopted.versions[-1].version + 1)
        require_rules(candidate)
        return Asked(Trial(adopted, as_if(adopted, candidate), begins), candidate, until)

    async def one(self, asked: Asked, customer: UUID) -> Replayed | None:
        """A customer; None where no month was assessed that the candidate is for, and where it is erased by now. Raises
        CustomerNotRegistered."""
        history = [one async for one in self.store.read_named(customer, _NAMES)]
        if not history:
            raise CustomerNotRegistered
        if any(one.name in _ERASED for one in history):
            return None
        return self._replayed([one for one in history if _position(one) <= asked.position], asked)

    async def moves(self, asked: Asked, after: tuple[UUID, int] | None, limit: int) -> MovesFound:
        """A page of the moves, beyond a customer and a place among its moves."""
        begins, given = after or (_NOBODY, _ALL_OF_ONE)
        found, events = list[Moved](), 0
        # Of a customer whose moves did not fit into the page before, the others are given first.
        read_from = (begins, 0 if given < _ALL_OF_ONE else _ALL_OF_ONE)
        async with aclosing(self._parts(asked, read_from)) as parts:
            async for part in parts:
                for customer, each in part.customers:
                    for place, move in enumerate(each.moves, 1):
                        if customer == begins and place <= given:
                            continue
                        if len(found) == limit:
                            return MovesFound(found, (found[-1].customer, found[-1].place))
                        found.append(Moved(customer, branch_of(each), place, move))
                events += part.events
                if part.through is not None and events >= self.events_looked_at_max:
                    return MovesFound(found, (part.through, _ALL_OF_ONE))
        return MovesFound(found, None)

    async def summed(self, asked: Asked, costs: Costs, told: Callable[[Progress], None]) -> Sums:
        """What all customers come to. One is summed at a time in a process; who asks meanwhile waits. `told` gets the progress."""
        sums = Sums(asked, costs)
        async with self._one_at_a_time, aclosing(self._parts(asked, (_NOBODY, 0))) as parts:
            async for part in parts:
                for customer, found in part.customers:
                    sums.add(customer, found)
                if part.through is not None:
                    told(Progress(sums.all.customers, part.through.int * 10_000 // _IDS))
        return sums

    async def _parts(self, asked: Asked, after: tuple[UUID, int]) -> AsyncGenerator[_Part, None]:
        """All customers in the order of their ids, some at a time. While they are replayed, the next ones are read."""
        left = list[StoredEvent]()
        reading = self._reading(asked, after)
        try:
            while True:
                page = await reading
                last = len(page) < self.events_at_once
                if not last:
                    reading = self._reading(asked, (page[-1].stream_id, page[-1].version))
                part, left = await asyncio.to_thread(self._part, [*left, *page], last, asked)
                yield part._replace(events=len(page))
                if last:
                    return
        finally:
            await ended(reading)

    def _reading(self, asked: Asked, after: tuple[UUID, int]) -> "asyncio.Task[list[StoredEvent]]":
        read = self.store.read_by_stream(_NAMES, asked.position, after, self.events_at_once)
        return asyncio.create_task(read)

    def _part(self, events: list[StoredEvent], last: bool, asked: Asked) -> tuple[_Part, list[StoredEvent]]:
        """The customers whose events are all there, and the events of the other one."""
        histories = [
            (customer, list(history)) for customer, history in groupby(events, attrgetter("stream_id"))
        ]
        left = histories.pop()[1] if histories and not last else []
        customers = [
            (customer, found)
            for customer, history in histories
            if (found := self._replayed(history, asked)) is not None
        ]
        return _Part(customers, 0, histories[-1][0] if histories else None), left

    def _replayed(self, history: Sequence[StoredEvent], asked: Asked) -> Replayed | None:
        return replayed(map(self.catalogue.decode, history), asked.trial, self.business_date)


def _position(stored: StoredEvent) -> int:
    return stored.position or 0
