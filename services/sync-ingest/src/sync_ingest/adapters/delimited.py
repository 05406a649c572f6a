"""Delimited text with a mapping file that says, in the bank's own column names, where each canonical field is.

The mapping is TOML (`MappingFile.from_toml`), for example::

    separator = ";"
    encoding = "gb18030"
    currency = "CNY"              # for rows that name none
    date_format = "%d.%m.%Y"
    decimal_mark = ","
    group_mark = "."
    header_line = 1               # what stands before it is passed over; 0: no header, columns are "1", "2", ...
    account = "6222021234566789"  # of a file of one account, which has no column for it
    [columns]
    account = "Konto"
    core_transaction_id = "Ref"   # left out where the bank gives none
    booked_on = "Buchungstag"
    amount = "Betrag"             # or: credit = "Haben", debit = "Soll"
    [direction]                   # where the amount is unsigned
    column = "S/H"
    credit = ["H"]
    debit = ["S"]

Without a transaction id a posting is identified by what it says and by its ordinal among the postings of its file that
say the same: two equal bookings of one day are two, and a file that overlaps another brings only what is new. The
printed balance is no part of it, because banks print it anew when something is booked in between.
"""

import csv
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal

import msgspec
from chassis.deciding import Refusal
from chassis.money import AmountUnreadable, CurrencyCode, NumberFormat, exponent, is_currency
from msgspec import Meta

from sync_ingest.adapters.port import (
    SEPARATORS,
    BalanceOrder,
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
from sync_ingest.domain.records import AnyRecord, Posting, Unreadable

_TEXT_FIELDS: Final = (
    "product",
    "channel",
    "kind",
    "branch",
    "teller",
    "counterparty_bank",
    "counterparty_account",
    "counterparty_name",
    "text",
    "reverses",
)
_KNOWN_COLUMNS: Final = frozenset(
    {
        *_TEXT_FIELDS,
        "account",
        "core_transaction_id",
        "leg",
        "amount",
        "credit",
        "debit",
        "balance_after",
        "currency",
        "booked_on",
        "value_on",
    }
)


DERIVED_IDS_MAX: Final = 2_000_000
"""Rows of one file that have no id of their own: so many are told apart."""
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class MappingRefused(Refusal):
    """The mapping file cannot describe a feed; the text says why."""

    code = "mapping-refused"
    status = 422
    title = "The mapping file cannot describe a feed"
    title_zh = "映射文件无法描述数据文件"


class Direction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The column that carries the direction of an unsigned amount, and its words."""

    column: str
    credit: list[str]
    debit: list[str]


class MappingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one bank's delimited file maps to canonical postings."""

    columns: dict[str, str]
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Meta(min_length=1, max_length=1)] = '"'
    encoding: str = "utf-8"
    header_line: Annotated[int, Meta(ge=0, le=1_000)] = 1
    account: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    currency: CurrencyCode | None = None
    date_format: str = "%Y-%m-%d"
    decimal_mark: str = "."
    group_mark: str = ""
    group_sizes: tuple[int, ...] = (3,)
    product: Literal["deposit", "wealth", "loan", "card"] | None = None
    direction: Direction | None = None
    words: dict[str, dict[str, str]] = {}
    balance_order: BalanceOrder = "as-read"

    @classmethod
    def from_toml(cls, text: str) -> "MappingFile":
        """Reads and checks a mapping; raises MappingRefused."""
        try:
            mapping = msgspec.convert(tomllib.loads(text), cls)
            "".encode(mapping.encoding)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, LookupError) as error:
            raise MappingRefused(str(error)) from error
        mapping.check()
        return mapping

    def number_format(self) -> NumberFormat:
        """How its amounts are written; raises MappingRefused where a mark is none."""
        try:
            return NumberFormat(self.decimal_mark, self.group_mark, self.group_sizes)
        except ValueError as error:
            raise MappingRefused(str(error)) from error

    def check(self) -> None:
        """Raises MappingRefused where a posting could not be made from the columns."""
        self.number_format()
        names = set(self.columns)
        if unknown := names - _KNOWN_COLUMNS:
            raise MappingRefused(f"columns that no posting has: {', '.join(sorted(unknown))}")
        if "booked_on" not in names:
            raise MappingRefused("a column without a place: booked_on")
        if ("account" in names) == (self.account is not None):
            raise MappingRefused("either a column of accounts, or the one account that all rows are of")
        if ("amount" in names) == ({"credit", "debit"} <= names):
            raise MappingRefused("either amount, or credit and debit")
        if self.direction and "amount" not in names:
            raise MappingRefused("a direction needs the amount column")
        if "currency" not in names and self.currency is None:
            raise MappingRefused("neither a currency column nor a currency")
        if self.encoding.lower().replace("_", "-") in {"utf-16", "utf-32", "utf-16-le", "utf-16-be"}:
            raise MappingRefused("an encoding in which a line end is one byte")


NO_ID: Final = "-"


class _Told:
    """How often each posting without an id was told by a file so far."""

    def __init__(self) -> None:
        self._times: Counter[bytes] = Counter()

    def identified(self, posting: Posting) -> Posting:
        """The posting under an id of its own, which tells nothing to whom the account's number is unknown."""
        content = _encode(msgspec.structs.replace(posting, balance_after_minor=None))
        digest = blake2b(content, digest_size=12, key=posting.account.encode()[:64]).digest()
        if digest not in self._times and len(self._times) >= DERIVED_IDS_MAX:
            raise RowUnreadable(
                "file-oversized", f"more than {DERIVED_IDS_MAX} rows without ids of their own"
            )
        self._times[digest] += 1
        made = f"content-{digest.hex()}-{self._times[digest]}"
        return msgspec.structs.replace(posting, core_transaction_id=made)


class DelimitedAdapter:
    """Postings from delimited files that share one mapping; one row is one line."""

    name: Final = "csv"

    def __init__(self, mapping: MappingFile) -> None:
        self.mapping = mapping
        self.reading = f"csv.1.{blake2b(_encode(mapping), digest_size=8).hexdigest()}"
        self.balance_order: BalanceOrder = mapping.balance_order
        self._number = mapping.number_format()
        self._date = lru_cache(maxsize=16_384)(partial(_parsed_date, mapping.date_format))

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]:
        """Every row of every file; a file whose header lacks a mapped column is one entry with its reason."""
        return batched(self._items(files))

    def _items(self, files: Sequence[FeedFile]) -> Iterator[tuple[Item, int]]:
        before = 0
        for index, feed_file in enumerate(files):
            try:
                yield from self._rows(index, feed_file, before)
            except FileUnreadable as problem:
                yield Item(index, problem.line, problem.unreadable), before + feed_file.size_bytes
            before += feed_file.size_bytes

    def _rows(self, index: int, feed_file: FeedFile, before: int) -> Iterator[tuple[Item, int]]:
        first_line(feed_file)
        columns: dict[str, int] | None = None
        width, told = 0, _Told()
        with feed_file.open() as stream:
            for lines, position in chunks_of_lines(stream):
                for line in lines:
                    if line.number < self.mapping.header_line or not line.data or line.data.isspace():
                        continue
                    if columns is None:
                        columns, width = self._header(line)
                        if self.mapping.header_line:
                            continue
                    yield Item(index, line.number, self._read(line, columns, width, told)), before + position
        if columns is None:
            detail = f"the file ends before line {self.mapping.header_line}, which has its columns"
            raise FileUnreadable(Unreadable("header-unknown", detail, b""))

    def _header(self, line: Line) -> tuple[dict[str, int], int]:
        try:
            names = [name.strip() for name in self._split(line.data)]
            if not self.mapping.header_line:
                names = [str(number) for number in range(1, len(names) + 1)]
        except RowUnreadable as problem:
            raise FileUnreadable(problem.of(line), line.number) from None
        missing = [name for name in self.mapping.columns.values() if name not in names]
        if self.mapping.direction and self.mapping.direction.column not in names:
            missing.append(self.mapping.direction.column)
        if not missing:
            return {name: names.index(name) for name in names}, len(names)
        if len(names) == 1 and any(other in names[0] for other in SEPARATORS):
            detail = f"the header is not separated by {self.mapping.separator!r}"
            raise FileUnreadable(Unreadable("separator-wrong", detail, kept(line.data)), line.number)
        detail = f"columns that the mapping names are absent: {', '.join(missing)}"
        raise FileUnreadable(Unreadable("header-unknown", detail[:200], kept(line.data)), line.number)

    def _split(self, data: bytes) -> list[str]:
        if b"\x00" in data:
            raise RowUnreadable("record-binary", "binary data in a line of text")
        try:
            text = data.removeprefix(b"\xef\xbb\xbf").decode(self.mapping.encoding)
        except UnicodeDecodeError as error:
            where = f"byte {error.start + 1}"
            raise RowUnreadable("encoding-wrong", f"not {self.mapping.encoding}", where) from None
        if self.mapping.quote not in text:
            return text.split(self.mapping.separator)
        try:
            return next(
                csv.reader(
                    [text], delimiter=self.mapping.separator, quotechar=self.mapping.quote, strict=True
                )
            )
        except csv.Error:
            raise RowUnreadable("quote-unclosed", "a quoted value has no end in its line") from None

    def _read(self, line: Line, columns: dict[str, int], width: int, told: "_Told") -> AnyRecord | Unreadable:
        if line.oversized:
            return oversized(line)
        try:
            values = self._split(line.data)
            if len(values) != width:
                raise columns_differ(line, len(values), width, self.mapping.separator)
            row = {name: values[columns[at]].strip() for name, at in self.mapping.columns.items()}
            direction = (
                values[columns[self.mapping.direction.column]].strip() if self.mapping.direction else ""
            )
            return self._posting(row, direction, told)
        except RowUnreadable as problem:
            return problem.of(line)

    def _posting(self, row: dict[str, str], direction: str, told: "_Told") -> AnyRecord:
        currency = row.get("currency") or self.mapping.currency or ""
        if not is_currency(currency):
            raise RowUnreadable(
                "currency-unknown", "not an ISO 4217 code", self.mapping.columns.get("currency")
            )
        decimals = exponent(currency)
        details: dict[str, Any] = {
            name: self.mapping.words.get(name, {}).get(row[name], row[name]) or None
            for name in _TEXT_FIELDS
            if name in row
        }
        details["product"] = details.get("product") or self.mapping.product
        record = {
            "account": self.mapping.account or self._present(row, "account"),
            "core_transaction_id": (
                self._present(row, "core_transaction_id") if "core_transaction_id" in row else NO_ID
            ),
            "amount_minor": self._signed(row, direction, decimals),
            "currency": currency,
            "booked_on": self._day(row, "booked_on"),
            "value_on": self._day(row, "value_on") if row.get("value_on") else None,
            "leg": row.get("leg") or 1,
            "balance_after_minor": (
                self._amount(row, "balance_after", decimals) if row.get("balance_after") else None
            ),
            **details,
        }
        try:
            posting = msgspec.convert(record, Posting, strict=False)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("`$.")[2].removesuffix("`")
            column = self.mapping.columns.get(field, field)
            raise RowUnreadable("field-invalid", "a value that this field cannot hold", column) from None
        return posting if "core_transaction_id" in row else told.identified(posting)

    def _present(self, row: dict[str, str], name: str) -> str:
        if not row[name]:
            raise RowUnreadable("field-missing", "a required value is empty", self.mapping.columns[name])
        return row[name]

    def _signed(self, row: dict[str, str], direction: str, decimals: int) -> int:
        if "amount" not in row:
            credit, debit = row["credit"], row["debit"]
            if bool(credit) == bool(debit):
                detail = "exactly one of credit and debit holds an amount"
                raise RowUnreadable("amount-missing", detail, self.mapping.columns["credit"])
            return self._amount(row, "credit", decimals) if credit else -self._amount(row, "debit", decimals)
        amount_minor = self._amount(row, "amount", decimals)
        words = self.mapping.direction
        if words is None:
            return amount_minor
        if amount_minor < 0:
            detail = "the direction is in its own column, not in the sign"
            raise RowUnreadable("amount-negative", detail, self.mapping.columns["amount"])
        if direction in words.credit:
            return amount_minor
        if direction in words.debit:
            return -amount_minor
        raise RowUnreadable("word-unknown", "a direction that the mapping does not define", words.column)

    def _amount(self, row: dict[str, str], name: str, decimals: int) -> int:
        try:
            return self._number.minor_units(row[name], decimals)
        except AmountUnreadable as error:
            raise RowUnreadable(error.code, str(error), self.mapping.columns[name]) from None

    def _day(self, row: dict[str, str], name: str) -> date:
        text = self._present(row, name)
        found = self._date(text)
        if found is None:
            detail = f"not a day written {self.mapping.date_format}"
            raise RowUnreadable("date-impossible", detail, self.mapping.columns[name])
        return found


def _parsed_date(date_format: str, text: str) -> date | None:
    try:
        return datetime.strptime(text, date_format).date()  # noqa: DTZ007 - a bank date
    except ValueError:
        return None
