"""The same transaction again: with other money it is a conflict, with another description a duplicate that says so."""

import io
from dataclasses import replace
from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.records import AccountRecord, CardRecord, PartyRecord, Posting, legible, unseen
from sync_ingest.runs.choices import IngestSettings
from sync_ingest.runs.results import FeedContent

DAY = date(2026, 3, 2)
RENT = Posting("A1", "t1", -90_000, "CNY", DAY, text="rent", teller="T1", counterparty_name="王小明")


def take(ingest, source, *records, name="f"):
    content = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    found = ingest.run(source, [FeedContent(name, lambda: io.BytesIO(content))], format="canonical").findings
    assert found.records == found.posted + found.duplicates + found.quarantined
    return found


def reasons(ingest, source):
    return [e.reason for _, e in ingest.archive.quarantine.page(source, "waiting", 0, 200)]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"text": "rent of March"}, {"text": 1}),
        ({"text": None, "teller": "T2"}, {"teller": 1, "text": 1}),
        (
            {"counterparty_name": "王大明", "counterparty_account": "1"},
            {"counterparty_account": 1, "counterparty_name": 1},
        ),
        ({"balance_after_minor": 5}, {"balance_after_minor": 1}),
        ({"value_on": date(2026, 3, 3), "kind": "card"}, {"kind": 1, "value_on": 1}),
        ({"sequence_number": 7}, {"other": 1}),
    ],
)
@pytest.mark.parametrize("apart", [True, False], ids=["in two feeds", "in one"])
def test_another_description_of_a_transaction_is_a_duplicate_that_says_what_differs(
    ingest, source, changes, fields, apart
):
    other = msgspec.structs.replace(RENT, **changes)
    if apart:
        take(ingest, source, RENT)
        found = take(ingest, source, other)
    else:
        found = take(ingest, source, RENT, other)
    assert (found.duplicates, found.quarantined) == (1, 0)
    assert (found.differing, found.differing_fields) == (1, fields)


@pytest.mark.parametrize(
    "changes", [{"amount_minor": -90_001}, {"currency": "USD"}, {"booked_on": date(2026, 3, 3)}]
)
@pytest.mark.parametrize("erased", [False, True])
def test_other_money_under_the_same_transaction_is_a_conflict(ingest, source, changes, erased):
    """Of an erased account too: its money stands in clear."""
    take(ingest, source, RENT)
    if erased:
        ingest.ledger._keys.erase([ingest.ids.account(source, "A1")])
    found = take(ingest, source, RENT, msgspec.structs.replace(RENT, **changes))
    assert (found.posted, found.duplicates, found.quarantined) == (0, 1, 1)
    assert reasons(ingest, source) == ["identity-conflict"]


def test_what_describes_a_posting_of_an_erased_account_is_not_compared(ingest, source):
    take(ingest, source, RENT)
    ingest.ledger._keys.erase([ingest.ids.account(source, "A1")])
    found = take(ingest, source, msgspec.structs.replace(RENT, text="x"))
    assert (found.duplicates, found.differing) == (1, 0)


NOON = datetime(2026, 3, 2, 20, tzinfo=UTC)
"""In Shanghai it is the third of March already."""


@pytest.mark.parametrize(
    ("booked_on", "posted"),
    [
        (date(1899, 12, 31), False),
        (date(1993, 1, 1), True),
        (date(2026, 4, 3), True),
        (date(2026, 4, 4), False),
        (date(2199, 1, 1), False),
        (date(9999, 12, 31), False),
    ],
)
def test_a_booking_date_outside_the_window_around_the_business_date_is_quarantined(
    ingest, source, booked_on, posted
):
    at = replace(ingest, now=lambda: NOON)
    found = take(at, source, msgspec.structs.replace(RENT, booked_on=booked_on))
    assert found.posted == posted
    assert reasons(ingest, source) == ([] if posted else ["date-out-of-window"])


def test_the_bank_says_how_wide_the_window_is(ingest, source):
    narrow = IngestSettings(booked_from=date(2026, 1, 1), booked_days_ahead_max=0)
    at = replace(ingest, now=lambda: NOON, settings=narrow)
    days = (date(2025, 12, 31), date(2026, 1, 1), date(2026, 3, 2), date(2026, 3, 3))
    found = take(at, source, *(Posting("A1", f"t{n}", 1, "CNY", day) for n, day in enumerate(days)))
    assert (found.posted, found.quarantined) == (2, 2)
    assert take(at, source, AccountRecord("A2", date(2199, 1, 1)), name="g").quarantined == 1


def test_a_posting_that_is_booked_stays_a_duplicate_when_its_day_has_left_the_window(ingest, source):
    at = replace(ingest, now=lambda: NOON)
    old = Posting("A1", "old", 1, "CNY", date(2026, 1, 1))
    assert take(at, source, old).posted == 1
    later = replace(at, settings=IngestSettings(booked_from=date(2026, 2, 1)))
    news = [Posting("A1", f"t{n}", 1, "CNY", DAY) for n in range(6_000)]
    found = take(later, source, *news, old, name="g")
    assert (found.posted, found.duplicates, found.quarantined) == (6_000, 1, 0)


def test_what_is_booked_through_moves_by_no_date_of_the_future_and_is_kept_by_an_empty_feed(ingest, source):
    at = replace(ingest, now=lambda: NOON)
    assert take(at, source, RENT).booked_through == DAY
    ahead = msgspec.structs.replace(RENT, core_transaction_id="t2", booked_on=date(2026, 3, 31))
    assert take(at, source, ahead).booked_through == date(2026, 3, 3)
    nothing = at.run(source, [FeedContent("empty", lambda: io.BytesIO(b""))], format="canonical").findings
    assert nothing.booked_through == date(2026, 3, 3)
    late = msgspec.structs.replace(RENT, core_transaction_id="t3")
    assert (take(at, source, late).late, take(at, source, late).booked_through) == (1, date(2026, 3, 3))


@pytest.mark.parametrize("letter", ["\0", "\x7f", "\u200b", "\u202e", "\ufeff", "\u2028", "\u00ad", "\n"])
@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("account", RENT),
        ("core_transaction_id", RENT),
        ("branch", RENT),
        ("teller", RENT),
        ("counterparty_name", RENT),
        ("reverses", RENT),
        ("name", PartyRecord("P1", name="张伟")),
        ("party", PartyRecord("P1")),
        ("card", CardRecord("6222", "A1", DAY)),
    ],
)
def test_a_character_that_nobody_sees_is_refused_in_codes_names_and_numbers(
    ingest, source, field, record, letter
):
    found = take(ingest, source, msgspec.structs.replace(record, **{field: f"A{letter}1"}))
    assert (found.posted, found.master_records, found.quarantined) == (0, 0, 1)
    [(_, entry)] = ingest.archive.quarantine.page(source, "waiting", 0, 10)
    assert (entry.reason, entry.column) == ("character-invisible", field)


LETTERS = st.sampled_from(["A", "字", " ", "\u3000", "\t", "\n", "\0", "\u200b"])
SOME = st.text(LETTERS, min_size=1, max_size=4)
ANY = st.builds(
    lambda account, others: msgspec.structs.replace(RENT, account=account, **others),
    SOME,
    st.fixed_dictionaries(
        {},
        optional={
            "core_transaction_id": st.none() | SOME,
            "branch": st.none() | st.text(LETTERS, max_size=3),
            "text": st.none() | st.text(LETTERS, max_size=3),
            "reverses": SOME,
            "source": SOME,
        },
    ),
)


@given(st.lists(ANY, max_size=4))
def test_postings_that_are_legible_together_are_so_one_by_one(postings):
    faults = [posting for posting in postings if unseen(posting) is not None]
    if legible(postings):
        assert faults == []
    else:
        values = [value for posting in postings for value in msgspec.structs.astuple(posting)]
        assert faults or not "".join([value for value in values if isinstance(value, str)]).isprintable()


@pytest.mark.parametrize("blank", [" ", "\u3000", "\u00a0 ", " A1", "A1 "])
@pytest.mark.parametrize("record", [RENT, AccountRecord("A1", DAY)])
def test_an_account_number_is_not_blank_and_has_no_blank_at_its_ends(ingest, source, record, blank):
    found = take(ingest, source, msgspec.structs.replace(record, account=blank))
    assert (found.posted, found.master_records, found.quarantined) == (0, 0, 1)


def test_names_of_rare_characters_wide_blanks_and_lines_of_a_narrative_are_read(ingest, source):
    rare = msgspec.structs.replace(
        RENT, counterparty_name="买买提·\ue000\U00020000\u3000李", text="one\r\n\ttwo"
    )
    assert take(ingest, source, rare).posted == 1
