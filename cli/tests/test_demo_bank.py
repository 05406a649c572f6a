"""The demo bank is the same on every machine, and its own account of itself is true."""

from collections import Counter
from datetime import date

import msgspec
import pytest
from crm_cli import demo_bank
from crm_cli.demo_bank import DemoBank, DemoPlan
from sync_ingest.domain.controls.differences import differences
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.records import AnyRecord, Unreadable

SMALL = DemoPlan(
    customers=40, days=120, duplicates=15, late=12, reversals=8, malformed=len(demo_bank.SPOILERS)
)


@pytest.fixture(scope="module")
def bank() -> DemoBank:
    return demo_bank.make(SMALL)


def postings(bank: DemoBank) -> list[dict[str, object]]:
    return [
        record
        for record in demo_bank.records(bank)
        if record["record"] == "posting" and not str(record["core_transaction_id"]).startswith("bad-")
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(bank: DemoBank) -> None:
    assert demo_bank.make(SMALL).feed == bank.feed
    assert demo_bank.make(DemoPlan(seed=1, customers=40, days=120)).feed != bank.feed


def test_the_expected_sums_are_those_of_the_distinct_lines(bank: DemoBank) -> None:
    distinct = {line for line in bank.lines if b'"posting"' in line and b"bad-" not in line}
    seen = {(r["account"], r["core_transaction_id"], r["leg"]): r for r in postings(bank)}
    closing: Counter[tuple[str, str]] = Counter()
    for record in seen.values():
        amount_minor = record["amount_minor"]
        assert isinstance(amount_minor, int)
        closing[str(record["account"]), str(record["currency"])] += amount_minor
    expected = bank.expected
    assert len(seen) == expected.postings
    assert dict(closing) == expected.closing_minor
    assert expected.credits_minor - expected.debits_minor == sum(closing.values())
    assert len(distinct) >= len(seen)


def test_every_line_is_accounted_for(bank: DemoBank) -> None:
    kinds: Counter[object] = Counter(r["record"] for r in demo_bank.records(bank))
    master = sum(kinds[kind] for kind in ("party", "account", "holder", "card", "loan", "standing-order"))
    expected = bank.expected
    assert len(bank.lines) == expected.records
    postings = expected.postings + expected.duplicates + expected.malformed
    assert expected.records == master + postings + expected.controls
    assert kinds["party"] == expected.parties == SMALL.customers
    assert kinds["account"] == expected.accounts


def test_it_has_the_usual_accidents(bank: DemoBank) -> None:
    lines = Counter(bank.lines)
    assert sum(count - 1 for count in lines.values()) == SMALL.duplicates
    assert sum(1 for r in postings(bank) if "reverses" in r) >= SMALL.reversals
    latest, late = date.min, 0
    for record in postings(bank):
        booked_on = date.fromisoformat(str(record["booked_on"]))
        late += booked_on < latest
        latest = max(latest, booked_on)
    assert late >= SMALL.late
    known = {r["account"] for r in demo_bank.records(bank) if r["record"] == "account"}
    assert {r["account"] for r in postings(bank)} - known == bank.expected.unknown_accounts
    assert bank.expected.malformed == len(demo_bank.SPOILERS)


def test_a_reversal_comes_after_what_it_reverses_and_undoes_it(bank: DemoBank) -> None:
    seen: dict[object, object] = {}
    for record in postings(bank):
        if "reverses" in record:
            assert seen[record["account"], record["reverses"]] == -int(str(record["amount_minor"]))
        else:
            seen[record["account"], record["core_transaction_id"]] = record["amount_minor"]


def test_both_legs_of_a_transfer_sum_to_nothing(bank: DemoBank) -> None:
    legs: dict[object, dict[object, int]] = {}
    for record in postings(bank):
        legs.setdefault(record["core_transaction_id"], {})[record["leg"]] = int(str(record["amount_minor"]))
    pairs = [amounts for amounts in legs.values() if len(amounts) == 2]
    assert pairs
    assert all(sum(amounts.values()) == 0 for amounts in pairs)


def test_names_are_chinese_and_english_and_nobody_is_real(bank: DemoBank) -> None:
    parties = [r for r in demo_bank.records(demo_bank.make(DemoPlan(days=1))) if r["record"] == "party"]
    assert sum(str(p["name"]).isascii() for p in parties) >= 10
    assert sum(not str(p["name"]).isascii() for p in parties) >= 300
    persons = [p for p in parties if p["kind"] == "person"]
    assert all(str(p["identity_number"]).startswith("990000") for p in persons)
    assert len({p["identity_number"] for p in persons}) == len(persons)
    assert all(str(p["email"]).endswith("@example.com") for p in parties)


def test_every_line_but_the_spoiled_ones_is_canonical(bank: DemoBank) -> None:
    decoder = msgspec.json.Decoder(AnyRecord)
    unreadable = 0
    for line in bank.lines:
        try:
            decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            unreadable += 1
    assert unreadable == bank.expected.malformed


def test_it_states_control_totals_that_agree_with_its_lines(bank: DemoBank) -> None:
    feed = FeedRead()
    decode = msgspec.json.Decoder(AnyRecord).decode
    for number, line in enumerate(bank.lines, 1):
        try:
            feed.count(0, number, decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            feed.count(0, number, Unreadable("json-malformed", "no", b""))
    (file,) = feed.files.values()
    assert len(file.controls) == bank.expected.controls > 1
    assert list(differences([file], [(0, number, control) for number, control in file.controls])) == []
