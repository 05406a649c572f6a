"""A proposed mapping reads every row of the file that it was proposed for, in every family of files that banks send."""

import tomllib
from datetime import date, timedelta
from io import BytesIO
from random import Random

import pytest
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.guessing import HEAD_BYTES_MAX, NOT_SURE, guess
from sync_ingest.adapters.mapping import MappingFile
from sync_ingest.adapters.port import FeedFile, FileUnreadable
from sync_ingest.adapters.trying import tried

ROWS = 60


def plain(minor):
    return f"{'-' if minor < 0 else ''}{abs(minor) // 100}.{abs(minor) % 100:02d}"


def grouped(minor, decimal, group):
    whole = f"{abs(minor) // 100:,}".replace(",", group)
    return f"{'-' if minor < 0 else ''}{whole}{decimal}{abs(minor) % 100:02d}"


def german(minor):
    return grouped(minor, ",", ".")


def english(minor):
    return grouped(minor, ".", ",")


class Family:
    """One bank's way to write: a header, rows made of movements, and what stands around them."""

    def __init__(self, encoding, separator, header, row, *, above=(), below=(), end="\r\n"):
        self.encoding, self.separator, self.header, self.row = encoding, separator, header, row
        self.above, self.below, self.end = above, below, end

    def content(self, movements):
        lines = [
            *self.above,
            self.header,
            *(self.separator.join(self.row(*each)) for each in movements),
            *self.below,
        ]
        return (self.end.join(lines) + self.end).encode(self.encoding)


FAMILIES = {
    "chinese": Family(
        "gb18030",
        ",",
        "交易日期,摘要,收入,支出,余额,对方户名",
        lambda day, minor, balance, text: (
            f"{day:%Y%m%d}",
            "工资",
            plain(max(minor, 0)),
            plain(max(-minor, 0)),
            plain(balance),
            "王小明",
        ),
    ),
    "chinese-direction": Family(
        "utf-8-sig",
        "\t",
        "流水号\t账号\t交易时间\t借贷标志\t交易金额\t币种\t备注",
        lambda day, minor, balance, text: (
            f"T{balance}{day:%j}{minor}",
            "6222021234566789",
            f"{day:%Y-%m-%d} 13:14:15",
            "贷" if minor > 0 else "借",
            english(abs(minor)),
            "CNY",
            text,
        ),
    ),
    "german": Family(
        "cp1252",
        ";",
        "Buchungstag;Wertstellung;Empfänger;Verwendungszweck;Betrag (€);Saldo",
        lambda day, minor, balance, text: (
            f"{day:%d.%m.%Y}",
            f"{day:%d.%m.%Y}",
            "Müller",
            f'"Miete; {text}"',
            f"{german(minor)} €",
            f"{german(balance)} €",
        ),
        above=("Kontoauszug;DE02120300000000202051", "", "Stand;31.12.2025"),
    ),
    "german-columns": Family(
        "cp1252",
        ";",
        "Datum;Text;Soll;Haben;Währung",
        lambda day, minor, balance, text: (
            f"{day:%d.%m.%y}",
            "Bäckerei",
            german(-minor) if minor < 0 else "",
            german(minor) if minor > 0 else "",
            "EUR",
        ),
        below=("Summe;;1,00;2,00;EUR",),
    ),
    "swiss": Family(
        "utf-8",
        ",",
        "Datum,Text,Belastung,Gutschrift,Saldo",
        lambda day, minor, balance, text: (
            f"{day:%d.%m.%Y}",
            f'"{text}"',
            grouped(-minor, ".", "'") if minor < 0 else "-",
            grouped(minor, ".", "'") if minor > 0 else "-",
            grouped(balance, ".", "'"),
        ),
        above=("Konto CHF",),
    ),
    "american": Family(
        "utf-8",
        ",",
        "Date,Description,Amount,Running Balance",
        lambda day, minor, balance, text: (
            f"{day:%m/%d/%Y}",
            f'"{text}, ""x"""',
            f'"({english(-minor)})"' if minor < 0 else f'"{english(minor)}"',
            f'"${english(balance)}"' if balance >= 0 else f'"-${english(-balance)}"',
        ),
    ),
    "british-utf-16": Family(
        "utf-16",
        "\t",
        "Transaction Date\tTransaction Reference\tNarrative\tPaid in\tPaid out\tBalance",
        lambda day, minor, balance, text: (
            f"{day:%d %b %Y}",
            f"R{balance}{day:%j}{minor}",
            text,
            english(minor) if minor > 0 else "",
            english(-minor) if minor < 0 else "",
            english(balance),
        ),
    ),
    "french": Family(
        "utf-8",
        ";",
        "Date;Libellé;Montant;Devise",
        lambda day, minor, balance, text: (
            f"{day:%d/%m/%Y}",
            text,
            grouped(minor, ",", "\u202f").replace("-", "\u2212"),
            "EUR",
        ),
    ),
    "indian": Family(
        "utf-8",
        ",",
        "Txn Date,Particulars,Debit,Credit,Balance",
        lambda day, minor, balance, text: (
            f"{day:%d-%b-%Y}",
            text,
            plain(-minor) if minor < 0 else "",
            plain(minor) if minor > 0 else "",
            plain(balance),
        ),
        above=("Account (INR),12345678901234",),
    ),
    "words-beside": Family(
        "utf-8",
        "|",
        "Posting date|Details|Amount|Currency",
        lambda day, minor, balance, text: (
            f"{day:%Y/%m/%d}",
            text,
            f"{english(abs(minor))} {'CR' if minor > 0 else 'DR'}",
            "USD",
        ),
    ),
    "czech": Family(
        "cp1250",
        ";",
        "Datum provedení;Částka;Měna;Popis",
        lambda day, minor, balance, text: (f"{day:%d.%m.%Y}", german(minor), "CZK", "Příchozí platba"),
    ),
}


def movements(seed):
    chance, balance, found = Random(seed), 0, []
    for number in range(ROWS):
        minor = chance.choice([1, -1]) * chance.randrange(1, 10 ** chance.randrange(3, 9))
        balance += minor
        found.append((date(2025, 1, 1) + timedelta(days=number * 6), minor, balance, f"text {number}"))
    return found


def feed_file(content):
    return FeedFile("f", len(content), lambda: BytesIO(content))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_proposed_reads_every_row_with_its_amount_and_day(name, seed):
    made = movements(seed)
    content = FAMILIES[name].content(made)
    proposal = guess(feed_file(content))
    mapping = MappingFile.from_toml(proposal)
    trial = tried(DelimitedAdapter(mapping), feed_file(content))
    assert (trial.posted, trial.refusals) == (ROWS, []), proposal
    assert [(p.booked_on, p.amount_minor) for _, p in trial.rows] == [
        (d, m) for d, m, _, _ in made[: len(trial.rows)]
    ], proposal
    assert sum(trial.credits_minor.values()) == sum(m for _, m, _, _ in made if m > 0)
    assert sum(trial.debits_minor.values()) == -sum(m for _, m, _, _ in made if m < 0)


@pytest.mark.parametrize(
    ("content", "unsure"),
    [
        (b"Date,Amount\n01/02/2025,1.00\n03/04/2025,2.00\n", "the days fit"),
        (b"Date,Amount\n2025-01-01,1.00\n", "the account"),
        (b"Date,Amount\n2025-01-01,1.00\n", "the currency"),
        (b'Date,Amount KWD\n2025-01-01,"1,234"\n', "which mark is which"),
        (b"Date,Debit,Credit\n2025-01-01,-1.00,\n", "a negative debit"),
        (b"Date,Amount\n2025-01-01,x\n2025-01-02,1.0.0\n", "no decimal"),
        (b"Date,Amount\n2025-01-01,1.00\n31.12.2025,1.00\n", "no one format"),
    ],
)
def test_what_it_is_unsure_of_is_said(content, unsure):
    proposal = guess(feed_file(content))
    tomllib.loads(proposal)
    assert any(line.startswith(NOT_SURE) and unsure in line for line in proposal.splitlines()), proposal


def test_a_file_without_a_header_has_its_columns_numbered():
    content = b"2025-01-01;shop;-1.00;5.00\n2025-01-02;work;3.00;8.00\n"
    proposal = guess(feed_file(content))
    trial = tried(DelimitedAdapter(MappingFile.from_toml(proposal)), feed_file(content))
    assert [(p.amount_minor, p.balance_after_minor) for _, p in trial.rows] == [(-100, 500), (300, 800)], (
        proposal
    )


def test_columns_of_one_name_are_proposed_by_number():
    content = b"Date,Amount,Amount\n2025-01-01,1.00,2.00\n"
    assert '"#2"' in guess(feed_file(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file-empty"),
        (b"PK\x03\x04" + bytes(300), "file-compressed"),
        (b"hello world\nthis is no table\n", "header-unknown"),
        (bytes(range(256)) * 4, "file-binary"),
    ],
)
def test_what_is_no_table_is_refused_with_a_reason(content, reason):
    with pytest.raises(FileUnreadable) as refused:
        guess(feed_file(content))
    assert refused.value.unreadable.reason == reason


def test_only_the_beginning_of_a_large_file_is_looked_at():
    family = FAMILIES["german"]
    content = family.content(movements(1) * (HEAD_BYTES_MAX // 2_000))
    assert len(content) > HEAD_BYTES_MAX
    assert guess(feed_file(content)) == guess(feed_file(content + b"\x00\xff" * 1_000))


@pytest.mark.parametrize("seed", range(200))
def test_any_bytes_give_a_proposal_or_a_reason(seed):
    chance = Random(seed)
    letters = [
        b"Date",
        b"Amount",
        b",",
        b";",
        b"\n",
        b'"',
        b"1.00",
        b"2025-01-01",
        b"\xff",
        b"\xe4",
        b" ",
        b"-",
        b"\r",
    ]
    content = b"".join(chance.choice(letters) for _ in range(chance.randrange(200)))
    try:
        proposal = guess(feed_file(content))
    except FileUnreadable:
        return
    MappingFile.from_toml(proposal)
