"""What banks print, and what a mapping makes of it: every figure exact, or a reason."""

import re
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from chassis.money import AmountUnreadable, NumberFormat, decimal_text
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.adapters.amounts import PrintedAmounts
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.mapping import KNOWN_COLUMNS, Control, Direction, MappingFile, MappingRefused
from sync_ingest.adapters.port import LINE_BYTES_MAX, FeedFile
from sync_ingest.adapters.rows import RECORD_LINES_MAX
from sync_ingest.domain.records import ControlRecord, Posting, Unreadable


def adapter(toml):
    return DelimitedAdapter(MappingFile.from_toml(toml))


def sums(items):
    amounts = [item.content.amount_minor for item in items]
    return sum(a for a in amounts if a > 0), -sum(a for a in amounts if a < 0)


def reasons(items):
    return [(i.line, i.content.reason, i.content.column) for i in items if isinstance(i.content, Unreadable)]


EURO = """
separator = ";"
encoding = "cp1252"
header_line = 6
account = "DE02"
currency = "EUR"
date_format = "%d.%m.%Y"
decimal_mark = ","
group_mark = "."
[columns]
booked_on = "Buchungstag"
amount = "Betrag (€)"
"""
DASHES = """
account = "CH01"
currency = "CHF"
date_format = "%d.%m.%Y"
[columns]
booked_on = "Datum"
text = "Text"
debit = "Belastung"
credit = "Gutschrift"
balance_after = "Saldo"
"""
ZEROS = """
encoding = "gb18030"
account = "6222"
currency = "CNY"
date_format = "%Y%m%d"
[columns]
booked_on = "交易日期"
text = "摘要"
credit = "收入"
debit = "支出"
balance_after = "余额"
"""
LINES = """
account = "1"
currency = "USD"
[columns]
booked_on = "Date"
amount = "Amount"
text = "Text"
"""
PRINTED = {
    "euro": (
        EURO,
        (
            "Konto;DE02\n\nvon;28.12.2018\nbis;28.12.2018\n\nBuchungstag;Betrag (€)\n"
            "28.12.2018;-1.000,00 €\n28.12.2018;-950,00 €\n"
        ).encode("cp1252"),
        (0, 195_000),
    ),
    "dashes": (
        DASHES,
        b'Datum,Text,Belastung,Gutschrift,Saldo\n27.05.2019,"Eins",-,500.00,2000.00\n24.05.2019,"Zwei",500.00,-,-\n',
        (50_000, 50_000),
    ),
    "zeros": (
        ZEROS,
        "交易日期,摘要,收入,支出,余额\r\n20240102,工资,8000.00,0.00,8000.00\r\n20240103,消费,0.00,35.60,7964.40\r\n".encode(
            "gb18030"
        ),
        (800_000, 3_560),
    ),
    "lines": (
        LINES,
        b'Date,Amount,Text\n2024-02-01,-10.00,"line one\nline two"\n2024-02-02,20.00,"a ""quoted"" word"\n',
        (2_000, 1_000),
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_printed_file_gives_its_sums(read_all, name):
    toml, content, wanted = PRINTED[name]
    items = read_all(adapter(toml), content)
    assert (sums(items), len(items)) == (wanted, 2)


def test_a_value_over_two_lines_has_the_line_of_its_beginning_and_is_one_text(read_all):
    toml, content, _ = PRINTED["lines"]
    items = read_all(adapter(toml), content)
    assert [(i.line, i.content.text) for i in items] == [(2, "line one line two"), (4, 'a "quoted" word')]


# amounts

ONE = 'account = "1"\ncurrency = "{}"\nseparator = ";"\n{}\n[columns]\nbooked_on = "d"\namount = "a"\n'


def amount_of(read_all, printed, currency="EUR", options=""):
    options, _, table = options.partition("[currency")
    toml = ONE.format(currency, options) + (f"[currency{table}\n" if table else "")
    (item,) = read_all(adapter(toml), f"d;a\n2024-01-02;{printed}\n".encode())
    return item.content.amount_minor if isinstance(item.content, Posting) else item.content.reason


GERMAN = 'decimal_mark = ","\ngroup_mark = "."'
ENGLISH = 'group_mark = ","'
WORDS = '[direction]\ncredit = ["CR", "贷"]\ndebit = ["DR", "借"]'


@pytest.mark.parametrize(
    ("printed", "currency", "options", "wanted"),
    [
        ("1.000,00 €", "EUR", GERMAN, 100_000),
        ("€ 1.000,00-", "EUR", GERMAN, -100_000),
        ("-€12,50", "EUR", GERMAN, -1_250),
        ("€-12,50", "EUR", GERMAN, -1_250),
        ("CNY 12.50", "CNY", "", 1_250),
        ("12.50CNY", "CNY", "", 1_250),
        ("¥12.50", "CNY", "", 1_250),
        ("￥１，２３４．５０", "CNY", ENGLISH, 123_450),
        ("－１２．５０元", "CNY", "", -1_250),
        ("RMB 12.50", "CNY", "", 1_250),
        ("12.50-", "EUR", "", -1_250),
        ("(12.50)", "EUR", "", -1_250),
        ("($12.50)", "USD", "", -1_250),
        ("（12.50）", "EUR", "", -1_250),
        ("\u221212.50", "EUR", "", -1_250),
        ("\ufe6312.50", "EUR", "", -1_250),
        ("\uff0d12.50", "EUR", "", -1_250),
        ("–12.50", "EUR", 'minus_signs = "–"', -1_250),
        ("–12.50", "EUR", "", "amount-malformed"),
        ("1\u00a0234,50", "EUR", 'decimal_mark = ","\ngroup_mark = " "', 123_450),
        ("1\u202f234\u202f567,50", "EUR", 'decimal_mark = ","\ngroup_mark = "\u00a0"', 123_456_750),
        ("1\u2009234,50", "EUR", 'decimal_mark = ","\ngroup_mark = "\u2009"', 123_450),
        ("1’234.50", "CHF", 'group_mark = "\'"', 123_450),
        ("Fr. 1'234.50", "CHF", 'group_mark = "’"', 123_450),
        ("12,34,567.00", "INR", 'group_mark = ","\ngroup_sizes = [3, 2]', 123_456_700),
        ("1,2345.00", "CNY", 'group_mark = ","\ngroup_sizes = [4]', 1_234_500),
        ("\t12.50 \t", "EUR", "", 1_250),
        ("+12.50", "EUR", "", 1_250),
        ("Ksh 1", "EUR", '[currency_signs]\nKsh = "EUR"', 100),
        ("12,50", "EUR", ENGLISH, "amount-malformed"),
        ("12.50", "EUR", GERMAN, "amount-malformed"),
        ("12.50 $", "EUR", "", "currency-differs"),
        ("USD 12.50", "EUR", "", "currency-differs"),
        ("€ 12.50 €", "EUR", "", "amount-malformed"),
        ("(-12.50)", "EUR", "", "amount-malformed"),
        ("-12.50-", "EUR", "", "amount-malformed"),
        ("((12.50))", "EUR", "", "amount-malformed"),
        ("12.50 CR", "EUR", "", "amount-malformed"),
        ("12.50 xyz", "EUR", "", "amount-malformed"),
        ("--12.50", "EUR", "", "amount-malformed"),
        ("12 50", "EUR", "", "amount-malformed"),
        ("١٢.٥٠", "EUR", "", "amount-malformed"),
        ("12\u200b.50", "EUR", "", "amount-malformed"),
        ("--", "EUR", "", "amount-missing"),
        ("", "EUR", "", "amount-missing"),
    ],
)
def test_an_amount_as_it_is_printed(read_all, printed, currency, options, wanted):
    assert amount_of(read_all, printed, currency, options) == wanted


@pytest.mark.parametrize(
    ("printed", "wanted"),
    [
        ("12.50 CR", 1_250),
        ("12.50DR", -1_250),
        ("DR 12.50", -1_250),
        ("借12.50", -1_250),
        ("€12.50 DR", -1_250),
        ("12.50", "word-unknown"),
        ("-12.50 DR", "amount-negative"),
        ("12.50 CRX", "amount-malformed"),
        ("12.50 CR DR", "amount-malformed"),
    ],
)
def test_a_word_for_the_direction_may_stand_beside_the_amount(read_all, printed, wanted):
    toml = ONE.format("EUR", "") + WORDS + "\n"
    (item,) = read_all(adapter(toml), f"d;a\n2024-01-02;{printed}\n".encode())
    assert (item.content.amount_minor if isinstance(item.content, Posting) else item.content.reason) == wanted


SPACED = NumberFormat(",", " ")
DRESSES = ["{}", "€ {}", "{} €", "EUR {}", "{}EUR", "{}\u00a0€"]


@given(st.integers(0, 10**15), st.booleans(), st.sampled_from(DRESSES), st.sampled_from("-\u2212()s"))
def test_an_amount_in_any_dress_is_the_amount(minor, negative, dress, sign):
    number = f"{minor // 100:,}".replace(",", "\u202f") + f",{minor % 100:02d}"
    dressed = dress.format(number)
    if negative:
        dressed = {"(": f"({dressed})", ")": f"( {dressed} )", "s": f"{dressed}-"}.get(sign, sign + dressed)
    assert PrintedAmounts(SPACED).minor_units(dressed, "EUR", 2) == (-minor if negative else minor)


@given(st.integers(-(10**15), 10**15), st.text("0123456789.,-()€ E", min_size=1, max_size=3), st.data())
def test_what_stands_inside_a_number_makes_it_unreadable_or_another_well_formed_number(minor, stray, data):
    good = decimal_text(minor, "EUR")
    at = data.draw(st.integers(0, len(good)))
    spoilt = good[:at] + stray + good[at:]
    try:
        found = PrintedAmounts(NumberFormat()).minor_units(spoilt, "EUR", 2)
    except AmountUnreadable:
        return
    digits = [letter for letter in spoilt if letter.isdigit() or letter == "."]
    whole, _, fraction = "".join(digits).partition(".")
    assert abs(found) == int(whole) * 100 + int(fraction.ljust(2, "0")[:2])


# credit and debit

TWO = 'account = "1"\ncurrency = "CNY"\n{}\n[columns]\nbooked_on = "d"\ncredit = "c"\ndebit = "b"\nbalance_after = "s"\n'


@pytest.mark.parametrize(
    ("row", "options", "wanted"),
    [
        ("8.00,0.00,8.00", "", 800),
        ("0.00,3.50,-", "", -350),
        ("-,3.50,--", "", -350),
        ("—,3.50,", "", -350),
        ("n/a,3.50,n/a", 'blanks = ["n/a"]', -350),
        ("n/a,3.50,", "", "amount-malformed"),
        ("0.00,0.00,1.00", "", "amount-zero"),
        (",0,", "", "amount-zero"),
        ("0.00,0.00,1.00", "zero_postings = true", 0),
        ("-,,", "", "amount-missing"),
        ("1.00,2.00,", "", "amount-ambiguous"),
        ("0.00,-3.50,", "", "amount-negative"),
        ("0.00,-3.50,", 'debit_minus = "debit"', -350),
        ("0.00,-3.50,", 'debit_minus = "reversal"', 350),
        ("-8.00,0.00,", "", -800),
        ("1.00,x,", "", "amount-malformed"),
    ],
)
def test_one_of_credit_and_debit_is_nothing(read_all, row, options, wanted):
    (item,) = read_all(adapter(TWO.format(options)), f"d,c,b,s\n2024-01-02,{row}\n".encode())
    found = item.content.amount_minor if isinstance(item.content, Posting) else item.content.reason
    assert found == wanted


# quotes and lines


def quoted_file(*rows):
    return ("Date,Amount,Text\n" + "\n".join(rows) + "\n").encode()


GOOD = [f'2024-02-{day:02d},-1.00,"plain {day}"' for day in range(1, 20)]


@pytest.mark.parametrize(
    "bad",
    [
        '2024-02-01,-10.00,"never closed',
        '2024-02-01,"-10.00,text',
        '"2024-02-01,-10.00,text',
        '2024-02-01,-10.00,"closed" badly',
    ],
)
@pytest.mark.parametrize("at", [0, 7, len(GOOD)])
def test_a_quote_that_is_never_closed_costs_its_own_line_only(read_all, bad, at):
    items = read_all(adapter(LINES), quoted_file(*GOOD[:at], bad, *GOOD[at:]))
    assert reasons(items) == [(at + 2, "quote-unclosed", None)]
    assert sums(items[:at] + items[at + 1 :]) == (0, 1_900)


def test_a_quote_that_is_never_closed_does_not_swallow_a_huge_file(read_all):
    rows = [f"2024-02-01,-1.00,row {number}" for number in range(30_000)]
    items = read_all(adapter(LINES), quoted_file('2024-02-01,-1.00,"open', *rows))
    assert reasons(items) == [(2, "quote-unclosed", None)]
    assert len(items) == 30_001


def test_a_value_over_more_lines_than_allowed_is_refused(read_all):
    def of(count):
        return quoted_file('2024-02-01,-1.00,"' + "\n".join(["more"] * count) + '"')

    assert len(read_all(adapter(LINES), of(RECORD_LINES_MAX))) == 1
    beyond = read_all(adapter(LINES), of(RECORD_LINES_MAX + 1))
    assert reasons(beyond)[0] == (2, "quote-unclosed", None)
    wide = read_all(
        adapter(LINES), quoted_file('2024-02-01,-1.00,"' + "x" * (LINE_BYTES_MAX - 20) + '\n1234567890"')
    )
    assert reasons(wide)[0] == (2, "quote-unclosed", None)


texts = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    ["a\nb", '"', '""', ",", ',"', '",', "\n", "x\n\ny", ' "q" ']
)


@given(st.lists(st.tuples(st.integers(1, 10**9), texts), max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_any_quoted_text_is_read_whole(written, end):
    rows = ["Date,Amount,Text"]
    for minor, text in written:
        quoted = text.replace('"', '""')
        rows.append(f'2024-02-01,{decimal_text(minor, "USD")},"{quoted}"')
    content = (end.join(rows) + end).encode()
    items = [
        i
        for b in adapter(LINES).read([FeedFile("f", len(content), lambda: BytesIO(content))])
        for i in b.items
    ]
    assert [i.content.amount_minor for i in items] == [minor for minor, _ in written]
    assert [(i.content.text or "").split() for i in items] == [text.split() for _, text in written]


class Dribble(BytesIO):
    """A stream that gives a few bytes at a time."""

    step = 1

    def read(self, size=-1):
        return super().read(self.step)


@given(st.lists(st.tuples(st.integers(1, 10**9), texts), max_size=12), st.integers(1, 40), st.integers(0, 12))
def test_rows_are_the_same_however_the_bytes_are_cut(written, step, broken):
    rows = ["Date,Amount,Text"]
    for minor, text in written:
        quoted = text.replace('"', '""')
        rows.append(f'2024-02-01,{decimal_text(minor, "USD")},"{quoted}"')
    rows.insert(min(broken, len(written)) + 1, '2024-02-01,1.00,"open" x')
    content = "\n".join(rows).encode()

    def cut():
        stream = Dribble(content)
        stream.step = step
        return stream

    whole = [
        i
        for b in adapter(LINES).read([FeedFile("f", len(content), lambda: BytesIO(content))])
        for i in b.items
    ]
    pieces = [i for b in adapter(LINES).read([FeedFile("f", len(content), cut)]) for i in b.items]
    assert pieces == whole


def test_values_padded_by_tabs_and_blanks_are_read_quoted_or_not(read_all):
    items = read_all(adapter(LINES), b'Date,Amount,Text\n\t2024-02-01\t,\t"-1.00" ,  "a, b"\t\n')
    assert (items[0].content.amount_minor, items[0].content.text) == (-100, "a, b")


def test_a_row_may_end_in_a_separator_that_the_header_lacks(read_all):
    items = read_all(adapter(LINES), b"Date,Amount,Text\n2024-02-01,-1.00,a,\n2024-02-01,-1.00,a,b\n")
    assert (items[0].content.amount_minor, items[1].content.reason) == (-100, "columns-differ")


# encodings


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252", "cp037"]
)
def test_every_encoding_of_text_gives_the_same_rows(read_all, encoding):
    content = 'Date,Amount,Text\r\n2024-02-01,-1.00,"ä, ""b"""\r\n2024-02-02,2.00,"c\nd"\r\n'.encode(encoding)
    items = read_all(adapter(f'encoding = "{encoding}"\n' + LINES), content)
    assert [(i.line, i.content.amount_minor, i.content.text) for i in items] == [
        (2, -100, 'ä, "b"'),
        (3, 200, "c d"),
    ]


def test_utf_16_without_its_mark_and_broken_utf_16_have_a_reason(read_all):
    toml = 'encoding = "utf-16"\n' + LINES
    text = "Date,Amount,Text\n2024-02-01,-1.00,a\n"
    assert reasons(read_all(adapter(toml), text.encode("utf-16-le"))) == [(0, "encoding-wrong", None)]
    broken = text.encode("utf-16") + b"\x00\xd8" + "x\n2024-02-01,-1.00,a\n".encode("utf-16-le")
    items = read_all(adapter(toml), broken + b"\n")
    assert [getattr(i.content, "reason", "read") for i in items] == [
        "read",
        "encoding-wrong",
        "read",
        "encoding-wrong",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file-empty"),
        (b"\xff\xfe", "file-empty"),
        (b"\x1f\x8b\x08\x00" + bytes(300), "file-compressed"),
        (b"PK\x03\x04" + bytes(300), "file-compressed"),
        (b"%PDF-1.4\n", "file-document"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_a_file_that_is_no_text_is_one_refusal_in_every_encoding(read_all, content, reason, encoding):
    if encoding == "utf-8" and content == b"\xff\xfe":
        reason = "encoding-wrong"
    items = read_all(adapter(f'encoding = "{encoding}"\n' + LINES), content)
    assert reasons(items) == [(0, reason, None)]


# dates


@pytest.mark.parametrize(
    ("formats", "printed", "wanted"),
    [
        ('"%Y-%m-%d %H:%M:%S"', "2024-01-02 13:14:15", date(2024, 1, 2)),
        ('"%Y-%m-%d"', "2024-01-02 13:14:15", date(2024, 1, 2)),
        ('"%Y-%m-%d"', "2024-01-02T13:14", date(2024, 1, 2)),
        ('"%Y%m%d"', "20240102 131415", date(2024, 1, 2)),
        ('"%d.%m.%Y"', "02.01.2024 1:14 PM", date(2024, 1, 2)),
        ('"%Y年%m月%d日"', "2024年1月2日", date(2024, 1, 2)),
        ('"%Y-%m-%d"', "２０２４－０１－０２", date(2024, 1, 2)),
        ('["%Y-%m-%d", "%d/%m/%Y"]', "02/01/2024", date(2024, 1, 2)),
        ('["%d/%m/%Y", "%m/%d/%Y"]', "02/01/2024", "date-ambiguous"),
        ('["%d/%m/%Y", "%m/%d/%Y"]', "13/01/2024", date(2024, 1, 13)),
        ('"%Y-%m-%d"\ntime_of_day = "refused"', "2024-01-02 13:14:15", "date-impossible"),
        ('"%Y-%m-%d"', "2024-01-02T17:00:00Z", "date-impossible"),
        ('"%Y%m%d"', "2024112", "date-impossible"),
        ('"%Y-%m-%d"', "2024-02-30", "date-impossible"),
        ('"%Y-%m-%d"', "2024-01-02\n", date(2024, 1, 2)),
    ],
)
def test_a_day_as_it_is_printed(read_all, formats, printed, wanted):
    toml = ONE.format("EUR", f"date_format = {formats}")
    (item,) = read_all(adapter(toml), f'd;a\n"{printed}";1.00\n'.encode())
    assert (item.content.booked_on if isinstance(item.content, Posting) else item.content.reason) == wanted


@pytest.mark.parametrize(
    "form", ['"%d.%m."', '"%H:%M"', '"%Q%Y%m%d"', '"Y-m-d"', "[]", '["%Y-%m-%d", "%d"]', '"%Y-%j-%"']
)
def test_a_date_format_that_no_day_can_be_read_with_is_refused(form):
    with pytest.raises(MappingRefused):
        MappingFile.from_toml(ONE.format("EUR", f"date_format = {form}"))


# headers


def test_a_column_that_is_there_twice_is_named_by_its_number(read_all):
    toml = 'account = "1"\ncurrency = "EUR"\n[columns]\nbooked_on = "d"\namount = "{}"\n'
    content = b"d,a,a\n2024-01-02,1.00,2.00\n"
    assert reasons(read_all(adapter(toml.format("a")), content)) == [(1, "header-ambiguous", None)]
    (item,) = read_all(adapter(toml.format("#3")), content)
    assert item.content.amount_minor == 200
    assert reasons(read_all(adapter(toml.format("#4")), content)) == [(1, "header-unknown", None)]


def test_columns_that_nobody_maps_may_be_there_twice(read_all):
    items = read_all(adapter(LINES), b"Date,Amount,Text,x,x\n2024-02-01,-1.00,a,1,2\n")
    assert items[0].content.amount_minor == -100


# totals

TOTALS = """
[control]
rows = ["合计", "Total"]
records = "#2"
credits = "c"
debits = "b"
closing_balance = "s"
"""
WITH_TOTALS = "d,c,b,s\n2024-01-02,8.00,0.00,8.00\n2024-01-03,0.00,3.50,4.50\n合计,{}\n"


def test_a_row_of_totals_is_a_control_record_where_the_mapping_says_so(read_all):
    toml = TWO.format("") + TOTALS.replace('records = "#2"\n', "")
    *_, total = read_all(adapter(toml), WITH_TOTALS.format("8.00,-3.50,4.50").encode())
    assert total.content == ControlRecord(
        account="1", currency="CNY", credits_minor=800, debits_minor=350, closing_minor=450
    )
    assert total.line == 4


def test_a_row_of_totals_may_be_passed_over_and_is_no_posting_otherwise(read_all):
    content = WITH_TOTALS.format("8.00,3.50").encode()
    assert len(read_all(adapter(TWO.format("") + '[control]\nrows = ["合计"]\n'), content)) == 2
    assert reasons(read_all(adapter(TWO.format("")), content)) == [(4, "columns-differ", None)]


def test_a_posting_that_begins_with_a_word_of_totals_is_not_passed_over(read_all):
    toml = LINES.replace("[columns]", '[columns]\nteller = "x"') + '[control]\nrows = ["Total"]\n'
    content = b"x,Date,Amount,Text\nTotalEnergies,2024-02-01,-5.00,a\nTotal:,2024-02-01,-5.00,\nTotal of 1,,-5.00,\n"
    assert reasons(read_all(adapter(toml), content)) == [(2, "row-ambiguous", None)]


def test_a_total_that_cannot_be_read_is_quarantined(read_all):
    toml = TWO.format("") + TOTALS.replace('records = "#2"\n', "")
    items = read_all(adapter(toml), WITH_TOTALS.format("8.0.0,3.50,4.50").encode())
    assert reasons(items) == [(4, "amount-malformed", "c")]
    items = read_all(adapter(toml), WITH_TOTALS.format("-,-,-").encode())
    assert reasons(items) == [(4, "amount-missing", None)]


def test_the_page_about_mappings_has_every_option_and_its_example_is_a_mapping():
    page = (Path(__file__).parents[3] / "docs" / "mappings.md").read_text(encoding="utf-8")
    options = {
        *MappingFile.__struct_fields__,
        *KNOWN_COLUMNS,
        *Control.__struct_fields__,
        *Direction.__struct_fields__,
    }
    assert {option for option in options if not re.search(rf"[`\[]{option}\b", page)} == set()
    MappingFile.from_toml(page.partition("```toml\n")[2].partition("```")[0])
