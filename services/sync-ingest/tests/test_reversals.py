"""Reversals: of a posting of another account or leg, before their originals, twice, and repaired."""

import io
from dataclasses import replace
from datetime import date
from uuid import UUID

import msgspec
import pytest
from sync_ingest.adapters.port import Item
from sync_ingest.domain.records import Posting
from sync_ingest.ledger import CATALOGUE
from sync_ingest.opening import opened
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import FeedIntake
from sync_ingest.runs.choices import IN_UTC
from sync_ingest.runs.ports import Acting
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

DAY, LATER = date(2026, 2, 27), date(2026, 3, 2)
PAID = Posting("A1", "t1", -100, "CNY", DAY, kind="card")
BACK = Posting("A1", "r1", 100, "CNY", LATER, reverses="t1")


class NothingHeld:
    """A book of a ledger that held nothing."""

    def ledger_totals(self, accounts):
        return {}

    def turnovers(self):
        return {}


def take(ingest, source, *records, name="f"):
    content = b"".join(
        (one if isinstance(one, bytes) else msgspec.json.encode(one)) + b"\n" for one in records
    )
    found = ingest.run(source, [FeedContent(name, lambda: io.BytesIO(content))], format="canonical").findings
    assert found.records == found.posted + found.duplicates + found.quarantined
    return found


def waiting(ingest, source):
    return [e.reason for _, e in ingest.archive.quarantine.page(source, "waiting", 0, 200)]


def held(ingest, source, account="A1"):
    """Amounts that are booked on an account, those of reversals with the type and day that they take back."""
    stream = ingest.ids.account(source, account)
    keys = ingest.ledger._keys.keys_for([stream], create=False)
    events = [one.event for one in CATALOGUE.open_all(ingest.ledger._recorder.read_stream(stream), keys)]
    return [
        (
            event.amount_minor,
            getattr(event, "reversed_kind", None),
            getattr(event, "reversed_booked_on", None),
        )
        for event in events
        if hasattr(event, "posting_id")
    ]


@pytest.mark.parametrize("between", [0, 2])
def test_a_reversal_whose_original_comes_in_a_later_feed_settles_by_itself(ingest, source, between):
    assert take(ingest, source, BACK).quarantined == 1
    for number in range(between):
        take(ingest, source, Posting("A2", f"x{number}", 1, "CNY", DAY))
    assert waiting(ingest, source) == ["reversal-without-original"]
    assert take(ingest, source, PAID).posted == 1
    assert waiting(ingest, source) == []
    left = "select count(*) from {s}.awaited_originals where source = %s"
    assert ingest.archive._db.rows(left, (source,)) == [(0,)], (
        "what is settled is not looked at by every later run"
    )
    assert held(ingest, source) == [(-100, None, None), (100, "card", DAY)]
    again = take(ingest, source, BACK, PAID)
    assert (again.posted, again.duplicates, again.quarantined) == (0, 2, 0)


@pytest.mark.parametrize("at", [None, "after-release", "before-certificate"])
def test_the_answer_of_a_run_is_the_last_certificate_when_it_settles_a_reversal(ingest, source, at):
    paid = msgspec.structs.replace(PAID, balance_after_minor=-100)
    take(ingest, source, msgspec.structs.replace(BACK, balance_after_minor=0))

    def reached(point):
        if point == at:
            raise KeyboardInterrupt

    if at is not None:
        ingest.reached = reached
        with pytest.raises(KeyboardInterrupt):
            take(ingest, source, paid)
        ingest.reached = lambda _: None
    found = take(ingest, source, paid)
    assert (found.status, found.reasons) == ("GREEN", ())
    assert ingest.latest_certificate(source).findings == found
    assert held(ingest, source) == [(-100, None, None), (100, "card", DAY)]


def test_the_answer_of_a_release_is_the_last_certificate_when_it_settles_a_reversal(ingest, source):
    take(ingest, source, msgspec.structs.replace(BACK, balance_after_minor=0))
    take(ingest, source, b"{broken")
    [entry] = [
        e for _, e in ingest.archive.quarantine.page(source, "waiting", 0, 9) if e.reason == "json-malformed"
    ]
    ingest.acting = Acting("lee", reason="read from the printed slip")
    paid = msgspec.structs.replace(PAID, balance_after_minor=-100)
    released = ingest.release(entry.id, msgspec.json.encode(paid) + b"\n")
    assert released.findings.status == "GREEN"
    assert ingest.latest_certificate(source).findings == released.findings


def test_a_reversal_that_waited_and_contradicts_its_original_waits_for_a_person(ingest, source):
    take(ingest, source, msgspec.structs.replace(BACK, amount_minor=99))
    take(ingest, source, PAID)
    assert waiting(ingest, source) == ["reversal-without-original"]
    assert ingest.archive.quarantine.awaited_originals(source, None, 9) == {}, (
        "it is not tried again and again"
    )
    assert held(ingest, source) == [(-100, None, None)]


def test_of_two_that_wait_for_one_original_one_is_booked(ingest, source):
    take(ingest, source, BACK)
    take(ingest, source, msgspec.structs.replace(BACK, core_transaction_id="r2"))
    take(ingest, source, PAID)
    assert sorted(held(ingest, source)) == [(-100, None, None), (100, "card", DAY)]
    assert waiting(ingest, source) == ["reversal-without-original"]


@pytest.mark.parametrize(
    ("original", "naming"),
    [
        (PAID, {"account": "A2", "reverses_account": "A1"}),
        (msgspec.structs.replace(PAID, leg=2), {"reverses_leg": 2}),
        (
            msgspec.structs.replace(PAID, leg=0),
            {"account": "A2", "reverses_account": "A1", "reverses_leg": 0},
        ),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_reversal_names_a_posting_of_another_account_or_leg(ingest, source, original, naming, late):
    back = msgspec.structs.replace(BACK, **naming)
    for record in [back, original] if late else [original, back]:
        take(ingest, source, record)
    assert waiting(ingest, source) == []
    assert held(ingest, source, back.account)[-1] == (100, "card", DAY)
    take(
        ingest,
        source,
        msgspec.structs.replace(
            back, core_transaction_id="r2", account="A3", reverses_account="A1", reverses_leg=original.leg
        ),
    )
    assert waiting(ingest, source) == ["already-reversed"]


def test_a_window_settles_what_a_stream_brought_the_wrong_way_round(ingest, source):
    for record in (BACK, PAID):
        content = msgspec.json.encode(record)
        ingest.keep(source, FeedContent("f", lambda content=content: io.BytesIO(content)), format="canonical")
    ingest.close_window(source)
    assert waiting(ingest, source) == []
    assert held(ingest, source) == [(-100, None, None), (100, "card", DAY)]


class Overtaken:
    """A ledger to which somebody else appends just before."""

    def __init__(self, ledger, before):
        self._ledger, self._before = ledger, before

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    def append(self, sealed):
        before, self._before = self._before, lambda: None
        before()
        return self._ledger.append(sealed)


def test_a_posting_is_reversed_once_though_two_runs_book_at_once(ingest, source, postgres_url, data):
    """The store alone decides: a run that lost the lock of its source books no second reversal."""
    take(ingest, source, PAID)
    rival = msgspec.structs.replace(BACK, core_transaction_id="r2", account="A2", reverses_account="A1")

    def overtake():
        with opened(SyncIngestSettings(postgres_url=postgres_url, data=data)) as other:
            book = Pipeline(source, other.ids, other.ledger, NothingHeld(), now=other.now, dates=IN_UTC)
            list(book.book([[Item(0, 1, rival)]], [FeedIntake(UUID(int=1), "f", open=True)]))
            assert book.totals.posted == 1

    found = take(replace(ingest, ledger=Overtaken(ingest.ledger, overtake)), source, BACK)
    assert (found.posted, found.quarantined) == (0, 1)
    assert waiting(ingest, source) == ["already-reversed"]
    assert held(ingest, source) == [(-100, None, None)]


MAPPING = """
currency = "CNY"
covers = "{}"
[columns]
account = "account"
booked_on = "date"
amount = "amount"
"""


@pytest.mark.parametrize("covers", ["parts", "whole-days"])
def test_a_repaired_row_without_an_id_is_a_posting_besides_its_equals_and_is_not_booked_again(
    ingest, source, covers
):
    rows = b"account,date,amount\nA1,2026-03-02,5.00\nA1,2026-03-02,5;00\nA1,2026-03-02,5;00\n"

    def read(mapping):
        contents = [FeedContent("f.csv", lambda: io.BytesIO(rows))]
        return ingest.run(source, contents, format="csv", mapping=mapping).findings

    assert (read(MAPPING.format(covers)).posted, len(waiting(ingest, source))) == (1, 2)
    entries = [entry.id for _, entry in ingest.archive.quarantine.page(source, "waiting", 0, 9)]
    repaired = msgspec.json.encode(Posting("A1", None, 500, "CNY", date(2026, 3, 2)))
    by_hand = replace(ingest, acting=Acting(actor="lin", reason="read from the statement"))
    for entry in entries:
        by_hand.release(entry, repaired)
    assert held(ingest, source) == [(500, None, None)] * 3
    assert read(MAPPING.format(covers) + 'teller = "date"\n').posted == 0
    assert held(ingest, source) == [(500, None, None)] * 3


@pytest.mark.parametrize("first", ["original", "reversal"])
def test_a_reversal_of_a_posting_that_is_refused_in_the_same_feed_is_not_booked(ingest, source, first):
    most = [Posting("A1", f"m{n}", 10**15, "CNY", DAY) for n in range(9)]
    take(ingest, source, *most)
    over = Posting("A1", "over", 1, "CNY", DAY)
    back = Posting("A1", "back", -1, "CNY", DAY, reverses="over")
    found = take(ingest, source, *([over, back] if first == "original" else [back, over]))
    assert (found.posted, found.quarantined) == (0, 2)
    assert sorted(waiting(ingest, source)) == ["reversal-without-original", "sum-out-of-range"]
    assert len(held(ingest, source)) == 9
