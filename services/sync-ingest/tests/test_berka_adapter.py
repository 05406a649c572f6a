import random
from collections import Counter, defaultdict
from datetime import date
from random import Random

import pytest
from msgspec import structs
from sync_ingest.adapters.berka import BerkaAdapter
from sync_ingest.domain.balances import Day, judge
from sync_ingest.domain.records import (
    AccountRecord,
    CardRecord,
    HolderRecord,
    LoanRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
    Unreadable,
)

from .printed_bank import ENGLISH, ROUNDING_MINOR, Movement, Sums, in_czech, in_english, life

HEADER = (
    b'"trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account"\r\n'
)
ROW = b'695247;2378;930101;"PRIJEM";"VKLAD";700.00;700.00;"";;\r\n'


def contents(items):
    return [item.content for item in items]


def test_a_row_in_czech_and_in_english_is_the_same_posting(read_all):
    english = (
        b"trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account\r\n"
        b"695247;2378;930101;withdrawal;remittance to another bank;700.50;-0.50;household;YZ;66502475\r\n"
    )
    czech = HEADER + b'695247;2378;930101;"VYDAJ";"PREVOD NA UCET";700.50;-0.50;"SIPO";"YZ";"66502475"\r\n'
    (one,), (other,) = contents(read_all(BerkaAdapter(), english)), contents(read_all(BerkaAdapter(), czech))
    assert (one.kind, one.channel, one.amount_minor, one.balance_after_minor) == (
        "household",
        "transfer",
        -70050,
        -50,
    )
    assert (other.kind, other.channel, other.amount_minor) == (one.kind, one.channel, one.amount_minor)
    assert other.counterparty_account == "66502475"


def test_columns_may_come_in_any_order_and_a_partner_account_of_zero_is_none(read_all):
    (posting,) = contents(
        read_all(
            BerkaAdapter(),
            b"account;bank;k_symbol;balance;amount;operation;type;date;account_id;trans_id\n"
            b"0;;UROK;10.00;10.00;;PRIJEM;940228;7;9\n",
        )
    )
    assert posting == Posting(
        account="7",
        core_transaction_id="9",
        amount_minor=1000,
        currency="CZK",
        booked_on=date(1994, 2, 28),
        balance_after_minor=1000,
        product="deposit",
        kind="interest",
        text="UROK",
    )


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        (ROW.replace(b"700.00;700", b"12..34;700"), "amount-malformed", "amount"),
        (ROW.replace(b"700.00;700", b"-7.00;700"), "amount-negative", "amount"),
        (ROW.replace(b"700.00;700", b"7.005;700"), "amount-precision", "amount"),
        (ROW.replace(b"700.00;700", b";700"), "amount-missing", "amount"),
        (ROW.replace(b"930101", b"930230"), "date-impossible", "date"),
        (ROW.replace(b"930101", b""), "field-missing", "date"),
        (ROW.replace(b"PRIJEM", b"PRIJ"), "word-unknown", "type"),
        (ROW.replace(b"2378", b"23x8"), "field-invalid", "account_id"),
        (ROW.replace(b";", b","), "separator-wrong", None),
        (ROW.replace(b'"";;', b'""'), "columns-differ", None),
        (ROW.replace(b'"VKLAD"', b'"VKLAD'), "quote-unclosed", None),
        (ROW.replace(b"VKLAD", b"V\xe9KLAD"), "encoding-wrong", "byte 31"),
        (ROW.replace(b"VKLAD", b"V\x00KLAD"), "record-binary", None),
    ],
)
def test_a_broken_row_has_its_reason_and_the_rest_goes_on(read_all, row, reason, column):
    items = read_all(BerkaAdapter(), HEADER + ROW * 200 + row + ROW)
    assert [
        (i.line, i.content.reason, i.content.column) for i in items if isinstance(i.content, Unreadable)
    ] == [(202, reason, column)]
    assert len(items) == 202


@pytest.mark.parametrize(
    ("content", "reason", "line"),
    [
        (HEADER.replace(b";", b",") + ROW, "separator-wrong", 1),
        (b"a;b;c\n1;2;3\n", "header-unknown", 1),
        (b"", "file-empty", 0),
        (HEADER.decode().encode("utf-16"), "encoding-wrong", 0),
        (b"PK\x03\x04\x00\x00" + bytes(100), "file-compressed", 0),
        (random.Random(7).randbytes(5_000), "file-binary", 0),
        (HEADER.decode().encode("utf-16-le"), "encoding-wrong", 0),
        ((HEADER + ROW).decode().encode("cp500"), "encoding-wrong", 1),
        ((HEADER + ROW * 3).replace(b"\r\n", b"\r"), "line-end-wrong", 1),
        (b"no line end at all", "header-unknown", 1),
        (b"9" * 200_000, "header-unknown", 1),
    ],
)
def test_a_wrong_file_is_one_entry_and_the_other_files_go_on(read_all, content, reason, line):
    items = read_all(BerkaAdapter(), content, HEADER + ROW)
    broken = [item for item in items if isinstance(item.content, Unreadable)]
    assert [(item.file, item.line, item.content.reason) for item in broken] == [(0, line, reason)]
    assert len(items) == 2


def test_a_stray_zero_spoils_its_row_and_not_its_file(read_all):
    items = read_all(BerkaAdapter(), HEADER + ROW.replace(b"VKLAD", b"V\x00D") + ROW)
    assert [getattr(item.content, "reason", "read") for item in items] == ["record-binary", "read"]


def test_a_value_that_no_field_holds_is_set_aside(read_all):
    (item,) = read_all(BerkaAdapter(), HEADER + ROW.replace(b'"";;', b'"";;' + b"x" * 5_000))
    assert (item.content.reason, item.content.column) == ("field-invalid", "account")


def test_blank_lines_before_the_header_and_no_line_end_after_it_do_no_harm(read_all):
    assert [item.line for item in read_all(BerkaAdapter(), b"\r\n" + HEADER + ROW)] == [3]
    assert read_all(BerkaAdapter(), HEADER.rstrip()) == []


def test_a_file_cut_inside_its_last_row_says_so(read_all):
    *_, last = read_all(BerkaAdapter(), HEADER + ROW + ROW[:30])
    assert last.content.reason == "record-truncated"


def test_cards_find_their_account_through_the_dispositions_whatever_the_order_of_the_files(read_all):
    card = b'"card_id";"disp_id";"type";"issued"\r\n1;7;"classic";940205 00:00:00\r\n2;8;"gold";940205 00:00:00\r\n'
    disp = b'"disp_id";"client_id";"account_id";"type"\r\n7;70;700;"DISPONENT"\r\n'
    items = contents(read_all(BerkaAdapter(), card, disp))
    assert items[0] == HolderRecord(account="700", party="70", role="signatory")
    assert items[1] == CardRecord(
        card="1", account="700", party="70", kind="classic", issued_on=date(1994, 2, 5)
    )
    assert items[2].reason == "disposition-unknown"


def test_a_birth_number_gives_the_day_and_the_gender(read_all):
    client = b'"client_id";"birth_number";"district_id"\r\n2;"450204";1\r\n3;"406009";1\r\n4;"400231";1\r\n'
    man, woman, nobody = contents(read_all(BerkaAdapter(), client))
    assert (man.born_on, man.gender) == (date(1945, 2, 4), "male")
    assert (woman.born_on, woman.gender) == (date(1940, 10, 9), "female")
    assert nobody.reason == "date-impossible"


@pytest.mark.parametrize(
    ("words", "sign", "channel", "kind"),
    [
        (("PRIJEM", "VKLAD", ""), 1, "cash", "cash"),
        (("VYDAJ", "VYBER", " "), -1, "cash", "cash"),
        (("VYBER", "VYBER", ""), -1, "cash", "cash"),
        (("VYDAJ", "VYBER KARTOU", ""), -1, "card", "card"),
        (("PRIJEM", "PREVOD Z UCTU", ""), 1, "transfer", "transfer"),
        (("VYDAJ", "PREVOD NA UCET", " "), -1, "transfer", "transfer"),
        (("PRIJEM", "PREVOD Z UCTU", "DUCHOD"), 1, "transfer", "pension"),
        (("VYDAJ", "PREVOD NA UCET", "SIPO"), -1, "transfer", "household"),
        (("VYDAJ", "PREVOD NA UCET", "POJISTNE"), -1, "transfer", "insurance"),
        (("VYDAJ", "PREVOD NA UCET", "UVER"), -1, "transfer", "loan_repayment"),
        (("VYDAJ", "PREVOD NA UCET", "LEASING"), -1, "transfer", "other"),
        (("PRIJEM", "", "UROK"), 1, None, "interest"),
        (("VYDAJ", "VYBER", "SLUZBY"), -1, "cash", "fee"),
        (("VYDAJ", "VYBER", "SANKC. UROK"), -1, "cash", "penalty_interest"),
    ],
)
def test_every_word_has_its_meaning_in_both_languages(read_all, words, sign, channel, kind):
    movement = Movement(1, 7, date(1993, 1, 2), words, 700, 700, ("", ""), rounded=False)
    for written in (in_czech([movement]), in_english([movement])):
        (posting,) = contents(read_all(BerkaAdapter(), written))
        assert (posting.amount_minor, posting.channel, posting.kind) == (sign * 700, channel, kind)


@pytest.mark.parametrize(
    ("table", "record"),
    [
        (
            b'"account_id";"district_id";"frequency";"date"\r\n07;55;"POPLATEK TYDNE";930102\r\n',
            AccountRecord(
                account="7",
                opened_on=date(1993, 1, 2),
                product="deposit",
                currency="CZK",
                branch="55",
                statement_frequency="weekly",
            ),
        ),
        (
            b"account_id;district_id;frequency;date\n7;55;issuance after transaction;930102\n",
            AccountRecord(
                account="7",
                opened_on=date(1993, 1, 2),
                product="deposit",
                currency="CZK",
                branch="55",
                statement_frequency="after_turnover",
            ),
        ),
        (
            b'"client_id";"birth_number";"district_id"\r\n2;"455204";18\r\n',
            PartyRecord(
                party="2", born_on=date(1945, 2, 4), gender="female", identity_number="455204", branch="18"
            ),
        ),
        (
            b'"loan_id";"account_id";"date";"amount";"duration";"payments";"status"\r\n'
            b'5;7;930728;127080;60;2118.00;"A"\r\n',
            LoanRecord(
                loan="5",
                account="7",
                granted_on=date(1993, 7, 28),
                amount_minor=12_708_000,
                currency="CZK",
                duration_months=60,
                payment_minor=211_800,
                status="A",
            ),
        ),
        (
            b'"order_id";"account_id";"bank_to";"account_to";"amount";"k_symbol"\r\n'
            b'9;7;"ST";"89597016";3372.70;"UVER"\r\n',
            StandingOrderRecord(
                order="9",
                account="7",
                amount_minor=337_270,
                currency="CZK",
                kind="loan_repayment",
                counterparty_bank="ST",
                counterparty_account="89597016",
            ),
        ),
    ],
)
def test_a_row_of_each_table_is_read_field_by_field(read_all, table, record):
    assert contents(read_all(BerkaAdapter(), table)) == [record]


@pytest.mark.parametrize(
    ("word", "frequency"),
    [
        ("POPLATEK MESICNE", "monthly"),
        ("POPLATEK TYDNE", "weekly"),
        ("POPLATEK PO OBRATU", "after_turnover"),
        ("monthly issuance", "monthly"),
        ("weekly issuance", "weekly"),
    ],
)
def test_how_often_statements_come(read_all, word, frequency):
    table = f"account_id;district_id;frequency;date\n7;55;{word};930102\n".encode()
    (account,) = contents(read_all(BerkaAdapter(), table))
    assert account.statement_frequency == frequency


def test_every_row_of_all_tables_is_read(read_all, printed_bank):
    items = read_all(BerkaAdapter(), *printed_bank.tables.values(), names=tuple(printed_bank.tables))
    assert Counter(type(item.content) for item in items) == printed_bank.master | {
        Posting: printed_bank.of_czech.rows + printed_bank.of_english.rows
    }
    roles = Counter(item.role for item in contents(items) if isinstance(item, HolderRecord))
    assert roles["signatory"] == printed_bank.signatories
    assert all(
        loan.amount_minor == loan.duration_months * loan.payment_minor
        for loan in contents(items)
        if isinstance(loan, LoanRecord)
    )


def test_the_sums_of_the_transactions(read_all, printed_bank):
    for name, before, expected in (
        (printed_bank.czech, printed_bank.cut_off_on, printed_bank.before_cut_off),
        (printed_bank.czech, None, printed_bank.of_czech),
        (printed_bank.english, None, printed_bank.of_english),
    ):
        postings = [
            p
            for p in contents(read_all(BerkaAdapter(), printed_bank.tables[name]))
            if not before or p.booked_on < before
        ]
        assert expected == Sums(
            rows=len(postings),
            accounts=len({p.account for p in postings}),
            credits_minor=sum(p.amount_minor for p in postings if p.amount_minor > 0),
            debits_minor=-sum(p.amount_minor for p in postings if p.amount_minor < 0),
        )
        assert {p.kind for p in postings} >= {"interest", "fee", "household", "cash", "transfer", "insurance"}


@pytest.mark.parametrize("seed", [1, 2])
def test_printed_balances_follow_from_the_rows_in_whatever_order_they_come(read_all, printed_bank, seed):
    postings = contents(read_all(BerkaAdapter(), printed_bank.tables[printed_bank.czech]))
    Random(seed).shuffle(postings)
    rows = defaultdict(lambda: defaultdict(lambda: Day(surplus={}, unprinted={}, steps=[])))
    for posting in postings:
        if posting.booked_on < printed_bank.cut_off_on:
            day = rows[posting.account][posting.booked_on]
            day.add(posting.amount_minor, posting.balance_after_minor)
    judged = []
    for days in rows.values():
        end_minor = 0
        for _, day in sorted(days.items()):
            judged.append(judge(day, end_minor, printed_before=True, tolerance_minor=ROUNDING_MINOR))
            end_minor = judged[-1].end_minor
    assert sum(each.within for each in judged) == printed_bank.rounded > 0
    assert (
        sum(day.printed for days in rows.values() for day in days.values())
        == printed_bank.before_cut_off.rows
    )
    assert [each for each in judged if each.breaks or each.uncompared] == []
    assert max(each.largest_minor for each in judged) == ROUNDING_MINOR


@pytest.mark.parametrize("seed", range(3))
def test_all_words_in_czech_and_in_english_give_the_same_postings(read_all, seed):
    """What a word says of the money is the same; only the text is in the words of the file."""
    movements = list(life(Random(seed), 7, date(1993, 1, 1), date(1994, 6, 30)))
    assert {word for m in movements for word in m.words if word.strip()} >= set(ENGLISH) - {"SANKC. UROK"}
    czech, english = (
        [structs.replace(p, text=None) for p in contents(read_all(BerkaAdapter(), file))]
        for file in (in_czech(movements), in_english(movements))
    )
    assert czech == english
    assert [(p.amount_minor, p.balance_after_minor, p.booked_on) for p in czech] == [
        (m.amount_minor if m.credit else -m.amount_minor, m.balance_minor, m.on) for m in movements
    ]
