"""The ledger's totals of each account, folded forward from its stream. A fold reads only the new events.

The fold is stored beside the events with the version up to which it read. After a crash between an append
and its fold, the next fold reads the missing events, because it begins at the stored version. All stored
totals can be folded again from the beginning.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby, islice
from operator import attrgetter
from typing import Final, Protocol
from uuid import UUID, uuid5

import msgspec
from contracts.identity import CRM_NAMESPACE

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.contradictions import Contradiction, Contradictions
from sync_ingest.domain.balances import DRIFT_MINOR_PER_ROW, DRIFT_TOLERANCES, Day, Judged, judge
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, Flow

ACCOUNTS_PER_FOLD: Final = 1_000
ROWS_PER_FOLD: Final = 20_000
"""The accounts and rows in memory at once, for any size of a run and any number of accounts."""
RUNNING: Final = "running-balance"
DIFFERS: Final = "running-balance-differs"
OPENING_MISSING: Final = "opening-missing"
ACCUMULATED: Final = "accumulated"

_NAMESPACE: Final = uuid5(CRM_NAMESPACE, "contradiction")
_encode: Final = msgspec.msgpack.Encoder().encode
_days: Final = msgspec.msgpack.Decoder(Day)


class StoredMovement(msgspec.Struct, frozen=True, gc=False):
    """One stored posting as reconciliation reads it."""

    stream_id: UUID
    version: int
    booked_on: date
    amount_minor: int
    currency: str
    balance_after_minor: int | None
    intake: UUID


class Movements(Protocol):
    """Reads postings back."""

    def movements(self, after: Mapping[UUID, int]) -> Iterator[StoredMovement]:
        """Every stored posting of these accounts beyond a version, account by account in stored order."""
        ...


def is_printed(day: bytes) -> bool:
    """Whether a posting of a day, as it is kept, printed a running balance."""
    return _days.decode(day).printed > 0


def contradiction_id(source: str, kind: str, *parts: object) -> UUID:
    """The same contradiction has the same id, whenever it is found."""
    return uuid5(_NAMESPACE, "|".join([source, kind, *map(str, parts)]))


@dataclass(slots=True)
class _Folded:
    """What one fold changes."""

    totals: dict[AccountCurrency, AccountTotal] = field(default_factory=dict)
    days: dict[tuple[AccountCurrency, date], bytes] = field(default_factory=dict)
    turnovers: dict[str, int] = field(default_factory=dict)
    found: dict[UUID, Contradiction] = field(default_factory=dict)
    scopes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Folding:
    """Folds accounts of one source; the caller holds the source's lock."""

    archive: Archive
    ledger: Movements
    source: str
    tolerance_minor: int
    drift_minor_max: int
    _known: dict[UUID, bool] = field(default_factory=dict)

    def totals(self, accounts: Sequence[UUID]) -> dict[AccountCurrency, AccountTotal]:
        """What the ledger holds of these accounts now, so many at a time as are folded together."""
        held: dict[AccountCurrency, AccountTotal] = {}
        every = list(dict.fromkeys(accounts))
        for at in range(0, len(every), ACCOUNTS_PER_FOLD):
            held |= self._some(every[at : at + ACCOUNTS_PER_FOLD])
        return held

    def _some(self, accounts: Sequence[UUID]) -> dict[AccountCurrency, AccountTotal]:
        totals = self.archive.totals.of(accounts)
        after = dict.fromkeys(accounts, 0)
        for account_currency, total in totals.items():
            after[account_currency.account] = max(after[account_currency.account], total.version)
        movements = self.ledger.movements(after)
        while rows := list(islice(movements, ROWS_PER_FOLD)):
            self._fold(rows, totals)
        return totals

    def _fold(self, rows: Sequence[StoredMovement], totals: dict[AccountCurrency, AccountTotal]) -> None:
        """Folds rows and keeps what comes of it, before the next rows are read."""
        folded, versions = _Folded(), dict[UUID, int]()
        by_currency: dict[AccountCurrency, list[StoredMovement]] = {}
        for account, of_account in groupby(rows, key=attrgetter("stream_id")):
            by_code = dict[str, list[StoredMovement]]()
            for row in of_account:
                by_code.setdefault(row.currency, []).append(row)
            versions[account] = row.version
            by_currency |= {AccountCurrency(account, currency): some for currency, some in by_code.items()}
        # By integers: a UUID computes its hash in Python each time.
        intakes = {row.intake.int: row.intake for row in rows}
        certified = {intake.int for intake in self._certified(set(intakes.values()))}
        comparing: dict[AccountCurrency, Sequence[StoredMovement]] = {}
        for account_currency, moved in by_currency.items():
            total = totals.setdefault(account_currency, AccountTotal())
            folded.totals[account_currency] = total
            silent = total.postings and not total.printed
            for row in moved:
                total.add(row.amount_minor, row.booked_on, certified=row.intake.int in certified)
                total.printed += row.balance_after_minor is not None
            total.version = versions[account_currency.account]
            turnover_minor = sum(abs(row.amount_minor) for row in moved)
            folded.turnovers[account_currency.currency] = (
                folded.turnovers.get(account_currency.currency, 0) + turnover_minor
            )
            if total.printed:
                comparing[account_currency] = (
                    self._history(account_currency, total.version) if silent else moved
                )
        held = self.archive.totals.days({p: min(row.booked_on for row in of) for p, of in comparing.items()})
        for account_currency, of_currency in comparing.items():
            self._compare(
                account_currency,
                folded.totals[account_currency],
                of_currency,
                held.get(account_currency, {}),
                folded,
            )
        self._keep(folded)

    def flows(
        self, totals: Mapping[AccountCurrency, AccountTotal], intakes: Collection[UUID]
    ) -> dict[AccountCurrency, Flow]:
        """What these intakes moved, read from the ledger: for when other intakes are open too, so that the
        part that no certificate covers is not theirs alone."""
        flows: dict[AccountCurrency, Flow] = {}
        open_ = {
            account_currency.account: 0
            for account_currency, total in totals.items()
            if total.movement.postings
        }
        for row in self.ledger.movements(open_) if open_ else ():
            if row.intake in intakes:
                flows.setdefault(AccountCurrency(row.stream_id, row.currency), Flow()).count(row.amount_minor)
        return flows

    def _certified(self, intakes: set[UUID]) -> set[UUID]:
        """Those of the intakes that a certificate covers: none becomes so while a run holds its source's
        lock."""
        unknown = [intake for intake in intakes if intake not in self._known]
        if unknown:
            covered = self.archive.intakes.certified_among(unknown)
            self._known |= {intake: intake in covered for intake in unknown}
        return {intake for intake in intakes if self._known[intake]}

    def _history(self, account_currency: AccountCurrency, version: int) -> list[StoredMovement]:
        """Everything up to a version, once: where an account that printed no balances begins to print them."""
        every = self.ledger.movements({account_currency.account: 0})
        return [row for row in every if row.currency == account_currency.currency and row.version <= version]

    def _compare(
        self,
        account_currency: AccountCurrency,
        total: AccountTotal,
        rows: Sequence[StoredMovement],
        held: Mapping[date, bytes],
        folded: _Folded,
    ) -> None:
        """Adds rows to their days, and judges these days and those that begin elsewhere because of them."""
        days = {day: _days.decode(body) for day, body in held.items()}
        touched = {row.booked_on for row in rows}
        since, last = min(touched), max(touched)
        for row in rows:
            day = days.get(row.booked_on)
            if day is None:
                day = days[row.booked_on] = Day(surplus={}, unprinted={}, steps=[])
            day.add(row.amount_minor, row.balance_after_minor)
        before, largest_gone = Judged(), False
        for on in sorted(days):
            day, was = days[on], days[on].judged
            if on >= since:
                day.judged = judge(
                    day,
                    before.end_minor,
                    printed_before=before.printed_before,
                    tolerance_minor=self.tolerance_minor,
                )
                if on > last and day.judged == was:
                    break
                if on in touched or day.judged != was:
                    folded.days[account_currency, on] = _encode(day)
                    largest_gone |= day.judged.largest_minor < was.largest_minor == total.largest_minor
                    self._judged(account_currency, on, before, was, total, folded, day.judged)
            before = day.judged
        if largest_gone:
            total.largest_minor = self._largest(account_currency, days)
        self._drift(account_currency, total, folded)

    def _largest(self, account_currency: AccountCurrency, days: Mapping[date, Day]) -> int:
        """The largest difference of all days, `days` as they are now: a maximum cannot be taken back, only
        looked for."""
        held = self.archive.totals.days({account_currency: date.min}).get(account_currency, {})
        every = {day: _days.decode(body) for day, body in held.items() if day not in days}
        return max(day.judged.largest_minor for day in (*every.values(), *days.values()))

    def _judged(
        self,
        account_currency: AccountCurrency,
        on: date,
        before: Judged,
        was: Judged,
        total: AccountTotal,
        folded: _Folded,
        now: Judged,
    ) -> None:
        total.within += now.within - was.within
        total.beyond += len(now.breaks) - len(was.breaks)
        total.uncompared += now.uncompared - was.uncompared
        total.drift_minor += now.drift_minor - was.drift_minor
        total.off_minor += now.off_minor - was.off_minor
        total.largest_minor = max(total.largest_minor, now.largest_minor)
        scope = _scope(account_currency, on.isoformat())
        folded.scopes.add(scope)
        for found, expected in now.breaks:
            opening = not before.printed_before and expected == before.end_minor
            code = OPENING_MISSING if opening else DIFFERS
            self._found(
                folded, scope, code, account_currency, expected, found, on.isoformat(), expected, found
            )

    def _drift(self, account_currency: AccountCurrency, total: AccountTotal, folded: _Folded) -> None:
        scope, drift_minor = _scope(account_currency, ACCUMULATED), total.drift_minor
        folded.scopes.add(scope)
        allowed_minor = DRIFT_TOLERANCES * self.tolerance_minor + DRIFT_MINOR_PER_ROW * total.printed
        if abs(drift_minor) > min(allowed_minor, self.drift_minor_max):
            size = drift_minor // (self.drift_minor_max + 1)
            detail = "differences within the tolerance, added up"
            self._found(folded, scope, DIFFERS, account_currency, 0, drift_minor, detail, size)

    def _found(
        self,
        folded: _Folded,
        scope: str,
        code: str,
        account_currency: AccountCurrency,
        expected: int,
        found: int,
        detail: str,
        *key: object,
    ) -> None:
        identity = contradiction_id(self.source, RUNNING, scope, code, *key)
        folded.found[identity] = Contradiction(
            identity,
            RUNNING,
            scope,
            code,
            account_currency.account,
            account_currency.currency,
            expected,
            found,
            detail,
        )

    def _keep(self, folded: _Folded) -> None:
        gone: list[UUID] = []
        if folded.scopes:
            accounts = list({account_currency.account for account_currency in folded.totals})
            standing = self.archive.contradictions.standing(self.source, RUNNING, accounts=accounts)
            gone = [c for c, scope in standing.items() if scope in folded.scopes and c not in folded.found]
        self.archive.totals.fold(
            self.source,
            folded.totals,
            folded.days,
            folded.turnovers,
            Contradictions(list(folded.found.values()), gone),
        )


def _scope(account_currency: AccountCurrency, place: str) -> str:
    return f"{account_currency.account}|{account_currency.currency}|{place}"
