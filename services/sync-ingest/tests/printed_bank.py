"""A Czech bank's own dump in eight tables: one made here by seed, and the real one where its files are at hand.

What the files must give is known apart from our readers: the generator counts each movement as it makes it, and the
figures of the real bank are printed with its files. The generated rows have what the real ones have: Czech words in
one file and English ones in the other, a third word for a debit, symbols of one blank, a partner account of "0",
running balances that are rounded apart from the interest, and a last day that is cut off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final

from sync_ingest.domain.records import (
    AccountRecord,
    CardRecord,
    HolderRecord,
    LoanRecord,
    PartyRecord,
    StandingOrderRecord,
)

ROUNDING_MINOR: Final = 10
"""By how much a printed balance differs where the interest was rounded apart from it."""
BANKS: Final = ("AB", "CD", "EF", "YZ")
ENGLISH: Final = {
    "PRIJEM": "credit",
    "VYDAJ": "withdrawal",
    "VKLAD": "credit in cash",
    "VYBER": "withdrawal in cash",
    "VYBER KARTOU": "credit card withdrawal",
    "PREVOD Z UCTU": "collection from another bank",
    "PREVOD NA UCET": "remittance to another bank",
    "UROK": "interest credited",
    "SLUZBY": "payment for statement",
    "SIPO": "household",
    "DUCHOD": "old-age pension",
    "POJISTNE": "insurrance payment",
    "UVER": "loan payment",
    "LEASING": "leasing",
    "SANKC. UROK": "sanction interest if negative balance",
}
CREDITS: Final = (
    ("PRIJEM", "VKLAD", ""),
    ("PRIJEM", "VKLAD", ""),
    ("PRIJEM", "PREVOD Z UCTU", ""),
    ("PRIJEM", "PREVOD Z UCTU", "DUCHOD"),
)
DEBITS: Final = (
    ("VYDAJ", "VYBER", ""),
    ("VYBER", "VYBER", ""),
    ("VYDAJ", "VYBER", "SLUZBY"),
    ("VYDAJ", "VYBER", " "),
    ("VYDAJ", "VYBER KARTOU", ""),
    ("VYDAJ", "PREVOD NA UCET", ""),
    ("VYDAJ", "PREVOD NA UCET", " "),
    ("VYDAJ", "PREVOD NA UCET", "SIPO"),
    ("VYDAJ", "PREVOD NA UCET", "POJISTNE"),
    ("VYDAJ", "PREVOD NA UCET", "LEASING"),
    ("VYDAJ", "PREVOD NA UCET", "UVER"),
)
INTEREST: Final = ("PRIJEM", "", "UROK")
PENALTY: Final = ("VYDAJ", "VYBER", "SANKC. UROK")


@dataclass(frozen=True)
class Sums:
    """What some rows of transactions come to."""

    rows: int
    accounts: int
    credits_minor: int
    debits_minor: int


@dataclass(frozen=True)
class PrintedBank:
    """The tables by file name, and what they hold. `czech` and `english` name the two files of transactions.

    On `cut_off_on`, the last day of the Czech file, rows are missing on `cut_off_accounts` accounts. Before that day
    `rounded` rows differ from their printed balance, each by `ROUNDING_MINOR`.
    """

    tables: dict[str, bytes]
    czech: str
    english: str
    master: dict[type, int]
    signatories: int
    cut_off_on: date
    cut_off_accounts: int
    rounded: int
    before_cut_off: Sums
    of_czech: Sums
    of_english: Sums


def real_bank(folder: Path) -> PrintedBank:
    """The real bank's tables, with the figures that are known from outside."""
    return PrintedBank(
        tables={path.name: path.read_bytes() for path in sorted(folder.iterdir())},
        czech="trans_1993-01_to_1994-03.asc",
        english="trans_loan_accounts_1995-1998_english.csv",
        master={
            AccountRecord: 2244,
            PartyRecord: 2674,
            HolderRecord: 2674,
            CardRecord: 446,
            LoanRecord: 339,
            StandingOrderRecord: 3167,
        },
        signatories=430,
        cut_off_on=date(1994, 3, 31),
        cut_off_accounts=16,
        rounded=972,
        before_cut_off=Sums(22_927, 591, 8_698_091_310, 6_782_795_590),
        of_czech=Sums(23_932, 591, 8_711_974_530, 6_806_243_160),
        of_english=Sums(14_148, 173, 6_879_140_130, 6_153_042_210),
    )


@dataclass(frozen=True)
class Movement:
    """One transaction as the bank has it."""

    number: int
    account: int
    on: date
    words: tuple[str, str, str]
    amount_minor: int
    balance_minor: int
    partner: tuple[str, str]
    rounded: bool

    @property
    def credit(self) -> bool:
        """Whether it adds to the account."""
        return self.words[0] == "PRIJEM"


def generated_bank(seed: int = 1, accounts: int = 60, days: int = 180) -> PrintedBank:
    """A bank of our own: two thirds of its accounts are in the Czech file, the others in the English one."""
    chance = Random(seed)
    begins, ends = date(1993, 1, 1), date(1993, 1, 1) + timedelta(days=days - 1)
    numbers = range(1, accounts + 1)
    told = [n for n in numbers if n % 3]
    cut_off = told[::8]
    czech = [m for n in told for m in life(chance, n, begins, ends)]
    english = [m for n in numbers if n % 3 == 0 for m in life(chance, n, date(1995, 1, 1), date(1995, 6, 30))]
    lost = {min(m.number for m in czech if (m.account, m.on) == (n, ends)) for n in cut_off}
    czech = [m for m in czech if m.number not in lost]
    parties = {n: [n * 10, *([n * 10 + 1] if n % 5 == 0 else [])] for n in numbers}
    rights = [
        (party, n, "DISPONENT" if at else "OWNER") for n in numbers for at, party in enumerate(parties[n])
    ]
    cards = [(party, chance.choice(["classic", "gold", "junior"])) for party, n, _ in rights if n % 4 == 0]
    loans = [(n, chance.choice([12, 24, 60]), chance.randrange(500, 9_000)) for n in numbers if n % 6 == 0]
    orders = [
        (n, symbol) for n in numbers for symbol in ("SIPO", " ", "POJISTNE", "LEASING", "UVER")[: n % 6]
    ]
    districts = ['1;"Hl.m. Praha";"Prague"' + ";0" * 13]
    tables = {
        "account.asc": _table(
            '"account_id";"district_id";"frequency";"date"',
            [f'{n};1;"{_FREQUENCIES[n % 3]}";{begins:%y%m%d}' for n in numbers],
        ),
        "card.asc": _table(
            '"card_id";"disp_id";"type";"issued"',
            [f'{at};{party};"{kind}";930205 00:00:00' for at, (party, kind) in enumerate(cards, 1)],
        ),
        "client.asc": _table(
            '"client_id";"birth_number";"district_id"',
            [f'{party};"{_birth_number(chance)}";1' for party, _, _ in rights],
        ),
        "disp.asc": _table(
            '"disp_id";"client_id";"account_id";"type"',
            [f'{party};{party};{n};"{right}"' for party, n, right in rights],
        ),
        "district.asc": _table(";".join(f"A{number}" for number in range(1, 17)), districts),
        "loan.asc": _table(
            '"loan_id";"account_id";"date";"amount";"duration";"payments";"status"',
            [f'{n};{n};930401;{months * pays};{months};{pays}.00;"A"' for n, months, pays in loans],
        ),
        "order.asc": _table(
            '"order_id";"account_id";"bank_to";"account_to";"amount";"k_symbol"',
            [
                f'{at};{n};"AB";"{50_000 + at}";{_printed(chance.randrange(10_000))};"{symbol}"'
                for at, (n, symbol) in enumerate(orders, 1)
            ],
        ),
        "trans.asc": in_czech(_by_day(chance, czech)),
        "trans_english.csv": in_english(_by_day(chance, english)),
    }
    before = [m for m in czech if m.on < ends]
    return PrintedBank(
        tables=tables,
        czech="trans.asc",
        english="trans_english.csv",
        master={
            AccountRecord: accounts,
            PartyRecord: len(rights),
            HolderRecord: len(rights),
            CardRecord: len(cards),
            LoanRecord: len(loans),
            StandingOrderRecord: len(orders),
        },
        signatories=sum(right == "DISPONENT" for _, _, right in rights),
        cut_off_on=ends,
        cut_off_accounts=len(cut_off),
        rounded=sum(m.rounded for m in before),
        before_cut_off=_sums(before),
        of_czech=_sums(czech),
        of_english=_sums(english),
    )


_FREQUENCIES: Final = ("POPLATEK MESICNE", "POPLATEK TYDNE", "POPLATEK PO OBRATU")


def life(chance: Random, account: int, begins: date, ends: date) -> Iterator[Movement]:
    """All movements of an account; on each day credits come before debits, and on the last day there are three."""
    balance_minor, number, off_minor = 0, account * 100_000, 0
    for on in (begins + timedelta(days=day) for day in range((ends - begins).days + 1)):
        last = on == ends
        wanted = [*chance.choices(CREDITS, k=chance.randrange(3) // 2 or on == begins or last)]
        if (on + timedelta(days=1)).day == 1:
            wanted.append(PENALTY if balance_minor < 0 else INTEREST)
        wanted += chance.choices(DEBITS, k=2 if last else chance.randrange(3) // 2)
        for words in sorted(wanted, key=lambda words: words[0] != "PRIJEM"):
            amount_minor = chance.randrange(10, 9_000_000 if words[0] == "PRIJEM" else 6_000_000, 10)
            rounding = 0
            if words is INTEREST:
                rounding = -off_minor or chance.choice([-ROUNDING_MINOR, 0, ROUNDING_MINOR])
                off_minor += rounding
            balance_minor += (amount_minor if words[0] == "PRIJEM" else -amount_minor) + rounding
            yield Movement(
                number,
                account,
                on,
                words,
                amount_minor,
                balance_minor,
                _partner(chance, words),
                bool(rounding),
            )
            number += 1


def _partner(chance: Random, words: tuple[str, str, str]) -> tuple[str, str]:
    if words[1].startswith("PREVOD"):
        return chance.choice(BANKS), str(chance.randrange(10_000, 99_999_999))
    return "", "0" if words[1] == "VYBER KARTOU" else ""


def _by_day(chance: Random, movements: list[Movement]) -> list[Movement]:
    """By day, and within a day as it comes."""
    return sorted(chance.sample(movements, len(movements)), key=lambda movement: movement.on)


def _sums(movements: list[Movement]) -> Sums:
    return Sums(
        rows=len(movements),
        accounts=len({m.account for m in movements}),
        credits_minor=sum(m.amount_minor for m in movements if m.credit),
        debits_minor=sum(m.amount_minor for m in movements if not m.credit),
    )


_COLUMNS: Final = [
    "trans_id",
    "account_id",
    "date",
    "type",
    "operation",
    "amount",
    "balance",
    "k_symbol",
    "bank",
    "account",
]


def in_czech(movements: list[Movement]) -> bytes:
    """Transactions in the bank's own words, quoted."""
    rows = []
    for m in movements:
        kind, operation, symbol = m.words
        bank, account = (f'"{part}"' if part else "" for part in m.partner)
        rows.append(
            f'{m.number};{m.account};{m.on:%y%m%d};"{kind}";"{operation}";{_printed(m.amount_minor)};'
            f'{_printed(m.balance_minor)};"{symbol}";{bank};{account}'
        )
    return _table(";".join(f'"{column}"' for column in _COLUMNS), rows)


def in_english(movements: list[Movement]) -> bytes:
    """The same in English words, which nobody quotes."""
    rows = []
    for m in movements:
        kind, operation, symbol = (ENGLISH.get(word, word) for word in m.words)
        bank, account = m.partner
        rows.append(
            f"{m.number};{m.account};{m.on:%y%m%d};{kind};{operation};{_printed(m.amount_minor)};"
            f"{_printed(m.balance_minor)};{symbol};{bank};{account}"
        )
    return _table(";".join(_COLUMNS), rows)


def _printed(minor: int) -> str:
    return f"{'-' if minor < 0 else ''}{abs(minor) // 100}.{abs(minor) % 100:02d}"


def _birth_number(chance: Random) -> str:
    """YYMMDD; women have 50 added to the month."""
    born_on = date(1920, 1, 1) + timedelta(days=chance.randrange(25_000))
    return f"{born_on:%y}{born_on.month + chance.choice([0, 50]):02d}{born_on:%d}"


def _table(header: str, rows: list[str]) -> bytes:
    return "".join(f"{row}\r\n" for row in [header, *rows]).encode("ascii")
