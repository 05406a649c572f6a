"""Proposes a mapping for a delimited file, with comments where a person has to check it.

It reads only the beginning of the file. A proposal is a text; making one books nothing.
"""

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chassis.money import EXPONENTS, AmountUnreadable, NumberFormat

from sync_ingest.adapters.amounts import DASHES, PrintedAmounts, spelled
from sync_ingest.adapters.dates import DateFormats
from sync_ingest.adapters.port import FeedFile, FileUnreadable, unreadable_file, unreadable_packed
from sync_ingest.adapters.vocabulary import CREDIT_WORDS, CURRENCIES, DEBIT_WORDS, DIRECTION, TOTALS, WORDS
from sync_ingest.domain.records import Unreadable

HEAD_BYTES_MAX: Final = 256 * 1024
HEADER_LINE_MAX: Final = 100
ROWS_LOOKED_AT: Final = 2_000
PROBE_BYTES: Final = 16 * 1024
ENCODINGS: Final = ("gb18030", "cp1252", "cp1250", "big5", "shift_jis")
"""What a file may be in that is not UTF-8 and has no byte-order mark; the first wins where several fit alike."""

NOT_SURE: Final = "# NOT SURE: "

_DATES: Final = (
    "%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%Y年%m月%d日", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y-%m-%d", "%y%m%d", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y",
    "%d%m%Y", "%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S",
)  # fmt: skip
_MARKS: Final = (
    (".", "", (3,)), (".", ",", (3,)), (",", "", (3,)), (",", ".", (3,)), (",", " ", (3,)), (".", "'", (3,)), (".", " ", (3,)),
    (".", ",", (3, 2)), (".", ",", (4,)), (",", "'", (3,)), (",", "_", (3,)),
)  # fmt: skip
_SEPARATORS: Final = (",", ";", "\t", "|", "^", "~")
_AMOUNT_LIKE: Final = re.compile(r"[-+(]?\s*[^\d\s]{0,4}\s*\d[\d.,' ]*\s*[^\d\s]{0,4}[-)]?")
_WELL_PLACED: Final = re.compile(
    r"(?<=[a-zß])[äöüßéèàçñóřčžšěýáíł](?=[a-z\s;,\"])|[ÄÖÜ](?=[a-z])|€|[\u4e00-\u9fff]{2}"
)
_ACCOUNT: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?|[0-9]{10,24})(?![A-Za-z0-9])"
)


class _Table(NamedTuple):
    """A table in a text: its separator, the line of its header from 1 (0: none), names, rows."""

    separator: str
    header_line: int
    names: list[str]
    rows: list[list[str]]
    above: str
    score: int


@dataclass(slots=True)
class _Proposal:
    """Lines of the proposal, those of the tables last."""

    keys: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def say(self, key: str, value: object, unsure: str = "") -> None:
        """Adds a key with its value, and a comment on what a person has to check."""
        if unsure:
            self.keys.append(f"{NOT_SURE}{unsure}")
        self.keys.append(f"{key} = {_toml(value)}")


def guess(feed_file: FeedFile) -> str:
    """A mapping as TOML, with comments; raises FileUnreadable where the file is no table of text."""
    if reason := unreadable_packed(feed_file):
        raise FileUnreadable(reason)
    with feed_file.open() as stream:
        head = stream.read(HEAD_BYTES_MAX)
    whole = len(head) == feed_file.size_bytes
    encoding, unsure = _encoding(head)
    if not encoding.startswith(("utf-16", "utf-32")) and (reason := unreadable_file(feed_file)):
        raise FileUnreadable(reason)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head, whole)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    table = _table(text if whole else text.rpartition("\n")[0])
    if table is None:
        raise FileUnreadable(Unreadable("header-unknown", "no table with a day and an amount is found", b""))
    return _proposed(encoding, unsure, table)


def _proposed(encoding: str, unsure: str, table: _Table) -> str:
    proposal = _Proposal()
    columns = _columns(table)
    totals, rows = _totals(table)
    proposal.say("encoding", encoding, unsure)
    proposal.say("separator", table.separator)
    if table.header_line != 1:
        proposal.say("header_line", table.header_line)
    currency, unsure = _currency(table, columns, rows)
    if "currency" not in columns:
        proposal.say("currency", currency, unsure)
    if "account" not in columns:
        number = _ACCOUNT.search(table.above)
        proposal.say(
            "account",
            number[0].replace(" ", "") if number else "ACCOUNT",
            "the account of all rows of the file",
        )
    _say_dates(proposal, [row[columns["booked_on"]] for row in rows])
    _say_amounts(proposal, table, columns, rows, currency)
    if totals:
        _say_totals(proposal, table, columns, totals)
    names = [f"{name} = {_toml(_named(table, at))}" for name, at in columns.items()]
    lines = ["# Proposed from the beginning of a file: check every line before anything is booked with it."]
    lines += [*proposal.keys, "", "[columns]"]
    if "core_transaction_id" not in columns:
        lines.insert(-2, f"{NOT_SURE}there are no transaction ids; a file has whole days, or parts of them")
        lines.insert(-2, '# covers = "whole-days"')
    lines += [*names, *proposal.tables]
    return "\n".join(lines) + "\n"


# text


def _encoding(head: bytes) -> tuple[str, str]:
    """Returns the encoding, and a comment where it is uncertain."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name, ""
    if len(head) > 8 and not any(head[1:64:2]):
        return "utf-16-le", ""
    if len(head) > 8 and not any(head[:64:2]):
        return "utf-16-be", ""
    if _decodes(head, "utf-8"):
        return "utf-8", ""
    found = [(_understood(head, name), name) for name in ENCODINGS if _decodes(head, name)]
    best, name = max(found, key=lambda each: each[0], default=((0, 0), "cp1252"))
    if best > (0, 0):
        return name, "" if name in {"gb18030", "cp1252"} else "the encoding, of several that fit"
    paired = sum(len(run) - len(run) % 2 for run in re.findall(rb"[\x80-\xff]+", head))
    high = sum(byte > 0x7F for byte in head)
    name = "gb18030" if _decodes(head, "gb18030") and paired * 10 >= high * 9 else "cp1252"
    return name, "the encoding: look at letters beyond ASCII"


def _decodes(head: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _understood(head: bytes, encoding: str) -> tuple[int, int]:
    """How much of its header is known words, and how many of its letters stand where such letters stand."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head[:PROBE_BYTES])
    table = _named_table(text.replace("\r", "\n").split("\n"))
    return table.score if table else 0, len(_WELL_PLACED.findall(text))


def _plain(name: str) -> str:
    """A column's name as it is compared: no units, no currencies, no marks, no accents."""
    bare = re.sub(r"[(（\[].*?[)）\]]", " ", spelled(name))
    bare = " ".join(word for word in bare.split() if word not in EXPONENTS)
    letters = unicodedata.normalize("NFKD", bare.lower().replace("ł", "l"))
    kept = "".join([letter for letter in letters if not unicodedata.combining(letter)])
    return " ".join(re.sub(r"[^\w']+", " ", kept).split())


_FIELDS: Final = {_plain(word): name for name, words in WORDS.items() for word in reversed(words.split("|"))}


# table


def _table(text: str) -> _Table | None:
    lines = text.split("\n")
    return _named_table(lines) or _table_without_header(lines)


def _named_table(lines: Sequence[str]) -> _Table | None:
    """The separator and the header line under which most columns are known."""
    best: _Table | None = None
    for separator in _SEPARATORS:
        for at, line in enumerate(lines[:HEADER_LINE_MAX]):
            if separator not in line:
                continue
            names = next(csv.reader([line], delimiter=separator), [])
            known = {_FIELDS[plain] for name in names if (plain := _plain(name)) in _FIELDS}
            money = bool({"amount", "credit", "debit"} & known)
            score = len(known) * 10 + len(names) if money and "booked_on" in known else 0
            if score and (best is None or score > best.score):
                rows = _rows(lines[at + 1 :], separator, len(names))
                best = _Table(
                    separator, at + 1, [name.strip() for name in names], rows, "\n".join(lines[:at]), score
                )
    return best


def _table_without_header(lines: Sequence[str]) -> _Table | None:
    """Columns are numbered where no line names them; they are found by what stands in them."""
    for separator in _SEPARATORS:
        rows = _rows(lines, separator, None)
        width = max((len(row) for row in rows), default=0)
        full = [row for row in rows if len(row) == width]
        if width > 1 and full and _column_of_days(full) is not None and _columns_of_amounts(full):
            at = next(i for i, line in enumerate(lines) if separator in line)
            dated = _column_of_days(full[:1]) is not None
            header = 0 if dated and at == 0 else at + 1
            names = [str(number) for number in range(1, width + 1)]
            if header:
                names = [name.strip() for name in full[0]]
                full = full[1:]
            return _Table(separator, header, names, full, "\n".join(lines[:at]), 1)
    return None


def _rows(lines: Sequence[str], separator: str, width: int | None) -> list[list[str]]:
    text = [line + "\n" for line in lines if line.strip()]
    rows = []
    for row in csv.reader(text, delimiter=separator):
        rows.append([" ".join(value.split()) for value in row])
        if len(rows) >= ROWS_LOOKED_AT:
            break
    if width is None:
        return rows
    return [row[:width] + [""] * (width - len(row)) for row in rows if len(row) > 1]


def _column_of_days(rows: Sequence[Sequence[str]]) -> int | None:
    for at in range(len(rows[0])):
        values = [row[at] for row in rows if row[at]]
        if values and _formats(values):
            return at
    return None


def _columns_of_amounts(rows: Sequence[Sequence[str]]) -> list[int]:
    found = []
    for at in range(len(rows[0])):
        values = [row[at] for row in rows if row[at]]
        decimals = sum(bool(re.search(r"[.,][0-9]{2}\)?[^0-9]*\Z", value)) for value in values)
        if (
            values
            and all(_AMOUNT_LIKE.fullmatch(spelled(value)) for value in values)
            and decimals * 2 >= len(values)
        ):
            found.append(at)
    return found


def _columns(table: _Table) -> dict[str, int]:
    """Which column is what: the first of those that bear a name of the field, amounts in one way."""
    columns: dict[str, int] = {}
    for at, name in enumerate(table.names):
        known = _FIELDS.get(_plain(name))
        if known and known not in columns:
            columns[known] = at
    if "booked_on" not in columns:
        days = _column_of_days(table.rows or [table.names]) or 0
        columns["booked_on"] = days
        amounts = [each for each in _columns_of_amounts(table.rows) if each != days]
        columns |= dict(zip(("amount", "balance_after"), amounts, strict=False))
    if {"credit", "debit"} <= set(columns):
        columns.pop("amount", None)
    else:
        lone = [columns.pop(name) for name in ("credit", "debit") if name in columns]
        if "amount" not in columns and lone:
            columns["amount"] = lone[0]
    return columns


def _named(table: _Table, at: int) -> str:
    name = table.names[at]
    return f"#{at + 1}" if table.names.count(name) > 1 or not name else name


def _totals(table: _Table) -> tuple[list[tuple[str, list[str]]], list[list[str]]]:
    """Rows of totals with the word that they begin with, and the other rows."""
    totals, rows = [], []
    for row in table.rows:
        first = next((value for value in row if value), "")
        word = next((word for word in sorted(TOTALS, key=len, reverse=True) if first.startswith(word)), None)
        if word:
            totals.append((word, row))
        else:
            rows.append(row)
    return totals, rows


# days


def _formats(values: Sequence[str]) -> list[str]:
    """The formats that read every value."""
    found = []
    for form in _DATES:
        days = DateFormats([form], times_ignored=True).days
        if all(days(value) for value in values):
            found.append(form)
    return found


def _say_dates(proposal: _Proposal, printed: Iterable[str]) -> None:
    values = [value for value in printed if value][:ROWS_LOOKED_AT]
    fitting = _formats(values)
    if fitting:
        others = [form for form in fitting[1:] if _differ(fitting[0], form, values)]
        unsure = f"the days fit {' and '.join([fitting[0], *others])} too" if others else ""
        proposal.say("date_format", fitting[0], unsure)
        return
    several = [
        form
        for form in _DATES
        if any(DateFormats([form], times_ignored=True).days(value) for value in values)
    ]
    chosen: list[str] = []
    for form in several:
        if not any(_differ(form, other, values) for other in chosen):
            chosen.append(form)
    proposal.say("date_format", chosen or "%Y-%m-%d", "no one format fits every day")


def _differ(one: str, other: str, values: Sequence[str]) -> bool:
    both = DateFormats([one, other], times_ignored=True).days
    return any(len(both(value)) > 1 for value in values)


# amounts


def _currency(table: _Table, columns: dict[str, int], rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    """The currency of a file without a column of currencies, or of its first row."""
    if "currency" in columns:
        printed = [row[columns["currency"]] for row in rows if row[columns["currency"]] in EXPONENTS]
        return (printed[0] if printed else "EUR"), ""
    amounts = [
        row[at]
        for name in ("amount", "credit", "debit", "balance_after")
        if (at := columns.get(name)) is not None
        for row in rows
    ]
    for texts in (amounts, table.names, [table.above]):
        for text in texts:
            for sign, code in CURRENCIES:
                if sign in text:
                    return code, "the currency, which is taken from a sign" if sign in {
                        "$",
                        "¥",
                        "￥",
                    } else ""
            if code := next((word for word in re.findall(r"\b[A-Z]{3}\b", text) if word in EXPONENTS), ""):
                return code, ""
    chinese = any("\u4e00" <= letter <= "\u9fff" for name in table.names for letter in name)
    return ("CNY" if chinese else "EUR"), "the currency: nothing in the file names it"


def _say_amounts(
    proposal: _Proposal, table: _Table, columns: dict[str, int], rows: Sequence[Sequence[str]], currency: str
) -> None:
    names = [name for name in ("amount", "credit", "debit", "balance_after") if name in columns]
    values = [row[columns[name]] for row in rows for name in names if row[columns[name]]]
    blanks = {value for value in values if not any(letter.isdigit() for letter in value)}
    more = sorted(blank for blank in blanks if not set(blank) <= set(DASHES))
    values = [value for value in values if value not in blanks]
    minus = "–" if any(value.startswith("–") or value.endswith("–") for value in values) else ""
    beside = _beside(values)
    fitting = []
    for marks in _MARKS:
        reader = PrintedAmounts(
            NumberFormat(*marks),
            minus_signs=minus,
            blanks=more,
            credit_words=beside[0],
            debit_words=beside[1],
        )
        if values and all(_reads(reader, value, currency) for value in values):
            fitting.append((marks, reader))
    unsure = ""
    if not fitting:
        unsure = "no decimal and group mark fits every amount"
    elif any(
        _read(fitting[0][1], v, currency) != _read(reader, v, currency)
        for _, reader in fitting[1:]
        for v in values
    ):
        unsure = f"which mark is which: the amounts fit {' and '.join(f'{m[0]!r} with {m[1]!r}' for m, _ in fitting)}"
    decimal_mark, group_mark, sizes = fitting[0][0] if fitting else (".", ",", (3,))
    proposal.say("decimal_mark", decimal_mark, unsure)
    if group_mark:
        proposal.say("group_mark", group_mark)
    if sizes != (3,):
        proposal.say("group_sizes", list(sizes))
    if minus:
        proposal.say("minus_signs", minus)
    if more:
        proposal.say("blanks", more, "what is printed for no amount")
    if "debit" in columns and any(
        value.lstrip().startswith(("-", "\u2212", "("))
        for row in rows
        if _digits(value := row[columns["debit"]])
    ):
        proposal.say("debit_minus", "debit", "a negative debit: a debit, or one that is taken back")
    if "amount" in columns:
        _say_direction(proposal, table, rows, beside)


def _digits(value: str) -> bool:
    return any(letter.isdigit() for letter in value)


def _beside(values: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words for credit and debit that stand beside the amounts."""
    words = {word for value in values for word in re.findall(r"[^\W\d_]+\.?", value)}
    return sorted(words & CREDIT_WORDS), sorted(words & DEBIT_WORDS)


def _say_direction(
    proposal: _Proposal, table: _Table, rows: Sequence[Sequence[str]], beside: tuple[list[str], list[str]]
) -> None:
    wanted = {_plain(word) for word in DIRECTION.split("|")}
    for at, name in enumerate(table.names):
        printed = {row[at] for row in rows if row[at]}
        if _plain(name) in wanted and printed and printed <= CREDIT_WORDS | DEBIT_WORDS:
            proposal.tables += ["", "[direction]", f"column = {_toml(_named(table, at))}"]
            beside = sorted(printed & CREDIT_WORDS), sorted(printed & DEBIT_WORDS)
            break
    else:
        if not beside[0] and not beside[1]:
            return
        proposal.tables += ["", "[direction]"]
    proposal.tables += [f"credit = {_toml(beside[0])}", f"debit = {_toml(beside[1])}"]


def _reads(reader: PrintedAmounts, printed: str, currency: str) -> bool:
    return _read(reader, printed, currency) is not None


def _read(reader: PrintedAmounts, printed: str, currency: str) -> int | None:
    try:
        return reader.minor_units(printed, currency, EXPONENTS[currency])
    except AmountUnreadable:
        return None


def _say_totals(
    proposal: _Proposal, table: _Table, columns: dict[str, int], totals: Sequence[tuple[str, list[str]]]
) -> None:
    words = sorted({word for word, _ in totals})
    proposal.tables += [
        "",
        f"{NOT_SURE}these rows are totals of the file",
        "[control]",
        f"rows = {_toml(words)}",
    ]
    for total, name in (("credits", "credit"), ("debits", "debit"), ("closing_balance", "balance_after")):
        at = columns.get(name)
        if at is not None and all(_digits(row[at]) for _, row in totals):
            proposal.tables.append(f"{total} = {_toml(_named(table, at))}")


def _toml(value: object) -> str:
    """Strings, numbers and lists are written in TOML as in JSON."""
    return json.dumps(value, ensure_ascii=False)
