"""Control totals and running numbers against what was read."""

from datetime import date
from random import Random
from time import process_time
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.controls.coverage import unchecked
from sync_ingest.domain.controls.differences import differences, numbers_differ
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.controls.running_numbers import NumberSeries, shared
from sync_ingest.domain.records import ControlRecord, NumberedBy, Posting, Unreadable

DAY = date(2026, 3, 2)


def posting(number, amount_minor, account="A", branch="B1", **changes):
    values = {"currency": "CNY", "booked_on": DAY, "branch": branch} | changes
    return Posting(account=account, core_transaction_id=f"t{number}", amount_minor=amount_minor, **values)


POSTINGS = (posting(1, 500), posting(2, -200), posting(3, 70, "C", "B2"), posting(4, -30, "C", "B2"))


def read(*contents):
    feed = FeedRead()
    for line, content in enumerate(contents, 1):
        feed.count(0, line, content)
    return feed


def differing(feed):
    file = feed.files[0]
    stated = [(0, line, control) for line, control in file.controls]
    return [(d.figure, d.stated, d.found, d.line) for d in differences([file], stated)]


AGREEING = (
    ControlRecord(records=4),
    ControlRecord(records=4, credits_minor=570, debits_minor=230, currency="CNY"),
    ControlRecord(account="A", records=2, credits_minor=500, debits_minor=200, currency="CNY"),
    ControlRecord(account="A", opening_minor=10, closing_minor=310, currency="CNY"),
    ControlRecord(branch="B2", records=2, credits_minor=70, debits_minor=30, currency="CNY"),
)


@pytest.mark.parametrize("control", AGREEING)
def test_a_control_total_that_agrees_is_no_difference_and_one_dropped_row_is_one(control):
    assert differing(read(*POSTINGS, control)) == []
    of_scope = POSTINGS[2:] if control.branch else POSTINGS[:2]
    for dropped in of_scope:
        rest = [each for each in POSTINGS if each is not dropped]
        assert differing(read(*rest, control)) != []


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_postings_of_a_file_counted_together_are_counted_as_one_by_one(chance: Random, many):
    postings = [
        posting(
            number,
            chance.randrange(-5, 6),
            account=chance.choice("ABC"),
            branch=chance.choice([None, "", "B1", "B2"]),
            currency=chance.choice(["CNY", "USD"]),
            booked_on=date(2026, 3, chance.randrange(1, 5)),
            balance_after_minor=chance.choice([None, 1]),
            sequence_number=chance.choice([None, number]),
            numbered_by=chance.choice(get_args(NumberedBy)),
        )
        for number in range(many)
    ]
    together, one_by_one = FeedRead(), FeedRead()
    together.count_postings(0, postings)
    one_by_one.count_postings(0, [])
    for line, each in enumerate(postings, 1):
        one_by_one.count(0, line, each)
    assert together.files == one_by_one.files
    read_of = together.files[0]
    for held in (read_of.accounts, read_of.branches):
        for (name, currency), counted in held.items():
            own = [p for p in postings if name in {p.account, p.branch} and p.currency == currency]
            assert counted.postings == len(own)
            assert counted.credits_minor - counted.debits_minor == sum(p.amount_minor for p in own)


def test_an_unreadable_row_counts_in_the_records_of_its_file():
    assert differing(read(*POSTINGS, Unreadable("json-malformed", "no", b""), ControlRecord(records=5))) == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"credits_minor": 5},
        {"records": 1, "account": "A", "branch": "B"},
        {"branch": "B", "opening_minor": 5, "currency": "CNY"},
        {"first_number": 1},
        {"records": -1},
        {"closing_minor": 10**19, "currency": "CNY"},
    ],
)
def test_a_control_record_without_its_meaning_is_refused(values):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"record": "control"} | values), type=ControlRecord)


def test_what_no_control_total_covers_is_named():
    def left(*controls):
        return unchecked(read(*POSTINGS).files[0], controls)

    assert left() == {("A", "CNY"), ("C", "CNY")}
    assert left(ControlRecord(account="A", records=2)) == {("C", "CNY")}
    assert left(ControlRecord(branch="B1", records=2)) == {("A", "CNY"), ("C", "CNY")}
    for control in AGREEING[:2]:
        assert left(control) == set()
    assert left(ControlRecord(branch="B1", records=2), ControlRecord(branch="B2", records=2)) == set()
    assert left(ControlRecord(credits_minor=1, currency="USD")) == {("A", "CNY"), ("C", "CNY")}


@given(st.sets(st.integers(0, 40)), st.integers(0, 2**32))
def test_running_numbers_leave_the_same_gaps_in_every_order(numbers, seed):
    order = [*numbers, *list(numbers)[:5]]
    Random(seed).shuffle(order)
    series = NumberSeries([])
    for number in order:
        series.add(number, number)
    missing = [number for first, last in series.gaps() for number in range(first, last + 1)]
    wanted = set(range(min(numbers), max(numbers) + 1)) - numbers if numbers else set()
    assert missing == sorted(wanted)


def test_running_numbers_are_of_an_account_or_of_a_branch():
    rows = [posting(n, 1, f"A{n % 2}", sequence_number=n, numbered_by="branch") for n in (1, 2, 3, 5)]
    assert [series.gaps() for series in read(*rows).series().values()] == [[(4, 4)]]
    rows = [posting(n, 1, f"A{n % 2}", sequence_number=n) for n in (1, 2, 4, 5)]
    assert [series.gaps() for series in read(*rows).series().values()] == [[(2, 4)], [(3, 3)]]


def test_running_numbers_may_begin_anew_each_day():
    rows = [
        posting(f"{day}-{n}", 1, sequence_number=n, numbered_by="account-day", booked_on=date(2026, 3, day))
        for day, numbers in ((1, (1, 2)), (2, (1, 3)))
        for n in numbers
    ]
    assert [series.gaps() for series in read(*rows).series().values()] == [[], [(2, 2)]]
    assert read(*rows).files[0].series.keys() == {("A", None, date(2026, 3, day)) for day in (1, 2)}


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_what_two_series_share_is_told_as_intervals(some, others):
    first, second = NumberSeries([]), NumberSeries([])
    for series, numbers in ((first, some), (second, others)):
        for number in numbers:
            series.add(number, number)
    found = [n for low, high in shared(first.intervals, second.intervals) for n in range(low, high + 1)]
    assert found == sorted(some & others)


def test_a_number_that_two_postings_of_a_feed_have_is_told():
    feed = FeedRead()
    feed.count_booked([posting(at, 1, sequence_number=n) for at, n in enumerate((1, 2, 5, 2, 6, 1))])
    assert {scope.account: numbers.intervals for scope, numbers in feed.repeated.items()} == {"A": [(1, 2)]}
    assert {scope.account: numbers.booked for scope, numbers in feed.booked.items()} == {
        "A": [(1, 2), (5, 6)]
    }


def test_totals_of_many_numbered_accounts_are_compared_each_without_a_look_at_all_others():
    """What looks at all accounts for each takes minutes of these."""
    accounts = 20_000
    feed = FeedRead()
    controls = [ControlRecord(account=f"A{n}", first_number=1, last_number=1) for n in range(accounts)]
    feed.count_postings(0, [posting(n, 1, f"A{n}", sequence_number=1) for n in range(accounts)])
    file, began = feed.files[0], process_time()
    feed.beside = controls
    series = feed.series()
    assert [d for each in controls for d in numbers_differ([file], each, series)] == []
    assert list(differences([file], [(0, 0, each) for each in controls])) == []
    assert unchecked(file, controls) == set()
    assert process_time() - began < 10
