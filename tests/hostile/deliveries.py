"""Hostile deliveries by seed: what a bank's day should bring, and the ways in which it comes instead."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

from tests.hostile.ledger import AMOUNT_MAX, Covers, Money, Row

ACCOUNTS: Final = ("6222021234560001", "6222021234560002", 'O\'Hara "7"')
DAYS: Final = ("2026-03-02", "2026-03-03", "2026-03-04")
AMOUNTS: Final = (1, -1, 5_00, -5_00, 5_00, 2**31 - 1, 2**31, -(2**31), AMOUNT_MAX)
KINDS: Final = ("card", "transfer", "fee")
SOURCES: Final = ("core", "card")
HEADERS: Final = ((), (b"core",), (b"card",), (b"core", b"core"), (b"\xff",), (b"a\x07b",), (b"",))
NAMED: Final = (None, "core", "card", "a\x07b", 7)
TEXTS: Final = ("", "工资", 'say "hi"', "it's", "a,b;c")
CRASH_POINTS: Final = ("after-intake", "mid-batch", "after-append", "before-progress", "before-certificate")
CURRENCIES_WRONG: Final = ("CNX", "CNY\n")
GARBLED: Final = ("12..34", *CURRENCIES_WRONG)
"""What stands in place of an amount or currency: no number, a code that ISO 4217 has not, one with a line end."""
HEADER: Final = ("account", "id", "day", "amount", "balance", "text")

Hand = Literal["one", "two", "crashing", "dying"]
"""One process, two at once, one that dies and is started again, one that dies and whose rest another one finishes."""
Print = Literal["plain", "groups", "decimal comma", "parentheses", "minus behind"]
"""How a csv style prints amounts."""
GARBLED_IN_PRINT: Final[dict[Print, str]] = {"groups": "12,50", "decimal comma": "12.50"}
"""Amounts whose mark stands where no group of three begins."""
MARKS: Final[dict[Print, tuple[str, ...]]] = {
    "groups": ('group_mark = ","',),
    "decimal comma": ('decimal_mark = ","', 'group_mark = "."'),
}


@dataclass(frozen=True)
class Style:
    """How a source sends: what can be checked of it, and what makes its postings the same.

    `beside`: the control totals come beside a batch and not in its files. `numbers`: postings have running numbers.
    """

    format: Literal["canonical", "csv"]
    ids: bool
    balances: bool
    controls: bool
    covers: Covers
    beside: bool = False
    numbers: bool = False
    print: Print = "plain"

    def mapping(self, columns: int) -> str | None:
        """The mapping of a csv style; the more `columns`, the more is read of each row."""
        if self.format == "canonical":
            return None
        wanted = {"account": "account", "booked_on": "day", "amount": "amount"}
        if self.ids:
            wanted["core_transaction_id"] = "id"
        if self.balances and columns > 0:
            wanted["balance_after"] = "balance"
        if columns > 1:
            wanted["text"] = "text"
        covers = [] if self.covers is None else [f'covers = "{self.covers}"']
        named = [f'{field} = "{column}"' for field, column in wanted.items()]
        return "\n".join(['currency = "CNY"', *MARKS.get(self.print, ()), *covers, "[columns]", *named])


@dataclass(frozen=True)
class File:
    """A file as it is delivered: its rows as they can be read, its bytes, and how many columns the mapping reads."""

    rows: tuple[Row, ...]
    content: bytes
    columns: int = 1
    beside: tuple[int, int, int] | None = None
    """Records, credits and debits that are stated beside it."""
    before: bytes | None = None
    """What its bytes were at the first reading, where they change while it is read."""


@dataclass(frozen=True)
class Delivery:
    """Files that come together, and by what hands. `contradicts`: a control total says that something is missing.

    `missing` is the row that is missing then.
    """

    what: str
    files: tuple[File, ...]
    hand: Hand = "one"
    crash_at: str = ""
    contradicts: bool = False
    missing: Row | None = None

    @property
    def beside(self) -> tuple[int, ...] | None:
        """Records, credits and debits that are stated beside all files together."""
        stated = [file.beside for file in self.files if file.beside is not None]
        return tuple(map(sum, zip(*stated, strict=True))) if stated else None


def style(random: Random) -> Style:
    """A way to send."""
    format = random.choice(("canonical", "csv"))
    ids = format == "canonical" or random.random() < 0.4
    covers: Covers = None if ids else random.choice(("whole-days", "parts", None))
    canonical = format == "canonical"
    balances, controls = random.random() < 0.6, canonical and random.random() < 0.5
    beside, numbers = controls and random.random() < 0.4, canonical and random.random() < 0.3
    return Style(format, ids, balances, controls, covers, beside, numbers)  # type: ignore[arg-type]


def truth(random: Random, style: Style) -> list[Row]:
    """What happened at the bank, in its order, with the running balance after each posting."""
    rows: list[Row] = []
    balances: dict[str, int] = {}
    numbers: Counter[str] = Counter()
    accounts = random.sample(ACCOUNTS, random.randint(1, 2))
    amounts = (AMOUNT_MAX,) if random.random() < 0.1 else AMOUNTS
    per_day = 6 if len(amounts) == 1 else 4
    for day in DAYS[: random.randint(1, 3)]:
        for _ in range(random.randint(1, per_day)):
            undone = _undone(random, style, rows) if len(amounts) > 1 else None
            account = undone.money.account if undone else random.choice(accounts)
            amount = -undone.money.amount_minor if undone else random.choice(amounts)
            balances[account] = balances.get(account, 0) + amount
            numbers[account] += 1
            rows.append(
                Row(
                    Money(account, day, amount, "CNY"),
                    f"T{len(rows)}" if style.ids else None,
                    random.choice(TEXTS),
                    balances[account] if style.balances else None,
                    undone.transaction if undone else None,
                    number=numbers[account] if style.numbers else None,
                    kind=KINDS[len(rows) % len(KINDS)] if style.format == "canonical" else None,
                )
            )
    return rows


def _undone(random: Random, style: Style, rows: Sequence[Row]) -> Row | None:
    """A posting that the next one reverses, if so."""
    reversed_already = {row.reverses for row in rows}
    able = [row for row in rows if row.reverses is None and row.transaction not in reversed_already]
    return random.choice(able) if able and style.format == "canonical" and random.random() < 0.15 else None


def written(rows: Sequence[Row], style: Style, *, columns: int = 1, controls: bool = True) -> File:
    """A file of these rows."""
    if style.format == "csv":
        return File(
            tuple(rows),
            b"\n".join([",".join(HEADER).encode(), *(_csv(row, style.print) for row in rows)]) + b"\n",
            columns,
        )
    lines, stated = [_canonical(row) for row in rows], None
    if style.controls and controls:
        amounts = [row.money.amount_minor for row in rows]
        credits = sum(amount for amount in amounts if amount > 0)
        stated = len(rows), credits, credits - sum(amounts)
        if not style.beside:
            names = ("records", "credits_minor", "debits_minor")
            figures = dict(zip(names, stated, strict=True))
            lines.append({"record": "control", "currency": "CNY", **figures})
    content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    return File(tuple(rows), content, beside=stated if style.beside else None)


def deliveries(random: Random, style: Style, rows: Sequence[Row]) -> Iterator[Delivery]:
    """Some deliveries of a day, each with what somebody or something did to it."""
    for _ in range(random.randint(2, 5)):
        yield from random.choice(WAYS)(random, style, list(rows))


def whole(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """As it should come."""
    yield Delivery("whole", (written(rows, style),))


def twice_in_one_run(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The same file two times in one run."""
    file = written(rows, style)
    yield Delivery("twice in one run", (file, file))


def by_two_hands(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The same file in two processes at once."""
    yield Delivery("by two hands", (written(rows, style),), "two")


def crashing(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The process dies in between, and the file comes again."""
    yield Delivery("crashing", (written(rows, style),), "crashing", random.choice(CRASH_POINTS))


def shuffled(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """In any order."""
    yield Delivery("shuffled", (written(random.sample(rows, len(rows)), style),))


def in_parts(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The beginning and the rest apart, sometimes the rest first."""
    at = random.randint(0, len(rows))
    parts = [part for part in (rows[:at], rows[at:]) if part]
    if random.random() < 0.3:
        parts.reverse()
    for part in parts:
        yield Delivery("in parts", (written(part, style),))


def described_anew(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The same money with other words, under another mapping."""
    said = [row.again(text=random.choice(TEXTS)) for row in rows]
    yield Delivery("described anew", (written(said, style, columns=random.randint(0, 2)),))


def mapped_anew(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The same bytes under another mapping."""
    file = written(rows, style)
    yield Delivery("mapped anew", (replace(file, columns=random.randint(0, 2)),))


def with_other_money(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """An id with another amount than before."""
    at = random.randrange(len(rows))
    if style.ids and rows[at].reverses is None:
        other = rows[at].money._replace(amount_minor=rows[at].money.amount_minor - 7)
        rows[at] = rows[at].again(money=other)
        yield Delivery("with other money under an id", (written(rows, style),))


def unreadable_row(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A row that nobody can read."""
    at = random.randrange(len(rows))
    rows[at] = rows[at].again(garbled=_garbled(style, at))
    yield Delivery("with a row that cannot be read", (written(rows, style),))


def reversed_twice(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A second reversal of what is reversed already."""
    if first := next((row for row in rows if row.reverses is not None), None):
        file = written([*rows, first.again(transaction="T-again", balance_minor=None)], style)
        yield Delivery("reversed twice", (file,))


def far_ahead(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A booking date that is a slip of a key."""
    slip = rows[-1].again(
        money=rows[-1].money._replace(day="2199-01-01"),
        transaction="T-slip" if style.ids else None,
        reverses=None,
        outside=True,
    )
    yield Delivery("with a date far ahead", (written([*rows, slip], style),))


def cut_off(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """The file ends in the middle of a row."""
    file = written(rows, style, controls=False)
    lines = file.content.splitlines(keepends=True)
    before, at = len(lines) - len(rows), random.randrange(len(rows))
    row = lines[before + at]
    content = b"".join(lines[: before + at]) + row[: random.randint(1, len(row) // 2)]
    yield Delivery("cut off", (File((*rows[:at], rows[at].again(garbled="cut", cut=True)), content),))


def without_a_row(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A row is missing, and the control totals are those of the whole."""
    at = random.randrange(len(rows))
    missing = rows[at] if style.controls else None
    file, complete = written(rows[:at] + rows[at + 1 :], style, controls=False), written(rows, style)
    control = complete.content[len(written(rows, style, controls=False).content) :]
    less = File(file.rows, file.content + control, beside=complete.beside)
    if random.random() < 0.5:
        yield Delivery("without a row", (less,), contradicts=style.controls, missing=missing)
        return
    at_point = random.choice(CRASH_POINTS)
    how = "without a row, and dying"
    yield Delivery(how, (less,), "dying", at_point, contradicts=style.controls, missing=missing)


def nothing(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """Bytes that hold no row."""
    content = random.choice((b"", b"\n\n", b"PK\x03\x04" + bytes(range(256)), b"\x1f\x8b\x08\x00\x00"))
    yield Delivery("nothing that can be read", (File((), content),))


WAYS: Final = (
    whole,
    twice_in_one_run,
    by_two_hands,
    crashing,
    shuffled,
    in_parts,
    described_anew,
    mapped_anew,
    with_other_money,
    unreadable_row,
    reversed_twice,
    far_ahead,
    cut_off,
    without_a_row,
    nothing,
)


def changing(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """Somebody takes rows out of the file while it is read; later it comes as it was."""
    if len(rows) > 1:
        before, file = written(rows, style), written(rows[: random.randrange(1, len(rows))], style)
        yield Delivery("changing while it is read", (replace(file, before=before.content),))
        yield Delivery("as it was before", (before,))


def summed_after_a_loss(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A row is missing, and the control totals are those of the rest: a running number tells it."""
    accounts = [row.money.account for row in rows]
    between = [
        at
        for at, account in enumerate(accounts)
        if account in accounts[:at] and account in accounts[at + 1 :]
    ]
    if between:
        at = random.choice(between)
        yield Delivery("summed after a loss", (written(rows[:at] + rows[at + 1 :], style),))


def without_a_row_and_more(random: Random, style: Style, rows: list[Row]) -> Iterator[Delivery]:
    """A contradiction, and files after it that agree with themselves."""
    if len(rows) > 1:
        at = random.randrange(1, len(rows))
        complete, rest = written(rows, style), rows[:at] + rows[at + 1 :]
        control = complete.content[len(written(rows, style, controls=False).content) :]
        less = written(rest, style, controls=False)
        # With an empty line: the same file without it may come again, and die, and is then finished by nobody.
        file = File(less.rows, less.content + control + b"\n", beside=complete.beside)
        yield Delivery("without a row", (file,), contradicts=True, missing=rows[at])
        yield Delivery("the rows before it", (written(rows[:at], style),))
        if random.random() < 0.5:
            yield Delivery("nothing that can be read", (File((), b""),))


RARE: Final = 0.1
RARE_OF_NUMBERS: Final = 0.5


def rare(random: Random, style: Style, rows: Sequence[Row]) -> Iterator[Delivery]:
    """Deliveries that are longer than others, before the rest of the day; not in every seed."""
    if style.numbers and not style.balances:
        if random.random() < RARE_OF_NUMBERS:
            yield from summed_after_a_loss(random, style, list(rows))
    elif random.random() < RARE:
        way = without_a_row_and_more if style.controls else changing
        yield from way(random, style, list(rows))


def _garbled(style: Style, at: int) -> str:
    if style.format == "csv":
        return GARBLED_IN_PRINT.get(style.print, GARBLED[0])
    return GARBLED[at % len(GARBLED)]


def repaired(row: Row) -> bytes:
    """A row as somebody writes it anew, in the canonical format."""
    return json.dumps(_canonical(row.again(garbled="", cut=False))).encode() + b"\n"


def _canonical(row: Row) -> dict[str, object]:
    currency = row.garbled if row.garbled in CURRENCIES_WRONG else row.money.currency
    unread = row.garbled if currency == row.money.currency else ""
    line: dict[str, object] = {
        "record": "posting",
        "account": row.money.account,
        "core_transaction_id": row.transaction,
        "amount_minor": unread or row.money.amount_minor,
        "currency": currency,
        "booked_on": row.money.day,
    }
    if row.text:
        line["text"] = row.text
    if row.balance_minor is not None:
        line["balance_after_minor"] = row.balance_minor
    if row.reverses is not None:
        line["reverses"] = row.reverses
    if row.kind is not None:
        line["kind"] = row.kind
    if row.number is not None:
        line["sequence_number"] = row.number
    return line


def _csv(row: Row, print: Print) -> bytes:
    amount = row.garbled or _printed(row.money.amount_minor, print)
    balance = "" if row.balance_minor is None else _printed(row.balance_minor, print)
    values = (row.money.account, row.transaction or "", row.money.day, amount, balance, row.text)
    return ",".join('"{}"'.format(value.replace('"', '""')) for value in values).encode()


def _printed(minor: int, print: Print) -> str:
    whole, rest = divmod(abs(minor), 100)
    number = f"{whole:,}.{rest:02d}" if print in MARKS else f"{whole}.{rest:02d}"
    if print == "decimal comma":
        number = number.translate(str.maketrans(",.", ".,"))
    if minor >= 0:
        return number
    return {"parentheses": f"({number})", "minus behind": f"{number}-"}.get(print, f"-{number}")
