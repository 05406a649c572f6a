"""The mapping file: the field of each column of a bank's delimited file, and the bank's formats.

See docs/mappings.md.
"""

import codecs
import re
import tomllib
import unicodedata
from typing import Annotated, Final, Literal

import msgspec
from chassis.money import CurrencyCode, NumberFormat
from chassis.write.deciding import Refusal
from msgspec import Meta

from sync_ingest.adapters.amounts import PrintedAmounts, spelled
from sync_ingest.adapters.dates import DateFormats
from sync_ingest.domain.records import Covers, NumberedBy

TEXT_FIELDS: Final = (
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
    "reverses_account",
)
KNOWN_COLUMNS: Final = frozenset(
    {
        *TEXT_FIELDS,
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
        "reverses_leg",
        "sequence_number",
    }
)
CONTROL_SUMS: Final = ("credits", "debits", "opening_balance", "closing_balance")
WORDS_MAX: Final = 1_000
NO_LONGER_USED: Final = frozenset({"balance_order"})
"""Options of earlier versions. The check of running balances does not depend on the order of rows."""

_NO_TEXT: Final = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "charmap"}
)
_UNSAFE: Final = frozenset({"utf-7", "mbcs", "oem", "hz"})
_PROBE: Final = "0123456789 +-.,;:|\t\"'()/#AZaz"

Word = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[list[Word], Meta(max_length=WORDS_MAX)]
DateFormat = Annotated[str, Meta(min_length=2, max_length=64)]


class MappingRefused(Refusal):
    """The mapping file cannot describe a feed; the text says why."""

    code = "mapping-refused"
    status = 422
    title = "The mapping file cannot describe a feed"
    title_zh = "映射文件无法描述数据文件"


class Direction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words for credit and debit, and their column; without a column they stand beside the amount itself."""

    credit: Words
    debit: Words
    column: Word | None = None


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows that are no postings but totals: `rows` are the words that their first value begins with.

    The other fields are columns, in which such a row states a control total; without any the row is passed
    over.
    """

    rows: Annotated[list[Word], Meta(min_length=1, max_length=WORDS_MAX)]
    records: Word | None = None
    credits: Word | None = None
    debits: Word | None = None
    opening_balance: Word | None = None
    closing_balance: Word | None = None

    def columns(self) -> dict[str, str]:
        """The columns that state something, by what they state."""
        named = {name: getattr(self, name) for name in ("records", *CONTROL_SUMS)}
        return {name: column for name, column in named.items() if column is not None}


class MappingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one bank's delimited file maps to canonical postings."""

    columns: dict[str, Word]
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Meta(min_length=1, max_length=1)] = '"'
    encoding: Annotated[str, Meta(min_length=1, max_length=64)] = "utf-8"
    header_line: Annotated[int, Meta(ge=0, le=1_000)] = 1
    account: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    currency: CurrencyCode | None = None
    date_format: DateFormat | Annotated[list[DateFormat], Meta(min_length=1, max_length=20)] = "%Y-%m-%d"
    time_of_day: Literal["ignored", "refused"] = "ignored"
    decimal_mark: str = "."
    group_mark: str = ""
    group_sizes: tuple[int, ...] = (3,)
    minus_signs: Annotated[str, Meta(max_length=10)] = ""
    currency_signs: dict[Word, CurrencyCode] = {}
    blanks: Words = []
    debit_minus: Literal["debit", "reversal"] | None = None
    zero_postings: bool = False
    product: Literal["deposit", "wealth", "loan", "card"] | None = None
    direction: Direction | None = None
    words: dict[str, dict[str, str]] = {}
    control: Control | None = None
    numbered_by: NumberedBy = "account"
    covers: Covers | None = None

    @classmethod
    def from_toml(cls, text: str, *, kept: bool = False) -> "MappingFile":
        """Reads and checks a mapping; raises MappingRefused.

        A mapping that was `kept` with an intake was accepted when it came: removed options in it are ignored.
        """
        try:
            options = tomllib.loads(text.removeprefix("\ufeff"))  # which some editors put before UTF-8
            for name in NO_LONGER_USED & options.keys():
                if not kept:
                    raise MappingRefused(f"{name} is no longer used: leave it out")
                del options[name]
            mapping = msgspec.convert(options, cls)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
            raise MappingRefused(str(error)) from error
        mapping.check()
        return mapping

    @property
    def date_formats(self) -> tuple[str, ...]:
        """The forms in which a day may be written."""
        return (self.date_format,) if isinstance(self.date_format, str) else tuple(self.date_format)

    def number_format(self) -> NumberFormat:
        """The format of its numbers; raises MappingRefused where a mark is invalid."""
        try:
            return NumberFormat(self.decimal_mark, spelled(self.group_mark), self.group_sizes)
        except ValueError as error:
            raise MappingRefused(str(error)) from error

    def amounts(self) -> PrintedAmounts:
        """The format of its amounts."""
        return self._printed(words_required=self._words_beside is not None)

    def balances(self) -> PrintedAmounts:
        """The format of its balances and totals, in which the word for the direction is optional."""
        return self._printed(words_required=False)

    def dates(self) -> DateFormats:
        """The formats of its dates; raises MappingRefused where no date can be read with one."""
        try:
            return DateFormats(self.date_formats, times_ignored=self.time_of_day == "ignored")
        except ValueError as error:
            raise MappingRefused(str(error)) from error

    def check(self) -> None:
        """Raises MappingRefused where a posting could not be made from the columns."""
        self._check_columns()
        self._check_marks()
        check_encoding(self.encoding)
        self.dates()
        self.amounts()

    @property
    def _words_beside(self) -> Direction | None:
        return self.direction if self.direction and self.direction.column is None else None

    def _printed(self, *, words_required: bool) -> PrintedAmounts:
        beside = self._words_beside
        return PrintedAmounts(
            self.number_format(),
            minus_signs=self.minus_signs,
            currency_signs=self.currency_signs,
            credit_words=beside.credit if beside else (),
            debit_words=beside.debit if beside else (),
            words_required=words_required,
            blanks=self.blanks,
        )

    def _check_columns(self) -> None:
        names = set(self.columns)
        if unknown := names - KNOWN_COLUMNS:
            raise MappingRefused(f"columns that no posting has: {', '.join(sorted(unknown))}")
        if "booked_on" not in names:
            raise MappingRefused("a column without a place: booked_on")
        if ("account" in names) == (self.account is not None):
            raise MappingRefused("either a column of accounts, or the one account that all rows are of")
        if ("amount" in names) == bool({"credit", "debit"} & names) or (
            "amount" not in names and not {"credit", "debit"} <= names
        ):
            raise MappingRefused("either amount, or credit and debit")
        if self.direction and "amount" not in names:
            raise MappingRefused("a direction needs the amount column")
        if self.direction and set(self.direction.credit) & set(self.direction.debit):
            raise MappingRefused("a word that is both credit and debit")
        if "currency" not in names and self.currency is None:
            raise MappingRefused("neither a currency column nor a currency")
        if unknown := set(self.words) - {*TEXT_FIELDS, "currency"}:
            raise MappingRefused(f"words of fields that have none: {', '.join(sorted(unknown))}")

    def _check_marks(self) -> None:
        self.number_format()
        if self.separator.isalnum() or self.separator in '\r\n\x00"' or self.separator == self.quote:
            raise MappingRefused("a separator is no letter, no digit, no line end and no quote")
        if self.quote.isalnum() or self.quote.isspace() or self.quote == "\x00":
            raise MappingRefused("a quote is no letter, no digit and no blank")
        for sign in self.minus_signs:
            if unicodedata.category(sign) not in {"Pd", "Sm"} or sign == "+":
                raise MappingRefused("a minus sign that is no dash")
        if any(re.search(r"\d", sign) for sign in self.currency_signs):
            raise MappingRefused("a currency sign with a digit in it")
        if any(re.search(r"[1-9]", spelled(blank)) for blank in self.blanks):
            raise MappingRefused("a blank that is an amount")


def check_encoding(name: str) -> str:
    """Its normal name; raises MappingRefused for what is no encoding of text in bytes."""
    try:
        found = codecs.lookup(name)
        normal = found.name.replace("_", "-")
        as_text = bytes.decode(str.encode(_PROBE, name), name)
    except (LookupError, ValueError) as error:
        raise MappingRefused(f"{name!r} is no encoding of text") from error
    if normal in _NO_TEXT | _UNSAFE or as_text != _PROBE:
        raise MappingRefused(f"{name!r} is no encoding of text that a feed may have")
    return normal
