"""What becomes of what waits in quarantine, over a real PostgreSQL: entries, repairs, releases, dismissals, four eyes."""

import io
from dataclasses import replace
from datetime import date
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from chassis.connections.migrating import migrate
from chassis.proposals import ProposalHasExpired, ProposerNeeded, SecondPersonNeeded
from chassis.write.deciding import CommandKeyReused
from chassis.write.store import Command
from psycopg import sql
from sync_ingest.adapters.topic import Frame, framed
from sync_ingest.archive.quarantine import Proposal
from sync_ingest.archive.schema import OLDER_ENTRIES_SQL
from sync_ingest.archive.schema import TABLES as INGEST_TABLES
from sync_ingest.domain.certificate import Comparison, Judgement, certify
from sync_ingest.domain.events import ReconciliationCertified
from sync_ingest.domain.identities import QuarantineId, certificate_id, feed_id
from sync_ingest.domain.records import PartyRecord, Posting
from sync_ingest.domain.totals import ControlTotals
from sync_ingest.ledger import CATALOGUE
from sync_ingest.runs.context import Said
from sync_ingest.runs.ingest import PROPOSALS_LIVE
from sync_ingest.runs.ports import ITSELF, Acting
from sync_ingest.runs.refusals import (
    AlreadyDismissed,
    AlreadyReleased,
    PersonMissing,
    ProposalUnknown,
    QuarantineUnknown,
    ReasonMissing,
    RepairRefused,
)
from sync_ingest.runs.results import FeedContent

DAY = date(2026, 3, 2)
ANNA = Acting("anna", "operations", reason="the source named the amount")
BORIS = Acting("boris", "control", reason="compared with the statement")
MAPPING = (
    'currency = "CNY"\n[columns]\naccount="account"\ncore_transaction_id="id"\nbooked_on="day"\namount="{}"\n'
)
BROKEN = b'{"record":"posting","account":"A1","core_transaction_id":"t2","amount_minor":"12..34","currency":"CNY","booked_on":"2026-03-02"}'


def posting(transaction, amount_minor, account="A1", **changes):
    values = {"currency": "CNY", "booked_on": DAY} | changes
    return Posting(account=account, core_transaction_id=transaction, amount_minor=amount_minor, **values)


def lines(*records):
    return b"".join((r if isinstance(r, bytes) else msgspec.json.encode(r)) + b"\n" for r in records)


def take(ingest, source, *contents, format="canonical", **options):
    files = [FeedContent(f"file-{n}", lambda each=each: io.BytesIO(each)) for n, each in enumerate(contents)]
    return ingest.run(source, files, format=format, **options)


def counts(result):
    f = result.findings
    assert f.records == f.posted + f.duplicates + f.quarantined
    return f.records, f.posted, f.duplicates, f.quarantined


def waiting(ingest, source):
    return [entry for _, entry in ingest.archive.quarantine.page(source, "waiting", 0, 200)]


def balance(ingest, source):
    return sum(ingest.archive.totals.balances(source).values())


def kept(ingest, source):
    """How many intakes and entries the source has, and the store's head: what a refusal leaves as it was."""
    rows = ingest.archive._db.rows(
        "select (select count(*) from {s}.intakes where source = %s), (select count(*) from {s}.quarantine where source = %s)",
        (source, source),
    )
    return rows[0], ingest.ledger.head_position()


def feed_events(ingest, source):
    stored = ingest.ledger._recorder.read_stream(feed_id(source))
    return [CATALOGUE.open(one, None) for one in stored]


@pytest.fixture
def entry(ingest, source):
    """The one entry of a feed with a broken posting; Anna acts."""
    take(ingest, source, lines(posting("t1", 1), BROKEN))
    ingest.acting = ANNA
    (found,) = waiting(ingest, source)
    return found


def test_a_repair_takes_the_place_of_what_was_quarantined_once(ingest, source, entry):
    assert (entry.kind, entry.whole_file, entry.line) == ("posting", False, 2)
    released = ingest.release(entry.id, lines(posting("t2", 1234)))
    assert counts(released) == (1, 1, 0, 0)
    with pytest.raises(AlreadyReleased):
        ingest.release(entry.id, lines(posting("t2", 1234)))
    with pytest.raises(AlreadyReleased):
        ingest.dismiss(entry.id)
    assert waiting(ingest, source) == []
    assert balance(ingest, source) == 1235
    ingest.acting = ITSELF
    assert counts(take(ingest, source, lines(posting("t1", 1), BROKEN))) == (2, 0, 2, 0)


@pytest.mark.requirement("R091", "R094")
def test_a_release_says_who_why_and_that_it_is_privileged(ingest, source, entry):
    ingest.release(entry.id, lines(posting("t2", 1234)))
    (released,) = [each for each in feed_events(ingest, source) if each.name == "quarantined-record-released"]
    meta = released.metadata
    assert (meta.actor, meta.post, meta.reason, meta.privilege) == (*ANNA[:2], ANNA.reason, "high")


@pytest.mark.parametrize(
    ("repaired", "why"),
    [
        (b"", "file-empty"),
        (b"{}", "field-missing"),
        (lines(BROKEN), "amount-malformed"),
        (lines(PartyRecord(party="P1", name="x")), "it holds party where posting was quarantined"),
        (lines(*(posting(f"n{n}", 5) for n in range(5))), "it holds 5 records where 1"),
        (lines(posting("t1", 2)), "identity-conflict"),
        (lines(posting("t1", 1)), "duplicate"),
        (lines(posting("t2", 5, source="elsewhere")), "source-mismatch"),
        (lines(posting("t2", 5, booked_on=date(1, 1, 1))), "date-out-of-window"),
        (lines(posting("t2", 5, reverses="nowhere")), "reversal-without-original"),
        (lines(posting("t2", 5, reverses="t1")), "reversal-mismatch"),
    ],
)
def test_a_repair_that_is_refused_leaves_nothing_behind(ingest, source, entry, repaired, why):
    before = kept(ingest, source)
    with pytest.raises(RepairRefused, match=why):
        ingest.release(entry.id, repaired)
    assert kept(ingest, source) == before
    assert [each.id for each in waiting(ingest, source)] == [entry.id]
    assert counts(ingest.release(entry.id, lines(posting("t2", 5)))) == (1, 1, 0, 0)


def test_a_person_and_a_reason_are_needed(ingest, source, entry):
    for acting, refusal in (
        (ITSELF, PersonMissing),
        (Acting("anna"), ReasonMissing),
        (ANNA._replace(reason=" \n"), ReasonMissing),
        (ANNA._replace(reason="a\x00b"), ReasonMissing),
    ):
        ingest.acting = acting
        for act in (
            lambda: ingest.release(entry.id, lines(posting("t2", 5))),
            lambda: ingest.dismiss(entry.id),
        ):
            with pytest.raises(refusal):
                act()
    ingest.acting = ANNA
    with pytest.raises(QuarantineUnknown):
        ingest.release(QuarantineId(UUID(int=7)), b"{}")


def test_an_entry_is_dismissed_with_an_event_of_its_own_and_books_nothing(ingest, source, entry):
    ingest.dismiss(entry.id)
    assert waiting(ingest, source) == []
    dismissed, certified = feed_events(ingest, source)[-2:]
    assert (dismissed.name, dismissed.metadata.actor, dismissed.metadata.reason) == (
        "quarantined-record-dismissed",
        "anna",
        ANNA.reason,
    )
    assert certified.name == "reconciliation-certified", "nothing waits any more"
    for act in (lambda: ingest.release(entry.id, lines(posting("t2", 5))), lambda: ingest.dismiss(entry.id)):
        with pytest.raises(AlreadyDismissed):
            act()
    assert balance(ingest, source) == 1
    assert counts(take(ingest, source, lines(posting("t1", 1), BROKEN))) == (2, 0, 2, 0)


def test_a_header_that_was_refused_and_released_yesterday_hides_no_file_of_today(ingest, source):
    wrong = b"account,id,day,betrag\n"
    options = {"format": "csv", "mapping": MAPPING.format("amount")}
    take(ingest, source, wrong + b"A1,t1,2026-03-02,1.00\n", **options)
    (first,) = waiting(ingest, source)
    assert (first.whole_file, first.kind) == (True, "posting")
    ingest.acting = ANNA
    with pytest.raises(RepairRefused, match="2 records where 1"):
        ingest.release(first.id, lines(posting("t1", 100), posting("t2", 100)))
    assert counts(ingest.release(first.id, lines(posting("t1", 100)))) == (1, 1, 0, 0)
    today = wrong + b"A1,t2,2026-03-03,1.00\nA1,t3,2026-03-03,2.00\n"
    assert counts(take(ingest, source, today, **options)) == (1, 0, 0, 1)
    (second,) = waiting(ingest, source)
    assert second.id != first.id
    right = take(ingest, source, today, format="csv", mapping=MAPPING.format("betrag"))
    assert counts(right) == (2, 2, 0, 0)
    assert waiting(ingest, source) == []
    assert balance(ingest, source) == 400


def test_a_file_that_is_cut_off_like_another_is_another_entry(ingest, source):
    for transaction in ("t1", "t3"):
        take(ingest, source, lines(posting(transaction, 1)) + BROKEN[:40])
    entries = waiting(ingest, source)
    assert [entry.reason for entry in entries] == ["record-truncated"] * 2
    ingest.acting = ANNA
    ingest.release(entries[0].id, lines(posting("t2", 5)))
    assert [entry.id for entry in waiting(ingest, source)] == [entries[1].id]


def test_a_row_that_comes_again_in_another_file_is_resolved_once(ingest, source):
    take(ingest, source, lines(posting("t1", 1), BROKEN))
    take(ingest, source, lines(BROKEN, posting("t1", 1), posting("t3", 1)))
    entries = waiting(ingest, source)
    assert len({entry.id for entry in entries}) == 2
    ingest.acting = ANNA
    ingest.release(entries[1].id, lines(posting("t2", 1234)))
    assert waiting(ingest, source) == []
    with pytest.raises(AlreadyReleased):
        ingest.release(entries[0].id, lines(posting("t2-other", 1234)))
    assert counts(take(ingest, source, lines(posting("t4", 1), BROKEN))) == (2, 1, 1, 0)
    assert waiting(ingest, source) == []
    assert balance(ingest, source) == 1237


def test_the_same_row_twice_in_one_file_is_two_and_a_copy_of_the_file_adds_none(ingest, source):
    content = lines(BROKEN, BROKEN)
    assert counts(take(ingest, source, content, content)) == (4, 0, 2, 2)
    entries = waiting(ingest, source)
    assert [entry.line for entry in entries] == [1, 2]
    ingest.acting = ANNA
    ingest.release(entries[0].id, lines(posting("t2", 5)))
    assert [entry.id for entry in waiting(ingest, source)] == [entries[1].id]
    assert counts(take(ingest, source, lines(posting("t9", 1)), content)) == (3, 1, 1, 1)


def test_two_equal_files_of_one_batch_are_booked_once(ingest, source):
    mapping = MAPPING.format("amount").replace('core_transaction_id="id"\n', "")
    content = b"account,id,day,amount\nA1,x,2026-03-02,1.00\nA1,x,2026-03-02,1.00\n"
    result = take(ingest, source, content, content, format="csv", mapping=mapping)
    assert counts(result) == (4, 2, 2, 0)
    assert balance(ingest, source) == 200


class TestFourEyes:
    """From the amount that is configured on, one person proposes and another approves, and nothing else is booked."""

    LARGE = lines(posting("t2", -5_000_001))

    def test_a_second_person_books_exactly_what_was_proposed(self, ingest, source, entry):
        proposed = ingest.release(entry.id, self.LARGE)
        assert isinstance(proposed, Proposal)
        assert (proposed.amounts_minor, proposed.proposed_by) == ({"CNY": 5_000_001}, "anna")
        assert balance(ingest, source) == 1
        with pytest.raises(SecondPersonNeeded):
            ingest.approve(entry.id, proposed.repair)
        ingest.acting = BORIS
        with pytest.raises(ProposalUnknown):
            ingest.approve(entry.id, UUID(int=3))
        assert counts(ingest.approve(entry.id, proposed.repair)) == (1, 1, 0, 0)
        assert balance(ingest, source) == 1 - 5_000_001
        (released,) = [
            each for each in feed_events(ingest, source) if each.name == "quarantined-record-released"
        ]
        assert (released.event.proposed_by, released.event.repair) == ("anna", proposed.repair)
        assert (released.metadata.actor, released.metadata.reason) == ("boris", BORIS.reason)
        with pytest.raises(AlreadyReleased):
            ingest.approve(entry.id, proposed.repair)

    def test_who_acts_for_the_proposer_is_no_second_person(self, ingest, source, entry):
        proposed = ingest.release(entry.id, self.LARGE)
        ingest.acting = BORIS._replace(on_behalf_of="anna")
        with pytest.raises(SecondPersonNeeded):
            ingest.approve(entry.id, proposed.repair)

    @pytest.mark.parametrize("spelt", ["ANNA", " anna", "ａｎｎａ", "an\u200bna"])
    def test_the_proposer_in_no_spelling_is_a_second_person(self, ingest, source, entry, spelt):
        proposed = ingest.release(entry.id, self.LARGE)
        for acting in (BORIS._replace(actor=spelt), BORIS._replace(on_behalf_of=spelt)):
            ingest.acting = acting
            with pytest.raises(SecondPersonNeeded):
                ingest.approve(entry.id, proposed.repair)
        assert balance(ingest, source) == 1

    def test_a_proposal_expires_and_can_be_made_anew(self, ingest, source, entry):
        proposed = ingest.release(entry.id, self.LARGE)
        ingest.acting, now = BORIS, ingest.now
        ingest.now = lambda: proposed.proposed_at + PROPOSALS_LIVE
        for decided in (ingest.approve, ingest.reject):
            with pytest.raises(ProposalHasExpired):
                decided(entry.id, proposed.repair)
        ingest.acting = ANNA
        with pytest.raises(ProposalHasExpired):
            ingest.withdraw(entry.id, proposed.repair)
        again = ingest.release(entry.id, self.LARGE)
        ingest.acting = BORIS
        assert counts(ingest.approve(entry.id, again.repair)) == (1, 1, 0, 0)
        ingest.now = now

    def test_another_proposal_takes_the_place_of_the_first(self, ingest, source, entry):
        first = ingest.release(entry.id, self.LARGE)
        second = ingest.release(entry.id, lines(posting("t2", 7_000_000)))
        ingest.acting = BORIS
        with pytest.raises(ProposalUnknown):
            ingest.approve(entry.id, first.repair)
        assert counts(ingest.approve(entry.id, second.repair)) == (1, 1, 0, 0)

    def test_a_proposal_ends_with_its_entry(self, ingest, source, entry):
        proposed = ingest.release(entry.id, self.LARGE)
        ingest.dismiss(entry.id)
        ingest.acting = BORIS
        with pytest.raises(AlreadyDismissed):
            ingest.approve(entry.id, proposed.repair)
        assert ingest.proposals([entry.id]) == {}

    @pytest.mark.parametrize(("verb", "acts"), [("reject", BORIS), ("withdraw", ANNA)])
    def test_a_repair_that_is_rejected_or_withdrawn_is_booked_by_nobody_and_its_record_waits_on(
        self, ingest, source, entry, verb, acts
    ):
        proposed, command = ingest.release(entry.id, self.LARGE), Command(f"{source}-{verb}", b"a")
        ingest.acting = acts
        ended = getattr(ingest, verb)
        with pytest.raises(ProposalUnknown):
            ended(entry.id, UUID(int=3))
        first = ended(entry.id, proposed.repair, command)
        assert ended(entry.id, proposed.repair, command) == first
        with pytest.raises(ProposalUnknown):
            ended(entry.id, proposed.repair)
        [event] = [one for one in feed_events(ingest, source) if one.position == first]
        assert (event.name, event.event.repair) == (
            f"repair-{verb}{'ed' if verb == 'reject' else 'n'}",
            proposed.repair,
        )
        assert (event.metadata.actor, event.metadata.reason) == (acts.actor, acts.reason)
        ingest.acting = BORIS
        with pytest.raises(ProposalUnknown):
            ingest.approve(entry.id, proposed.repair)
        assert ([one.id for one in waiting(ingest, source)], balance(ingest, source)) == ([entry.id], 1)
        ingest.acting = ANNA
        again = ingest.release(entry.id, self.LARGE)
        ingest.acting = BORIS
        assert counts(ingest.approve(entry.id, again.repair)) == (1, 1, 0, 0)

    @pytest.mark.parametrize(
        "acts", [ANNA, BORIS._replace(actor=" ANNA"), BORIS._replace(on_behalf_of="anna")]
    )
    def test_who_proposed_does_not_reject(self, ingest, source, entry, acts):
        proposed = ingest.release(entry.id, self.LARGE)
        ingest.acting = acts
        with pytest.raises(SecondPersonNeeded):
            ingest.reject(entry.id, proposed.repair)
        assert entry.id in ingest.proposals([entry.id])

    def test_another_person_does_not_withdraw(self, ingest, source, entry):
        proposed = ingest.release(entry.id, self.LARGE)
        ingest.acting = BORIS
        with pytest.raises(ProposerNeeded):
            ingest.withdraw(entry.id, proposed.repair)
        ingest.acting = ITSELF
        for ended in (ingest.reject, ingest.withdraw):
            with pytest.raises(PersonMissing):
                ended(entry.id, proposed.repair)
        assert entry.id in ingest.proposals([entry.id])

    @pytest.mark.parametrize(("currency", "limit_minor"), [("CNY", 5_000_000), ("JPY", 10)])
    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize(("beyond_minor", "proposed"), [(-1, False), (0, True), (1, True)])
    def test_the_limit_itself_needs_a_second_person_and_one_minor_unit_less_does_not(
        self, ingest, source, entry, currency, limit_minor, sign, beyond_minor, proposed
    ):
        ingest.settings = replace(ingest.settings, release_approval_minor_by_currency={"JPY": 10})
        repair = lines(posting("t2", sign * (limit_minor + beyond_minor), currency=currency))
        assert isinstance(ingest.release(entry.id, repair), Proposal) is proposed


def test_a_window_that_is_open_makes_no_release_red(ingest, source, entry):
    message = msgspec.json.encode(posting("t7", 50))
    content = framed([Frame(0, 1, message)])
    ingest.keep(source, FeedContent("topic", lambda: io.BytesIO(content)), format="topic")
    result = ingest.release(entry.id, lines(posting("t2", 5)))
    assert (result.findings.status, result.findings.problems) == ("AMBER", ())
    assert [certificate.findings.posted for certificate in ingest.certificates(source, None, 9)] == [1, 1, 1]
    assert balance(ingest, source) == 56


@pytest.mark.requirement("R088", "R094")
def test_a_record_is_shown_for_a_purpose_and_the_event_comes_first(ingest, source, entry):
    with pytest.raises(ReasonMissing):
        ingest.show(entry.id, " ")
    assert ingest.show(entry.id, "to repair it").raw == BROKEN
    (stored,) = ingest.ledger._recorder.read_stream(entry.id)
    shown = CATALOGUE.open(stored, None)
    assert (shown.event.purpose, shown.metadata.actor, shown.metadata.privilege) == (
        "to repair it",
        "anna",
        "high",
    )
    ingest.acting = ITSELF
    with pytest.raises(PersonMissing):
        ingest.show(entry.id, "to repair it")


class TestTheSameCommandAgain:
    """One key, one effect, one answer, whatever is cut off in between."""

    def test_a_release_has_the_answer_of_the_first_time(self, ingest, source, entry):
        first = ingest.release(entry.id, lines(posting("t2", 5)), self.key(source))
        again = ingest.release(entry.id, lines(posting("t2", 5)), self.key(source))
        assert (again.findings, again.certificate, again.position) == (
            first.findings,
            first.certificate,
            first.position,
        )
        with pytest.raises(CommandKeyReused):
            ingest.release(entry.id, lines(posting("t2", 6)), Command(self.key(source).key, b"2"))

    def test_a_release_that_was_refused_may_be_corrected_under_its_key(self, ingest, source, entry):
        with pytest.raises(RepairRefused):
            ingest.release(entry.id, b"{}", self.key(source))
        other = Command(self.key(source).key, b"2")
        assert counts(ingest.release(entry.id, lines(posting("t2", 5)), other)) == (1, 1, 0, 0)

    @pytest.mark.parametrize(
        "point", ["after-intake", "mid-batch", "after-append", "after-release", "before-certificate"]
    )
    @pytest.mark.parametrize("by", ["the same command", "another run", "another release"])
    def test_a_release_that_is_cut_off_books_once_and_says_so(self, ingest, source, entry, point, by):
        key = self.key(source)
        ingest.reached = cut_off_at(point)
        with pytest.raises(CutOff):
            ingest.release(entry.id, lines(posting("t2", 5)), key)
        ingest.reached = lambda _: None
        booked = point not in {"after-intake", "mid-batch"}
        if by == "another run":
            take(ingest, source, lines(posting("t5", 10)))
        if by == "another release" and booked:
            with pytest.raises(AlreadyReleased):
                ingest.release(entry.id, lines(posting("t2-by-a-colleague", 5)))
        result = ingest.release(entry.id, lines(posting("t2", 5)), key)
        assert counts(result) == (1, 1, 0, 0)
        assert result.findings.status == "AMBER"
        assert waiting(ingest, source) == []
        assert balance(ingest, source) == 6 + (10 if by == "another run" else 0)

    @pytest.mark.parametrize("point", ["after-intake", "mid-batch", "after-append", "before-certificate"])
    @pytest.mark.parametrize("by", ["the same command", "another run"])
    def test_a_batch_that_is_cut_off_says_what_it_posted(self, ingest, source, point, by):
        key, content = self.key(source), lines(posting("t1", 5), posting("t2", 6))
        ingest.reached = cut_off_at(point)
        with pytest.raises(CutOff):
            take(ingest, source, content, command=key)
        ingest.reached = lambda _: None
        if by == "another run":
            take(ingest, source, lines(posting("t5", 10)))
        first = take(ingest, source, content, command=key)
        again = take(ingest, source, content, command=key)
        assert counts(first) == counts(again) == (2, 2, 0, 0)
        assert (first.certificate, first.position) == (again.certificate, again.position)

    def test_a_batch_whose_certificate_was_stored_and_not_listed_says_what_it_posted(self, ingest, source):
        key, content = self.key(source), lines(posting("t1", 5))
        ingest.archive.certificates = Failing(ingest.archive.certificates)
        with pytest.raises(CutOff):
            take(ingest, source, content, command=key)
        ingest.archive.certificates = ingest.archive.certificates.certificates
        assert counts(take(ingest, source, content, command=key)) == (1, 1, 0, 0)
        assert counts(take(ingest, source, lines(posting("t2", 5)))) == (1, 1, 0, 0)
        assert [c.findings.status for c in ingest.certificates(source, None, 9)] == ["AMBER", "AMBER"]
        assert ingest.archive.intakes.open(source) == []

    def test_a_batch_that_brings_nothing_new_keeps_its_key_too(self, ingest, source):
        content = lines(posting("t1", 5))
        take(ingest, source, content)
        key = self.key(source)
        assert counts(take(ingest, source, content, command=key)) == (1, 0, 1, 0)
        assert counts(take(ingest, source, content, command=key)) == (1, 0, 1, 0)
        with pytest.raises(CommandKeyReused):
            take(ingest, source, content, command=Command(key.key, b"2"))

    @staticmethod
    def key(source):
        return Command(f"4:anna:{source}", b"1")


class CutOff(BaseException):
    """As a killed process: nothing that comes after it runs, not even what handles errors."""


def cut_off_at(point):
    def reached(here):
        if here == point:
            raise CutOff

    return reached


class Failing:
    """Certificates of an archive that is cut off before it lists one."""

    def __init__(self, certificates):
        self.certificates = certificates

    def __getattr__(self, name):
        if name == "certify":
            raise CutOff
        return getattr(self.certificates, name)


def test_a_dismissal_that_was_cut_off_is_finished_by_the_same_command(ingest, source, entry):
    key = Command(f"4:anna:{source}", b"1")
    ingest.reached = cut_off_at("after-dismissal")
    with pytest.raises(CutOff):
        ingest.dismiss(entry.id, key)
    ingest.reached = lambda _: None
    position = ingest.dismiss(entry.id, key)
    assert waiting(ingest, source) == []
    assert "quarantine-waiting" not in ingest.latest_certificate(source).findings.reasons
    head = ingest.ledger.head_position()
    assert (ingest.dismiss(entry.id, key), ingest.ledger.head_position()) == (position, head)


def test_an_acknowledgement_that_was_cut_off_is_finished_by_the_same_command(ingest, source):
    printed = [posting("p1", 100, balance_after_minor=100), posting("p2", 5, balance_after_minor=999)]
    red = take(ingest, source, lines(*printed))
    assert red.findings.status == "RED"
    ingest.acting, key = ANNA, Command(f"4:anna:{source}", b"1")
    ingest.reached = cut_off_at("after-acknowledgement")
    with pytest.raises(CutOff):
        ingest.acknowledge(red.certificate, command=key)
    ingest.reached = lambda _: None
    for _ in range(2):
        assert ingest.acknowledge(red.certificate, command=key).findings.status != "RED"
    assert len(ingest.certificates(source, None, 9)) == 2


def certified(ingest, source):
    """The certificates that the events say, and those that are listed, the newest last."""
    events = [e.event for e in feed_events(ingest, source) if e.name == "reconciliation-certified"]
    listed = list(reversed(ingest.certificates(source, None, 200)))
    return [(e.certificate, e.findings) for e in events], [(c.id, c.findings) for c in listed]


@pytest.mark.parametrize("by", ["another run", "another person", "the same command"])
def test_a_dismissal_that_is_said_is_so_whoever_comes_next(ingest, source, entry, by):
    key = Command(f"4:anna:{source}", b"1")
    ingest.reached = cut_off_at("after-dismissal")
    with pytest.raises(CutOff):
        ingest.dismiss(entry.id, key)
    ingest.reached = lambda _: None
    if by == "another run":
        take(ingest, source, lines(posting("t5", 10)))
    elif by == "another person":
        ingest.schedule(source, 60)
    for repeated in (False, True):
        said = any(each.name == "quarantined-record-dismissed" for each in feed_events(ingest, source))
        assert said or not repeated
        assert (waiting(ingest, source) == []) is said
        assert ("quarantine-waiting" not in ingest.latest_certificate(source).findings.reasons) is said
        ingest.dismiss(entry.id, key)


def red(ingest, source):
    """A certificate with one contradiction."""
    file = lines(posting("t1", 5, balance_after_minor=5), posting("t2", 5, balance_after_minor=60))
    result = take(ingest, source, file)
    assert result.findings.status == "RED"
    return result


@pytest.mark.parametrize("by", ["another run", "another person", "the same command"])
def test_an_acknowledgement_that_is_said_is_so_whoever_comes_next(ingest, source, by):
    key, found = Command(f"4:anna:{source}", b"1"), red(ingest, source)
    ingest.acting = ANNA
    ingest.reached = cut_off_at("after-acknowledgement")
    with pytest.raises(CutOff):
        ingest.acknowledge(found.certificate, command=key)
    ingest.reached = lambda _: None
    if by == "another run":
        take(ingest, source, lines(posting("t5", 10, "A5")))
    elif by == "another person":
        ingest.schedule(source, 60)
    for repeated in (False, True):
        said = any(each.name == "contradictions-acknowledged" for each in feed_events(ingest, source))
        assert said or not repeated
        assert (ingest.latest_certificate(source).findings.status != "RED") is said
        ingest.acknowledge(found.certificate, command=key)


@pytest.mark.parametrize("by", ["the same file", "another run", "another person"])
def test_a_certificate_that_is_said_is_listed_as_it_was_said_under_whatever_tolerance(ingest, source, by):
    first = red(ingest, source)
    file = lines(posting("u1", 5, "B", balance_after_minor=5), posting("u2", 5, "B", balance_after_minor=60))
    ingest.archive.certificates = Failing(ingest.archive.certificates)
    with pytest.raises(CutOff):
        take(ingest, source, file)
    ingest.archive.certificates = ingest.archive.certificates.certificates
    ingest.settings = replace(ingest.settings, printed_tolerance_minor=100)
    if by == "another run":
        take(ingest, source, lines(posting("v1", 5, "C", balance_after_minor=5)))
    elif by == "another person":
        ingest.acting = ANNA
        ingest.acknowledge(first.certificate)
    take(ingest, source, file)
    said, listed = certified(ingest, source)
    assert said == listed


def test_a_certificate_that_was_said_before_it_was_listed_is_listed_as_it_was_said(ingest, source):
    """As a version left it that stored the event first and was cut off then."""
    ingest.reached = cut_off_at("before-certificate")
    with pytest.raises(CutOff):
        red(ingest, source)
    ingest.reached = lambda _: None
    (intake,) = ingest.archive.intakes.open(source)
    empty = ControlTotals()
    findings = certify(empty, Comparison(empty), Judgement(codes=("running-balance-differs",), open_total=1))
    certificate = certificate_id(ingest.ids, source, None, [intake.id])
    event = ReconciliationCertified(
        source=source, certificate=certificate, intakes=(intake.id,), findings=findings
    )
    said = Said(event, certificate, intake.id)
    ingest._append_for(None, ingest._on_feed(source, [said]))
    ingest.settings = replace(ingest.settings, printed_tolerance_minor=100)
    result = take(ingest, source, lines(posting("t3", 5, "C", balance_after_minor=5)))
    events, listed = certified(ingest, source)
    assert events == listed
    assert events[0] == (certificate, findings)
    assert (len(listed), listed[1][0]) == (2, result.certificate)
    assert ingest.archive.intakes.open(source) == []


def test_the_person_for_whom_a_repair_was_proposed_is_no_second_person(ingest, source, entry):
    ingest.acting = ANNA._replace(on_behalf_of="boris")
    proposed = ingest.release(entry.id, lines(posting("t2", -5_000_001)))
    for acting in (BORIS, ANNA, BORIS._replace(actor="carla", on_behalf_of="boris")):
        ingest.acting = acting
        with pytest.raises(SecondPersonNeeded):
            ingest.approve(entry.id, proposed.repair)
    ingest.acting = BORIS._replace(actor="carla")
    assert counts(ingest.approve(entry.id, proposed.repair)) == (1, 1, 0, 0)


def test_a_migration_lists_what_an_older_version_resolved_and_blanks_what_it_quoted(
    ingest, source, postgres_url
):
    """An older version noted what was resolved after its event, and quoted the record in what it said of it."""
    take(ingest, source, lines(BROKEN, BROKEN.replace(b"t2", b"t3"), BROKEN.replace(b"t2", b"t4")))
    released, dismissed, waits = [entry.id for _, entry in ingest.archive.quarantine.page(source, None, 0, 9)]
    ingest.acting = ANNA
    ingest.release(released, lines(posting("t2", 1234)))
    ingest.dismiss(dismissed)
    quoting, schema = uuid4(), "ingest_older"
    steps = INGEST_TABLES.steps[: INGEST_TABLES.steps.index(OLDER_ENTRIES_SQL) + 1]
    older = replace(INGEST_TABLES, module=schema, schema=schema, names=(("store", sql.Identifier(schema)),))
    migrate(postgres_url, [replace(older, steps=steps[:-1])])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create table {schema}.events (like store_ingest.events)")
        stream = [feed_id(source)]
        connection.execute(
            f"insert into {schema}.events select * from store_ingest.events where stream_id = %s", stream
        )
        columns = 'id, source, intake, line, "column", reason, detail, raw_sealed, quarantined_at'
        connection.execute(
            f"insert into {schema}.quarantine ({columns}) select {columns} from ingest.quarantine where source = %s",
            [source],
        )
        connection.execute(
            f"insert into {schema}.events values (0, %s, 1, 'feed-record-quarantined', %s, %s)",
            (uuid4(), b'{"meta":{},"data":{"v":1,"raw":"\\u0000","detail":"not 6222"}}', quoting),
        )
        connection.execute(
            f"insert into {schema}.quarantine ({columns}) values (%s, %s, %s, 1, '6222', 'r', 'not 6222', '', now())",
            (quoting, source, uuid4()),
        )
        assert migrate(postgres_url, [replace(older, steps=steps)]) == 2
        rows = connection.execute(f'select id, status, detail, "column" from {schema}.quarantine').fetchall()
        connection.execute(f"drop schema {schema} cascade")
        connection.execute("delete from migrations.applied where module = %s", [schema])
    found = {row[0]: row[1:] for row in rows}
    assert {name: status for name, (status, *_) in found.items()} == {
        released: "released",
        dismissed: "dismissed",
        waits: "waiting",
        quoting: "waiting",
    }
    assert found[quoting][1:] == ("***", "***")
    assert (found[waits][1] == "***", found[waits][2]) == (False, "amount_minor")
