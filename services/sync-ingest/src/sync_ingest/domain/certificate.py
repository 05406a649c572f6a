"""The reconciliation certificate: compares the figures of a feed with the ledger.

GREEN: every record that was read is posted or a duplicate, no record of the source waits in quarantine,
and control totals or running balances exist and agree. AMBER: a record waits for a person, or there was
nothing to check against. RED: figures contradict each other, until the contradiction is resolved or a
person acknowledges it with a reason.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, Literal
from uuid import UUID

import msgspec

from sync_ingest.domain.repeats import FeedPlace
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, ControlTotals, Flow, RunTotal

PROBLEMS_NAMED_MAX: Final = 1_000
CERTIFICATE_BYTES_MAX: Final = 480 * 1024
"""Of intakes and problems together; an event may have 512 KiB, with its metadata and all other figures."""
INTAKE_BYTES: Final = 39
"""An id in quotes, and a comma."""
INTAKES_MAX: Final = 10_000
"""Of one run. More are certified in several."""

Status = Literal["GREEN", "AMBER", "RED"]

QUARANTINE_WAITING: Final = "quarantine-waiting"
NOTHING_READ: Final = "nothing-read"
NOTHING_TO_CHECK: Final = "nothing-to-check-against"
NOT_COMPARED: Final = "running-balance-not-compared"
COVERAGE_UNSTATED: Final = "coverage-unstated"
REPEATS_OLDER: Final = "repeats-older-master-data"
CLOSED_EARLY: Final = "account-closed-before-opened"
LASTING_REASONS: Final = frozenset(
    {NOTHING_READ, NOTHING_TO_CHECK, NOT_COMPARED, COVERAGE_UNSTATED, REPEATS_OLDER}
)
"""Reasons of what a feed was, which an acknowledgement does not change."""


class Problem(msgspec.Struct, frozen=True):
    """A contradiction: a code, where it holds, and both figures in minor units (or counts).

    `known`: an earlier certificate named it already. `contradiction` is the id by which it is acknowledged.
    """

    code: str
    expected: int
    found: int
    account_id: UUID | None = None
    currency: str | None = None
    detail: str | None = None
    contradiction: UUID | None = None
    known: bool = False


class CurrencyLine(msgspec.Struct, frozen=True):
    """All accounts in one currency: opening + credits - debits = closing."""

    currency: str
    opening_minor: int
    credits_minor: int
    debits_minor: int
    closing_minor: int
    stated_credits_minor: int
    stated_debits_minor: int


class PrintedLine(msgspec.Struct, frozen=True):
    """Running balances of the run's accounts: how many agree, and how far the rest is off."""

    rows: int
    exact: int
    within_tolerance: int
    beyond_tolerance: int
    largest_minor: int
    accounts_differing: int
    difference_minor: int


class Findings(msgspec.Struct, frozen=True):
    """What a certificate says. `reasons` are stable codes of why it is not GREEN.

    `repeats_older` counts parties, accounts, rights and other subjects of master data: their last record is of bytes
    that were read before, was not described again, and differs from what stands. `repeats_older_at` names the first
    places. `closed_early` counts the accounts of the source that stand with a day of closing before the day of opening;
    `closed_early_at` names the first places of the last records that name them.
    """

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
    reasons: tuple[str, ...] = ()
    acknowledges: UUID | None = None
    repeats_older: int = 0
    repeats_older_at: tuple[FeedPlace, ...] = ()
    closed_early: int = 0
    closed_early_at: tuple[FeedPlace, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """What the source's status hangs on beside the counts: contradictions that are open, and what gives
    reasons."""

    open: tuple[Problem, ...] = ()
    open_total: int = 0
    codes: tuple[str, ...] = ()
    waiting: int = 0
    unchecked: int = 0
    uncompared: int = 0
    closed_early: int = 0
    closed_early_at: tuple[FeedPlace, ...] = ()


class Comparison:
    """Compares what a run counted with what the ledger got of it, some accounts at a time.

    A difference between the two is a fault of this system. Sums are compared as net and as turnover, so
    that two errors that cancel each other in one are found in the other.
    """

    def __init__(self, totals: ControlTotals) -> None:
        self._lines: dict[str, list[int]] = {}
        self._printed = [0] * 7
        self.problems: list[Problem] = []
        self.uncompared = 0
        accounted = totals.posted + totals.duplicates + totals.quarantined
        if accounted != totals.records:
            self.problems.append(Problem("counts-unaccounted", totals.records, accounted))

    def add(
        self,
        counted: Mapping[AccountCurrency, RunTotal],
        held: Mapping[AccountCurrency, AccountTotal],
        got: Mapping[AccountCurrency, Flow],
    ) -> None:
        """Compares all currencies of some accounts: what was counted of them, what the ledger holds, and what it got."""
        none = Flow()
        for account_currency, total in held.items():
            run_total = counted.get(account_currency)
            self._compare(
                account_currency,
                run_total.movement if run_total else none,
                total,
                got.get(account_currency, none),
            )
        for account_currency, run_total in counted.items():
            if run_total.movement.postings and account_currency not in held:
                self._compare(account_currency, run_total.movement, AccountTotal(), none)

    def _compare(self, account_currency: AccountCurrency, said: Flow, held: AccountTotal, got: Flow) -> None:
        said_net, got_net = said.credits_minor - said.debits_minor, got.credits_minor - got.debits_minor
        said_gross, got_gross = said.credits_minor + said.debits_minor, got.credits_minor + got.debits_minor
        for code, expected, found in (
            ("postings-differ", said.postings, got.postings),
            ("movement-differs", said_net, got_net),
            ("turnover-differs", said_gross, got_gross),
        ):
            if expected != found and len(self.problems) < PROBLEMS_NAMED_MAX:
                self.problems.append(
                    Problem(code, expected, found, account_currency.account, account_currency.currency)
                )
        sums = self._lines.setdefault(account_currency.currency, [0, 0, 0, 0])
        figures = (held.balance_minor - got_net, said.credits_minor, said.debits_minor, held.balance_minor)
        for at, figure in enumerate(figures):
            sums[at] += figure
        if held.printed:
            self._count_printed(held)

    def _count_printed(self, held: AccountTotal) -> None:
        printed = self._printed
        self.uncompared += held.uncompared
        printed[0] += held.printed
        printed[1] += max(0, held.printed - held.within - held.beyond - held.uncompared)
        printed[2] += held.within
        printed[3] += held.beyond
        printed[4] = max(printed[4], held.largest_minor)
        printed[5] += held.off_minor != 0
        printed[6] += held.off_minor

    @property
    def printed(self) -> PrintedLine:
        """Running balances of all accounts and currencies."""
        return PrintedLine(*self._printed)

    def lines(self, stating: ControlTotals) -> tuple[CurrencyLine, ...]:
        """A line for each currency, with the sums that the run states."""
        stated, none = stating.stated_by_currency(), Flow()
        found = []
        for currency in sorted(self._lines.keys() | stated.keys()):
            said = stated.get(currency, none)
            opening, credits, debits, closing = self._lines.get(currency, [0, 0, 0, 0])
            found.append(
                CurrencyLine(
                    currency, opening, credits, debits, closing, said.credits_minor, said.debits_minor
                )
            )
        return tuple(found)


def named(problems: Sequence[Problem], intakes: int) -> tuple[Problem, ...]:
    """The problems that a certificate of so many intakes has room to name, the first ones; `problems_total`
    counts all."""
    left = CERTIFICATE_BYTES_MAX - intakes * INTAKE_BYTES
    found: list[Problem] = []
    for problem in problems[:PROBLEMS_NAMED_MAX]:
        left -= len(msgspec.json.encode(problem)) + 1
        if left < 0:
            break
        found.append(problem)
    return tuple(found)


def certify(
    stating: ControlTotals, comparison: Comparison, judgement: Judgement, intakes: int = 0
) -> Findings:
    """What a certificate says of a run and of its source.

    It covers so many `intakes`, and can always be stored.
    """
    reasons = reasons_of(stating, judgement)
    return Findings(
        status=status_of(reasons, judgement),
        records=stating.records,
        posted=stating.posted,
        duplicates=stating.duplicates,
        quarantined=stating.quarantined,
        master_records=stating.master_records,
        accounts=stating.accounts,
        late=stating.late,
        back_dated=stating.back_dated,
        booked_through=stating.booked_through,
        lines=comparison.lines(stating),
        printed=comparison.printed,
        problems=named(judgement.open, intakes),
        problems_total=judgement.open_total,
        reasons=reasons,
        differing=stating.differing,
        differing_fields=dict(sorted(stating.differing_fields.items())),
        coverage_unstated=stating.coverage_unstated,
        repeats_older=stating.repeats_older,
        repeats_older_at=stating.repeats_older_at,
        closed_early=judgement.closed_early,
        closed_early_at=judgement.closed_early_at,
    )


def reasons_of(totals: ControlTotals, judgement: Judgement) -> tuple[str, ...]:
    """The codes of why a source is not GREEN, those of contradictions first."""
    reasons = list(judgement.codes)
    if judgement.waiting or totals.quarantined:
        reasons.append(QUARANTINE_WAITING)
    if totals.posted + totals.duplicates + totals.master_records == 0:
        reasons.append(NOTHING_READ)
    if judgement.unchecked or not totals.accounts:
        reasons.append(NOTHING_TO_CHECK)
    if judgement.uncompared:
        reasons.append(NOT_COMPARED)
    if totals.coverage_unstated:
        reasons.append(COVERAGE_UNSTATED)
    if totals.repeats_older:
        reasons.append(REPEATS_OLDER)
    if judgement.closed_early:
        reasons.append(CLOSED_EARLY)
    return tuple(reasons)


def status_of(reasons: Sequence[str], judgement: Judgement) -> Status:
    """RED while a contradiction is open, AMBER for any other reason."""
    if judgement.open_total:
        return "RED"
    return "AMBER" if reasons else "GREEN"
