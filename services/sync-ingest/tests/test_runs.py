"""Runs against a real PostgreSQL: what comes of feeds, twice, shuffled, broken, killed, repaired."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from random import Random
from uuid import UUID

import msgspec
import psycopg
import pytest
from chassis.connections.transient import StoreUnavailable
from msgspec import structs
from sync_ingest.adapters.canonical import CanonicalAdapter
from sync_ingest.adapters.port import BATCH_RECORDS, Batch, Item
from sync_ingest.archive.archive import Archive
from sync_ingest.archive.connection import SourceBusy
from sync_ingest.domain.events import IntakeReceived, PostingReversed
from sync_ingest.domain.identities import feed_id, posting_ids
from sync_ingest.domain.records import (
    AccountClosedRecord,
    AccountRecord,
    CardRecord,
    HolderRecord,
    HoldersRecord,
    ListedHolder,
    LoanRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
    Unreadable,
)
from sync_ingest.enduring import PAUSES_SECONDS, enduring
from sync_ingest.ledger import CATALOGUE
from sync_ingest.opening import opened
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import AppendConflict, FeedIntake
from sync_ingest.reporting import result_of
from sync_ingest.runs.choices import IN_UTC
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

from .printed_bank import ROUNDING_MINOR

DAY = date(2026, 3, 2)


def posting(transaction, amount_minor, account="A1", **changes):
    values = {"currency": "CNY", "booked_on": DAY, "text": "房租", "counterparty_name": "王小明"} | changes
    return Posting(account=account, core_transaction_id=transaction, amount_minor=amount_minor, **values)


def lines(*records):
    return b"".join((r if isinstance(r, bytes) else msgspec.json.encode(r)) + b"\n" for r in records)


def feed(*contents, names=()):
    return [
        FeedContent(names[at] if names else f"file-{at}", lambda content=content: io.BytesIO(content))
        for at, content in enumerate(contents)
    ]


def take(ingest, source, *contents, format="canonical", **options):
    result = ingest.run(source, feed(*contents), format=format, **options)
    f = result.findings
    assert f.records == f.posted + f.duplicates + f.quarantined
    return result


def counts(result):
    f = result.findings
    return f.status, f.records, f.posted, f.duplicates, f.quarantined


def waiting(ingest, source):
    return [
        (e.line, e.reason, e.column) for _, e in ingest.archive.quarantine.page(source, "waiting", 0, 200)
    ]


MASTER = (
    PartyRecord(party="P1", name="张伟", phone="13800001111", identity_number="110101199001011234"),
    AccountRecord(account="A1", opened_on=DAY, currency="CNY"),
    HolderRecord(account="A1", party="P1", role="owner"),
    CardRecord(card="6222020000000001", account="A1", issued_on=DAY, party="P1"),
    LoanRecord(
        loan="L1",
        account="A1",
        granted_on=DAY,
        amount_minor=1200,
        currency="CNY",
        duration_months=12,
        payment_minor=100,
    ),
    StandingOrderRecord(order="S1", account="A1", amount_minor=100, currency="CNY"),
)


def test_a_feed_becomes_postings_and_a_certificate(ingest, source):
    result = take(ingest, source, lines(*MASTER, posting("t1", 10_000), posting("t2", -2_500, account="B2")))
    assert counts(result) == ("AMBER", 2, 2, 0, 0)
    assert (result.findings.master_records, result.findings.accounts) == (6, 2)
    (line,) = result.findings.lines
    assert (line.opening_minor, line.credits_minor, line.debits_minor, line.closing_minor) == (
        0,
        10_000,
        2_500,
        7_500,
    )
    assert result_of(result) == {
        "records": 2,
        "posted": 2,
        "duplicates": 0,
        "quarantined": 0,
        "accounts": 2,
        "credits_minor": 10_000,
        "debits_minor": 2_500,
        "currency": "CNY",
        "certificate": "AMBER",
        "reasons": ["nothing-to-check-against"],
        "seconds": pytest.approx(result.seconds, abs=0.001),
    }


def test_the_same_bytes_again_add_no_event(ingest, source):
    content = lines(*MASTER, posting("t1", 10_000), b"{broken", posting("t2", -2_500))
    first = take(ingest, source, content)
    head = ingest.ledger.head_position()
    again = take(ingest, source, content)
    assert ingest.ledger.head_position() == head
    assert counts(first) == ("AMBER", 3, 2, 0, 1)
    assert counts(again) == ("AMBER", 3, 0, 2, 1)
    assert result_of(first)["credits_minor"] == result_of(again)["credits_minor"] == 10_000


def test_a_posting_that_comes_again_in_another_file_is_dropped_and_counted_once_in_the_sums(ingest, source):
    take(ingest, source, lines(posting("t1", 10_000)))
    result = take(ingest, source, lines(posting("t1", 10_000), posting("t1", 10_000), posting("t2", 5)))
    assert counts(result) == ("AMBER", 3, 1, 2, 0)
    assert result_of(result)["credits_minor"] == 10_005
    assert result.findings.lines[0].opening_minor == 10_000


def test_two_equal_bookings_with_their_own_ids_are_two(ingest, source):
    assert counts(take(ingest, source, lines(posting("t1", 7), posting("t2", 7))))[2] == 2


def test_one_transaction_has_a_leg_on_each_of_its_accounts(ingest, source):
    result = take(
        ingest, source, lines(posting("t1", -7, leg=1), posting("t1", 7, leg=2), posting("t1", 7, "B"))
    )
    assert counts(result)[2] == 3


@pytest.mark.parametrize("apart", [False, True])
def test_the_same_identity_with_another_content_is_set_aside(ingest, source, apart):
    one, other = lines(posting("t1", 10_000)), lines(posting("t1", 10_001))
    result = (
        take(ingest, source, one, other)
        if not apart
        else (take(ingest, source, one), take(ingest, source, other))[1]
    )
    assert result.findings.quarantined == 1
    assert [reason for _, reason, _ in waiting(ingest, source)] == ["identity-conflict"]


@pytest.mark.requirement("M01")
def test_late_and_back_dated_postings_are_booked_and_counted(ingest, source):
    take(ingest, source, lines(posting("t1", 1, booked_on=date(2026, 3, 31))))
    result = take(
        ingest,
        source,
        lines(
            posting("t2", 2, booked_on=date(2026, 3, 5)),
            posting("t3", 3, booked_on=date(2026, 4, 1), value_on=DAY),
        ),
    )
    assert (result.findings.posted, result.findings.late, result.findings.back_dated) == (2, 1, 1)


def test_a_reversal_undoes_exactly_one_posting(ingest, source):
    result = take(
        ingest,
        source,
        lines(
            posting("r1", -100, reverses="t1"),  # before its original: a feed may be shuffled
            posting("t1", 100),
            posting("t2", 50),
            posting("r2", -49, reverses="t2"),
            posting("r3", 10, reverses="nowhere"),
            posting("r4", -100, reverses="t1"),
        ),
    )
    assert counts(result) == ("AMBER", 6, 3, 0, 3)
    assert Counter(reason for _, reason, _ in waiting(ingest, source)) == Counter(
        ["reversal-mismatch", "reversal-without-original", "already-reversed"]
    )
    assert result.findings.lines[0].closing_minor == 50


def test_a_reversal_in_a_later_feed_finds_its_original_once(ingest, source):
    take(ingest, source, lines(posting("t1", 100)))
    assert counts(take(ingest, source, lines(posting("r1", -100, reverses="t1"))))[2] == 1
    take(ingest, source, lines(posting("r2", -100, reverses="t1")))
    assert [reason for _, reason, _ in waiting(ingest, source)] == ["already-reversed"]


@pytest.mark.parametrize("together", [True, False], ids=["in one feed", "in two"])
def test_a_reversal_carries_type_and_day_of_what_it_reverses(ingest, source, together):
    original = posting("t1", 100, kind="card", booked_on=date(2026, 2, 27))
    back = posting("r1", -100, reverses="t1", kind="fee", booked_on=date(2026, 3, 2))
    for content in [[original, back]] if together else [[original], [back]]:
        take(ingest, source, lines(*content))
    [reversed_] = [event for event in stored_events(ingest, source) if isinstance(event, PostingReversed)]
    assert (reversed_.kind, reversed_.reversed_kind) == ("fee", "card")
    assert (reversed_.booked_on, reversed_.reversed_booked_on) == (date(2026, 3, 2), date(2026, 2, 27))


def stored_events(ingest, source, account="A1"):
    """What the store holds of one account."""
    recorder, keys = ingest.ledger._recorder, ingest.ledger._keys
    stream = ingest.ids.account(source, account)
    opened = CATALOGUE.open_all(recorder.read_stream(stream), keys.keys_for([stream], create=False))
    return [one.event for one in opened]


def test_master_data_that_changes_back_is_told_each_time_and_unchanged_is_not(ingest, source):
    def describe(phone, note):
        before = ingest.ledger.head_position()
        take(ingest, source, lines(PartyRecord(party="P1", phone=phone), PartyRecord(party=note)))
        return ingest.ledger.head_position() - before - 2  # the intake and its certificate

    assert [describe("1", "a"), describe("2", "b"), describe("1", "c"), describe("1", "d")] == [2, 2, 2, 1]


CSV = b"account,id,day,amount\nA1,t1,2026-03-02,100.00\nA1,t2,2026-03-02,12..34\nA1,t3,2026-03-02,-25.00\n"
MAPPING = """
currency = "CNY"
[columns]
account = "account"
core_transaction_id = "id"
booked_on = "day"
amount = "{}"
"""


def test_the_same_bytes_read_as_what_they_are_release_what_was_misread(ingest, source, postgres_url):
    take(ingest, source, CSV)
    assert [reason for _, reason, _ in waiting(ingest, source)] == ["json-malformed"] * 4
    take(ingest, source, CSV, format="csv", mapping=MAPPING.format("betrag"))
    assert [reason for _, reason, _ in waiting(ingest, source)] == ["header-unknown"]
    right = take(ingest, source, CSV, format="csv", mapping=MAPPING.format("amount"))
    assert counts(right) == ("AMBER", 3, 2, 0, 1)
    assert waiting(ingest, source) == [(3, "amount-malformed", "amount")]
    head = ingest.ledger.head_position()
    assert counts(take(ingest, source, CSV, format="csv", mapping=MAPPING.format("amount")))[2:] == (0, 2, 1)
    assert ingest.ledger.head_position() == head
    kept = {ingest.archive.intakes.one(intake).content for intake in right.intakes}
    with psycopg.connect(postgres_url) as connection:
        query = "select count(*) from ingest.intake_chunks where content = any(%s)"
        assert connection.execute(query, (list(kept),)).fetchone() == (1,), "the bytes are kept once"


@dataclass
class Mended:
    """Reads canonical lines, and what it could not read before as a posting."""

    reading: str
    posting: Posting
    name: str = "canonical"
    covers: None = None

    def read(self, files):
        for batch in CanonicalAdapter().read(files):
            items = [
                structs.replace(item, content=self.posting) if isinstance(item.content, Unreadable) else item
                for item in batch.items
            ]
            yield Batch(items, batch.bytes_read)


@pytest.mark.parametrize("numbered", [True, False])
def test_a_reader_that_was_mended_reads_again_and_books_only_what_is_new(ingest, source, numbered):
    content = lines(posting("t1", 10_000), b'{"record":"posting","account":"A1"', posting("t3", -2_500))
    take(ingest, source, content)
    reading = "canonical.mended" if numbered else CanonicalAdapter.reading
    mended = Mended(reading, posting("t2", 500))
    ingest.adapters = lambda name, mapping=None, *, kept=False: mended
    assert counts(take(ingest, source, content)) == ("AMBER", 3, 1, 2, 0)
    assert waiting(ingest, source) == []
    assert counts(take(ingest, source, content))[2:] == (0, 3, 0)


def test_one_source_runs_once_at_a_time_and_others_go_on(ingest, source, postgres_url):
    impatient = partial(Archive.connect, postgres_url, ingest.ids, ingest.elapsed, lock_wait_seconds_max=1)
    with Archive.connect(postgres_url, ingest.ids, ingest.elapsed) as other, other.locked(source):
        with impatient() as archive, pytest.raises(SourceBusy):
            take(replace(ingest, archive=archive), source, lines(posting("t1", 1)))
        take(ingest, source + "-2", lines(posting("t1", 1)))
    assert counts(take(ingest, source, lines(posting("t1", 1))))[2] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"record":"posting","\\u0000x":1}', "field-unknown"),
        (lines(posting("t1", 1))[:-2] + b',"\\u0000\\ud800":1}', None),
        (b"[" * 60_000, "record-unknown"),
        (b'{"record":"posting","account":' + b"[" * 30_000, "field-invalid"),
        (b'{"a":' * 10_000, "json-malformed"),
        (b'"' + b"x" * 70_000 + b'"', "record-oversized"),
        (lines(posting("t1", 1, booked_on=date(1, 1, 1))), "date-out-of-window"),
        (lines(posting("t1", 1, booked_on=date(9999, 12, 31))), "date-out-of-window"),
        (lines(AccountRecord(account="A1", opened_on=date(1, 1, 1))), "date-out-of-window"),
        (lines(posting("t\x00", 1, account="\x00", branch="\x00\u2028")), "character-invisible"),
    ],
)
def test_whatever_a_line_holds_its_neighbours_are_booked(ingest, source, content, reason):
    result = ingest.run(
        source,
        feed(lines(posting("t0", 1), content, posting("t9", 2)), names=("a\x00\ud800b",)),
        format="canonical",
    )
    found = waiting(ingest, source)
    assert result.findings.posted + len(found) == 3
    assert result.findings.posted >= 2
    if reason is not None:
        assert [each for _, each, _ in found] == [reason]
    head = ingest.ledger.head_position()
    again = take(ingest, source, lines(posting("t0", 1), content, posting("t9", 2)))
    assert (again.findings.posted, ingest.ledger.head_position()) == (0, head)


@pytest.mark.parametrize("at", [2, 3])
def test_somebody_who_appends_to_the_same_accounts_meanwhile_costs_nothing_but_time(
    ingest, source, postgres_url, data, at
):
    """The source's lock keeps others out; should it be lost with its connection, the store still refuses."""
    records = [posting(f"t{n}", n + 1, account=f"A{n % 7}") for n in range(9_000)]
    append, calls, conflicts = ingest.ledger.append, [], []

    def overtaken(sealed):
        calls.append(len(sealed))
        if len(calls) == at:
            with opened(settings_of(postgres_url, data)) as other:
                book = Pipeline(source, other.ids, other.ledger, NothingHeld(), now=other.now, dates=IN_UTC)
                items = [Item(0, 1, records[8_500 + n]) for n in range(7)]
                assert list(book.book([items], [FeedIntake(UUID(int=1), "other", open=True)]))[-1] == 7
        try:
            return append(sealed)
        except AppendConflict as conflict:
            conflicts.append(conflict)
            raise

    ingest.ledger.append = overtaken
    result = take(ingest, source, lines(*records))
    assert len(conflicts) == 1
    f = result.findings
    assert (f.records, f.posted, f.duplicates) == (9_000, 8_993, 7)
    assert {problem.code for problem in f.problems} == {
        "postings-differ",
        "movement-differs",
        "turnover-differs",
    }
    assert booked_once(postgres_url, ingest.ids, source, records)


class NothingHeld:
    """A book of a ledger that held nothing."""

    def ledger_totals(self, accounts):
        return {}

    def turnovers(self):
        return {}


def booked_once(postgres_url, ids, source, records):
    wanted = sorted(posting_ids(ids, source, records))
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(
            "select identity from store_ingest.events where identity = any(%s) order by identity", (wanted,)
        ).fetchall()
    return [row[0] for row in found] == wanted


def test_an_intake_that_breaks_the_booking_stops_no_later_run_of_its_source(ingest, source):
    sealed = ingest.ledger.sealed

    def breaking(entries):
        if any(getattr(entry.event, "core_transaction_id", "") == "t-poison" for entry in entries):
            raise RuntimeError("cannot seal")
        return sealed(entries)

    ingest.ledger.sealed = breaking
    poison, good = lines(posting("t-poison", 1)), lines(posting("t1", 5))
    with pytest.raises(RuntimeError):
        take(ingest, source, poison)
    assert counts(take(ingest, source, good)) == ("AMBER", 1, 1, 0, 0)
    ingest.ledger.sealed = sealed
    assert counts(take(ingest, source, poison)) == ("AMBER", 1, 1, 0, 0)


def test_the_bytes_are_kept_as_they_came_and_nobody_reads_them_in_the_tables(ingest, source, postgres_url):
    content = lines(*MASTER, posting("t1", 1), b"\x00\xff broken \xe7\x8e\x8b \xff")
    result = take(ingest, source, content)
    intake = ingest.archive.intakes.one(result.intakes[0])
    assert ingest.bytes_of(intake).read() == content
    secrets = ["张伟", "13800001111", "110101199001011234", "6222020000000001", "王小明", "房租"]
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        held = b""
        for schema, table in tables:
            with connection.cursor().copy(f'copy "{schema}"."{table}" to stdout (format binary)') as copied:
                held += b"".join(bytes(block) for block in copied)
    assert len(held) > 1_000
    assert [secret for secret in secrets if secret.encode() in held] == []


def test_a_feed_that_loses_a_posting_on_its_way_is_red_and_names_the_account(ingest, source):
    sealed = ingest.ledger.sealed

    def changing(entries):
        return sealed(
            [
                msgspec.structs.replace(
                    entry,
                    event=msgspec.structs.replace(entry.event, amount_minor=entry.event.amount_minor + 1),
                )
                if getattr(entry.event, "core_transaction_id", "") == "t2"
                else entry
                for entry in entries
            ]
        )

    ingest.ledger.sealed = changing
    result = take(ingest, source, lines(posting("t1", 5), posting("t2", 6, account="B"), posting("t3", 7)))
    assert result.findings.status == "RED"
    assert len({problem.account_id for problem in result.findings.problems}) == 1


def cut(content, before):
    rows = content.splitlines(keepends=True)
    return rows[0] + b"".join(row for row in rows[1:] if row.split(b";")[2] < before)


def shuffled(content, seed, twice=0.0):
    head, *rows = content.splitlines(keepends=True)
    chance = Random(seed)
    rows += chance.sample(rows, int(len(rows) * twice))
    chance.shuffle(rows)
    return head + b"".join(rows)


@pytest.mark.requirement("R078", "M01")
def test_a_bank_gives_its_known_sums_whatever_the_order_and_however_often(ingest, source, printed_bank):
    czech, sums = printed_bank.czech, printed_bank.before_cut_off
    files = printed_bank.tables | {
        czech: cut(printed_bank.tables[czech], f"{printed_bank.cut_off_on:%y%m%d}".encode())
    }
    del files[printed_bank.english]
    first = take(ingest, source, *files.values(), format="berka")
    assert counts(first) == ("GREEN", sums.rows, sums.rows, 0, 0)
    assert result_of(first) | {"seconds": 0} == {
        "records": sums.rows,
        "posted": sums.rows,
        "duplicates": 0,
        "quarantined": 0,
        "accounts": sums.accounts,
        "credits_minor": sums.credits_minor,
        "debits_minor": sums.debits_minor,
        "currency": "CZK",
        "certificate": "GREEN",
        "reasons": [],
        "seconds": 0,
    }
    printed, rounded = first.findings.printed, printed_bank.rounded
    assert (printed.rows, printed.exact, printed.within_tolerance, printed.largest_minor) == (
        sums.rows,
        sums.rows - rounded,
        rounded,
        ROUNDING_MINOR,
    )
    head = ingest.ledger.head_position()
    again = take(ingest, source, *files.values(), format="berka")
    assert counts(again) == ("GREEN", sums.rows, 0, sums.rows, 0)
    assert ingest.ledger.head_position() == head
    twice = int(sums.rows * 0.05)
    for seed in (7, 8, 9):
        disorder = [shuffled(content, seed, 0.05 if name == czech else 0) for name, content in files.items()]
        other = take(ingest, f"{source}-shuffled-{seed}", *disorder, format="berka")
        assert counts(other) == ("GREEN", sums.rows + twice, sums.rows, twice, 0)
        assert other.findings.lines == first.findings.lines


def test_both_transaction_files_of_a_bank_give_what_each_gives_alone(ingest, source, printed_bank):
    one, other = printed_bank.of_czech, printed_bank.of_english
    result = result_of(take(ingest, source, *printed_bank.tables.values(), format="berka"))
    rows = one.rows + other.rows
    assert (result["records"], result["posted"], result["accounts"]) == (
        rows,
        rows,
        one.accounts + other.accounts,
    )
    assert result["credits_minor"] == one.credits_minor + other.credits_minor
    assert result["debits_minor"] == one.debits_minor + other.debits_minor


def test_the_day_on_which_a_file_is_cut_off_is_red_with_its_accounts(ingest, source, printed_bank):
    rows = printed_bank.of_czech.rows
    result = take(ingest, source, printed_bank.tables[printed_bank.czech], format="berka")
    assert counts(result) == ("RED", rows, rows, 0, 0)
    assert len(result.findings.problems) == printed_bank.cut_off_accounts
    assert {(p.code, p.detail) for p in result.findings.problems} == {
        ("running-balance-differs", printed_bank.cut_off_on.isoformat())
    }


@pytest.mark.requirement("R078", "M01")
def test_what_is_read_again_as_a_whole_stores_the_rows_that_were_missing_and_nothing_else(
    ingest, source, printed_bank
):
    czech = printed_bank.tables[printed_bank.czech]
    whole = cut(czech, f"{printed_bank.cut_off_on:%y%m%d}".encode())
    head, *rows = whole.splitlines(keepends=True)
    gaps = {len(rows) // 4, len(rows) // 2, len(rows) - 1}
    lacking = head + b"".join(row for at, row in enumerate(rows) if at not in gaps)
    first = take(ingest, source, lacking, format="berka")
    assert first.findings.status == "RED"
    again = take(ingest, source, whole, format="berka")
    assert counts(again) == ("GREEN", len(rows), 3, len(rows) - 3, 0)


def test_a_file_that_begins_in_the_middle_names_the_openings_that_it_lacks(ingest, source, printed_bank):
    head, *rows = printed_bank.tables[printed_bank.czech].splitlines(keepends=True)
    days = sorted({row.split(b";")[2] for row in rows})
    middle, end = days[len(days) * 3 // 4], f"{printed_bank.cut_off_on:%y%m%d}".encode()
    before = {row.split(b";")[1] for row in rows if row.split(b";")[2] < middle}
    left = [row for row in rows if middle <= row.split(b";")[2] < end]
    lacking = before & {row.split(b";")[1] for row in left}
    result = take(ingest, source, head + b"".join(left), format="berka")
    assert counts(result) == ("RED", len(left), len(left), 0, 0)
    assert {p.code for p in result.findings.problems} == {"opening-missing"}
    assert len({p.account_id for p in result.findings.problems}) == len(lacking) > 10


POINTS = [
    "after-intake",
    "before-append",
    "mid-batch",
    "after-append",
    "before-progress",
    "before-certificate",
]


@pytest.fixture
def run_process(postgres_url, data, tmp_path, source):
    """A run of everything in `tmp_path` in a process of its own, which is what can be killed."""

    def run(**env):
        return subprocess.run(
            [sys.executable, "-c", RUN, source, str(tmp_path)],
            env=os.environ
            | {"POSTGRES_URL": postgres_url, "CRM_ENVIRONMENT": "development", "CRM_DATA": str(data)}
            | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.mark.requirement("M01")
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_a_named_point_goes_on_to_the_same_end(ingest, source, run_process, tmp_path, point):
    small_folder(tmp_path)
    killed = run_process(CRM_CRASH_AT=point)
    assert (killed.returncode, killed.stdout) == (137, ""), killed.stderr
    finished = run_process()
    assert finished.returncode == 0, finished.stderr
    values = json.loads(finished.stdout)
    clean = take(ingest, source + "-clean", *folder_contents(tmp_path), format="berka")
    assert values | {"seconds": 0} == result_of(clean) | {"seconds": 0}
    assert (values["posted"], values["quarantined"]) == (3_000, 1)
    head = ingest.ledger.head_position()
    assert json.loads(run_process().stdout)["posted"] == 0
    assert ingest.ledger.head_position() == head


def settings_of(postgres_url, data):
    return SyncIngestSettings(postgres_url=postgres_url, data=data)


def test_a_run_outlives_connections_that_are_cut_again_and_again(postgres_url, data, source, tmp_path):
    small_folder(tmp_path, rows=12_000)
    contents, cuts, done = folder_contents(tmp_path), [], threading.Event()

    def cut_connections():
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            while len(cuts) < 3 and not done.wait(0.25):
                cut = connection.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid()"
                    " and datname = current_database()"
                ).fetchone()
                cuts.append(cut[0])

    told, cutter = [], threading.Thread(target=cut_connections)
    cutter.start()
    result = enduring(
        lambda: opened(settings_of(postgres_url, data)),
        lambda running: running.run(source, feed(*contents), format="berka"),
        told=lambda lost, _: told.append(type(lost).__name__),
        wait=lambda _: done.wait(0.05),
    )
    done.set()
    cutter.join()
    assert told, cuts
    assert counts(result) == ("AMBER", 12_001, 12_000, 0, 1)
    with opened(settings_of(postgres_url, data)) as ingest:
        clean = take(ingest, source + "-clean", *contents, format="berka")
        assert clean.findings.lines == result.findings.lines


def test_a_database_that_stays_away_is_said_in_the_end():
    waited = []

    def never():
        raise psycopg.OperationalError("no such server")

    with pytest.raises(psycopg.OperationalError):
        enduring(never, lambda _: None, wait=waited.append)
    assert waited == list(PAUSES_SECONDS)


@pytest.mark.parametrize("same", [True, False])
def test_two_runs_at_once_book_everything_once(postgres_url, data, source, tmp_path, same):
    small_folder(tmp_path)
    contents, results = folder_contents(tmp_path), {}

    def one(name, of_source):
        with opened(settings_of(postgres_url, data)) as running:
            results[name] = running.run(of_source, feed(*contents), format="berka")

    names = {"a": source, "b": source if same else source + "-other"}
    threads = [threading.Thread(target=one, args=pair) for pair in names.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.findings.status for result in results.values()] == ["AMBER", "AMBER"]
    posted = sorted(result.findings.posted for result in results.values())
    assert posted == ([0, 3_000] if same else [3_000, 3_000])
    assert {result.findings.lines[0].closing_minor for result in results.values()} == {
        results["a"].findings.lines[0].closing_minor
    }


def test_a_run_killed_at_any_time_goes_on(ingest, source, data, postgres_url, tmp_path):
    small_folder(tmp_path, rows=9_000)
    for delay_seconds in (0.8, 1.2, 1.6):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, source, str(tmp_path)],
            env=os.environ | {"POSTGRES_URL": postgres_url, "CRM_DATA": str(data)},
            stdout=subprocess.DEVNULL,
        )
        timer = threading.Timer(delay_seconds, process.send_signal, (signal.SIGKILL,))
        timer.start()
        process.wait(60)
        timer.cancel()
    result = take(ingest, source, *folder_contents(tmp_path), format="berka")
    clean = take(ingest, source + "-clean", *folder_contents(tmp_path), format="berka")
    assert result.findings.status == clean.findings.status == "AMBER"
    assert [(line.closing_minor, line.stated_credits_minor) for line in result.findings.lines] == [
        (line.closing_minor, line.stated_credits_minor) for line in clean.findings.lines
    ]


def small_folder(folder, rows=3_000):
    """A bank's dump of our own making: accounts, clients, holders, and transactions whose balances follow."""
    chance = Random(rows)
    accounts = range(1, 101)
    (folder / "account.asc").write_text(
        "account_id;district_id;frequency;date\r\n"
        + "".join(f"{n};1;POPLATEK MESICNE;930101\r\n" for n in accounts),
    )
    (folder / "client.asc").write_text(
        "client_id;birth_number;district_id\r\n" + "".join(f"{n};450204;1\r\n" for n in accounts)
    )
    (folder / "disp.asc").write_text(
        "disp_id;client_id;account_id;type\r\n" + "".join(f"{n};{n};{n};OWNER\r\n" for n in accounts)
    )
    balances = dict.fromkeys(accounts, 0)
    lines = ["trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account\r\n"]
    for number in range(rows):
        account, on = chance.choice(accounts), number * 12 * 28 // rows
        debit = balances[account] > 0 and on % 2 == 1  # no credit after a debit on the same day
        amount = balances[account] // 10 + 1 if debit else chance.randrange(1_000, 500_000)
        balances[account] += -amount if debit else amount
        day = f"93{on // 28 + 1:02d}{on % 28 + 1:02d}"
        words = "VYDAJ;VYBER" if debit else "PRIJEM;VKLAD"
        balance = balances[account]
        lines.append(
            f"{number + 1};{account};{day};{words};{amount // 100}.{amount % 100:02d};"
            f"{balance // 100}.{balance % 100:02d};;;\r\n"
        )
    (folder / "trans.asc").write_text("".join(lines) + "1;2;930230;PRIJEM;VKLAD;1;1;;;\r\n")


def folder_contents(folder):
    return [path.read_bytes() for path in sorted(folder.iterdir())]


RUN = """
import json, pathlib, sys
from sync_ingest.ledger import CATALOGUE
from sync_ingest.opening import opened
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import AppendConflict, FeedIntake
from sync_ingest.settings import SyncIngestSettings
from sync_ingest.runs.results import FeedContent
from sync_ingest.reporting import result_of
files = [FeedContent(p.name, lambda p=p: p.open("rb")) for p in sorted(pathlib.Path(sys.argv[2]).iterdir())]
with opened(SyncIngestSettings()) as ingest:
    print(json.dumps(result_of(ingest.run(sys.argv[1], files, format="berka"))))
"""


def test_holders_and_closings_said_again_in_another_file_add_no_event(ingest, source):
    listed = HoldersRecord(account="A1", holders=(ListedHolder("P1", "owner"),))
    closed = AccountClosedRecord(account="A1", closed_on=DAY)
    take(ingest, source, lines(*MASTER, HolderRecord(account="A1", party="P2", role="joint")))
    head = ingest.ledger.head_position()
    take(ingest, source, lines(listed, closed))
    after = ingest.ledger.head_position()
    take(ingest, source, lines(closed, listed))
    assert after - head == 4, "a holder is removed, the account is closed, an intake and a certificate"
    assert ingest.ledger.head_position() - after == 2


def test_a_list_that_comes_late_gives_nobody_the_account_back(ingest, source):
    def listed(day, *parties):
        holders = tuple(ListedHolder(party, "owner") for party in parties)
        return lines(HoldersRecord(account="A1", holders=holders, listed_on=day))

    take(ingest, source, lines(*MASTER))
    take(ingest, source, listed(DAY - timedelta(days=1), "P1"))
    take(ingest, source, listed(DAY, "P1"))
    head = ingest.ledger.head_position()
    take(ingest, source, listed(DAY - timedelta(days=1), "P1", "P2"))
    assert ingest.ledger.head_position() - head == 2, "an intake and a certificate"


def test_a_right_whose_days_contradict_each_other_is_quarantined(ingest, source):
    right = HolderRecord(account="A1", party="P1", role="owner", held_from=DAY, held_until=date(2020, 1, 1))
    take(ingest, source, lines(right, AccountClosedRecord(account="A1", closed_on=date(9999, 1, 1))))
    assert [reason for _, reason, _ in waiting(ingest, source)] == ["dates-contradict", "date-impossible"]


def widened(postgres_url, data):
    return SyncIngestSettings(postgres_url=postgres_url, data=data, booked_days_ahead_max=3_660)


def test_the_same_bytes_book_what_can_be_booked_now_once_and_resolve_its_entry(
    ingest, source, postgres_url, data
):
    """A booking date outside the window was refused; then the window was widened, and the file came again."""
    far = ingest.settings.booking_days(ingest.now()).today + timedelta(days=400)
    content = lines(posting("t1", 1), posting("t2", 20, booked_on=far), posting("t3", 300), b"{broken")
    first = take(ingest, source, content)
    assert counts(first) == ("AMBER", 4, 2, 0, 2)
    head = ingest.ledger.head_position()
    assert counts(take(ingest, source, content))[2:] == (0, 2, 2)
    assert ingest.ledger.head_position() == head
    with opened(widened(postgres_url, data)) as now:
        again = take(now, source, content)
        assert counts(again) == ("AMBER", 4, 1, 2, 1)
        assert again.certificate not in {None, first.certificate}
        (line,) = again.findings.lines
        assert (line.opening_minor, line.credits_minor, line.closing_minor) == (301, 20, 321)
        assert [reason for _, reason, _ in waiting(now, source)] == ["json-malformed"]
        head = now.ledger.head_position()
        assert counts(take(now, source, content))[2:] == (0, 3, 1)
        assert now.ledger.head_position() == head
        assert now.archive.intakes.open(source) == []


def test_a_posting_that_is_quarantined_waits_for_the_transaction_under_way(ingest, source):
    """The writing connection is one thread's at a time: two in it at once break its protocol."""
    append, busy, clashes = ingest.ledger.append, threading.Lock(), []

    def slow(sealed):
        if not busy.acquire(blocking=False):
            clashes.append(len(sealed))
            return append(sealed)
        try:
            time.sleep(0.3)
            return append(sealed)
        finally:
            busy.release()

    ingest.ledger.append = slow
    hidden = posting("t-hidden", 1, branch="east\u200b")
    records = [posting(f"t{n}", 1, account=f"A{n % 7}") for n in range(BATCH_RECORDS)]
    result = take(ingest, source, lines(*records, posting("t-last", 1), hidden))
    assert clashes == []
    assert counts(result)[1:] == (BATCH_RECORDS + 2, BATCH_RECORDS + 1, 0, 1)


def test_an_intake_whose_run_was_cut_off_before_its_event_gets_the_event_from_the_next_run(ingest, source):
    sealed = ingest.ledger.sealed

    def lost(entries):
        if any(isinstance(entry.event, IntakeReceived) for entry in entries):
            raise StoreUnavailable("the database went away")
        return sealed(entries)

    ingest.ledger.sealed = lost
    with pytest.raises(StoreUnavailable):
        take(ingest, source, lines(posting("t1", 5)))
    ingest.ledger.sealed = sealed
    take(ingest, source, lines(posting("t2", 6)))
    stored = ingest.ledger._recorder.read_stream(feed_id(source))
    received = [CATALOGUE.open(one, None).event for one in stored if one.name == "intake-received"]
    assert len(received) == 2
