from datetime import date

import pytest
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.mapping import MappingFile, MappingRefused
from sync_ingest.adapters.registry import FORMATS, FormatUnknown, adapter_for
from sync_ingest.domain.records import Posting, Unreadable

MAPPING = """
separator = ";"
encoding = "gb18030"
currency = "CNY"
date_format = "%d.%m.%Y"
decimal_mark = ","
group_mark = "."
product = "deposit"
[columns]
account = "账号"
core_transaction_id = "流水号"
booked_on = "日期"
amount = "金额"
text = "摘要"
balance_after = "余额"
kind = "类型"
[direction]
column = "借贷"
credit = ["贷"]
debit = ["借"]
[words.kind]
"利息" = "interest"
"""
HEADER = "流水号;账号;日期;借贷;金额;余额;摘要;类型\r\n"
ROW = 'T1;6222;05.01.2026;借;1.234,50;8.765,50;"房租;一月";\r\n'


def adapter():
    return DelimitedAdapter(MappingFile.from_toml(MAPPING))


def feed(*rows, header=HEADER):
    return (header + "".join(rows)).encode("gb18030")


def test_a_row_becomes_a_posting_by_the_mapping(read_all):
    (item,) = read_all(adapter(), feed(ROW))
    assert item.content == Posting(
        account="6222",
        core_transaction_id="T1",
        amount_minor=-123_450,
        currency="CNY",
        booked_on=date(2026, 1, 5),
        balance_after_minor=876_550,
        product="deposit",
        text="房租;一月",
    )


def test_a_mapping_may_begin_with_a_byte_order_mark():
    assert MappingFile.from_toml("\ufeff" + MAPPING) == MappingFile.from_toml(MAPPING)


def test_a_word_of_the_bank_is_translated_and_an_unknown_one_is_not_guessed(read_all):
    known, unknown = read_all(
        adapter(), feed(ROW.replace("\r\n", "利息\r\n"), ROW.replace("\r\n", "别的\r\n"))
    )
    assert known.content.kind == "interest"
    assert (unknown.content.reason, unknown.content.column) == ("field-invalid", "类型")


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        (ROW.replace("1.234,50", "12,,34"), "amount-malformed", "金额"),
        (ROW.replace("1.234,50", "1,2,3"), "amount-malformed", "金额"),
        (ROW.replace("1.234,50", "1,239"), "amount-precision", "金额"),
        (ROW.replace("1.234,50", "12.50"), "amount-malformed", "金额"),
        (ROW.replace("1.234,50", "-1,00"), "amount-negative", "金额"),
        (ROW.replace("05.01.2026", "31.02.2026"), "date-impossible", "日期"),
        (ROW.replace("借", "？"), "word-unknown", "借贷"),
        (ROW.replace("6222", ""), "field-missing", "账号"),
        (ROW.replace(";", ","), "separator-wrong", None),
        (ROW.replace('一月"', "一月"), "quote-unclosed", None),
        (ROW.replace("T1;", "T1"), "columns-differ", None),
    ],
)
def test_a_broken_row_has_its_reason_and_the_rest_goes_on(read_all, row, reason, column):
    items = read_all(adapter(), feed(ROW, row, ROW))
    assert [
        (i.line, i.content.reason, i.content.column) for i in items if isinstance(i.content, Unreadable)
    ] == [(3, reason, column)]
    assert len(items) == 3


def test_a_row_in_another_encoding_is_named_with_its_byte(read_all):
    mapping = MappingFile.from_toml(MAPPING.replace("gb18030", "utf-8"))
    items = read_all(DelimitedAdapter(mapping), (HEADER + ROW).encode() + "T2;中".encode("gb18030") + b"\n")
    assert (items[1].content.reason, items[1].content.column) == ("encoding-wrong", "byte 4")


@pytest.mark.parametrize(
    ("header", "reason"),
    [(HEADER.replace(";", ","), "separator-wrong"), (HEADER.replace("金额", "amount"), "header-unknown")],
)
def test_a_wrong_header_refuses_the_file_and_not_the_feed(read_all, header, reason):
    items = read_all(adapter(), feed(ROW, header=header), feed(ROW))
    assert [getattr(item.content, "reason", None) for item in items] == [reason, None]


@pytest.mark.parametrize(
    ("encoding", "end"),
    [("utf-8", "\r"), ("gb18030", "\r"), ("cp1252", "\r"), ("cp500", "\x85"), ("utf-16", "\u2028")],
)
@pytest.mark.parametrize("header_line", [0, 1])
def test_a_file_with_other_line_ends_is_refused_though_all_its_columns_are_there(
    read_all, encoding, end, header_line
):
    """It is one line. Its rows would be more columns of the header, or of the first row."""
    rows = ["2026-01-05,10.00,ü", "2026-01-06,20.00,b"]
    day, amount = ("1", "2") if header_line == 0 else ("day", "amount")
    mapping = MappingFile.from_toml(
        f'account = "6222"\ncurrency = "EUR"\nencoding = "{encoding}"\nheader_line = {header_line}\n'
        f'[columns]\nbooked_on = "{day}"\namount = "{amount}"\n'
    )
    lines = rows if header_line == 0 else ["day,amount,für", *rows]
    (refused,) = read_all(DelimitedAdapter(mapping), end.join([*lines, ""]).encode(encoding))
    assert refused.content.reason == "line-end-wrong"
    assert refused.content.whole_file


def test_credit_and_debit_columns(read_all):
    mapping = MappingFile.from_toml(
        'currency = "JPY"\n[columns]\naccount="a"\ncore_transaction_id="t"\nbooked_on="d"\ncredit="c"\ndebit="b"\n'
    )
    items = read_all(
        DelimitedAdapter(mapping), b"a,t,d,c,b\n1,1,2026-01-01,70,\n1,2,2026-01-01,,30\n1,3,2026-01-01,1,1\n"
    )
    assert [getattr(item.content, "amount_minor", None) for item in items] == [70, -30, None]


@pytest.mark.parametrize(
    "change",
    [
        ("amount =", "amuont ="),
        ('separator = ";"', 'separator = "::"'),
        ("gb18030", "klingon"),
        *(
            ("gb18030", codec)
            for codec in (
                "undefined",
                "rot13",
                "idna",
                "punycode",
                "hex",
                "utf-7",
                "charmap",
                "a\\u0000b",
                "os",
            )
        ),
        ('currency = "CNY"', ""),
        ('currency = "CNY"', 'currency = "CNX"'),
        ('currency = "CNY"', 'currency = "CNY\\n"'),
        ('currency = "CNY"', 'currency = "XAU"'),
        ('group_mark = "."', 'group_mark = "-"'),
        ('group_mark = "."', 'group_mark = "1"'),
        ('group_mark = "."', 'group_mark = "x"'),
        ('group_mark = "."', 'group_mark = ","'),
        ('group_mark = "."', "group_sizes = [0]"),
        ("account =", "text2 ="),
        ("[columns]", "[columns"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_at_once(change):
    with pytest.raises(MappingRefused):
        MappingFile.from_toml(MAPPING.replace(*change))


def test_formats_are_found_by_name():
    assert [adapter_for(name, MAPPING).name for name in FORMATS] == list(FORMATS)
    with pytest.raises(FormatUnknown, match="mt940"):
        adapter_for("mt940")
    with pytest.raises(MappingRefused):
        adapter_for("csv")


STATEMENT = """
account = "DE02"
currency = "EUR"
date_format = "%m/%d/%Y"
group_mark = ","
header_line = 3
[columns]
booked_on = "Date"
text = "Label"
amount = "Amount"
balance_after = "Balance"
counterparty_name = "Partner"
"""
ABOVE = 'Statement of account\n"as of 01/31/2026"\n'
NAMES = '"Date","Label","Amount","Balance","Partner"\n'
COFFEE = '"01/05/2026","coffee","-3.50","{}","Bar"\n'


def statement(*rows):
    return (ABOVE + NAMES + "".join(rows)).encode()


def test_a_statement_of_one_account_needs_no_column_of_accounts_and_what_stands_above_is_passed_over(
    read_all,
):
    (item,) = read_all(
        DelimitedAdapter(MappingFile.from_toml(STATEMENT)),
        statement('"01/06/2026","Your payment","1,533.50","1,510.00","Azure Interior"\n'),
    )
    assert (item.line, item.content.account, item.content.amount_minor) == (4, "DE02", 153_350)
    assert (item.content.booked_on, item.content.counterparty_name) == (date(2026, 1, 6), "Azure Interior")


def test_a_row_of_a_file_without_transaction_ids_has_none(read_all):
    adapter = DelimitedAdapter(MappingFile.from_toml('covers = "parts"\n' + STATEMENT))
    (item,) = read_all(adapter, statement(COFFEE.format("10.00")))
    assert item.content.core_transaction_id is None
    assert adapter.covers == "parts"
    with pytest.raises(MappingRefused):
        MappingFile.from_toml('covers = "some"\n' + STATEMENT)


def test_columns_of_a_file_without_a_header_are_numbered(read_all):
    mapping = MappingFile.from_toml(
        'header_line = 0\ncurrency = "CNY"\naccount = "A"\n[columns]\nbooked_on = "1"\namount = "3"\n'
    )
    items = read_all(DelimitedAdapter(mapping), b"2026-01-05,x,7.00\n2026-01-06,y,-1.00\n")
    assert [(item.line, item.content.amount_minor) for item in items] == [(1, 700), (2, -100)]


def test_a_file_that_ends_above_its_header_says_so(read_all):
    (item,) = read_all(DelimitedAdapter(MappingFile.from_toml(STATEMENT)), ABOVE.encode())
    assert item.content.reason == "header-unknown"


@pytest.mark.parametrize("change", [('account = "DE02"', ""), ("text =", "account ="), ("booked_on", "text")])
def test_a_mapping_names_its_accounts_in_one_way_and_the_day(change):
    with pytest.raises(MappingRefused):
        MappingFile.from_toml(STATEMENT.replace(*change))


def test_another_mapping_is_another_reading_and_another_layout_of_its_file_is_not():
    one = DelimitedAdapter(MappingFile.from_toml(STATEMENT)).reading
    assert DelimitedAdapter(MappingFile.from_toml("# ours\n" + STATEMENT)).reading == one
    assert DelimitedAdapter(MappingFile.from_toml(STATEMENT.replace("Amount", "Betrag"))).reading != one


def test_a_mapping_that_names_what_is_no_longer_used_is_told_so_and_a_kept_one_is_still_read():
    old = 'balance_order = "credits-first"\n' + STATEMENT
    with pytest.raises(MappingRefused, match="balance_order is no longer used: leave it out"):
        MappingFile.from_toml(old)
    with pytest.raises(MappingRefused):
        adapter_for("csv", old)
    assert adapter_for("csv", old, kept=True).reading == adapter_for("csv", STATEMENT).reading
