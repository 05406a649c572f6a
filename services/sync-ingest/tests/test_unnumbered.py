"""Feeds without transaction ids: what is the same posting, whatever describes it, and whatever file it comes in."""

import io
from datetime import date

import msgspec
import psycopg
import pytest
from sync_ingest.domain.records import Posting
from sync_ingest.runs.results import FeedContent

MAPPING = """
currency = "CNY"
[columns]
account = "account"
booked_on = "date"
amount = "amount"
"""
RICHER = MAPPING + 'text = "text"\nbalance_after = "balance"\nteller = "teller"\n'
HEADER = "account,date,amount,text,balance,teller\n"
RENT, COFFEE = "A1,2026-03-02,-900.00,rent,100.00,T1\n", "A1,2026-03-02,-3.50,coffee,96.50,T1\n"


def covering(covers, mapping=MAPPING):
    return f'covers = "{covers}"\n' + mapping if covers else mapping


def take(ingest, source, *files, mapping=MAPPING):
    contents = [
        FeedContent(f"file-{at}", lambda rows=rows: io.BytesIO((HEADER + rows).encode()))
        for at, rows in enumerate(files)
    ]
    f = ingest.run(source, contents, format="csv", mapping=mapping).findings
    assert f.records == f.posted + f.duplicates + f.quarantined
    return f


def money(ingest, source):
    """Every posting that the store holds of a source."""
    with psycopg.connect(ingest.archive._db.connection.info.dsn) as connection:
        bodies = connection.execute(
            "select body from store_ingest.events where name in ('posting-booked', 'posting-reversed')"
        ).fetchall()
    data = [msgspec.json.decode(body[0])["data"] for body in bodies]
    return sorted(one["amount_minor"] for one in data if one["source"] == source)


def test_a_file_read_again_under_a_richer_mapping_books_nothing_and_says_what_is_described_differently(
    ingest, source
):
    first = take(ingest, source, RENT + COFFEE)
    again = take(ingest, source, RENT + COFFEE, mapping=RICHER)
    assert (first.posted, again.posted, again.duplicates, again.quarantined) == (2, 0, 2, 0)
    assert (again.differing, again.differing_fields) == (
        2,
        {"balance_after_minor": 2, "teller": 2, "text": 2},
    )
    assert again.coverage_unstated == 0, "the same bytes are the same file"
    assert money(ingest, source) == [-90_000, -350]


def test_a_row_printed_again_with_another_running_balance_is_a_duplicate(ingest, source):
    take(ingest, source, RENT + COFFEE, mapping=covering("whole-days", RICHER))
    later = (COFFEE + RENT).replace("96.50", "77.00").replace("coffee", "Coffee Bar")
    again = take(ingest, source, later, mapping=covering("whole-days", RICHER))
    assert (again.posted, again.duplicates, again.quarantined) == (0, 2, 0)
    assert again.differing_fields == {"balance_after_minor": 1, "text": 1}


@pytest.mark.parametrize(("covers", "held"), [("whole-days", 1), ("parts", 2), (None, 1)])
def test_whether_an_equal_row_of_another_file_is_another_posting_is_stated(ingest, source, covers, held):
    first = take(ingest, source, COFFEE, mapping=covering(covers))
    second = take(ingest, source, COFFEE.replace("T1", "T2"), mapping=covering(covers))
    assert money(ingest, source) == [-350] * held
    assert (first.coverage_unstated, second.coverage_unstated) == (0, 0 if covers else 1)
    assert ("coverage-unstated" in second.reasons) == (covers is None)
    assert covers is not None or second.status == "AMBER"


@pytest.mark.parametrize("covers", ["whole-days", "parts", None])
def test_two_files_of_one_run_are_two_files(ingest, source, covers):
    found = take(ingest, source, COFFEE, COFFEE.replace("T1", "T2"), mapping=covering(covers))
    assert money(ingest, source) == [-350] * (2 if covers == "parts" else 1)
    assert found.coverage_unstated == (covers is None)


@pytest.mark.parametrize("covers", ["whole-days", "parts", None])
def test_equal_rows_of_one_file_are_several_postings_and_the_same_bytes_bring_them_once(
    ingest, source, covers
):
    rows = COFFEE * 3 + RENT
    take(ingest, source, rows, mapping=covering(covers))
    assert take(ingest, source, rows, rows, mapping=covering(covers)).posted == 0
    assert take(ingest, source, rows, mapping=covering(covers, RICHER)).posted == 0
    assert money(ingest, source) == [-90_000, -350, -350, -350]


def test_files_that_were_read_before_it_was_stated_are_mended_by_reading_them_again(ingest, source):
    one, other = COFFEE * 2, (COFFEE * 2).replace("T1", "T2")
    take(ingest, source, one)
    assert take(ingest, source, other).coverage_unstated == 2
    assert money(ingest, source) == [-350] * 2
    for rows in (one, other, one, other):
        assert take(ingest, source, rows, mapping=covering("parts")).coverage_unstated == 0
    assert money(ingest, source) == [-350] * 4


def test_more_equals_than_are_looked_up_at_once_are_told_apart(ingest, source):
    for n in range(3):
        take(ingest, source, (COFFEE * 11).replace("T1", f"T{n}"), mapping=covering("parts"))
    assert take(ingest, source, (COFFEE * 11).replace("T1", "T1"), mapping=covering("parts")).posted == 0
    assert money(ingest, source) == [-350] * 33


def test_a_record_without_an_id_says_so_and_its_event_shows_no_number(ingest, source):
    record = Posting("6222021234566789", None, 100, "CNY", date(2026, 3, 2))
    content = msgspec.json.encode(record)
    result = ingest.run(source, [FeedContent("f", lambda: io.BytesIO(content))], format="canonical")
    assert result.findings.posted == 1
    stream = ingest.ids.account(source, "6222021234566789")
    event = msgspec.json.decode(ingest.ledger._recorder.read_stream(stream)[-1].body)["data"]
    assert event["core_transaction_id"].startswith("none-")
    missing = b'{"record":"posting","account":"1","amount_minor":1,"currency":"CNY","booked_on":"2026-03-02"}'
    result = ingest.run(source, [FeedContent("g", lambda: io.BytesIO(missing))], format="canonical")
    assert result.findings.quarantined == 1
