"""Parties that are closed to releases: nobody releases a record that names one, until it is open again."""

import io
from dataclasses import dataclass
from datetime import date

import msgspec
import pytest
from chassis.write.deciding import CommandKeyReused
from chassis.write.store import Command
from sync_ingest.adapters.port import Item
from sync_ingest.domain.events import ReleasesClosed, ReleasesOpened
from sync_ingest.domain.identities import feed_id
from sync_ingest.domain.records import (
    AccountRecord,
    CardRecord,
    HolderRecord,
    HoldersRecord,
    ListedHolder,
    PartyRecord,
    Posting,
)
from sync_ingest.ledger import CATALOGUE
from sync_ingest.runs.ports import ITSELF, Acting
from sync_ingest.runs.refusals import PartyUnknown, PersonMissing, ReleasesAreClosed
from sync_ingest.runs.results import FeedContent

DAY = date(2026, 3, 2)
ANNA = Acting("anna", "operations", reason="the source named the amount")
SERVICE = Acting("service:customer", reason="an erasure is prepared")
BROKEN = b'{"record":"posting","account":"A1","core_transaction_id":"t2","amount_minor":"12..34","currency":"CNY","booked_on":"2026-03-02"}'
REPAIR = BROKEN.replace(b'"12..34"', b"1234")


@dataclass
class Bank:
    """A source with a party that holds an account, and an entry of quarantine for that account."""

    ingest: object
    source: str
    entry: object
    party: object

    def acting(self, who):
        self.ingest.acting = who
        return self.ingest

    def said(self):
        stored = self.ingest.ledger._recorder.read_stream(feed_id(self.source))
        found = [CATALOGUE.open(one, None) for one in stored]
        return [
            (one.event, one.metadata)
            for one in found
            if isinstance(one.event, ReleasesClosed | ReleasesOpened)
        ]


@pytest.fixture
def bank(ingest, source):
    records = [
        PartyRecord(party="P1", name="张伟"),
        AccountRecord(account="A1", opened_on=DAY),
        HolderRecord(account="A1", party="P1", role="owner"),
    ]
    content = b"".join(msgspec.json.encode(one) + b"\n" for one in records) + BROKEN + b"\n"
    ingest.run(source, [FeedContent("file", lambda: io.BytesIO(content))], format="canonical")
    ((_, entry),) = ingest.archive.quarantine.page(source, "waiting", 0, 200)
    return Bank(ingest, source, entry, ingest.ids.party(source, "P1"))


def test_a_record_of_a_closed_party_is_not_released_until_it_is_open_again(bank):
    bank.acting(SERVICE).close_releases(bank.source, bank.party)
    head = bank.ingest.ledger.head_position()
    with pytest.raises(ReleasesAreClosed):
        bank.acting(ANNA).release(bank.entry.id, REPAIR)
    assert bank.ingest.ledger.head_position() == head
    bank.acting(SERVICE).open_releases(bank.source, bank.party)
    assert bank.acting(ANNA).release(bank.entry.id, REPAIR).findings.posted == 1
    (closed, why), (opened, _) = bank.said()
    assert (type(closed), type(opened)) == (ReleasesClosed, ReleasesOpened)
    assert (why.actor, why.reason, why.privilege) == ("service:customer", SERVICE.reason, "high")


def test_an_entry_of_a_closed_party_can_be_dismissed(bank):
    bank.acting(SERVICE).close_releases(bank.source, bank.party)
    bank.acting(ANNA).dismiss(bank.entry.id)
    ((_, entry),) = bank.ingest.archive.quarantine.page(bank.source, "dismissed", 0, 200)
    assert (entry.id, bank.ingest.archive.quarantine.waiting(bank.source)) == (bank.entry.id, 0)


def test_a_second_closing_changes_nothing_and_has_the_answer_of_the_first(bank):
    command, other = Command("key-1", b"a"), Command("key-2", b"b")
    first = bank.acting(SERVICE).close_releases(bank.source, bank.party, command)
    assert bank.ingest.close_releases(bank.source, bank.party, command) == first
    for _ in range(2):
        assert bank.ingest.close_releases(bank.source, bank.party, other) >= first
    assert len(bank.said()) == 1
    with pytest.raises(CommandKeyReused):
        bank.ingest.close_releases(bank.source, bank.party, Command("key-1", b"c"))


def test_a_closing_that_comes_again_after_the_opening_changes_nothing(bank):
    command = Command("key-1", b"a")
    bank.acting(SERVICE).close_releases(bank.source, bank.party, command)
    bank.ingest.open_releases(bank.source, bank.party, Command("key-2", b"b"))
    bank.ingest.close_releases(bank.source, bank.party, command)
    assert bank.ingest.archive.closed_parties.among([bank.party]) == set()


def test_a_party_that_the_source_never_described_is_refused(bank, source):
    for unknown in (bank.ingest.ids.party(bank.source, "P2"), bank.ingest.ids.account(bank.source, "A1")):
        with pytest.raises(PartyUnknown):
            bank.acting(SERVICE).close_releases(bank.source, unknown)
    with pytest.raises(PartyUnknown):
        bank.ingest.close_releases(f"{source}-2", bank.party)
    assert bank.said() == []


def test_who_closes_says_who_and_why(bank):
    with pytest.raises(PersonMissing):
        bank.acting(ITSELF).close_releases(bank.source, bank.party)


@pytest.mark.parametrize(
    "record",
    [
        PartyRecord(party="P1"),
        HolderRecord(account="A9", party="P1", role="joint"),
        HoldersRecord(account="A9", holders=(ListedHolder(party="P1", role="owner"),)),
        CardRecord(account="A9", card="C1", party="P1", issued_on=DAY),
        CardRecord(account="A1", card="C1", issued_on=DAY),
        AccountRecord(account="A1", opened_on=DAY),
        Posting(
            account="A1", core_transaction_id="t9", amount_minor=1, currency="CNY", booked_on="2026-03-02"
        ),
    ],
)
def test_a_record_names_a_party_itself_or_by_an_account_that_it_holds(bank, record):
    bank.acting(SERVICE).close_releases(bank.source, bank.party)
    with pytest.raises(ReleasesAreClosed):
        bank.ingest._check_open(bank.source, [Item(0, 1, record)])
    bank.ingest._check_open(bank.source, [Item(0, 1, PartyRecord(party="P2"))])
