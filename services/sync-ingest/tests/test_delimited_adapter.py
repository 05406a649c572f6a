from datetime import date

import pytest
from sync_ingest.adapters.delimited import DelimitedAdapter, MappingFile, MappingRefused
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
        ("gb18030", "utf-16"),
        ('currency = "CNY"', ""),
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
