"""Delimited text with a mapping file that says, in the bank's own column names, where each canonical field
is.

docs/mappings.md has every option of a mapping (`MappingFile`). Without a transaction id a posting is
identified by its money and an ordinal among equals (`sync_ingest.unnumbered`); `covers` says whether a
file has whole days or parts.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from chassis.money import BALANCE_MINOR_MAX, TURNOVER_MINOR_MAX, AmountUnreadable, exponent, is_currency

from sync_ingest.adapters.amounts import PrintedAmounts
from sync_ingest.adapters.mapping import CONTROL_SUMS, TEXT_FIELDS, MappingFile
from sync_ingest.adapters.port import (
    SEPARATORS,
    Batch,
    FeedFile,
    FileUnreadable,
    Item,
    RowUnreadable,
    batched,
    columns_differ,
    kept,
    oversized,
)
from sync_ingest.adapters.rows import Row, Rows
from sync_ingest.domain.records import AnyRecord, ControlRecord, Covers, Posting, Unreadable

_NUMBERED: Final = re.compile(r"#([1-9][0-9]{0,3})")
_OTHER_LINE_ENDS: Final = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class _Header(NamedTuple):
    """The places of the columns that the mapping names, and the number of columns."""

    width: int
    columns: tuple[tuple[str, int], ...]
    direction: int | None
    control: tuple[tuple[str, int], ...]


class DelimitedAdapter:
    """Postings from delimited files that share one mapping."""

    name: Final = "csv"

    def __init__(self, mapping: MappingFile) -> None:
        self.mapping = mapping
        self.reading = f"csv.4.{blake2b(_encode(mapping), digest_size=8).hexdigest()}"
        self.covers: Covers | None = mapping.covers
        self._rows = Rows(mapping)
        self._dates = mapping.dates()
        self._amounts, self._balances = mapping.amounts(), mapping.balances()
        self._direction = {
            **dict.fromkeys(mapping.direction.credit if mapping.direction else (), 1),
            **dict.fromkeys(mapping.direction.debit if mapping.direction else (), -1),
        }
        self._totals = tuple(mapping.control.rows) if mapping.control else ()

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]:
        """Every row of every file; a file whose header lacks a mapped column is one entry with its reason."""
        return batched(self._items(files))

    def _items(self, files: Sequence[FeedFile]) -> Iterator[tuple[Item, int]]:
        before = 0
        for index, feed_file in enumerate(files):
            try:
                yield from self._records(index, feed_file, before)
            except FileUnreadable as problem:
                yield Item(index, problem.line, problem.unreadable), before + feed_file.size_bytes
            before += feed_file.size_bytes

    def _records(self, index: int, feed_file: FeedFile, before: int) -> Iterator[tuple[Item, int]]:
        header: _Header | None = None
        for row, position in self._rows.read(feed_file):
            if header is None:
                header = self._header(row)
                if self.mapping.header_line:
                    continue
            content = self._read(row, header)
            if content is not None:
                yield Item(index, row.line.number, content), before + position
        if header is None:
            detail = f"the file ends before line {self.mapping.header_line}, which has its columns"
            raise FileUnreadable(Unreadable("header-unknown", detail, b""))

    # header

    def _header(self, row: Row) -> _Header:
        line, values = row
        if line.oversized:
            raise FileUnreadable(oversized(line), line.number)
        if isinstance(values, RowUnreadable):
            raise FileUnreadable(values.of(line), line.number)
        if any(_OTHER_LINE_ENDS.search(value.strip()) for value in values):
            # All lines are one: each row but the first would be lost as columns that no field takes.
            detail = "a line end other than LF or CRLF"
            raise FileUnreadable(Unreadable("line-end-wrong", detail, kept(line.data)), line.number)
        names = [" ".join(name.split()) for name in values]
        if not self.mapping.header_line:
            names = [str(number) for number in range(1, len(names) + 1)]
        mapping, control = self.mapping, self.mapping.control
        direction = mapping.direction.column if mapping.direction else None
        stated = control.columns() if control else {}
        wanted = [*mapping.columns.values(), *([direction] if direction else []), *stated.values()]
        places = {name: _places(name, names) for name in wanted}
        missing = [name for name, found in places.items() if not found]
        if missing and len(names) == 1 and any(other in names[0] for other in SEPARATORS):
            detail = f"the header is not separated by {mapping.separator!r}"
            raise FileUnreadable(Unreadable("separator-wrong", detail, kept(line.data)), line.number)
        if missing:
            detail = f"columns that the mapping names are absent: {', '.join(missing)}"
            raise FileUnreadable(Unreadable("header-unknown", detail[:200], kept(line.data)), line.number)
        if several := [name for name, found in places.items() if len(found) > 1]:
            detail = f"more than one column is named so, say #1, #2, ... instead: {', '.join(several)}"
            raise FileUnreadable(Unreadable("header-ambiguous", detail[:200], kept(line.data)), line.number)
        return _Header(
            len(names),
            tuple((field, places[name][0]) for field, name in mapping.columns.items()),
            places[direction][0] if direction else None,
            tuple((total, places[name][0]) for total, name in stated.items()),
        )

    # rows

    def _read(self, row: Row, header: _Header) -> AnyRecord | Unreadable | None:
        line, values = row
        if line.oversized:
            return oversized(line)
        if isinstance(values, RowUnreadable):
            return values.of(line)
        try:
            if self._totals and (word := self._total_word(values)):
                if word.rstrip(" :") not in self._totals and self._is_posting(row, header):
                    detail = "it begins with a word of totals, and reads as a posting"
                    raise RowUnreadable("row-ambiguous", detail)
                return self._control(values, header)
            return self._posting_of(row, header)
        except RowUnreadable as problem:
            return problem.of(line)

    def _posting_of(self, row: Row, header: _Header) -> AnyRecord:
        line, values = row
        if isinstance(values, RowUnreadable):
            raise values
        if len(values) != header.width and not _only_blank_beyond(values, header.width):
            raise columns_differ(line, len(values), header.width, self.mapping.separator)
        fields = {name: values[at].strip() for name, at in header.columns}
        direction = "" if header.direction is None else values[header.direction].strip()
        return self._posting(fields, direction)

    def _is_posting(self, row: Row, header: _Header) -> bool:
        try:
            self._posting_of(row, header)
        except RowUnreadable:
            return False
        return True

    def _posting(self, row: dict[str, str], direction: str) -> AnyRecord:
        mapping = self.mapping
        currency = self._currency(row.get("currency", ""))
        decimals = exponent(currency)
        details: dict[str, Any] = {
            name: mapping.words[name].get(row[name], row[name]) or None
            if name in mapping.words
            else row[name] or None
            for name in TEXT_FIELDS
            if name in row
        }
        details["product"] = details.get("product") or mapping.product
        balance_after, value_on = row.get("balance_after", ""), row.get("value_on", "")
        record = {
            "account": mapping.account or self._present(row, "account"),
            "core_transaction_id": (
                self._present(row, "core_transaction_id") if "core_transaction_id" in row else None
            ),
            "amount_minor": self._signed(row, direction, currency, decimals),
            "currency": currency,
            "booked_on": self._day(row, "booked_on"),
            "value_on": None if self._amounts.is_blank(value_on) else self._day(row, "value_on"),
            "leg": row.get("leg") or 1,
            "balance_after_minor": (
                None
                if self._balances.is_blank(balance_after)
                else self._amount(self._balances, row, "balance_after", currency, decimals, BALANCE_MINOR_MAX)
            ),
            **details,
        }
        if row.get("reverses_leg"):
            record |= {"reverses_leg": row["reverses_leg"]}
        if row.get("sequence_number"):
            record |= {"sequence_number": row["sequence_number"], "numbered_by": mapping.numbered_by}
        try:
            return msgspec.convert(record, Posting, strict=False)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("`$.")[2].removesuffix("`")
            raise RowUnreadable(
                "field-invalid", "a value that this field cannot hold", mapping.columns.get(field)
            ) from None

    def _currency(self, printed: str) -> str:
        words = self.mapping.words.get("currency")
        currency = (words.get(printed, printed) if words else printed) or self.mapping.currency or ""
        if not is_currency(currency):
            column = self.mapping.columns.get("currency")
            raise RowUnreadable("currency-unknown", "no ISO 4217 code of a currency with minor units", column)
        return currency

    def _present(self, row: dict[str, str], name: str) -> str:
        if not row[name]:
            raise RowUnreadable("field-missing", "a required value is empty", self.mapping.columns[name])
        return row[name]

    def _signed(self, row: dict[str, str], direction: str, currency: str, decimals: int) -> int:
        if "amount" not in row:
            return self._of_two_columns(row, currency, decimals)
        if self._amounts.is_blank(row["amount"]):
            raise RowUnreadable("amount-missing", "a row without an amount", self.mapping.columns["amount"])
        amount_minor = self._amount(self._amounts, row, "amount", currency, decimals)
        words = self.mapping.direction
        if words is None or words.column is None:
            return amount_minor
        if amount_minor < 0:
            detail = "the direction is in its own column, not in the sign"
            raise RowUnreadable("amount-negative", detail, self.mapping.columns["amount"])
        sign = self._direction.get(direction)
        if sign is None:
            raise RowUnreadable("word-unknown", "a direction that the mapping does not define", words.column)
        return sign * amount_minor

    def _of_two_columns(self, row: dict[str, str], currency: str, decimals: int) -> int:
        """Returns credit less debit. A zero beside an amount counts as empty.

        Two amounts, or none, are refused; zero alone is booked only with `zero_postings`.
        """
        amounts, printed = self._amounts, [name for name in ("credit", "debit") if row[name]]
        found = {
            name: self._amount(amounts, row, name, currency, decimals)
            for name in printed
            if not amounts.is_blank(row[name])
        }
        moved = [name for name, amount_minor in found.items() if amount_minor]
        if len(moved) == 1:
            return self._of_column(moved[0], found[moved[0]])
        if moved:
            detail = "both credit and debit hold an amount"
            raise RowUnreadable("amount-ambiguous", detail, self.mapping.columns["credit"])
        if not found:
            detail = "neither credit nor debit holds an amount"
            raise RowUnreadable("amount-missing", detail, self.mapping.columns["credit"])
        if not self.mapping.zero_postings:
            detail = "both are zero; zero_postings in the mapping would book it"
            raise RowUnreadable("amount-zero", detail, self.mapping.columns["credit"])
        return 0

    def _of_column(self, name: str, amount_minor: int) -> int:
        """Returns the amount of one column.

        A negative debit is a debit or a reversal of one, as the mapping says.
        """
        if name == "credit":
            return amount_minor
        if amount_minor > 0 or self.mapping.debit_minus == "reversal":
            return -amount_minor
        if self.mapping.debit_minus == "debit":
            return amount_minor
        detail = "a negative debit; debit_minus in the mapping says what it means"
        raise RowUnreadable("amount-negative", detail, self.mapping.columns["debit"])

    def _amount(
        self,
        printed: PrintedAmounts,
        row: dict[str, str],
        name: str,
        currency: str,
        decimals: int,
        minor_max: int | None = None,
    ) -> int:
        try:
            if minor_max is None:
                return printed.minor_units(row[name], currency, decimals)
            return printed.minor_units(row[name], currency, decimals, minor_max)
        except AmountUnreadable as error:
            raise RowUnreadable(error.code, str(error), self.mapping.columns[name]) from None

    def _day(self, row: dict[str, str], name: str) -> date:
        found = self._dates.days(self._present(row, name))
        if len(found) == 1:
            (day,) = found
            return day
        if found:
            raise RowUnreadable("date-ambiguous", f"two days: {self._dates}", self.mapping.columns[name])
        raise RowUnreadable("date-impossible", f"not a day written {self._dates}", self.mapping.columns[name])

    # rows of totals

    def _total_word(self, values: Sequence[str]) -> str:
        """The first value of a row, if it begins with one of the words for totals."""
        first = next((value.strip() for value in values if value and not value.isspace()), "")
        return first if first.startswith(self._totals) else ""

    def _control(self, values: Sequence[str], header: _Header) -> AnyRecord | None:
        """Returns the control record of a row of totals; None where the mapping takes no total from it."""
        if not header.control:
            return None
        stated = {name: values[at].strip() for name, at in header.control if at < len(values)}
        stated = {name: value for name, value in stated.items() if not self._balances.is_blank(value)}
        if not stated:
            raise RowUnreadable("amount-missing", "a row of totals without a total")
        at = dict(header.columns)
        printed = values[at["currency"]].strip() if at.get("currency", len(values)) < len(values) else ""
        account = self.mapping.account
        if account is None and at.get("account", len(values)) < len(values):
            named = values[at["account"]].strip()
            account = None if not named or named.startswith(self._totals) else named
        record: dict[str, Any] = {"account": account}
        if "records" in stated:
            record["records"] = stated["records"].replace(self.mapping.group_mark or ",", "")
        if set(stated) - {"records"}:
            currency = self._currency(printed)
            record["currency"] = currency
            for name in CONTROL_SUMS:
                if name in stated:
                    field, minor = self._total(name, stated[name], currency)
                    record[field] = minor
        try:
            return msgspec.convert(record, ControlRecord, strict=False)
        except msgspec.ValidationError:
            raise RowUnreadable("field-invalid", "totals that a control record cannot hold") from None

    def _total(self, name: str, printed: str, currency: str) -> tuple[str, int]:
        """A sum without its sign: banks print the sum of debits with a minus or without.

        Balances keep theirs.
        """
        column = self.mapping.control.columns()[name] if self.mapping.control else None
        try:
            minor = self._balances.minor_units(printed, currency, exponent(currency), TURNOVER_MINOR_MAX)
        except AmountUnreadable as error:
            raise RowUnreadable(error.code, str(error), column) from None
        if name.endswith("_balance"):
            return f"{name.removesuffix('_balance')}_minor", minor
        return f"{name}_minor", abs(minor)


def _only_blank_beyond(values: Sequence[str], width: int) -> bool:
    """Rows of some banks end in a separator that their header lacks."""
    return len(values) > width and not any(value.strip() for value in values[width:])


def _places(name: str, names: Sequence[str]) -> list[int]:
    """The places of a column: by its number, written #3, or by its name, which may occur more than once."""
    if numbered := _NUMBERED.fullmatch(name):
        at = int(numbered[1]) - 1
        return [at] if at < len(names) else []
    spaced = " ".join(name.split())
    return [at for at, found in enumerate(names) if found == spaced]
