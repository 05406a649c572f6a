"""The ledger as it must be, whatever way the postings took: a model on one page, without a database.

A posting is the same posting by its identity. With a transaction id that is source, account, id and leg; without one it
is what is money (account, business date, amount, currency) and the ordinal among equals of its file. Whatever is
described differently is the same posting; the same id with other money is a conflict and is not booked.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Covers = Literal["whole-days", "parts"] | None
AMOUNT_MAX = 10**15
BALANCE_MAX = 9 * 10**15

Where = tuple[str, int]
"""The file, by a name of its bytes, and the place of a row in it."""


class Money(NamedTuple):
    """What of a posting is money."""

    account: str
    day: str
    amount_minor: int
    currency: str


@dataclass(frozen=True)
class Row:
    """A posting as a feed says it. `transaction` None: the feed gives no ids. `garbled`: what stands in place
    of its amount or currency, so that it cannot be read.

    `outside`: its day is too far from the bank's. `cut`: the file ends inside of it.
    """

    money: Money
    transaction: str | None
    text: str = ""
    balance_minor: int | None = None
    reverses: str | None = None
    garbled: str = ""
    outside: bool = False
    cut: bool = False
    number: int | None = None
    kind: str | None = None

    @property
    def whole(self) -> bool:
        """Whether all of a row that cannot be read is there, so that it is recognised in another file."""
        return bool(self.garbled) and not self.cut

    def again(self, **changes: object) -> "Row":
        """The row with something else said."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass
class Read:
    """What a delivery must come to: each row is posted, a duplicate, or waits."""

    posted: int = 0
    duplicates: int = 0
    waiting: int = 0


@dataclass
class Ledger:
    """Identities and their money, and which rows wait for a person."""

    covers: Covers = None
    booked: dict[object, Row] = field(default_factory=dict)
    waits: dict[object, Row | None] = field(default_factory=dict)
    reversals: dict[object, tuple[list[Where], object, Row]] = field(default_factory=dict)
    resolved: set[Row] = field(default_factory=set)
    undone: dict[object, object] = field(default_factory=dict)

    def read(self, rows: list[Row], file: str) -> Read:
        """Books the rows of a file; `file` names its bytes, however often and under whatever mapping they come."""
        ordinals: Counter[Money] = Counter()
        came = Read()
        early: list[tuple[Where, object, Row]] = []
        claimed = {key: identity for key, (_, identity, _) in self.reversals.items()}
        for place, row in enumerate(rows):
            ordinals[row.money] += not row.garbled
            identity = self.identity(row, ordinals[row.money], file)
            original = row.money.account, row.reverses
            rival = self.undone.get(original) or claimed.setdefault(original, identity)
            if row.reverses is not None and rival != identity:
                self.waits[file, place] = row
                came.waiting += 1
            elif row.reverses is not None and not row.garbled and identity not in self.booked:
                early.append(((file, place), identity, row))
            else:
                self._book((file, place), identity, row, came)
        for where, identity, row in early:
            places = self.reversals.setdefault((row.money.account, row.reverses), ([], identity, row))[0]
            places.append(where)
        self._settle(came, file)
        return came

    def release(self, where: object, row: Row) -> bool:
        """Whether `row` may take the place of what waits; then it is booked, and everything that is the same row is resolved."""
        identity, waiting, came = self.identity(row, 1, ""), self.waits[where], Read()
        if identity in self.booked or not self._fits(row):
            return False
        self.dismiss(where)
        if waiting is not None and waiting.whole:
            self.resolved.add(waiting)
            for other in [place for place, one in self.waits.items() if one == waiting]:
                self.dismiss(other)
        self._book(where, identity, row, came)
        self._settle(came, "")
        return True

    def dismiss(self, where: object) -> None:
        """Nothing takes the place of what waits."""
        waiting = self.waits.pop(where)
        if waiting is not None and waiting.whole:
            self.resolved.add(waiting)

    def _book(self, where: object, identity: object, row: Row, came: Read) -> None:
        before = self.booked.get(identity)
        if row.garbled and row in self.resolved:
            came.duplicates += 1
            return
        refused = bool(row.garbled) or row.outside or abs(row.money.amount_minor) > AMOUNT_MAX
        refused |= abs(row.balance_minor or 0) > BALANCE_MAX
        if refused or self._conflicts(row, before) or (before is None and not self._fits(row)):
            self.waits[where] = row
            came.waiting += 1
        elif before is not None:
            came.duplicates += 1
        else:
            self.booked[identity] = row
            came.posted += 1

    def _settle(self, came: Read, file: str) -> None:
        """Reversals whose originals are there are booked; the others wait for them.

        One that came in an earlier file is booked after the run and is no posting of it.
        """
        for original, (places, identity, row) in list(self.reversals.items()):
            undone = self.booked.get(original)
            if undone is None or undone.money.amount_minor != -row.money.amount_minor:
                self.waits |= dict.fromkeys(places, row)
                continue
            del self.reversals[original]
            self.undone[original] = identity
            for place in places:
                self.waits.pop(place, None)
            of_this_run = any(place[0] == file for place in places)
            self._book(places[-1], identity, row, came if of_this_run else Read())

    def identity(self, row: Row, ordinal: int, file: str) -> object:
        """What makes a posting the same posting."""
        if row.transaction is not None:
            return row.money.account, row.transaction
        return (*row.money, ordinal, file if self.covers == "parts" else None)

    def taken_back(self) -> dict[Row, Row]:
        """Each reversal that is booked, with what it reverses: it counts under type and month of that one."""
        reversals = [row for row in self.booked.values() if row.reverses is not None]
        return {row: self.booked[row.money.account, row.reverses] for row in reversals}

    def balance(self, account: str) -> int:
        """The sum of an account."""
        return sum(row.money.amount_minor for row in self.booked.values() if row.money.account == account)

    def postings(self, account: str) -> int:
        """How many postings an account has."""
        return sum(row.money.account == account for row in self.booked.values())

    def _fits(self, row: Row) -> bool:
        return abs(self.balance(row.money.account) + row.money.amount_minor) <= BALANCE_MAX

    @staticmethod
    def _conflicts(row: Row, before: Row | None) -> bool:
        return before is not None and before.money != row.money


def sender(
    headers: Sequence[bytes], named: object, default: str | None, names: Collection[str]
) -> str | None:
    """The source of a message: what its only header and its record name, else the default. None: nobody's.

    A name that cannot be used is never replaced by another one.
    """
    said = {header.decode("latin-1") for header in headers} | ({named} if named is not None else set())
    if not said:
        return default
    [one, *others] = said
    return str(one) if one in names and not others and len(headers) < 2 else None
