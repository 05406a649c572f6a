"""The reconciliation certificate: what the feed says against what the store holds, GREEN or RED, accounts named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal
from uuid import UUID

import msgspec

from sync_ingest.domain.balances import PrintedBalances
from sync_ingest.domain.totals import ControlTotals, Purse

PROBLEMS_NAMED_MAX: Final = 1_000

Status = Literal["GREEN", "RED"]


class Problem(msgspec.Struct, frozen=True):
    """Why a certificate is RED: a code, where it holds, and both figures in minor units (or counts)."""

    code: str
    expected: int
    found: int
    account_id: UUID | None = None
    currency: str | None = None
    detail: str | None = None


class CurrencyLine(msgspec.Struct, frozen=True):
    """All purses of one currency: opening + credits - debits = closing."""

    currency: str
    opening_minor: int
    credits_minor: int
    debits_minor: int
    closing_minor: int
    stated_credits_minor: int
    stated_debits_minor: int


class PrintedLine(msgspec.Struct, frozen=True):
    """Printed balances of the run's accounts: how many agree, and how far the rest is off."""

    rows: int
    exact: int
    within_tolerance: int
    beyond_tolerance: int
    largest_minor: int
    accounts_differing: int
    difference_minor: int


class Findings(msgspec.Struct, frozen=True):
    """What a certificate says."""

    status: Status
    records: int
    posted: int
    duplicates: int
    quarantined: int
    master_records: int
    accounts: int
    late: int
    back_dated: int
    booked_through: date | None
    lines: tuple[CurrencyLine, ...]
    printed: PrintedLine
    problems: tuple[Problem, ...]
    problems_total: int
    differing: int = 0
    differing_fields: dict[str, int] = {}
    coverage_unstated: int = 0


@dataclass(slots=True)
class Movement:
    """What the store added to a purse, folded from its events: signed sum, and the positive part beside it."""

    postings: int = 0
    net_minor: int = 0
    gross_minor: int = 0


@dataclass(slots=True)
class StoreFold:
    """Stored movements by purse. Sums differently from the control totals: net and gross, not by direction."""

    movements: dict[Purse, Movement] = field(default_factory=dict)

    def add(self, purse: Purse, amount_minor: int) -> None:
        """Folds one stored posting."""
        movement = self.movements.get(purse)
        if movement is None:
            movement = self.movements[purse] = Movement()
        movement.postings += 1
        movement.net_minor += amount_minor
        movement.gross_minor += abs(amount_minor)


def certify(
    feed: ControlTotals,
    store: StoreFold,
    openings: Mapping[Purse, int],
    closings: Mapping[Purse, int],
    printed: Mapping[Purse, PrintedBalances],
) -> Findings:
    """Compares; both sides must name the same purses, counts and sums, and every purse must close.

    `openings` are the closings of the previous certificate, `closings` what the store folds to now.
    """
    problems = [
        *_counts(feed),
        *_flows(feed, store),
        *_closings(feed, openings, closings),
        *_printed(printed),
    ]
    named = tuple(problems[:PROBLEMS_NAMED_MAX])
    return Findings(
        status="RED" if problems else "GREEN",
        records=feed.records,
        posted=feed.posted,
        duplicates=feed.duplicates,
        quarantined=feed.quarantined,
        master_records=feed.master_records,
        accounts=feed.accounts,
        late=feed.late,
        back_dated=feed.back_dated,
        booked_through=feed.booked_through,
        lines=_lines(feed, openings, closings),
        printed=_printed_line(printed),
        problems=named,
        problems_total=len(problems),
        differing=feed.differing,
        differing_fields=dict(sorted(feed.differing_fields.items())),
        coverage_unstated=feed.coverage_unstated,
    )


def _counts(feed: ControlTotals) -> list[Problem]:
    accounted = feed.posted + feed.duplicates + feed.quarantined
    return [] if accounted == feed.records else [Problem("records-unaccounted", feed.records, accounted)]


def _flows(feed: ControlTotals, store: StoreFold) -> list[Problem]:
    problems = []
    movements = feed.movements
    for purse in sorted(movements.keys() | store.movements.keys()):
        said, held = movements.get(purse), store.movements.get(purse)
        said_net = said.credits_minor - said.debits_minor if said else 0
        said_gross = said.credits_minor + said.debits_minor if said else 0
        pairs = (
            ("postings-differ", said.postings if said else 0, held.postings if held else 0),
            ("movement-differs", said_net, held.net_minor if held else 0),
            ("turnover-differs", said_gross, held.gross_minor if held else 0),
        )
        problems += [
            Problem(code, expected, found, purse.account, purse.currency)
            for code, expected, found in pairs
            if expected != found
        ]
    return problems


def _closings(
    feed: ControlTotals, openings: Mapping[Purse, int], closings: Mapping[Purse, int]
) -> list[Problem]:
    problems = []
    movements = feed.movements
    for purse in sorted(openings.keys() | closings.keys() | movements.keys()):
        flow = movements.get(purse)
        expected = openings.get(purse, 0) + (flow.credits_minor - flow.debits_minor if flow else 0)
        found = closings.get(purse, 0)
        if expected != found:
            problems.append(Problem("closing-differs", expected, found, purse.account, purse.currency))
    return problems


def _printed(printed: Mapping[Purse, PrintedBalances]) -> list[Problem]:
    """Of each purse what its history lacks before its first row, and how many later rows do not follow."""
    problems = []
    for purse, balances in sorted(printed.items(), key=lambda pair: pair[0]):
        days = [day.isoformat() for day in balances.breaks_on]
        rows = balances.beyond
        if balances.opening_minor:
            opening, first, *days = balances.opening_minor, *days
            rows -= 1
            problems.append(Problem("opening-missing", 0, opening, purse.account, purse.currency, first))
        if rows:
            detail = ", ".join(days)
            problems.append(
                Problem("printed-balance-differs", 0, rows, purse.account, purse.currency, detail)
            )
    return problems


def _printed_line(printed: Mapping[Purse, PrintedBalances]) -> PrintedLine:
    every = printed.values()
    return PrintedLine(
        rows=sum(balances.rows for balances in every),
        exact=sum(balances.exact for balances in every),
        within_tolerance=sum(balances.within for balances in every),
        beyond_tolerance=sum(balances.beyond for balances in every),
        largest_minor=max((balances.largest_minor for balances in every), default=0),
        accounts_differing=sum(balances.difference_minor != 0 for balances in every),
        difference_minor=sum(balances.difference_minor for balances in every),
    )


def _lines(
    feed: ControlTotals, openings: Mapping[Purse, int], closings: Mapping[Purse, int]
) -> tuple[CurrencyLine, ...]:
    stated, movements = feed.stated_by_currency(), feed.movements
    currencies = sorted({purse.currency for purse in openings.keys() | closings.keys()} | stated.keys())
    lines = []
    for currency in currencies:
        flows = [flow for purse, flow in movements.items() if purse.currency == currency]
        said = stated.get(currency)
        lines.append(
            CurrencyLine(
                currency=currency,
                opening_minor=sum(m for purse, m in openings.items() if purse.currency == currency),
                credits_minor=sum(flow.credits_minor for flow in flows),
                debits_minor=sum(flow.debits_minor for flow in flows),
                closing_minor=sum(m for purse, m in closings.items() if purse.currency == currency),
                stated_credits_minor=said.credits_minor if said else 0,
                stated_debits_minor=said.debits_minor if said else 0,
            )
        )
    return tuple(lines)
