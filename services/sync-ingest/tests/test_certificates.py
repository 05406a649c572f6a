"""What a source's status says, over runs that a hostile or a careless sender could make."""

import io
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from random import Random

import msgspec
import psycopg
import pytest
from chassis.money import BALANCE_MINOR_MAX
from chassis.write.store import EVENT_BYTES_MAX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_ingest.adapters.topic import Frame, framed
from sync_ingest.domain.events import ContradictionsAcknowledged, ReconciliationCertified
from sync_ingest.domain.identities import feed_id
from sync_ingest.domain.records import ControlRecord, Posting
from sync_ingest.ledger import CATALOGUE
from sync_ingest.pipeline.planning import Limits
from sync_ingest.reporting import certificate_of, masked_number
from sync_ingest.runs.ingest import ACKNOWLEDGED_PER_EVENT_MAX
from sync_ingest.runs.ports import Acting
from sync_ingest.runs.refusals import CertificateUnknown, NothingToAcknowledge, ReasonMissing
from sync_ingest.runs.results import FeedContent

DAY = date(2026, 3, 2)
_EXAMPLES = count()


def posting(transaction, amount_minor, account="A1", day=0, **changes):
    values = {"currency": "CNY", "booked_on": DAY + timedelta(days=day)} | changes
    return Posting(account=account, core_transaction_id=transaction, amount_minor=amount_minor, **values)


def lines(*records):
    return b"".join((r if isinstance(r, bytes) else msgspec.json.encode(r)) + b"\n" for r in records)


def contents(*files):
    return [FeedContent(f"file-{at}", lambda c=c: io.BytesIO(c)) for at, c in enumerate(files)]


def take(ingest, source, *records, controls=()):
    return ingest.run(source, contents(lines(*records)), format="canonical", controls=controls)


def status(result):
    return result.findings.status, list(result.findings.reasons)


def running(*rows, account="A1", opening=0):
    """Postings with the running balance after each: (transaction, day, amount)."""
    balance, found = opening, []
    for transaction, day, amount_minor in rows:
        balance += amount_minor
        found.append(
            posting(f"{account}{transaction}", amount_minor, account, day, balance_after_minor=balance)
        )
    return found


ROWS = [("t1", 0, 100_00), ("t2", 0, -30_00), ("t3", 1, 500), ("t4", 2, -7_50), ("t5", 3, 1)]


def test_running_balances_that_agree_are_green(ingest, source):
    assert status(take(ingest, source, *running(*ROWS))) == ("GREEN", [])


def test_a_feed_that_states_nothing_to_check_is_amber(ingest, source):
    assert status(take(ingest, source, posting("t1", 5))) == ("AMBER", ["nothing-to-check-against"])
    once = take(ingest, source, *running(*ROWS, account="B"), posting("t2", 5))
    assert status(once) == ("AMBER", ["nothing-to-check-against"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"PK\x03\x04" + bytes(300),
        b"\x1f\x8b" + bytes(range(256)),
        "金额\n".encode("gb18030") * 9,
        "a;b\n".encode("utf-16"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_amber(ingest, source, content):
    take(ingest, source, *running(*ROWS))
    result = ingest.run(source, contents(content), format="canonical")
    assert status(result)[0] == "AMBER"
    assert {"quarantine-waiting", "nothing-read"} <= set(status(result)[1])
    assert ingest.latest_certificate(source).findings.status == "AMBER"


def test_every_row_quarantined_is_amber_and_a_later_good_feed_does_not_hide_it(ingest, source):
    first = take(ingest, source, b"{broken", b'{"record":"posting"}')
    assert status(first)[0] == "AMBER"
    assert status(take(ingest, source, *running(*ROWS))) == ("AMBER", ["quarantine-waiting"])


def test_a_contradiction_stays_red_through_later_good_and_empty_files_until_the_row_comes(ingest, source):
    rows = running(*ROWS)
    red = take(ingest, source, *rows[:1], *rows[2:])
    assert status(red) == ("RED", ["running-balance-differs"])
    ((problem),) = red.findings.problems
    account = ingest.ids.account(source, "A1")
    assert (problem.account_id, problem.detail, problem.found - problem.expected, problem.known) == (
        account,
        "2026-03-03",
        -3_000,
        False,
    )
    later = take(ingest, source, *running(("x1", 9, 5), account="B"))
    assert status(later) == ("RED", ["running-balance-differs"])
    assert [p.known for p in later.findings.problems] == [True]
    assert status(ingest.run(source, contents(b""), format="canonical"))[0] == "RED"
    came = take(ingest, source, rows[1])
    assert status(came) == ("AMBER", ["quarantine-waiting"]), "the empty file waits"
    assert came.findings.problems == ()


def test_an_acknowledged_contradiction_counts_no_longer_and_a_new_one_is_named_as_new(ingest, source):
    rows = running(*ROWS)
    red = take(ingest, source, *rows[:1], *rows[2:])
    with pytest.raises(ReasonMissing):
        ingest.acknowledge(red.certificate)
    ingest.acting = Acting("lee", reason="the branch confirmed a lost slip")
    certificate = ingest.acknowledge(red.certificate)
    assert (certificate.findings.status, certificate.findings.acknowledges) == ("GREEN", red.certificate)
    with pytest.raises(NothingToAcknowledge):
        ingest.acknowledge(red.certificate)
    with pytest.raises(CertificateUnknown):
        ingest.acknowledge(ingest.ids.account(source, "nobody"))
    more = running(("t6", 4, 10), account="A1", opening=1)
    assert status(take(ingest, source, *running(("x1", 9, 5), account="B"))) == ("GREEN", [])
    again = take(ingest, source, *more)
    assert [(p.known, p.detail) for p in again.findings.problems] == [(False, "2026-03-06")]
    assert again.findings.status == "RED"
    late = take(ingest, source, rows[1])
    assert [p.detail for p in late.findings.problems] == ["2026-03-06"]


def test_a_drift_that_each_row_hides_in_the_tolerance_is_red(ingest, source):
    drifting = [posting(f"t{n}", 1_000, "A1", n, balance_after_minor=(n + 1) * 1_010) for n in range(12)]
    assert status(take(ingest, source, *drifting)) == ("RED", ["running-balance-differs"])
    (problem,) = ingest.latest_certificate(source).findings.problems
    assert (problem.found, problem.account_id) == (120, ingest.ids.account(source, "A1"))


def test_an_opening_that_no_row_explains_is_named(ingest, source):
    result = take(ingest, source, *running(("t1", 0, 10), ("t2", 0, -10), opening=1_000_00))
    assert status(result) == ("RED", ["opening-missing"])
    came = take(ingest, source, posting("opening", 1_000_00, day=-1))
    assert came.findings.problems == ()


def test_a_release_inside_an_open_window_is_no_contradiction(ingest, source):
    rows = running(*ROWS)
    ingest.keep(source, contents(lines(rows[0], b"{broken"))[0], format="canonical")
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("lee", reason="the branch sent it again")
    released = ingest.release(entry.id, lines(rows[1]))
    assert released.findings.posted == 1
    assert released.findings.problems == ()
    ingest.keep(source, contents(lines(*rows[2:]))[0], format="canonical")
    (window,) = ingest.close_window(source)
    assert window.findings.problems == ()
    assert status(window)[0] == "GREEN"
    assert ingest.close_window(source) == []


# control totals

CONTROLS = [
    [ControlRecord(records=5)],
    [ControlRecord(credits_minor=10_501, debits_minor=3_750, currency="CNY")],
    [ControlRecord(account="A1", records=5, opening_minor=0, closing_minor=6_751, currency="CNY")],
    [ControlRecord(account="A1", credits_minor=10_501, debits_minor=3_750, currency="CNY")],
    [ControlRecord(account="A1", closing_minor=6_751, currency="CNY")],
    [ControlRecord(branch="B1", records=5, credits_minor=10_501, debits_minor=3_750, currency="CNY")],
]
PLAIN = [posting(t, amount, day=day, branch="B1") for t, day, amount in ROWS]


@pytest.mark.requirement("M01")
@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("beside", [False, True])
def test_control_totals_that_agree_are_green_and_one_dropped_row_is_red_until_it_comes(
    ingest, source, controls, beside
):
    def read(name, records):
        if beside:
            return take(ingest, f"{source}-{name}", *records, controls=controls)
        return take(ingest, f"{source}-{name}", *records, *controls)

    if controls[0].records is None and controls[0].credits_minor is None:
        assert status(read("whole", PLAIN)) == ("GREEN", [])
        assert status(read("whole", PLAIN)) == ("GREEN", [])
    else:
        assert status(read("whole", PLAIN)) == ("GREEN", [])
        assert status(read("whole", reversed(PLAIN))) == ("GREEN", [])
    for at in (0, 2, 4):
        rest = PLAIN[:at] + PLAIN[at + 1 :]
        red = read(f"less-{at}", rest)
        assert red.findings.status == "RED", controls
        assert {p.code for p in red.findings.problems} <= {"control-total-differs", "opening-missing"}
        place = "stated beside the feed" if beside else f"line 5 of intake {red.intakes[0]}"
        assert all(place in p.detail for p in red.findings.problems)
        if controls[0].account:
            assert {p.account_id for p in red.findings.problems} == {
                ingest.ids.account(f"{source}-less-{at}", "A1")
            }
        assert read(f"less-{at}", PLAIN).findings.problems == (), (
            "the corrected feed agrees with what it states"
        )


def test_the_missing_row_alone_resolves_the_control_total(ingest, source):
    control = ControlRecord(records=5, credits_minor=10_501, debits_minor=3_750, currency="CNY")
    take(ingest, source, *PLAIN[:2], *PLAIN[3:], control)
    assert take(ingest, source, posting("other", 3, "B")).findings.status == "RED"
    came = take(ingest, source, PLAIN[2])
    assert status(came) == ("AMBER", ["nothing-to-check-against"])


def test_a_closing_balance_is_the_ledgers_at_the_end_of_the_file_whatever_came_later(ingest, source):
    morning = [
        posting("m1", 100),
        ControlRecord(account="A1", opening_minor=0, closing_minor=100, currency="CNY"),
    ]
    noon = [
        posting("n1", 7),
        ControlRecord(account="A1", opening_minor=100, closing_minor=107, currency="CNY"),
    ]
    next_day = [posting("d1", 1, day=1), ControlRecord(account="A1", closing_minor=108, currency="CNY")]
    for feed in (morning, noon, next_day, morning, noon):
        assert status(take(ingest, source, *feed)) == ("GREEN", [])
    wrong = ControlRecord(account="A1", opening_minor=0, closing_minor=101, currency="CNY")
    assert take(ingest, source, morning[0], wrong).findings.status == "RED"


def test_a_gap_in_running_numbers_is_named_until_the_number_comes(ingest, source):
    def numbered(*numbers, **changes):
        return [posting(f"t{n}", 1, sequence_number=n, branch="B7", **changes) for n in numbers]

    assert take(ingest, source, *numbered(3, 1, 2)).findings.problems == ()
    gap = take(ingest, source, *numbered(5, 7))
    assert gap.findings.status == "RED"
    assert [(p.code, p.expected, p.found) for p in gap.findings.problems] == [
        ("running-number-gap", 4, 4),
        ("running-number-gap", 6, 6),
    ]
    assert {p.account_id for p in gap.findings.problems} == {ingest.ids.account(source, "A1")}
    assert [p.expected for p in take(ingest, source, *numbered(4)).findings.problems] == [6]
    assert take(ingest, source, *numbered(6)).findings.problems == ()
    branch = take(ingest, f"{source}-b", *numbered(1, 2, 4, numbered_by="branch"))
    assert [p.detail for p in branch.findings.problems] == ["branch B7: number 3 missing"]
    stated = ControlRecord(account="A1", first_number=1, last_number=4)
    ends = take(ingest, f"{source}-c", *numbered(2, 3), stated)
    assert [p.detail for p in ends.findings.problems] == ["number 1 missing", "number 4 missing"]


NUMBERED = ControlRecord(account="A1", first_number=1, last_number=3)


def numbered(day, *numbers, **changes):
    """Postings with running numbers, each with an id of its own day."""
    return [posting(f"d{day}n{n}", 1, day=day, sequence_number=n, **changes) for n in numbers]


@pytest.mark.parametrize("beside", [False, True])
def test_running_numbers_that_begin_anew_each_day_hide_no_gap(ingest, source, beside):
    def day(number, *numbers):
        rows = numbered(number, *numbers)
        if beside:
            return take(ingest, source, *rows, controls=[NUMBERED])
        return take(ingest, source, *rows, NUMBERED)

    assert day(0, 1, 2, 3).findings.problems == ()
    assert day(0, 1, 2, 3).findings.problems == (), "the same postings again"
    second = day(1, 1, 3)
    assert second.findings.status == "RED"
    repeated = [p for p in second.findings.problems if p.code == "running-number-repeated"]
    assert [(p.expected, p.found, p.detail) for p in repeated] == [
        (1, 1, "number 1 used by another posting before"),
        (3, 3, "number 3 used by another posting before"),
    ]
    assert {p.account_id for p in repeated} == {ingest.ids.account(source, "A1")}
    assert [(p.expected, p.found) for p in second.findings.problems if "numbers" in p.detail] == [(3, 2)]


def test_a_source_may_say_that_its_running_numbers_begin_anew_each_day(ingest, source):
    def day(number, *numbers):
        return take(ingest, source, *numbered(number, *numbers, numbered_by="account-day"), NUMBERED)

    assert day(0, 1, 2, 3).findings.problems == ()
    gap = day(1, 1, 3)
    assert [p.detail for p in gap.findings.problems] == ["number 2 on 2026-03-03 missing"]
    assert day(1, 1, 2, 3).findings.problems == ()
    again = take(ingest, source, posting("other", 1, day=1, sequence_number=2, numbered_by="account-day"))
    assert [p.code for p in again.findings.problems] == ["running-number-repeated"]


def test_a_branch_that_no_database_can_store_is_quarantined_and_its_numbers_break_nothing(ingest, source):
    hidden = posting("t1", 5, branch="B\0", sequence_number=1, numbered_by="branch")
    stated = ControlRecord(branch="C\0", records=7, first_number=1, last_number=3)
    findings = take(ingest, source, hidden, stated, posting("t2", 7)).findings
    assert (findings.posted, findings.quarantined) == (1, 1)
    assert findings.status == "RED"
    assert all(problem.detail and problem.detail.isprintable() for problem in findings.problems)


def test_a_number_that_two_postings_have_is_red_whoever_brings_them(ingest, source):
    branch = {"branch": "B7", "numbered_by": "branch"}
    rows = [
        posting("t1", 1, "A", sequence_number=1, **branch),
        posting("t2", 1, "B", sequence_number=1, **branch),
    ]
    once = take(ingest, source, *rows)
    assert [p.detail for p in once.findings.problems] == [
        "branch B7: number 1 used by another posting before"
    ]
    ingest.keep(f"{source}-w", contents(lines(rows[0]))[0], format="canonical")
    ingest.keep(f"{source}-w", contents(lines(rows[1]))[0], format="canonical")
    (window,) = ingest.close_window(f"{source}-w")
    assert [p.code for p in window.findings.problems] == ["running-number-repeated"]
    ingest.acting = Acting("lee", reason="the branch printed it twice")
    ingest.acknowledge(window.certificate)
    again = take(ingest, f"{source}-w", *rows)
    assert again.findings.problems == ()


@pytest.mark.parametrize("at", ["after-intake", "after-append", "before-certificate", "certified"])
def test_a_crash_makes_no_number_look_repeated(ingest, source, at):
    if at == "certified":
        certify, ingest.archive.certificates.certify = ingest.archive.certificates.certify, None
        with pytest.raises(TypeError):
            take(ingest, source, *numbered(0, 1, 2, 3))
        ingest.archive.certificates.certify = certify
    else:
        crashing(ingest, at, lambda: take(ingest, source, *numbered(0, 1, 2, 3)))
    assert take(ingest, source, *numbered(0, 4)).findings.problems == ()
    assert take(ingest, source, *numbered(0, 1, 2, 3)).findings.problems == ()
    assert take(ingest, source, *numbered(1, 4)).findings.status == "RED"


def test_a_row_with_a_number_that_waited_and_is_released_is_no_repeat(ingest, source):
    take(ingest, source, *numbered(0, 1), *numbered(40_000, 2))
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("lee", reason="the day was wrong")
    assert ingest.release(entry.id, lines(*numbered(0, 2))).findings.problems == ()


def test_a_file_that_holds_numbers_beyond_those_it_states_is_red(ingest, source):
    found = take(ingest, source, *numbered(0, 1, 2, 3, 4), NUMBERED).findings.problems
    assert [(p.code, p.expected, p.found) for p in found] == [("control-total-differs", 3, 4)]


def test_another_day_that_states_the_same_figures_resolves_nothing(ingest, source):
    stated, day = ControlRecord(records=2), [posting(f"t{n}", 1) for n in (1, 2)]
    assert take(ingest, source, day[0], stated).findings.status == "RED"
    good = take(ingest, source, posting("t3", 1, day=1), posting("t4", 1, day=1), stated)
    assert status(good) == ("RED", ["control-total-differs"])
    ingest.acting = Acting("lee", reason="a lost slip")
    assert ingest.acknowledge(good.certificate).findings.status == "GREEN"
    assert take(ingest, source, posting("t5", 1, day=2), stated).findings.status == "RED", "another loss"
    assert status(take(ingest, source, posting("t5", 1, day=2), posting("t6", 1, day=2), stated)) == (
        "GREEN",
        [],
    )


@pytest.mark.parametrize("lost", [[], [b"{broken", b"{broken"]])
def test_what_a_file_without_a_readable_row_states_is_resolved_by_no_other_day(ingest, source, lost):
    stated = ControlRecord(records=2, credits_minor=2, debits_minor=0, currency="CNY")
    assert take(ingest, source, *lost, stated).findings.status == "RED"
    good = take(ingest, source, *(posting(f"t{n}", 1, day=1) for n in (1, 2)), stated)
    assert good.findings.status == "RED"
    ingest.acting = Acting("lee", reason="the branch sent nothing on that day")
    assert ingest.acknowledge(good.certificate).findings.problems == ()


def test_the_same_bytes_under_a_mapping_that_reads_them_resolve_what_they_state(ingest, source):
    def mapping(day):
        columns = f'[columns]\nbooked_on = "{day}"\namount = "amount"\n'
        return f'currency = "CNY"\naccount = "A1"\ncovers = "whole-days"\n{columns}'

    file = b"day,amount\n2026-03-02,5.00\n2026-03-02,7.00\n"
    stated = ControlRecord(records=2, credits_minor=1_200, debits_minor=0, currency="CNY")

    def read(day):
        return ingest.run(source, contents(file), format="csv", mapping=mapping(day), controls=[stated])

    assert read("amount").findings.status == "RED"
    assert status(read("day")) == ("GREEN", [])


def test_the_released_row_of_a_file_without_another_one_resolves_what_it_states(ingest, source):
    stated = ControlRecord(records=1, credits_minor=5, debits_minor=0, currency="CNY")
    assert take(ingest, source, b"{broken", stated).findings.status == "RED"
    assert take(ingest, source, posting("t9", 5, day=1)).findings.status == "RED", (
        "another row of that amount"
    )
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("lee", reason="read from the printed slip")
    assert ingest.release(entry.id, lines(posting("t1", 5))).findings.problems == ()


def test_a_row_of_another_day_is_not_the_one_that_a_control_total_lacks(ingest, source):
    stated = ControlRecord(records=3, credits_minor=3, debits_minor=0, currency="CNY")
    day = [posting(f"t{n}", 1) for n in (1, 2, 3)]
    assert take(ingest, source, *day[:2], stated).findings.status == "RED"
    assert take(ingest, source, posting("t4", 1, day=1)).findings.status == "RED"
    assert take(ingest, source, day[2]).findings.problems == ()


A1 = {"account": "A1", "currency": "CNY"}


@pytest.mark.parametrize(
    ("checks", "stated"),
    [
        (True, [ControlRecord(records=1)]),
        (True, [ControlRecord(account="A1", records=1)]),
        (True, [ControlRecord(credits_minor=5, debits_minor=0, currency="CNY")]),
        (True, [ControlRecord(credits_minor=5, **A1), ControlRecord(debits_minor=0, **A1)]),
        (True, [ControlRecord(opening_minor=0, closing_minor=5, **A1)]),
        (True, [ControlRecord(closing_minor=5, **A1)]),
        (True, [ControlRecord(opening_minor=0, closing_minor=5, currency="CNY")]),
        (True, [ControlRecord(account="A1", first_number=1, last_number=1)]),
        (True, [ControlRecord(branch="B1", credits_minor=5, debits_minor=0, currency="CNY")]),
        (False, [ControlRecord(credits_minor=5, currency="CNY")]),
        (False, [ControlRecord(debits_minor=0, currency="CNY")]),
        (False, [ControlRecord(credits_minor=5, **A1)]),
        (False, [ControlRecord(debits_minor=0, **A1)]),
        (False, [ControlRecord(opening_minor=0, **A1)]),
        (False, [ControlRecord(account="A1", first_number=1)]),
        (False, [ControlRecord(account="A1", last_number=1)]),
        (False, [ControlRecord(branch="B1", credits_minor=5, currency="CNY")]),
        (False, [ControlRecord(branch="B1", debits_minor=0, currency="USD")]),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_control_total_checks_postings_where_one_that_is_lost_would_be_seen(
    ingest, source, checks, stated, beside
):
    row = posting("t1", 5, sequence_number=1, branch="B1")
    given = take(ingest, source, row, controls=stated) if beside else take(ingest, source, row, *stated)
    assert status(given) == (("GREEN", []) if checks else ("AMBER", ["nothing-to-check-against"]))


def test_running_numbers_check_no_posting_without_one(ingest, source):
    stated = ControlRecord(account="A1", first_number=1, last_number=1)
    rows = posting("t1", 5, sequence_number=1), posting("t2", 5)
    assert status(take(ingest, source, *rows, stated)) == ("AMBER", ["nothing-to-check-against"])


def test_an_earlier_balance_says_nothing_of_later_postings_without_one(ingest, source):
    assert status(take(ingest, source, *running(*ROWS))) == ("GREEN", [])
    silent = [posting("s1", 5, day=3), posting("s2", 5, day=4)]
    assert status(take(ingest, source, *silent)) == ("AMBER", ["nothing-to-check-against"])
    printing = posting("s3", 1, day=4, balance_after_minor=6_751 + 11)
    assert status(take(ingest, source, printing)) == ("GREEN", [])
    assert status(take(ingest, source, *silent)) == ("GREEN", []), "a later balance counts them"


@pytest.mark.parametrize(
    "stated",
    [
        ControlRecord(account="A1", credits_minor=5, debits_minor=0, currency="CNY"),
        ControlRecord(account="A1", closing_minor=5, currency="CNY"),
    ],
)
def test_a_control_total_of_one_currency_says_nothing_of_another(ingest, source, stated):
    rows = [posting("t1", 5), posting("t2", 7, currency="USD")]
    assert status(take(ingest, source, *rows, stated)) == ("AMBER", ["nothing-to-check-against"])
    assert status(take(ingest, f"{source}-2", rows[0], stated)) == ("GREEN", [])


def test_an_opening_balance_alone_checks_no_posting(ingest, source):
    stated = ControlRecord(account="A1", opening_minor=0, currency="CNY")
    assert status(take(ingest, source, posting("t1", 5), stated)) == ("AMBER", ["nothing-to-check-against"])


def test_a_dismissal_after_a_certificate_that_was_stored_and_not_listed_lists_it_and_follows_it(
    ingest, source, postgres_url
):
    take(ingest, source, b"{broken", b"{also broken", b"{broken, too")
    entries = [entry for _, entry in ingest.archive.quarantine.page(source, "waiting", 0, 200)]
    ingest.acting = Acting(actor="wang", reason="a test line of the source")
    ingest.dismiss(entries[0].id)
    unlisted = ingest.latest_certificate(source)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("delete from ingest.certificates where id = %s", [unlisted.id])
    ingest.dismiss(entries[1].id)
    listed = ingest.certificates(source, None, 10)
    assert unlisted.id in [each.id for each in listed]
    assert listed[0].id != unlisted.id
    ingest.dismiss(entries[2].id)
    assert "quarantine-waiting" not in ingest.latest_certificate(source).findings.reasons


def test_what_is_dismissed_waits_in_no_later_certificate(ingest, source):
    take(ingest, source, *running(*ROWS), b"{broken")
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("lee", reason="not a posting")
    ingest.dismiss(entry.id)
    found = ingest.latest_certificate(source).findings
    assert (found.status, found.reasons) == ("GREEN", ())


# the verdict does not depend on the order of arrival


@pytest.mark.requirement("M01")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.booleans())
def test_shuffled_split_and_sent_again_gives_the_same_verdict(ingest, source, seed, complete):
    chance, source = Random(seed), f"{source}-{next(_EXAMPLES)}"
    rows = [
        row
        for account in ("A1", "B2")
        for row in running(
            *((f"t{n}", n // 4, chance.choice([-50, 20, 30, 700])) for n in range(14)), account=account
        )
    ]
    if not complete:
        del rows[chance.randrange(len(rows) - 1)]
    rows = [
        msgspec.structs.replace(row, balance_after_minor=None)
        if chance.random() < 0.1 and row.booked_on < rows[-1].booked_on
        else row
        for row in rows
    ]
    name = f"{source}-{seed}-{complete}"
    wanted = take(ingest, f"{name}-ordered", *rows)
    if complete:
        assert wanted.findings.status == "GREEN"

    def verdict(result):
        found = result.findings
        problems = Counter((p.code, p.expected, p.found, p.detail) for p in found.problems)
        return status(result), found.printed, problems

    shuffled = rows * 1
    chance.shuffle(shuffled)
    assert verdict(take(ingest, f"{name}-shuffled", *shuffled)) == verdict(wanted)
    cuts, kept = sorted(chance.sample(range(1, len(rows)), 3)), f"{name}-kept"
    for at, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        take(ingest, f"{name}-split", *shuffled[at:end], *shuffled[: chance.randrange(3)])
    assert verdict(take(ingest, f"{name}-split", *shuffled)) == verdict(wanted)
    for at, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        ingest.keep(kept, contents(lines(*shuffled[at:end]))[0], format="canonical")
    (window,) = ingest.close_window(kept)
    assert verdict(window) == verdict(wanted)


def test_a_window_reads_the_rows_it_brought_however_long_the_history_is(ingest, source):
    movements, read = ingest.ledger.movements, []

    def counted(after):
        for row in movements(after):
            read.append(row)
            yield row

    ingest.ledger.movements = counted
    rows = running(*((f"t{n}", n, 10 + n) for n in range(200)))
    per_window = []
    for at in range(0, 200, 20):
        read.clear()
        assert take(ingest, source, *rows[at : at + 20]).findings.status == "GREEN"
        per_window.append(len(read))
    assert per_window == [20] * 10
    read.clear()
    take(ingest, source, *rows[:20])
    assert read == []


def test_what_a_crash_left_between_append_and_fold_is_folded_by_the_next_run(ingest, source):
    rows = running(*ROWS)
    fold, broken = ingest.archive.totals.fold, []

    def breaking(*given):
        broken.append(given)
        raise KeyboardInterrupt

    ingest.archive.totals.fold = breaking
    with pytest.raises(KeyboardInterrupt):
        take(ingest, source, *rows[:3])
    ingest.archive.totals.fold = fold
    assert broken
    assert status(take(ingest, source, *rows[3:])) == ("GREEN", [])
    assert status(take(ingest, source, *rows)) == ("GREEN", [])


def test_totals_that_are_lost_are_folded_again_from_the_events(ingest, source, postgres_url):
    rows = running(*ROWS)
    take(ingest, source, *rows[:3])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for table in ("account_totals", "account_days"):
            connection.execute(
                f"delete from ingest.{table} where account = %s", (ingest.ids.account(source, "A1"),)
            )
    result = take(ingest, source, *rows[3:])
    assert status(result) == ("GREEN", [])
    assert result.findings.lines[0].opening_minor == 7_500


# limits


@pytest.mark.parametrize("amount_minor", [2**31 - 1, 2**31, 2**53 // 16, 10**15])
def test_large_amounts_are_certified_and_read_back(ingest, source, amount_minor):
    control = ControlRecord(records=2, credits_minor=2 * amount_minor, debits_minor=0, currency="CNY")
    result = take(ingest, source, posting("t1", amount_minor), posting("t2", amount_minor), control)
    assert status(result) == ("GREEN", [])
    shown = certificate_of(ingest.latest_certificate(source), {})
    assert (shown["credits_minor"], shown["totals"][0]["closing_minor"]) == (
        2 * amount_minor,
        2 * amount_minor,
    )


def test_a_balance_beyond_the_limit_is_refused_before_anything_is_stored(ingest, source):
    most = [posting(f"t{n}", 10**15) for n in range(9)]
    assert BALANCE_MINOR_MAX == 9 * 10**15
    assert take(ingest, source, *most).findings.posted == 9
    head = ingest.ledger.head_position()
    over = take(ingest, source, posting("over", 1))
    assert (over.findings.posted, over.findings.quarantined) == (0, 1)
    assert ingest.ledger.head_position() == head + 3, "the intake, the entry and the certificate"
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    assert entry.reason == "sum-out-of-range"
    assert take(ingest, source, posting("back", -5), posting("again", 5)).findings.posted == 2


def test_a_limit_holds_over_batches_in_flight_and_intakes_of_one_window(ingest, source):
    many = [posting(f"t{n}", 10**15, f"A{n % 2}") for n in range(9_000)]
    assert take(ingest, source, *many).findings.posted == 18
    for part in range(4):
        ingest.keep(
            f"{source}-w",
            contents(lines(*(posting(f"{part}-{n}", 10**15) for n in range(4))))[0],
            format="canonical",
        )
    (window,) = ingest.close_window(f"{source}-w")
    assert (window.findings.posted, window.findings.quarantined) == (9, 7)
    assert window.findings.problems == ()


def test_a_duplicate_at_the_limit_is_a_duplicate_and_not_refused(ingest, source):
    most = lines(*(posting(None, 10**15, day=n) for n in range(9)))
    found = ingest.run(source, contents(most, most, most), format="canonical").findings
    assert (found.posted, found.duplicates, found.quarantined) == (9, 18, 0)


def test_a_turnover_counts_what_is_stored_once_whatever_was_planned_and_not_stored(ingest, source):
    def back_and_forth(name, pairs):
        rows = [(f"{name}{n}{sign}", sign * 10**15) for n in range(pairs) for sign in (1, -1)]
        return lines(*(posting(transaction, amount) for transaction, amount in rows))

    first, more, over = (
        back_and_forth(name, pairs) for name, pairs in (("a", 2_000), ("b", 2_500), ("c", 1))
    )
    found = ingest.run(source, contents(first, first, more, first), format="canonical").findings
    assert (found.posted, found.duplicates, found.quarantined) == (9_000, 8_000, 0)
    found = ingest.run(source, contents(more, over), format="canonical").findings
    assert (found.posted, found.duplicates, found.quarantined) == (0, 5_000, 2)


def test_a_turnover_is_accepted_up_to_its_limit_and_refused_one_minor_unit_beyond_it(ingest, source):
    assert Limits().turnover_minor == 9 * 10**18 < 2**63
    there_and_back = [posting(f"t{n}", (-1) ** n * 10**15) for n in range(9_000)]
    control = ControlRecord(
        records=9_000, credits_minor=45 * 10**17, debits_minor=45 * 10**17, currency="CNY"
    )
    most = take(ingest, source, *there_and_back, control)
    assert status(most) == ("GREEN", [])
    assert most.findings.posted == 9_000
    head = ingest.ledger.head_position()
    over = take(ingest, source, posting("over", -1))
    assert (over.findings.posted, over.findings.quarantined, over.findings.status) == (0, 1, "AMBER")
    assert ingest.ledger.head_position() == head + 3, "the intake, the entry and the certificate"
    assert reasons(ingest, source) == ["sum-out-of-range"]
    other = take(ingest, source, posting("other", 1, "B"))
    assert other.findings.posted == 0, "the accounts of a source are summed"
    assert take(ingest, source, posting("dollars", 1, currency="USD")).findings.posted == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_balance_is_accepted_up_to_its_limit_on_either_side_of_zero(ingest, source, sign):
    rows = running(*((f"t{n}", n, sign * 10**15) for n in range(9)))
    assert rows[-1].balance_after_minor == sign * BALANCE_MINOR_MAX == sign * 9 * 10**15 < 2**53
    result = take(ingest, source, *rows)
    assert status(result) == ("GREEN", [])
    assert result.findings.lines[0].closing_minor == sign * BALANCE_MINOR_MAX
    over = take(ingest, source, posting("over", sign, day=9))
    assert (over.findings.posted, over.findings.quarantined, status(over)[0]) == (0, 1, "AMBER")
    assert reasons(ingest, source) == ["sum-out-of-range"]


def test_a_control_record_beyond_the_bound_of_its_file_is_quarantined_and_the_source_is_amber(ingest, source):
    ingest.settings = replace(ingest.settings, controls_per_file_max=2)
    good = [ControlRecord(account=name, records=5) for name in "AB"]
    rows = [row for name in "AB" for row in running(*ROWS, account=name)]
    assert status(take(ingest, source, *rows, *good)) == ("GREEN", [])
    wrong = ControlRecord(records=999)
    over = take(ingest, source, *rows, *good, wrong)
    assert status(over) == ("AMBER", ["quarantine-waiting"])
    assert (over.findings.duplicates, over.findings.quarantined) == (10, 1)
    assert reasons(ingest, source) == ["control-records-too-many"]
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    assert (entry.line, entry.kind) == (13, "control")
    assert status(take(ingest, source, *rows, *good, wrong)) == ("AMBER", ["quarantine-waiting"])
    assert len(reasons(ingest, source)) == 1, "the same bytes again are the same entry"


def reasons(ingest, source):
    """The reasons of what waits in quarantine."""
    return [entry.reason for _, entry in ingest.archive.quarantine.page(source, "waiting", 0, 9)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("amount_minor", [10**15 + 1, 2**53 - 1, 2**53, 2**53 + 1, 2**63, 10**30])
def test_an_amount_beyond_the_limit_is_refused_before_anything_is_stored(ingest, source, amount_minor, sign):
    take(ingest, source, *running(*ROWS))
    head = ingest.ledger.head_position()
    result = take(ingest, source, lines(posting("over", sign * amount_minor)).rstrip())
    assert (result.findings.posted, status(result)[0]) == (0, "AMBER")
    assert reasons(ingest, source) == ["amount-malformed"]
    assert ingest.ledger.head_position() == head + 3, "the intake, the entry and the certificate"


@pytest.mark.parametrize("amount_minor", [10**15 + 1, 2**53 - 1, 2**53, 2**53 + 1])
def test_an_amount_beyond_the_limit_is_refused_in_a_delimited_file_as_well(ingest, source, amount_minor):
    mapping = """currency = "CNY"
account = "A1"
[columns]
booked_on = "date"
amount = "amount"
balance_after = "balance"
"""
    whole, cents = divmod(amount_minor, 100)
    file = f"date,amount,balance\n2026-03-02,5.00,5.00\n2026-03-02,{whole}.{cents:02d},5.00\n".encode()
    result = ingest.run(source, contents(file), format="csv", mapping=mapping)
    assert (result.findings.posted, result.findings.quarantined) == (1, 1)
    assert status(result) == ("AMBER", ["quarantine-waiting"])
    assert reasons(ingest, source) == ["amount-out-of-range"]


def test_an_account_number_is_masked():
    assert masked_number("6222021234566789") == "622202******6789"
    assert masked_number("12345") == "****5"
    assert masked_number("7") == "*"
    assert "1234" not in masked_number("123456789012")[6:]


def test_a_source_has_a_schedule(ingest, source):
    take(ingest, source, *running(*ROWS))
    assert ingest.expected_every_seconds(source) == 24 * 60 * 60
    ingest.schedule(source, 3_600)
    assert ingest.expected_every_seconds(source) == 3_600
    assert ingest.latest_certificate(source).certified_at <= datetime.now(UTC)


def test_control_totals_that_differ_only_in_one_currency_name_it(ingest, source):
    rows = [posting("t1", 5), posting("t2", 7, currency="USD")]
    stated = [ControlRecord(credits_minor=5, currency="CNY"), ControlRecord(credits_minor=8, currency="USD")]
    result = take(ingest, source, *rows, *stated)
    assert [(p.currency, p.expected, p.found) for p in result.findings.problems] == [("USD", 8, 7)]


def feed_events(ingest, source, kind):
    """The events of a kind on the source's stream, in order."""
    recorded = CATALOGUE.open_all(ingest.ledger._recorder.read_stream(feed_id(source)), {})
    return [each.event for each in recorded if isinstance(each.event, kind)]


def test_neither_an_acknowledgement_nor_a_repair_makes_a_source_look_heard_of(ingest, source):
    rows = running(*ROWS)
    red = take(ingest, source, *rows[:1], *rows[2:], b"{broken")
    [sent] = feed_events(ingest, source, ReconciliationCertified)
    assert sent.received_at is not None
    ingest.acting = Acting("lee", reason="the branch confirmed a lost slip")
    ingest.acknowledge(red.certificate)
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.release(entry.id, lines(posting("t9", 5, "B")))
    certified = feed_events(ingest, source, ReconciliationCertified)
    assert [each.received_at for each in certified] == [sent.received_at] * 3
    take(ingest, source, rows[1])
    assert feed_events(ingest, source, ReconciliationCertified)[-1].received_at > sent.received_at


def test_a_repair_does_not_change_how_often_a_stream_is_expected(ingest, source):
    ingest.keep(source, contents(framed([Frame(0, 0, b"{broken")]))[0], format="topic")
    ingest.close_window(source)
    assert ingest.expected_every_seconds(source) == 15 * 60
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("lee", reason="the branch sent it again")
    ingest.release(entry.id, lines(posting("t9", 5, "B")))
    assert ingest.expected_every_seconds(source) == 15 * 60


CONTRADICTIONS = 20_000


def test_twenty_thousand_contradictions_are_acknowledged_at_once_by_events_within_their_limit(ingest, source):
    """Each account has an opening balance that no row explains."""
    rows = [posting(f"t{n}", 5, f"A{n}", balance_after_minor=1_005) for n in range(CONTRADICTIONS)]
    red = take(ingest, source, *rows)
    assert (red.findings.status, red.findings.problems_total) == ("RED", CONTRADICTIONS)
    later = take(ingest, source, posting("later", 5, "L", balance_after_minor=1_005))
    ingest.acting = Acting("lee", reason="opening balances come with the next load")
    certificate = ingest.acknowledge(red.certificate)
    said = feed_events(ingest, source, ContradictionsAcknowledged)
    assert sum(len(each.contradictions) for each in said) == CONTRADICTIONS
    assert len(said) == CONTRADICTIONS // ACKNOWLEDGED_PER_EVENT_MAX
    assert max(len(msgspec.json.encode(each)) for each in said) < EVENT_BYTES_MAX // 2
    assert (certificate.findings.status, certificate.findings.problems_total) == ("RED", 1)
    assert ingest.acknowledge(later.certificate).findings.problems_total == 0


def test_some_of_the_contradictions_of_a_certificate_are_acknowledged(ingest, source):
    red = take(ingest, source, *(posting(f"t{n}", 5, f"A{n}", balance_after_minor=1_005) for n in range(3)))
    ingest.acting = Acting("lee", reason="the branch knows")
    first = red.findings.problems[0].contradiction
    certificate = ingest.acknowledge(red.certificate, [first])
    assert certificate.findings.problems_total == 2
    with pytest.raises(NothingToAcknowledge):
        ingest.acknowledge(red.certificate, [first])


# control totals beside a batch, and a crash before they are checked


class Crashed(BaseException):
    """The process is gone."""


def crashing(ingest, at, call):
    """Dies at the given point of a run; the next one goes on."""

    def reached(point):
        if point == at:
            raise Crashed

    ingest.reached = reached
    with pytest.raises(Crashed):
        call()
    ingest.reached = lambda _: None


CRASH_POINTS = ["after-intake", "after-append", "before-certificate"]
LOST = ControlRecord(records=2)


@pytest.mark.requirement("M01")
@pytest.mark.parametrize("at", CRASH_POINTS)
@pytest.mark.parametrize("finisher", ["another feed", "the window", "a dismissal", "the same file alone"])
def test_totals_beside_a_batch_are_checked_by_whoever_finishes_it_after_a_crash(ingest, source, at, finisher):
    take(ingest, source, b"{broken", *running(*ROWS, account="B"))
    crashing(ingest, at, lambda: take(ingest, source, posting("t1", 1), controls=[LOST]))
    match finisher:
        case "another feed":
            take(ingest, source, *running(("x1", 9, 5), account="B", opening=6_751))
        case "the window":
            ingest.close_window(source)
        case "a dismissal":
            ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 9)
            ingest.acting = Acting("lee", reason="not a posting")
            ingest.dismiss(entry.id)
        case _:
            take(ingest, source, posting("t1", 1))
    found = ingest.latest_certificate(source).findings
    assert found.status == "RED"
    assert [(p.code, p.expected, p.found) for p in found.problems] == [("control-total-differs", 2, 1)]
    assert ingest.archive.intakes.statements(source) == []


def test_totals_beside_a_batch_are_checked_where_it_comes_again_after_a_crash(ingest, source):
    whole = [posting("t1", 1), posting("t2", 1)]
    for at in CRASH_POINTS:
        crashing(ingest, at, lambda: take(ingest, source, *whole, controls=[LOST]))
    assert status(take(ingest, source, *whole, controls=[LOST])) == ("GREEN", [])
    assert ingest.archive.intakes.statements(source) == []


def test_a_batch_that_was_cut_short_between_two_files_is_red_until_it_comes(ingest, source):
    files = contents(lines(posting("t1", 1)), lines(posting("t2", 1)))

    def gone():
        raise Crashed

    with pytest.raises(Crashed):
        ingest.run(source, [files[0], FeedContent("f", gone)], format="canonical", controls=[LOST])
    assert take(ingest, source, posting("x1", 1, "B", balance_after_minor=1)).findings.status == "RED"
    came = ingest.run(source, files, format="canonical", controls=[LOST])
    assert status(came) == ("GREEN", [])
    assert ingest.archive.intakes.statements(source) == []


def test_totals_beside_bytes_that_are_certified_already_are_checked_after_a_crash(ingest, source):
    row = posting("t1", 1, balance_after_minor=1)
    assert status(take(ingest, source, row)) == ("GREEN", [])
    crashing(ingest, "before-certificate", lambda: take(ingest, source, row, controls=[LOST]))
    assert take(ingest, source, posting("x1", 1, "B", balance_after_minor=1)).findings.status == "RED"


def test_totals_beside_a_batch_are_kept_sealed(ingest, source, postgres_url):
    stated = ControlRecord(account="6222021234566789", records=2)
    crashing(ingest, "after-intake", lambda: take(ingest, source, posting("t1", 1), controls=[stated]))
    [kept] = ingest.archive.intakes.statements(source)
    assert len(kept.intakes) == 1
    assert b"6222021234566789" not in kept.sealed
