"""Master data whose bytes were read before: nothing is described again, and what differs from what stands is told."""

import io
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from random import Random

import msgspec
import pytest
from chassis.connections.transient import StoreUnavailable
from contracts.purposes import CONTACT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_ingest.adapters.port import BATCH_RECORDS
from sync_ingest.domain.records import (
    AccountClosedRecord,
    AccountRecord,
    ControlRecord,
    HolderRecord,
    HoldersRecord,
    ListedHolder,
    PartyRecord,
    Posting,
)
from sync_ingest.domain.repeats import REPEATS_NAMED_MAX, FeedPlace, OlderRepeats, ReadAt
from sync_ingest.reporting import certificate_of
from sync_ingest.runs.ports import Acting
from sync_ingest.runs.results import FeedContent

from .test_partial_sums import InOrder, account_id

DAY = date(2026, 3, 2)
OLDER = "repeats-older-master-data"
_EXAMPLES = count()


def lines(*records):
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def run(ingest, source, *contents, format="canonical"):
    files = [FeedContent(f"file-{at}", lambda c=c: io.BytesIO(c)) for at, c in enumerate(contents)]
    return ingest.run(source, files, format=format)


def told(result):
    findings = result.findings
    assert (OLDER in findings.reasons) == (findings.repeats_older > 0) == bool(findings.repeats_older_at)
    assert findings.status == ("AMBER" if findings.reasons else "GREEN")
    return findings.repeats_older


def places(result):
    return [place.line for place in result.findings.repeats_older_at]


def listed(*parties, **days):
    return HoldersRecord(
        account="A1", holders=tuple(ListedHolder(party, "owner") for party in parties), **days
    )


CHECKED = Posting(
    account="A1",
    core_transaction_id="t1",
    amount_minor=5,
    currency="CNY",
    booked_on=DAY,
    balance_after_minor=5,
)
ONE = lines(AccountRecord(account="A1", opened_on=DAY), CHECKED, listed("P1"))
BOTH = lines(listed("P1", "P2"), CHECKED)


def test_a_list_of_holders_in_bytes_that_were_read_before_is_told_where_it_would_change_a_right(
    ingest, source
):
    assert told(run(ingest, source, ONE)) == told(run(ingest, source, BOTH)) == 0
    events = ingest.ledger.head_position()
    again = run(ingest, source, ONE)
    assert (again.findings.status, again.findings.reasons) == ("AMBER", (OLDER,))
    (intake,) = again.intakes
    assert (told(again), again.findings.repeats_older_at) == (1, (FeedPlace(intake, 3),))
    assert ingest.ledger.head_position() == events + 1, "a certificate, and no right"
    shown = certificate_of(ingest.latest_certificate(source), {})
    assert (shown["status"], shown["reasons"], shown["repeats_older"]) == ("AMBER", [OLDER], 1)
    assert shown["repeats_older_at"] == [{"intake": str(intake), "line": 3}]


def test_a_folder_that_is_read_again_and_a_file_that_is_sent_twice_are_green(ingest, source):
    assert run(ingest, source, ONE, BOTH).findings.status == "GREEN"
    for again in ([ONE, BOTH], [BOTH], [BOTH], [ONE, ONE, BOTH], [ONE, BOTH, BOTH]):
        assert run(ingest, source, *again).findings.status == "GREEN", again
    assert told(run(ingest, source, ONE)) == 1
    assert run(ingest, source, ONE, BOTH).findings.status == "GREEN"
    assert ingest.latest_certificate(source).findings.status == "GREEN"


def test_the_same_file_thrice_in_one_run_is_told_where_another_came_between(ingest, source):
    assert told(run(ingest, source, ONE, BOTH, ONE)) == 1


def test_a_file_of_the_same_run_that_says_it_anew_takes_the_older_one_back(ingest, source):
    run(ingest, source, ONE, BOTH)
    third = lines(listed("P1", "P2", "P3"), CHECKED)
    assert told(run(ingest, source, ONE, third)) == 0
    assert told(run(ingest, source, lines(listed("P4")), third)) == 4, "P4 would leave, and three come back"


def test_a_list_that_names_its_day_says_nothing_of_a_later_one(ingest, source):
    first = lines(listed("P1", listed_on=DAY - timedelta(days=1)))
    run(ingest, source, first)
    run(ingest, source, lines(listed("P1", "P2", listed_on=DAY)))
    assert told(run(ingest, source, first)) == 0
    run(ingest, source, lines(listed("P1", listed_on=DAY + timedelta(days=1))))
    assert told(run(ingest, source, first)) == 0


def test_each_party_that_a_file_names_is_compared_by_itself(ingest, source):
    """The last record of the account agrees, and the one before names somebody whose right has ended."""
    ada, bo = (HolderRecord(account="A1", party=party, role="owner") for party in ("ada", "bo"))
    first = lines(ada, bo)
    run(ingest, source, first)
    run(ingest, source, lines(msgspec.structs.replace(ada, held_until=DAY)))
    again = run(ingest, source, first)
    assert (told(again), places(again)) == (1, [1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PartyRecord(party="P1", phone="13800001111"), PartyRecord(party="P1", phone="13900002222")),
        (
            AccountClosedRecord(account="A1", closed_on=None),
            AccountClosedRecord(account="A1", closed_on=DAY),
        ),
        (AccountRecord(account="A1", opened_on=DAY), AccountRecord(account="A1", opened_on=DAY, name="工资")),
    ],
)
def test_what_goes_back_to_its_former_value_in_the_same_bytes_is_told(ingest, source, first, second):
    run(ingest, source, lines(first))
    run(ingest, source, lines(second))
    again = run(ingest, source, lines(first))
    assert (told(again), places(again)) == (1, [1])
    assert told(run(ingest, source, lines(first, first))) == 0, "other bytes say it anew"
    assert told(run(ingest, source, lines(first))) == 0
    assert told(run(ingest, source, lines(second))) == 1


def test_tables_of_a_bank_are_told_too(ingest, source):
    def clients(*born):
        rows = [f"{at};{number};1\r\n" for at, number in enumerate(born, 1)]
        return "".join(["client_id;birth_number;district_id\r\n", *rows]).encode()

    first, second = clients("450204", "450304"), clients("450204", "460304")
    for content in (first, second):
        assert told(run(ingest, source, content, format="berka")) == 0
    again = run(ingest, source, first, format="berka")
    assert (told(again), places(again)) == (1, [3])
    assert told(run(ingest, source, first, second, format="berka")) == 0


def test_all_tables_of_a_bank_that_are_read_again_tell_nothing(ingest, source, printed_bank):
    tables = [
        content
        for name, content in printed_bank.tables.items()
        if name not in (printed_bank.czech, printed_bank.english)
    ]
    first = run(ingest, source, *tables, format="berka")
    again = run(ingest, source, *tables[::-1], format="berka")
    assert told(again) == 0
    assert again.findings.master_records == first.findings.master_records == sum(printed_bank.master.values())


def test_what_was_told_stays_in_the_certificate_of_an_acknowledgement(ingest, source):
    run(ingest, source, ONE, BOTH)
    wrong = msgspec.structs.replace(CHECKED, core_transaction_id="t2", balance_after_minor=77)
    run(ingest, source, lines(wrong))
    red = run(ingest, source, ONE)
    assert (red.findings.status, red.findings.reasons) == ("RED", ("running-balance-differs", OLDER))
    ingest.acting = Acting("lee", reason="the branch confirmed it")
    found = ingest.acknowledge(red.certificate).findings
    assert (found.status, found.reasons, found.repeats_older) == ("AMBER", (OLDER,), 1)
    assert found.repeats_older_at == red.findings.repeats_older_at


def test_a_party_that_was_erased_has_nothing_to_differ_from(ingest, source):
    first = lines(PartyRecord(party="P1", phone="13800001111"))
    run(ingest, source, first)
    run(ingest, source, lines(PartyRecord(party="P1", phone="13900002222")))
    ingest.ledger._keys.erase([ingest.ids.party(source, "P1")])
    assert told(run(ingest, source, first)) == 0


@pytest.mark.requirement("M22")
@pytest.mark.parametrize("purpose", [None, CONTACT])
def test_what_is_remembered_of_a_party_that_was_erased_does_not_tell_what_a_feed_says_of_it(
    ingest, source, purpose
):
    """A digest without a key, or under one that is left, would let its reader try all phone numbers."""
    party = ingest.ids.party(source, "P1")
    run(ingest, source, lines(PartyRecord(party="P1", name="张伟", phone="13800001111")))
    ingest.ledger._keys.erase([party], purpose)
    remembered = set()
    for phone in ("13900002222", "13900003333", "13900002222"):
        run(ingest, source, lines(PartyRecord(party="P1", name="张伟", phone=phone)))
        remembered |= set(ingest.archive.descriptions.of([party]).values())
    assert len(remembered) == 1
    assert ingest.ledger.heads([party]) == {party: 2}, "described once more, without its values"


FILES = [
    lines(*records)
    for records in (
        [listed("P1")],
        [listed("P1", "P2")],
        [listed("P2"), PartyRecord(party="P1", phone="13800001111")],
        [listed()],
        [PartyRecord(party="P1", phone="13800001111")],
        [PartyRecord(party="P1", phone="13900002222"), PartyRecord(party="P2", phone="13800001111")],
        [AccountClosedRecord(account="A1", closed_on=DAY), PartyRecord(party="P2", phone="13900002222")],
        [AccountClosedRecord(account="A1", closed_on=None), listed("P2", "P1")],
    )
]


class Model:
    """What stands, which files were read, and which subjects a run tells."""

    def __init__(self):
        self.standing, self.read = {}, set()

    def told(self, files):
        differ = set()
        for content in files:
            fresh = content not in self.read
            self.read.add(content)
            for line in content.splitlines():
                for subject, value in self._subjects(msgspec.json.decode(line)):
                    if fresh:
                        self.standing[subject] = value
                    if self.standing.get(subject) == value:
                        differ.discard(subject)
                    else:
                        differ.add(subject)
        return len(differ)

    def _subjects(self, record):
        match record["record"]:
            case "holders":
                names = {holder["party"] for holder in record["holders"]}
                known = {party for kind, party in self.standing if kind == "right"}
                return [(("right", party), party in names) for party in names | known]
            case "party":
                return [(("party", record["party"]), record["phone"])]
            case _:
                return [(("closed", record["account"]), record["closed_on"])]


deliveries = st.lists(st.lists(st.sampled_from(FILES), min_size=1, max_size=4), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries, st.sampled_from([1, 2, 1_000]))
def test_any_sequence_of_files_is_told_as_a_model_of_them_says(ingest, source, runs, kept_max):
    source, model = f"{source}-{next(_EXAMPLES)}", Model()
    few = replace(ingest, settings=replace(ingest.settings, accounts_kept_max=kept_max))
    for files in runs:
        assert told(run(few, source, *files)) == model.told(files)


@given(st.randoms(use_true_random=False), st.integers(0, 60), st.integers(1, 4))
def test_what_was_stored_in_parts_is_what_was_noted(chance: Random, many: int, kept_max: int):
    whole, parts, last = OlderRepeats(), OlderRepeats(InOrder(), kept_max), {}
    for line in range(many):
        subject, at = account_id(chance.choice("ABCDEFGH")), chance.choice([None, ReadAt(0, line)])
        last[subject] = at
        for repeats in (whole, parts):
            repeats.note(subject, at)
        assert len(parts._noted) < kept_max
    expected = sorted(at for at in last.values() if at is not None)
    assert whole.found() == parts.found() == (len(expected), expected)


def test_a_certificate_counts_all_and_names_the_first_places():
    repeats, lines_of = OlderRepeats(), list(range(5 * REPEATS_NAMED_MAX))
    Random(1).shuffle(lines_of)
    for line in lines_of:
        repeats.note(account_id(str(line)), ReadAt(0, line))
    found, at = repeats.found()
    assert found == len(lines_of)
    assert at == [ReadAt(0, line) for line in range(REPEATS_NAMED_MAX)]


EARLY = "account-closed-before-opened"
BEFORE, AFTER = DAY - timedelta(days=1), DAY + timedelta(days=1)


def opened_on(day, **changes):
    return AccountRecord(account="A1", opened_on=day, currency="CNY", **changes)


def closed_on(day):
    return AccountClosedRecord(account="A1", closed_on=day)


def closed_early(result):
    findings = result.findings
    assert (EARLY in findings.reasons) == (findings.closed_early > 0) == bool(findings.closed_early_at)
    assert findings.quarantined == 0
    return [place.line for place in findings.closed_early_at]


MANY_PARTIES = [PartyRecord(party=f"P{at}") for at in range(BATCH_RECORDS + 1)]


@pytest.mark.parametrize(
    ("feeds", "told_at"),
    [
        ([[opened_on(DAY), closed_on(DAY)]], []),
        ([[opened_on(DAY), closed_on(BEFORE)]], [2]),
        ([[closed_on(BEFORE), opened_on(DAY)]], [2]),
        ([[opened_on(DAY)], [closed_on(BEFORE)]], [1]),
        ([[closed_on(BEFORE)], [opened_on(DAY)]], [1]),
        ([[opened_on(DAY)], [closed_on(BEFORE), opened_on(BEFORE)]], []),
        ([[opened_on(DAY)], [closed_on(BEFORE), *MANY_PARTIES, opened_on(BEFORE)]], []),
        ([[opened_on(DAY), closed_on(BEFORE), *MANY_PARTIES, closed_on(AFTER)]], []),
        ([[opened_on(DAY), closed_on(BEFORE), *MANY_PARTIES, closed_on(None)]], []),
        ([[opened_on(BEFORE), closed_on(BEFORE)], [opened_on(DAY), closed_on(BEFORE)]], [2]),
        ([[opened_on(BEFORE), closed_on(DAY)], [opened_on(AFTER)]], [1]),
        ([[opened_on(BEFORE), closed_on(DAY)], [closed_on(None)], [opened_on(AFTER)]], []),
        ([[opened_on(DAY)], [closed_on(BEFORE)], [opened_on(DAY, branch="B")]], [1]),
        ([[opened_on(DAY)], [closed_on(BEFORE)], [PartyRecord(party="P1")]], [1]),
        ([[closed_on(BEFORE)], [closed_on(None)]], []),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_an_account_that_stands_with_a_closing_before_its_opening_is_told_and_nothing_is_refused(
    ingest, source, feeds, told_at, again
):
    intakes = []
    for feed in [*feeds, *(feeds[-1:] if again else ())]:
        result = run(ingest, source, lines(*feed))
        intakes += result.intakes
    assert closed_early(result) == told_at
    assert result.findings.master_records == len(feeds[-1])
    assert {place.intake for place in result.findings.closed_early_at} <= set(intakes)
    shown = certificate_of(ingest.latest_certificate(source), {})
    assert (shown["closed_early"], [each["line"] for each in shown["closed_early_at"]]) == (
        len(told_at),
        told_at,
    )


@pytest.mark.parametrize("point", ["before-append", "before-progress", "before-certificate"])
def test_a_run_that_is_cut_off_and_repeated_tells_what_an_uninterrupted_one_tells(ingest, source, point):
    content = lines(opened_on(DAY), closed_on(BEFORE), CHECKED, ControlRecord(records=1))

    def reached(at):
        if at == point:
            raise StoreUnavailable("the database went away")

    ingest.reached = reached
    with pytest.raises(StoreUnavailable):
        run(ingest, source, content)
    ingest.reached = lambda _: None
    result = run(ingest, source, content)
    assert (result.findings.status, result.findings.reasons) == ("AMBER", (EARLY,))
    assert (closed_early(result), result.findings.master_records) == ([2], 2)


def test_a_window_tells_what_stands_when_it_closes(ingest, source):
    for records in ([opened_on(DAY)], [closed_on(BEFORE)]):
        content = lines(*records)
        ingest.keep(source, FeedContent("f", lambda c=content: io.BytesIO(c)), format="canonical")
    (result,) = ingest.close_window(source)
    assert (closed_early(result), result.findings.master_records) == ([1], 2)


def test_the_file_with_the_accounts_is_green_again_after_another_file_brought_the_right_day(ingest, source):
    wrong = lines(opened_on(DAY), closed_on(BEFORE), CHECKED)
    assert closed_early(run(ingest, source, wrong)) == [2]
    assert run(ingest, source, lines(opened_on(BEFORE), replaced_balance())).findings.status == "GREEN"
    assert EARLY not in ingest.latest_certificate(source).findings.reasons


def test_a_later_feed_and_a_dismissal_do_not_forget_an_account_that_stands_closed_before_it_was_opened(
    ingest, source
):
    run(ingest, source, lines(opened_on(DAY), CHECKED))
    run(ingest, source, lines(closed_on(BEFORE)))
    assert closed_early(run(ingest, source, lines(replaced_balance()))) == [1]
    assert run(ingest, source, b"{").findings.quarantined == 1
    [(_, entry)] = ingest.archive.quarantine.page(source, "waiting", 0, 9)
    ingest.acting = Acting("anna", reason="nothing was sent")
    ingest.dismiss(entry.id)
    latest = ingest.latest_certificate(source).findings
    assert (latest.status, EARLY in latest.reasons, latest.closed_early) == ("AMBER", True, 1)
    mended = run(ingest, source, lines(closed_on(AFTER)))
    assert closed_early(mended) == []


def replaced_balance():
    return msgspec.structs.replace(CHECKED, core_transaction_id="t2", balance_after_minor=10)
