"""A master record describes at most once, however often its intake is read, and whatever a crash left of it."""

import io
from datetime import date
from itertools import count, pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_ingest.adapters.port import BATCH_RECORDS
from sync_ingest.domain.events import (
    CardIssued,
    HolderNamed,
    LoanGranted,
    PartyDescribed,
    RecordsMoved,
    StandingOrderSet,
)
from sync_ingest.domain.records import (
    CardRecord,
    HolderRecord,
    LoanRecord,
    PartyRecord,
    StandingOrderRecord,
)
from sync_ingest.ledger import CATALOGUE
from sync_ingest.runs.results import FeedContent

X, Y = "13800001111", "13900002222"
POINTS = ["after-intake", "before-append", "before-progress", "before-certificate"]
_EXAMPLES, _FILES = count(), count()


class Crashed(BaseException):
    """The process is gone."""


def party(phone, name="P1"):
    return PartyRecord(party=name, phone=phone)


def holder(role, name="P1"):
    return HolderRecord(account="A1", party=name, role=role)


def loan(account, name="L1"):
    return LoanRecord(
        loan=name,
        account=account,
        granted_on=date(2026, 1, 2),
        amount_minor=1200,
        currency="CNY",
        duration_months=12,
        payment_minor=100,
    )


def card(account, kind=None):
    return CardRecord(card="6222021234567890", account=account, issued_on=date(2026, 1, 2), kind=kind)


def order(account):
    return StandingOrderRecord(order="S1", account=account, amount_minor=5, currency="CNY")


def file_of(*records):
    """Bytes that no other file has."""
    line = PartyRecord(party=f"of-file-{next(_FILES)}")
    content = b"".join(msgspec.json.encode(record) + b"\n" for record in (line, *records))
    return FeedContent("file", lambda: io.BytesIO(content))


def keep(ingest, source, content):
    return ingest.keep(source, content, format="canonical")


def run(ingest, source, *contents):
    return ingest.run(source, contents, format="canonical")


def crash(ingest, point, call):
    """Ends the call at a point, where it comes to that."""

    def reached(here):
        if here == point:
            raise Crashed

    ingest.reached = reached
    try:
        call()
    except Crashed:
        return True
    finally:
        ingest.reached = lambda _: None
    return False


def described(ingest, source):
    """The values of each thing in the order in which they are described."""
    told = {}
    named = {ingest.ids.party(source, name): name for name in ("P1", "P2")}
    accounts = {ingest.ids.account(source, name): name for name in ("A1", "A2")}
    for recorded in recorded_of(ingest, [*named, *accounts]):
        match recorded.event:
            case PartyDescribed(phone=phone):
                told.setdefault(("phone", named[recorded.stream_id]), []).append(phone)
            case HolderNamed(party_id=party_id, role=role):
                told.setdefault(("role", named[party_id]), []).append(role)
            case LoanGranted(loan=name):
                told.setdefault(("loan", name), []).append(accounts[recorded.stream_id])
    return told


def recorded_of(ingest, streams):
    """The events of these streams in the order in which they were stored."""
    keys = ingest.ledger._keys.keys_for(streams)
    read = [CATALOGUE.open_all(ingest.ledger._recorder.read_stream(stream), keys) for stream in streams]
    return sorted((one for of_stream in read for one in of_stream), key=lambda one: one.position)


def standing(ingest, source, *names):
    """What a reader that follows each account by itself holds for these accounts: loans, cards and orders."""
    found = {}
    for name in names:
        held = {}
        for recorded in recorded_of(ingest, [ingest.ids.account(source, name)]):
            match recorded.event:
                case LoanGranted(loan=thing) | CardIssued(card=thing) | StandingOrderSet(order=thing):
                    held[recorded.version] = thing
                case RecordsMoved(sequences=sequences):
                    held = {at: thing for at, thing in held.items() if at not in sequences}
        found[name] = set(held.values())
    return found


def phones(ingest, source):
    return described(ingest, source).get(("phone", "P1"), [])


def test_a_window_that_closes_describes_nothing_again(ingest, source):
    for phone in (X, Y):
        keep(ingest, source, file_of(party(phone)))
    (result,) = ingest.close_window(source)
    assert phones(ingest, source) == [X, Y]
    assert result.findings.repeats_older == 0


def test_a_later_record_describes_a_value_that_goes_back(ingest, source):
    for phone in (X, Y, X):
        keep(ingest, source, file_of(party(phone)))
    ingest.close_window(source)
    assert phones(ingest, source) == [X, Y, X]


def test_a_record_that_changed_nothing_changes_nothing_when_its_intake_is_read_again(ingest, source):
    for phone in (X, X, Y):
        keep(ingest, source, file_of(party(phone)))
    ingest.close_window(source)
    assert phones(ingest, source) == [X, Y]


def test_holders_are_described_once(ingest, source):
    for role in ("owner", "joint"):
        keep(ingest, source, file_of(holder(role), holder("signatory", "P2")))
    ingest.close_window(source)
    assert described(ingest, source) == {("role", "P1"): ["owner", "joint"], ("role", "P2"): ["signatory"]}


@pytest.mark.parametrize("point", POINTS)
def test_another_intake_after_a_crash_describes_what_it_says(ingest, source, point):
    """The next one does not wait for what the crash left: it is read when the window closes."""
    crashed = file_of(party(X))
    was_read = not crash(ingest, point, lambda: run(ingest, source, crashed)) or point in POINTS[2:]
    keep(ingest, source, file_of(party(Y)))
    ingest.close_window(source)
    assert phones(ingest, source) == ([X, Y] if was_read else [Y, X])
    assert run(ingest, source, crashed).findings.posted == 0
    assert phones(ingest, source) == ([X, Y] if was_read else [Y, X])


def test_a_crash_before_the_events_of_a_second_description_leaves_the_first(ingest, source):
    keep(ingest, source, file_of(party(X), holder("owner")))
    second = file_of(party(Y), holder("joint"))
    assert crash(ingest, "before-append", lambda: keep(ingest, source, second))
    assert phones(ingest, source) == [X]
    ingest.close_window(source)
    assert described(ingest, source) == {("phone", "P1"): [X, Y], ("role", "P1"): ["owner", "joint"]}


def test_what_a_crash_left_does_not_count_when_another_intake_takes_its_identity(ingest, source):
    lost = FeedContent("f", lambda: io.BytesIO(msgspec.json.encode(holder("owner", "P2")) + b"\n" + LAST))
    assert crash(ingest, "before-append", lambda: keep(ingest, source, lost))
    assert crash(ingest, "before-progress", lambda: keep(ingest, source, FeedContent("f", last_alone)))
    assert described(ingest, source) == {("phone", "P1"): [X]}
    ingest.close_window(source)
    assert described(ingest, source) == {("phone", "P1"): [X], ("role", "P2"): ["owner"]}


@pytest.mark.parametrize("thing", [loan, card, order])
def test_what_a_source_names_under_another_account_is_no_longer_the_first_ones(ingest, source, thing):
    run(ingest, source, file_of(thing("A1")))
    run(ingest, source, file_of(thing("A2")))
    assert {name: len(held) for name, held in standing(ingest, source, "A1", "A2").items()} == {
        "A1": 0,
        "A2": 1,
    }
    run(ingest, source, file_of(thing("A1"), thing("A3"), thing("A2"), thing("A1")))
    counted = {name: len(held) for name, held in standing(ingest, source, "A1", "A2", "A3").items()}
    assert counted == {"A1": 1, "A2": 0, "A3": 0}


def test_every_description_of_a_card_goes_with_it(ingest, source):
    run(ingest, source, file_of(card("A1"), card("A1", "gold")))
    run(ingest, source, file_of(card("A1", "platinum")), file_of(card("A2", "platinum")))
    held = standing(ingest, source, "A1", "A2")
    assert (held["A1"], len(held["A2"])) == (set(), 1)


LAST = msgspec.json.encode(party(X)) + b"\n"


def last_alone():
    return io.BytesIO(LAST)


def test_a_description_from_before_what_stood_was_noted_counts(ingest, source):
    """Rows of an earlier version have no former description, and intakes have no line."""
    first = file_of(party(X))
    keep(ingest, source, first)
    ingest.close_window(source)
    ingest.archive.descriptions._db.write(
        "update {s}.descriptions set before_revision = null, before_digest = null, described_by = null where subject = %s",
        (ingest.ids.party(source, "P1"),),
    )
    run(ingest, source, file_of(party(X)), file_of(party(Y)))
    assert phones(ingest, source) == [X, Y]


def test_events_of_an_earlier_version_that_crashed_before_it_noted_them_are_not_doubled(ingest, source):
    keep(ingest, source, file_of(party(X), holder("owner")))
    db = ingest.archive.descriptions._db
    subjects = [ingest.ids.party(source, "P1"), ingest.ids.of_source("holders", source, "A1")]
    db.write("delete from {s}.descriptions where subject = any(%s)", (subjects,))
    db.write("update {s}.intakes set described_line = null, described_by = null where source = %s", (source,))
    ingest.close_window(source)
    run(ingest, source, file_of(party(X), holder("owner")), file_of(party(Y)))
    assert described(ingest, source) == {("phone", "P1"): [X, Y], ("role", "P1"): ["owner"]}


@pytest.mark.parametrize("point", ["before-append", "before-progress"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_crash_in_any_batch_of_an_intake_loses_and_doubles_nothing(ingest, source, point, batch):
    others = [HolderRecord(account=f"B{at}", party="P2", role="owner") for at in range(BATCH_RECORDS)]
    content, met = file_of(party(X), *others, party(Y), *others, party(X)), count(1)

    def reached(here):
        if here == point and next(met) == batch:
            raise Crashed

    ingest.reached = reached
    with pytest.raises(Crashed):
        keep(ingest, source, content)
    ingest.reached = lambda _: None
    ingest.close_window(source)
    assert phones(ingest, source) == [X, Y, X]


class Model:
    """Which files were kept and read, which of them no certificate covers, and what their records change."""

    def __init__(self):
        self.open, self.read, self.described = [], set(), {}

    def keep(self, file, point):
        self._take([file])
        self._book([file], point)

    def run(self, files, point):
        self._take(files)
        if point == "after-intake":
            return
        for group in ([file for file in self.open if file not in files], list(dict.fromkeys(files))):
            if group and not self._certify(group, point):
                return

    def close(self, point):
        if self.open:
            self._certify(list(self.open), point)

    def _take(self, files):
        known = {*self.open, *self.read}
        self.open += [file for file in dict.fromkeys(files) if file not in known]

    def _certify(self, group, point):
        if not self._book(group, point) or point == "before-certificate":
            return False
        self.open = [file for file in self.open if file not in group]
        return True

    def _book(self, group, point):
        fresh = [file for file in group if file not in self.read]
        if fresh and point == "before-append":
            return False
        for file in fresh:
            self.read.add(file)
            for subject, value in FILES[file]:
                told = self.described.setdefault(subject, [])
                if told[-1:] != [value]:
                    told.append(value)
        return point != "before-progress"


values = st.one_of(
    st.tuples(st.tuples(st.just("phone"), st.sampled_from(["P1", "P2"])), st.sampled_from([X, Y])),
    st.tuples(st.tuples(st.just("role"), st.sampled_from(["P1", "P2"])), st.sampled_from(["owner", "joint"])),
    st.tuples(st.tuples(st.just("loan"), st.sampled_from(["L1", "L2"])), st.sampled_from(["A1", "A2"])),
)
points = st.none() | st.sampled_from(POINTS)
FILES = {}


def record_of(subject, value):
    kind, name = subject
    return {"phone": party, "role": holder, "loan": loan}[kind](value, name)


def loans_by_account(model):
    last = {name: told[-1] for (kind, name), told in model.described.items() if kind == "loan"}
    return {account: {name for name, of in last.items() if of == account} for account in ("A1", "A2")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_descriptions_are_the_changes_of_value_in_order(ingest, source, data):
    source, model, contents = f"{source}-{next(_EXAMPLES)}", Model(), {}
    FILES.clear()

    def a_file():
        if FILES and data.draw(st.integers(0, 3), "sent before") == 0:
            return data.draw(st.sampled_from(sorted(FILES)), "file")
        number = len(FILES)
        FILES[number] = data.draw(st.lists(values, min_size=1, max_size=4), "records")
        contents[number] = file_of(*[record_of(*each) for each in FILES[number]])
        return number

    for _ in range(data.draw(st.integers(1, 8), "steps")):
        verb, point = data.draw(st.sampled_from(["keep", "keep", "run", "close"])), data.draw(points)
        match verb:
            case "keep":
                file = a_file()
                model.keep(file, point)
                crash(ingest, point, lambda file=file: keep(ingest, source, contents[file]))
            case "run":
                files = [a_file() for _ in range(data.draw(st.integers(1, 3), "files"))]
                model.run(files, point)
                crash(
                    ingest,
                    point,
                    lambda files=files: run(ingest, source, *[contents[file] for file in files]),
                )
            case _:
                model.close(point)
                crash(ingest, point, lambda: ingest.close_window(source))
        assert described(ingest, source) == model.described
        assert standing(ingest, source, "A1", "A2") == loans_by_account(model)
    model.close(None)
    ingest.close_window(source)
    assert described(ingest, source) == model.described
    assert standing(ingest, source, "A1", "A2") == loans_by_account(model)
    assert all(one != two for told in model.described.values() for one, two in pairwise(told))
