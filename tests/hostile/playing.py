"""Plays a seed's deliveries against a real ingest and asks after each whether the ledger is what the model says."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from random import Random
from typing import Final, get_args
from uuid import UUID

from chassis.write.deciding import Refusal
from sync_ingest.archive.connection import SourceBusy
from sync_ingest.archive.quarantine import QuarantineEntry
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.sources import UNATTRIBUTED
from sync_ingest.listening import SOURCE_HEADER, source_of
from sync_ingest.opening import opened
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.ports import ITSELF, Acting
from sync_ingest.runs.results import FeedContent, RunResult
from sync_ingest.settings import SyncIngestSettings
from typing_extensions import override

from tests.hostile.deliveries import (
    GARBLED,
    HEADERS,
    NAMED,
    SOURCES,
    Delivery,
    File,
    Print,
    deliveries,
    rare,
    repaired,
    style,
    truth,
    written,
)
from tests.hostile.ledger import Ledger, Money, Read, Row, sender

HANDS: Final = 2
HANDS_OF_TEN: Final = 10
BY_TEN: Final = 0.02


class Crashed(BaseException):
    """The process is gone."""


class Wrong(AssertionError):
    """The ledger is not what the model says."""


class Player:
    """A seed under way."""

    def __init__(self, seed: int, settings: SyncIngestSettings, hands: list[Ingest]) -> None:
        self.random = Random(seed)
        rare_random = Random(f"rare {seed}")
        self.source = f"hostile{seed}"
        self.hands = hands
        for hand in hands:
            # Every other seed stores partial sums, as a feed of very many accounts does.
            hand.settings = replace(hand.settings, accounts_kept_max=1 if seed % 2 else ACCOUNTS_KEPT_MAX)
        self._settings = settings
        self.style = style(self.random)
        if self.style.format == "csv":
            self.style = replace(self.style, print=rare_random.choice(get_args(Print)))
        self.rows = truth(self.random, self.style)
        self.ledger = Ledger(self.style.covers)
        self.told: list[str] = []
        self.contradicted = False
        self.dismissed = False
        self.message = (
            rare_random.choice(HEADERS),
            rare_random.choice(NAMED),
            rare_random.choice((None, "core")),
        )
        self.rare = rare(rare_random, self.style, self.rows)
        self.by_ten = self.style.format == "canonical" and rare_random.random() < BY_TEN
        self.missing: list[Row] = []
        """Rows of which a control total said that they are missing."""
        self.rowless = False
        """A file stated totals and had no row that could be read: nothing but a person resolves that."""
        self.reasons: tuple[str, ...] = ()

    def play(self) -> None:
        """Everything that comes, and at the end the truth once more."""
        self.check_sender(*self.message)
        for delivery in chain(self.rare, deliveries(self.random, self.style, self.rows)):
            self.told.append(delivery.what)
            self.take(delivery)
            self.check()
            if self.style.ids and self.ledger.waits and self.random.random() < 0.4:
                self.resolve()
                self.check()
        self.told.append("the truth at the end")
        self.contradicted = self.rowless
        status = self.take(Delivery("whole", (written(self.rows, self.style),)))
        self.check()
        if status == "RED" and self.rowless:
            latest = self.hands[0].latest_certificate(self.source)
            status = self._by(0, lambda ingest: ingest.acknowledge(latest.id).findings.status)  # type: ignore[union-attr]
        checkable = self.style.format == "canonical" and (self.style.balances or self.style.controls)
        if checkable and not self.ledger.waits and status != "GREEN":
            raise Wrong(f"{status} though everything is there and agrees: {self.reasons}")
        if self.by_ten:
            self.released_by_ten()

    def take(self, delivery: Delivery) -> str | None:
        """Brings a delivery in and counts it in the model; the status of the source, where one hand brought it."""
        if delivery.hand == "two":
            self._by_two(delivery)
            self._in_model(delivery)
        elif delivery.hand == "crashing":
            self._crashing(delivery)
            self._in_model(delivery)
        elif delivery.hand == "dying":
            self._dying(delivery)
            self.hands[0].close_window(self.source)
            self._in_model(delivery)
            if found := self.hands[0].latest_certificate(self.source):
                self._judge(found.findings.status, delivery)
        else:
            result = self._run(self.hands[0], delivery)
            expected = self._in_model(delivery)
            found = result.findings
            latest = self.hands[0].latest_certificate(self.source)
            if latest is not None and latest.findings.status != found.status:
                raise Wrong(f"answered {found.status}, certified {latest.findings.status}")
            if found.records != found.posted + found.duplicates + found.quarantined:
                raise Wrong(f"{found.records} records are not accounted for")
            for name, count in (("posted", expected.posted), ("duplicates", expected.duplicates)):
                # A row that waits already, under another mapping or in the first copy of a file, is a duplicate.
                comparable = name == "posted" or not self.ledger.waits
                if comparable and getattr(found, name) != count:
                    raise Wrong(f"{name}: {getattr(found, name)}, the model says {count}")
            self.reasons = found.reasons
            self._judge(found.status, delivery)
            return found.status
        return None

    def resolve(self) -> None:
        """Somebody looks at one of the rows that wait, and does the right thing with it, or a wrong one."""
        page = self.hands[0].archive.quarantine.page(self.source, "waiting", 0, 200)
        if not page:
            raise Wrong(f"nothing waits, the model says {self.ledger.waits}")
        entry = self.random.choice([entry for _, entry in page])
        where = self._where(entry)
        waiting = self.ledger.waits.get(where)
        if waiting is None or not waiting.garbled:
            return
        right = next(row for row in self.rows if row.transaction == waiting.transaction)
        ways = ("right", "by two", "two lines", "dismissed")
        how = self.random.choice(ways if waiting.cut else (*ways, "another kind"))
        self.told.append(f"released: {how}" if how != "dismissed" else how)
        if how == "dismissed":
            self._by(0, lambda ingest: ingest.dismiss(entry.id))
            self.ledger.dismiss(where)
            # What its file states of itself stays contradicted: a row of it was not read, and never will be.
            self.contradicted |= self.style.controls or self.style.numbers
            self.dismissed = True
        elif how == "two lines":
            self._refused(entry.id, repaired(right) + repaired(right.again(transaction="T-more")))
        elif how == "another kind":
            self._refused(entry.id, b'{"record":"party","party":"P1"}\n')
        else:
            hands = 2 if how == "by two" else 1
            outcomes = self._at_once(hands, lambda ingest: ingest.release(entry.id, repaired(right)))
            done = sum(not isinstance(outcome, Exception) for outcome in outcomes)
            expected = 1 if right.reverses is None and self.ledger.release(where, right) else 0
            if done != expected and right.reverses is None:
                raise Wrong(f"{done} of {hands} releases were done, the model says {expected}: {outcomes}")
            if right.reverses is not None and done:
                self.ledger.release(where, right)

    def released_by_ten(self) -> None:
        """Ten people write one row anew at once, each under another id: one of them books it."""
        before = self.hands
        self.told.append("released by ten at once")
        account = self.rows[0].money.account
        amount = -1 if self.ledger.balance(account) > 0 else 1
        money = self.rows[0].money._replace(amount_minor=amount)
        row = Row(money, "T-ten", garbled=GARBLED[0])
        file = written([row], self.style, controls=False)
        self._run(self.hands[0], Delivery("", (file,)))
        self.ledger.read([row], sha256(file.content).hexdigest())
        page = self.hands[0].archive.quarantine.page(self.source, "waiting", 0, 200)
        [entry] = [one for _, one in page if self._where(one)[0] == sha256(file.content).hexdigest()]
        repairs = [row.again(transaction=f"T-ten-{hand}", garbled="") for hand in range(HANDS_OF_TEN)]

        def release(ingest: Ingest) -> object:
            return ingest.release(entry.id, repaired(repairs[self.hands.index(ingest)]))

        with hands(self._settings, HANDS_OF_TEN) as self.hands:
            outcomes = self._at_once(HANDS_OF_TEN, release)
        self.hands = before
        done = [repair for repair, one in zip(repairs, outcomes, strict=True) if isinstance(one, RunResult)]
        if len(done) != 1:
            raise Wrong(f"{len(done)} releases of one entry were done: {outcomes}")
        self.ledger.release(self._where(entry), done[0])
        self.check()

    def _where(self, entry: QuarantineEntry) -> tuple[str, int]:
        intake = self.hands[0].archive.intakes.one(entry.intake)
        if intake is None:
            raise Wrong(f"entry {entry.id} is of no intake")
        return intake.sha256.hex(), entry.line - (2 if self.style.format == "csv" else 1)

    def _refused(self, entry: QuarantineId, repair: bytes) -> None:
        [outcome] = self._at_once(1, lambda ingest: ingest.release(entry, repair))
        if not isinstance(outcome, Refusal):
            raise Wrong(f"a wrong repair gave {outcome}")

    def _by(self, hand: int, call: Callable[[Ingest], object]) -> object:
        ingest = self.hands[hand]
        ingest.acting = Acting(f"operator-{hand}", reason="seen on paper")
        try:
            return call(ingest)
        finally:
            ingest.acting = ITSELF

    def _at_once(self, hands: int, call: Callable[[Ingest], object]) -> list[object]:
        outcomes: list[object] = [None] * hands

        def run(hand: int) -> None:
            try:
                outcomes[hand] = self._by(hand, call)
            except Refusal as refusal:
                outcomes[hand] = refusal

        threads = [threading.Thread(target=run, args=(hand,)) for hand in range(hands)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def _judge(self, status: str, delivery: Delivery) -> None:
        """GREEN is for a ledger that is complete and checked; RED is for one in which something is missing or waits."""
        if status == "GREEN":
            if self.ledger.waits:
                raise Wrong("GREEN while something waits")
            if not (self.style.balances or self.style.controls):
                raise Wrong("GREEN with nothing to check against")
            if self.style.balances and not self._chained():
                raise Wrong("GREEN while a running balance is not what was booked before it")
            if self.style.numbers and not self.dismissed and not self._numbered():
                raise Wrong("GREEN while a running number is missing")
        if delivery.contradicts and status != "RED":
            raise Wrong(f"{status} while a control total says that something is missing")
        self.contradicted |= delivery.contradicts
        self.missing += [delivery.missing] if delivery.missing else []
        self.missing = [row for row in self.missing if not self._is_there(row)]
        if self.missing and status != "RED":
            raise Wrong(f"{status} while {len(self.missing)} rows are missing from files that state them")
        complete = not self.style.numbers or self._numbered()
        if status == "RED" and not (self.contradicted or self.ledger.waits) and self._in_order() and complete:
            raise Wrong("RED while every figure agrees")

    def _is_there(self, row: Row) -> bool:
        """Whether a row is booked, or waits."""
        there = (*self.ledger.booked.values(), *self.ledger.waits.values())
        return any(one is not None and one.transaction == row.transaction for one in there)

    def _in_order(self) -> bool:
        """Whether what is booked of each account is the beginning of what happened on it."""
        for account in {row.money.account for row in self.rows}:
            happened = [_seen(row) for row in self.rows if row.money.account == account]
            booked = [_seen(row) for row in self.ledger.booked.values() if row.money.account == account]
            if sorted(booked) != sorted(happened[: len(booked)]):
                return False
        return True

    def _numbered(self) -> bool:
        """Whether the running numbers of what is booked of each account have no gap."""
        numbers: dict[str, list[int]] = {}
        for row in self.ledger.booked.values():
            numbers.setdefault(row.money.account, []).append(row.number or 0)
        return all(max(some) - min(some) < len(some) for some in numbers.values())

    def _chained(self) -> bool:
        """Whether every running balance is the sum of what is booked up to its row."""
        booked: dict[object, list[int | None]] = {}
        for row in self.ledger.booked.values():
            booked.setdefault((row.transaction, row.money), []).append(row.balance_minor)
        sums: dict[str, int] = {}
        for row in self.rows:
            if balances := booked.get((row.transaction, row.money)):
                sums[row.money.account] = sums.get(row.money.account, 0) + row.money.amount_minor
                fitting = [one for one in (sums[row.money.account], None) if one in balances]
                if not fitting:
                    return False
                balances.remove(fitting[0])
        return True

    def check_sender(self, headers: tuple[bytes, ...], named: object, default: str | None) -> None:
        """A message of the branch topic is of the source that it names, or nobody's."""
        value = json.dumps({"record": "posting", "source": named}).encode()
        found = source_of([(SOURCE_HEADER, header) for header in headers], value, default).source
        wanted = sender(headers, named, default, SOURCES) or UNATTRIBUTED
        if found != wanted:
            raise Wrong(f"a message with {headers} and {named!r} is of {found}, the model says {wanted}")

    def check(self) -> None:
        """Balances and postings of every account, and what reversals take back, from the stored events."""
        accounts = {row.money.account for row in self.ledger.booked.values()}
        ids = self._account_ids(sorted(accounts))
        sums: dict[UUID, list[int]] = {}
        for movement in self.hands[0].ledger.movements(dict.fromkeys(ids.values(), 0)):
            sums.setdefault(movement.stream_id, []).append(movement.amount_minor)
        for account, stream in ids.items():
            found = sums.get(stream, [])
            wanted = self.ledger.postings(account), self.ledger.balance(account)
            if (len(found), sum(found)) != wanted:
                raise Wrong(f"{account}: {len(found)} postings, {sum(found)}; the model says {wanted}")

        self._check_reversals()

    def _check_reversals(self) -> None:
        ids = self.hands[0].ids
        taken_back = {
            ids.posting(self.source, row.money.account, row.transaction or "", 1): original
            for row, original in self.ledger.taken_back().items()
        }
        for identity, recorded in self.hands[0].ledger.stored_under(list(taken_back)).items():
            original, event = taken_back[identity], recorded.event
            found = event.reversed_kind, str(event.reversed_booked_on)  # type: ignore[union-attr]
            if found != (original.kind, original.money.day):
                raise Wrong(f"a reversal counts under {found}, not under those of what it reverses")

    def _account_ids(self, accounts: list[str]) -> dict[str, UUID]:
        ids = self.hands[0].ids
        return {account: ids.account(self.source, account) for account in accounts}

    def _in_model(self, delivery: Delivery) -> Read:
        came = Read()
        for file in delivery.files:
            self.rowless |= self.style.controls and all(row.garbled for row in file.rows)
            rows = [row if self._reads_balances(file) else row.again(balance_minor=None) for row in file.rows]
            read = self.ledger.read(rows, sha256(file.content).hexdigest())
            came.posted += read.posted
            came.duplicates += read.duplicates
            if delivery.what == "nothing that can be read" or not file.content:
                self.ledger.waits[file.content, 0] = None
        return came

    def _reads_balances(self, file: File) -> bool:
        return self.style.format == "canonical" or file.columns > 0

    def _run(self, ingest: Ingest, delivery: Delivery) -> RunResult:
        columns = delivery.files[0].columns
        contents = [FeedContent("feed", _reader(file)) for file in delivery.files]
        controls = []
        if delivery.beside is not None:
            records, credits, debits = delivery.beside
            controls = [ControlRecord(records, credits, debits, currency="CNY")]
        mapping = self.style.mapping(columns)
        return ingest.run(self.source, contents, format=self.style.format, mapping=mapping, controls=controls)

    def _by_two(self, delivery: Delivery) -> None:
        failed: list[BaseException] = []

        def run(ingest: Ingest) -> None:
            try:
                self._run(ingest, delivery)
            except SourceBusy:
                pass
            except BaseException as error:  # noqa: BLE001 - raised below
                failed.append(error)

        threads = [threading.Thread(target=run, args=(ingest,)) for ingest in self.hands[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _crashing(self, delivery: Delivery) -> None:
        self._dying(delivery)
        self._run(self.hands[0], delivery)

    def _dying(self, delivery: Delivery) -> None:
        def reached(point: str) -> None:
            if point == delivery.crash_at:
                raise Crashed

        with opened(self._settings, ready=True) as dying:
            dying.reached = reached
            with suppress(Crashed):
                self._run(dying, delivery)


def _seen(row: Row) -> tuple[Money, int]:
    return row.money, row.balance_minor or 0


def _reader(file: File) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(file.content) if file.before is None else _Changing(file.before, file.content)


class _Changing(io.BytesIO):
    """A file whose bytes are others from the second reading on."""

    def __init__(self, before: bytes, after: bytes) -> None:
        super().__init__(before)
        self._after: bytes | None = after

    @override
    def seek(self, offset: int, whence: int = 0, /) -> int:
        if self.tell() and self._after is not None:
            after, self._after = self._after, None
            super().seek(0)
            self.truncate()
            self.write(after)
        return super().seek(offset, whence)


@contextmanager
def hands(settings: SyncIngestSettings, number: int = HANDS) -> Iterator[list[Ingest]]:
    """Ingests, each with connections of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(opened(settings)) for _ in range(number)]


def play(seed: int, settings: SyncIngestSettings, ingests: list[Ingest]) -> str | None:
    """None where all held, else what did not and after which deliveries."""
    player = Player(seed, settings, ingests)
    try:
        player.play()
    except Exception as wrong:  # noqa: BLE001 - whatever it raises, the seed has found something
        said = str(wrong) if isinstance(wrong, Wrong) else f"raised {wrong!r}"
        return f"seed {seed} ({player.style}): {said}; after {', '.join(player.told)}"
    return None
