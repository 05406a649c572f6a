"""What was read in a file, counted by account, branch and currency."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import msgspec

from sync_ingest.domain.controls.running_numbers import NumberSeries
from sync_ingest.domain.records import ControlRecord, Posting


class Scope(NamedTuple):
    """Of what a running number or a control total is: an account as the source names it, a branch, or a whole
    file."""

    account: str | None = None
    branch: str | None = None
    day: date | None = None
    """Where numbers begin anew each day."""


class Counted(msgspec.Struct, gc=False, array_like=True):
    """Postings that were read of one account, branch or file in one currency; debits are positive here."""

    postings: int = 0
    credits_minor: int = 0
    debits_minor: int = 0
    printed: bool = False
    first_on: date | None = None
    last_on: date | None = None


@dataclass(slots=True)
class FileRead:
    """What was read in one file: all of it, or all that is not of an account, or what is of some accounts.

    `sums` are of the accounts that are not in `accounts`, by currency. Of `controls` some are of an account.
    """

    records: int = 0
    unreadable: int = 0
    accounts: dict[tuple[str, str], Counted] = field(default_factory=dict)
    sums: dict[str, Counted] = field(default_factory=dict)
    branches: dict[tuple[str, str], Counted] = field(default_factory=dict)
    controls: list[tuple[int, ControlRecord]] = field(default_factory=list)
    series: dict[Scope, NumberSeries] = field(default_factory=dict)
    currencies: set[str] = field(default_factory=set)
    scopes: dict[tuple[str | None, str | None], list[Scope]] = field(default_factory=dict)
    """What of an account or of a branch is numbered: once, or once for each day."""
    controls_total: int = 0

    def of(self, account: str | None, branch: str | None) -> Iterator[Counted]:
        """What was counted of an account or of a branch, currency by currency."""
        held, name = (self.branches, branch) if branch is not None else (self.accounts, account)
        for currency in self.currencies:
            if name is not None and (name, currency) in held:
                yield held[name, currency]

    def whole(self, currency: str | None = None) -> Iterator[Counted]:
        """What was counted of all accounts, in one currency or in all."""
        yield from (counted for of, counted in self.sums.items() if currency in {None, of})
        yield from (counted for (_, of), counted in self.accounts.items() if currency in {None, of})

    def series_of(self, scope: Scope) -> NumberSeries:
        """The running numbers of a scope, made when they are first asked for."""
        series = self.series.get(scope)
        if series is None:
            series = self.series[scope] = NumberSeries([])
            self.scopes.setdefault((scope.account, scope.branch), []).append(scope)
        return series


def numbered_as(posting: Posting) -> Scope:
    """Of what the running number of a posting is one."""
    by = posting.numbered_by
    day = posting.booked_on if by.endswith("-day") else None
    return (
        Scope(None, posting.branch or "", day)
        if by.startswith("branch")
        else Scope(posting.account, None, day)
    )


def scopes_of(reads: Sequence[FileRead], control: ControlRecord) -> list[Scope]:
    """What of the running numbers in these files a control record speaks of."""
    named = control.account, control.branch
    return list(dict.fromkeys(s for read in reads for s in read.scopes.get(named, ()))) or [Scope(*named)]


def summed(counted: Iterable[Counted]) -> Counted:
    """All of them together."""
    total = Counted()
    for each in counted:
        total.postings += each.postings
        total.credits_minor += each.credits_minor
        total.debits_minor += each.debits_minor
        total.printed |= each.printed
        if each.last_on and (total.last_on is None or each.last_on > total.last_on):
            total.last_on = each.last_on
        if each.first_on and (total.first_on is None or each.first_on < total.first_on):
            total.first_on = each.first_on
    return total


def read_under(reads: Sequence[FileRead], control: ControlRecord) -> Counted:
    """What was read of the things that a control record speaks of, in its currency where it names one."""
    currency = control.currency
    found: list[Counted] = []
    for read in reads:
        if control.account is not None:
            held: Mapping[tuple[str, str], Counted] = read.accounts
            name = control.account
        elif control.branch is not None:
            held, name = read.branches, control.branch
        else:
            found += read.whole(currency)
            continue
        if currency is not None:
            found += [held[name, currency]] if (name, currency) in held else []
        else:
            found += read.of(control.account, control.branch)
    return summed(found)
