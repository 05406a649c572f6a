"""The Berka tables: a Czech bank's own dump, seven tables and transactions in Czech or in English words.

Separator `;`, dates YYMMDD of the twentieth century, all amounts in CZK, columns found by their header.
Files are recognised by that header, so names, order of columns and order of rows do not matter.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Final, Literal, TypeVar

from chassis.money import AmountUnreadable, minor_units
from msgspec import structs

from sync_ingest.adapters.port import (
    SEPARATORS,
    Batch,
    FeedFile,
    FileUnreadable,
    Item,
    Line,
    RowUnreadable,
    batched,
    chunks_of_lines,
    columns_differ,
    first_line,
    kept,
    oversized,
)
from sync_ingest.domain.records import (
    AccountRecord,
    AnyRecord,
    CardRecord,
    Covers,
    HolderRecord,
    Kind,
    LoanRecord,
    PartyRecord,
    Posting,
    Role,
    StandingOrderRecord,
    Unreadable,
)

SEPARATOR: Final = ";"
CURRENCY: Final = "CZK"
CENTURY: Final = 1900
TEXT_CHARACTERS_MAX: Final = 1_024
DISPOSITIONS_MAX: Final = 5_000_000

_HEADERS: Final[dict[str, frozenset[str]]] = {
    "account": frozenset({"account_id", "district_id", "frequency", "date"}),
    "client": frozenset({"client_id", "birth_number", "district_id"}),
    "disp": frozenset({"disp_id", "client_id", "account_id", "type"}),
    "card": frozenset({"card_id", "disp_id", "type", "issued"}),
    "loan": frozenset({"loan_id", "account_id", "date", "amount", "duration", "payments", "status"}),
    "order": frozenset({"order_id", "account_id", "bank_to", "account_to", "amount", "k_symbol"}),
    "trans": frozenset(
        {
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
        }
    ),
    "district": frozenset(f"A{number}" for number in range(1, 17)),
}
_READING_ORDER: Final = ("account", "client", "disp", "card", "loan", "order", "trans", "district")

_RECORDS: Final = {
    "account": "account",
    "client": "party",
    "disp": "holder",
    "card": "card",
    "loan": "loan",
    "order": "standing-order",
    "trans": "posting",
}
"""The kind of canonical record that a row of each table becomes."""

_SIGNS: Final = {
    "PRIJEM": 1,
    "VYDAJ": -1,
    "VYBER": -1,
    "credit": 1,
    "withdrawal": -1,
    "withdrawal in cash": -1,
}
_CHANNELS: Final = {
    "VKLAD": "cash",
    "VYBER": "cash",
    "VYBER KARTOU": "card",
    "PREVOD Z UCTU": "transfer",
    "PREVOD NA UCET": "transfer",
    "credit in cash": "cash",
    "withdrawal in cash": "cash",
    "credit card withdrawal": "card",
    "collection from another bank": "transfer",
    "remittance to another bank": "transfer",
    "": None,
}
_KIND_OF_CHANNEL: Final[dict[str | None, Kind]] = {
    "cash": "cash",
    "card": "card",
    "transfer": "transfer",
    None: "other",
}
_KIND_OF_SYMBOL: Final[dict[str, Kind]] = {
    "UROK": "interest",
    "SLUZBY": "fee",
    "SIPO": "household",
    "DUCHOD": "pension",
    "POJISTNE": "insurance",
    "UVER": "loan_repayment",
    "LEASING": "other",
    "SANKC. UROK": "penalty_interest",
    "interest credited": "interest",
    "payment for statement": "fee",
    "household": "household",
    "old-age pension": "pension",
    "old age pension": "pension",
    "insurance payment": "insurance",
    "insurrance payment": "insurance",
    "loan payment": "loan_repayment",
    "leasing": "other",
    "sanction interest if negative balance": "penalty_interest",
}
_FREQUENCIES: Final[dict[str, Literal["monthly", "weekly", "after_turnover"]]] = {
    "POPLATEK MESICNE": "monthly",
    "POPLATEK TYDNE": "weekly",
    "POPLATEK PO OBRATU": "after_turnover",
    "monthly issuance": "monthly",
    "weekly issuance": "weekly",
    "issuance after transaction": "after_turnover",
}
_ROLES: Final[dict[str, Role]] = {"OWNER": "owner", "DISPONENT": "signatory"}
"""A disponent may give orders and does not own the account: an authorised signatory."""

Row = dict[str, str]
Word = TypeVar("Word")


@dataclass(slots=True)
class _Known:
    """The values that later tables need from earlier ones: disposition -> account and client."""

    dispositions: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Table:
    kind: str
    columns: tuple[str, ...]
    header_line: int


class BerkaAdapter:
    """Reads any subset of the tables; cards need the dispositions of the same feed."""

    name: Final = "berka"
    reading: Final = "berka.2"
    covers: Covers | None = None

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]:
        """Yields master data first, then postings, for any order of the files."""
        return batched(self._items(files))

    def _items(self, files: Sequence[FeedFile]) -> Iterator[tuple[Item, int]]:
        known, done, tables = _Known(), 0, list[tuple[int, int]]()
        for index, feed_file in enumerate(files):
            try:
                tables.append((_READING_ORDER.index(_table_of(feed_file).kind), index))
            except FileUnreadable as problem:
                done += feed_file.size_bytes
                yield Item(index, problem.line, problem.unreadable), done
        for _, index in sorted(tables):
            feed_file = files[index]
            table = _table_of(feed_file)
            if table.kind != "district":
                with feed_file.open() as stream:
                    for lines, position in chunks_of_lines(stream):
                        for line in lines:
                            if line.number > table.header_line and line.data and not line.data.isspace():
                                yield Item(index, line.number, _read(table, line, known)), done + position
            done += feed_file.size_bytes


def _table_of(feed_file: FeedFile) -> _Table:
    header = first_line(feed_file)
    try:
        text = header.data.removeprefix(b"\xef\xbb\xbf").decode("ascii")
    except UnicodeDecodeError:
        raise FileUnreadable(
            Unreadable("encoding-wrong", "the header is not ASCII", kept(header.data)), header.number
        ) from None
    columns = tuple(name.strip().strip('"') for name in text.split(SEPARATOR))
    for kind, wanted in _HEADERS.items():
        if wanted <= set(columns):
            return _Table(kind, columns, header.number)
    for other in SEPARATORS:
        names = {name.strip().strip('"') for name in text.split(other)}
        if any(wanted <= names for wanted in _HEADERS.values()):
            detail = f"the header is separated by {other!r}, not by {SEPARATOR!r}"
            raise FileUnreadable(Unreadable("separator-wrong", detail, kept(header.data)), header.number)
    detail = "the header is none of the known tables"
    raise FileUnreadable(Unreadable("header-unknown", detail, kept(header.data)), header.number)


def _read(table: _Table, line: Line, known: _Known) -> AnyRecord | Unreadable:
    if line.oversized:
        return oversized(line)
    try:
        return _READERS[table.kind](_row(table, line), known)
    except RowUnreadable as problem:
        return structs.replace(problem.of(line), kind=_RECORDS.get(table.kind))


def _row(table: _Table, line: Line) -> Row:
    if b"\x00" in line.data:
        raise RowUnreadable("record-binary", "binary data in a line of text")
    try:
        text = line.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowUnreadable("encoding-wrong", "not UTF-8 or ASCII", f"byte {error.start + 1}") from None
    if '"' in text:
        try:
            values = next(csv.reader([text], delimiter=SEPARATOR, strict=True))
        except csv.Error:
            raise RowUnreadable("quote-unclosed", "a quoted value has no end") from None
    else:
        values = text.split(SEPARATOR)
    if len(values) != len(table.columns):
        raise columns_differ(line, len(values), len(table.columns), SEPARATOR)
    return dict(zip(table.columns, values, strict=True))


def _key(row: Row, column: str) -> str:
    value = row[column].strip()
    if not value:
        raise RowUnreadable("field-missing", "a key is empty", column)
    if len(value) > 20 or not (value.isascii() and value.isdigit()):
        raise RowUnreadable("field-invalid", "a key is not a number", column)
    return value.lstrip("0") or "0"


def _amount(row: Row, column: str) -> int:
    try:
        return minor_units(row[column], 2)
    except AmountUnreadable as error:
        raise RowUnreadable(error.code, str(error), column) from None


def _unsigned(row: Row, column: str) -> int:
    amount_minor = _amount(row, column)
    if amount_minor < 0:
        raise RowUnreadable("amount-negative", "the direction is in the type, not in the sign", column)
    return amount_minor


@lru_cache(maxsize=16_384)
def _date_of(text: str) -> date | None:
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        return None
    try:
        return date(CENTURY + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        return None


def _date(row: Row, column: str) -> date:
    text = row[column].strip()
    found = _date_of(text.removesuffix(" 00:00:00"))
    if found is None:
        raise RowUnreadable(
            "date-impossible" if text else "field-missing", "not a day written YYMMDD", column
        )
    return found


def _word(row: Row, column: str, words: Mapping[str, Word]) -> Word:
    try:
        return words[row[column].strip()]
    except KeyError:
        detail = "a word that this table does not define"
        raise RowUnreadable("word-unknown", detail, column) from None


def _optional(row: Row, column: str) -> str | None:
    value = row[column].strip()
    if len(value) > TEXT_CHARACTERS_MAX:
        detail = f"more than {TEXT_CHARACTERS_MAX} characters"
        raise RowUnreadable("field-invalid", detail, column)
    return value or None


def _posting(row: Row, known: _Known) -> AnyRecord:
    sign = _word(row, "type", _SIGNS)
    channel = _CHANNELS.get(row["operation"].strip())
    symbol = _optional(row, "k_symbol") or ""
    kind = _KIND_OF_SYMBOL.get(symbol, _KIND_OF_CHANNEL[channel])
    partner = _optional(row, "account")
    return Posting(
        account=_key(row, "account_id"),
        core_transaction_id=_key(row, "trans_id"),
        amount_minor=sign * _unsigned(row, "amount"),
        currency=CURRENCY,
        booked_on=_date(row, "date"),
        balance_after_minor=_amount(row, "balance"),
        product="deposit",
        channel=channel,
        kind=kind,
        counterparty_bank=_optional(row, "bank"),
        counterparty_account=None if partner == "0" else partner,
        text=symbol or _optional(row, "operation"),
    )


def _account(row: Row, known: _Known) -> AnyRecord:
    return AccountRecord(
        account=_key(row, "account_id"),
        opened_on=_date(row, "date"),
        product="deposit",
        currency=CURRENCY,
        branch=_key(row, "district_id"),
        statement_frequency=_word(row, "frequency", _FREQUENCIES),
    )


def _client(row: Row, known: _Known) -> AnyRecord:
    number = row["birth_number"].strip()
    shaped = len(number) == 6 and number.isascii() and number.isdigit()
    female = shaped and int(number[2:4]) > 50
    born_on = _date_of(f"{number[:2]}{int(number[2:4]) - 50:02d}{number[4:]}" if female else number)
    if born_on is None:
        raise RowUnreadable(
            "date-impossible", "not a birth number YYMMDD, women's month + 50", "birth_number"
        )
    return PartyRecord(
        party=_key(row, "client_id"),
        born_on=born_on,
        gender="female" if female else "male",
        identity_number=number,
        branch=_key(row, "district_id"),
    )


def _disposition(row: Row, known: _Known) -> AnyRecord:
    disposition, account, party = _key(row, "disp_id"), _key(row, "account_id"), _key(row, "client_id")
    role = _word(row, "type", _ROLES)
    if len(known.dispositions) >= DISPOSITIONS_MAX:
        raise RowUnreadable("table-oversized", f"more than {DISPOSITIONS_MAX} dispositions")
    known.dispositions[disposition] = (account, party)
    return HolderRecord(account=account, party=party, role=role)


def _card(row: Row, known: _Known) -> AnyRecord:
    found = known.dispositions.get(_key(row, "disp_id"))
    if found is None:
        raise RowUnreadable("disposition-unknown", "no such disposition in this feed", "disp_id")
    account, party = found
    return CardRecord(
        card=_key(row, "card_id"),
        account=account,
        issued_on=_date(row, "issued"),
        kind=_optional(row, "type"),
        party=party,
    )


def _loan(row: Row, known: _Known) -> AnyRecord:
    duration = row["duration"].strip()
    if not (duration.isascii() and duration.isdigit() and 1 <= int(duration[:6]) <= 1200):
        raise RowUnreadable("field-invalid", "not a number of months", "duration")
    return LoanRecord(
        loan=_key(row, "loan_id"),
        account=_key(row, "account_id"),
        granted_on=_date(row, "date"),
        amount_minor=_unsigned(row, "amount"),
        currency=CURRENCY,
        duration_months=int(duration),
        payment_minor=_unsigned(row, "payments"),
        status=_optional(row, "status"),
    )


def _order(row: Row, known: _Known) -> AnyRecord:
    return StandingOrderRecord(
        order=_key(row, "order_id"),
        account=_key(row, "account_id"),
        amount_minor=_unsigned(row, "amount"),
        currency=CURRENCY,
        kind=_KIND_OF_SYMBOL.get(row["k_symbol"].strip(), "other"),
        counterparty_bank=_optional(row, "bank_to"),
        counterparty_account=_optional(row, "account_to"),
    )


_READERS: Final[dict[str, Callable[[Row, _Known], AnyRecord]]] = {
    "account": _account,
    "client": _client,
    "disp": _disposition,
    "card": _card,
    "loan": _loan,
    "order": _order,
    "trans": _posting,
}
