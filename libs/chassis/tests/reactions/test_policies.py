"""A policy reacts in order per subject, once for each event that is new, and never to what is told again."""

import asyncio
from collections import defaultdict
from itertools import count
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import StoreUnavailable, is_transient
from chassis.messaging.broker import Kafka
from chassis.messaging.delivered import Delivered
from chassis.messaging.transport import KafkaPublisher, ensure_topics
from chassis.reactions.policies import CHECKPOINTS_DATABASE, Policy, PolicyRunner, Reactor
from chassis.read.mongo_checkpoints import POSITIONS, MongoCheckpoints, prepare_checkpoints, want
from chassis.read.parking import Parking
from contracts.topics import EVENTS, Topic, dead_letters

from tests.support.lists import OTHER, SUBJECTS, TOPIC, WORD, Words
from tests.support.memory import MemoryCheckpoints, MemoryPublisher
from tests.support.waiting import comes, until

_NUMBERS = count(1)
POISON = "poison"


class Letters:
    """Writes a letter for every word, and knows whether two were ever written for one subject at once."""

    def __init__(self) -> None:
        self.written: dict[UUID, list[str]] = defaultdict(list)
        self.at_once = 0
        self.most_at_once = 0
        self.busy: set[UUID] = set()
        self.repaired = False
        self.failures: list[Exception] = []

    async def write(self, event: Delivered) -> None:
        assert event.subject not in self.busy
        self.busy.add(event.subject)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.failures:
                raise self.failures.pop()
            if event.data["name"] == POISON and not self.repaired:
                raise ValueError(POISON)
            self.written[event.subject].append(event.data["name"])
        finally:
            self.at_once -= 1
            self.busy.discard(event.subject)


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def checkpoints():
    return MemoryCheckpoints()


@pytest.fixture
def reactor(letters, checkpoints):
    policy = Policy("when_said_then_write", (TOPIC,), frozenset({WORD}), letters.write, "beginning")
    return Reactor(policy, Parking("test.when", checkpoints, MemoryPublisher(), SystemClock()), at_once=3)


async def test_subjects_are_served_at_once_and_each_in_order(reactor, letters):
    words = Words()
    for number in range(40):
        words.say(number % 5, f"{number}")
    words.say(0, "", type=OTHER)
    await reactor.apply(words.all())
    for number, subject in enumerate(SUBJECTS):
        assert letters.written[subject] == [f"{each}" for each in range(number, 40, 5)]
    assert letters.most_at_once == 3


async def test_what_a_batch_needs_is_read_once_for_all_that_is_wanted_of_it(letters, checkpoints):
    prepared = []

    async def prepare(events):
        prepared.append([event.subject for event in events])

    policy = Policy("when_said_then_write", (TOPIC,), frozenset({WORD}), letters.write, "beginning", prepare)
    reactor = Reactor(policy, Parking("test.when", checkpoints, MemoryPublisher(), SystemClock()))
    words = Words()
    for subject in (0, 1, 0):
        words.say(subject, "a")
    words.say(2, "", type=OTHER)
    await reactor.apply(words.all())
    assert [sorted(map(str, each)) for each in prepared] == [
        sorted(map(str, (SUBJECTS[0], SUBJECTS[0], SUBJECTS[1])))
    ]
    await reactor.apply(words.all())
    await reactor.apply([words.say(2, "", type=OTHER)])
    assert len(prepared) == 1  # nothing was wanted of what came then
    assert len(letters.written[SUBJECTS[0]]) == 2


async def test_some_subjects_are_prepared_while_those_before_them_are_processed(checkpoints):
    prepared, processed, meanwhile = [], [], []

    async def prepare(events):
        before = len(processed)
        for _ in range(5):
            await asyncio.sleep(0)
        meanwhile.append(len(processed) - before)
        prepared.append([event.subject for event in events])

    async def react(event):
        assert event.subject in {subject for some in prepared for subject in some}
        processed.append(event.subject)

    policy = Policy("when_said_then_write", (TOPIC,), frozenset({WORD}), react, "beginning", prepare)
    parking = Parking("test.when", checkpoints, MemoryPublisher(), SystemClock())
    words = Words()
    for subject in range(5):
        words.say(subject, "a")
    await Reactor(policy, parking, prepared_at_once=2).apply(words.all())
    assert [len(some) for some in prepared] == [2, 2, 1]
    assert meanwhile == [0, 2, 2]
    assert sorted(processed) == sorted(SUBJECTS)


async def test_what_is_not_wanted_is_passed_over_and_the_position_goes_on(reactor, letters, checkpoints):
    words = Words()
    words.say(0, "a")
    for _ in range(50):
        words.say(0, "", type=OTHER)
    records = words.all()
    broken = records[10]._replace(
        headers=[(name, b"x" if name == "ce_position" else value) for name, value in records[10].headers]
    )
    await reactor.apply([*records[:10], broken, *records[11:]])
    assert letters.written[SUBJECTS[0]] == ["a"]
    assert reactor.parking.letters.written == 0  # whoever wants such events says that it cannot be read
    [saved] = [one for one in checkpoints.saved.values() if one.position]
    assert saved.position == max(int(dict(record.headers)["ce_position"]) for record in records)


async def test_what_was_reacted_to_is_never_reacted_to_again(reactor, letters):
    words = Words()
    words.say(0, "a")
    await reactor.apply(words.all())
    words.say(0, "b")
    await reactor.apply(words.all())
    assert letters.written[SUBJECTS[0]] == ["a", "b"]


@pytest.mark.parametrize("error", [ConnectionError("gone"), StoreUnavailable("gone"), TimeoutError()])
async def test_a_server_that_is_lost_gives_the_batch_back_and_parks_nobody(
    reactor, letters, checkpoints, error
):
    words = Words()
    words.say(0, "a")
    letters.failures = [error]
    with pytest.raises(ExceptionGroup):
        await reactor.apply(words.all())
    assert not checkpoints.waiting
    assert not checkpoints.saved
    await reactor.apply(words.all())
    assert letters.written[SUBJECTS[0]] == ["a"]


async def test_an_event_of_a_newer_process_waits_for_one_and_parks_nobody(reactor, letters, checkpoints):
    words = Words()
    with pytest.raises(ExceptionGroup) as raised:
        await reactor.apply([words.say(0, "a", version=99)])
    assert is_transient(raised.value)
    assert not checkpoints.waiting
    assert not checkpoints.saved
    assert not letters.written[SUBJECTS[0]]


async def test_poison_parks_its_subject_and_release_keeps_the_order(reactor, letters, checkpoints):
    words = Words()
    for subject, word in [(0, "a"), (0, POISON), (1, "b"), (0, "c")]:
        words.say(subject, word)
    await reactor.apply(words.all())
    reason = checkpoints.waiting["customer", SUBJECTS[0]].reason
    assert reason.startswith("ValueError at test_policies.py:")
    assert POISON not in reason  # a policy may have opened what nobody else may read
    late = [words.say(0, "d"), words.say(1, "e")]
    await reactor.apply(late)
    assert dict(letters.written) == {SUBJECTS[0]: ["a"], SUBJECTS[1]: ["b", "e"]}
    letters.repaired = True
    checkpoints.want(("customer", SUBJECTS[0]), "release")
    assert await reactor.tick() == [SUBJECTS[0]]
    assert letters.written[SUBJECTS[0]] == ["a", POISON, "c", "d"]


@pytest.mark.requirement("M21")
async def test_policies_run_on_real_servers_and_nobody_reacts_to_what_is_published_again(
    kafka_url, mongo, letters, monkeypatch
):
    topic = Topic(f"test.said.{next(_NUMBERS)}", 2, "subject id", "words")
    monkeypatch.setitem(EVENTS, "customer", topic)
    clock, publisher = SystemClock(), KafkaPublisher(kafka_url)
    service = f"testpolicy{next(_NUMBERS)}"
    policy = Policy("when_said_then_write", (topic.name,), frozenset({WORD}), letters.write, "beginning")
    await ensure_topics(kafka_url, [topic, dead_letters(f"{service}.{policy.name}")])
    words = Words(2, topic.name)
    for subject, word in [(0, "a"), (0, POISON), (1, "b"), (0, "c")]:
        words.say(subject, word)
    await publisher.publish([record._replace(offset=None) for record in words.all()])

    async def running(name: str, done) -> None:
        runner = PolicyRunner(
            name,
            [policy],
            service=service,
            mongo=mongo,
            broker=Kafka(kafka_url),
            publisher=publisher,
            clock=clock,
        )
        stopping = asyncio.Event()
        task = asyncio.create_task(runner.run(stopping))
        assert await comes(done)
        await until(lambda: runner.not_ready() == [], what=runner.not_ready)
        await runner.measure()
        stopping.set()
        await task

    checkpoints = MongoCheckpoints(
        mongo.beside(CHECKPOINTS_DATABASE), f"{service}.{policy.name}", policy.name
    )

    async def parked() -> bool:
        return bool(await checkpoints.parked()) and letters.written[SUBJECTS[1]] == ["b"]

    async def released() -> bool:
        return not await checkpoints.parked()

    await running("policies", parked)
    await mongo.drop_database()
    letters.repaired = True
    assert await want(
        mongo.beside(CHECKPOINTS_DATABASE), checkpoints.group, ("customer", SUBJECTS[0]), "release"
    )
    await running("policies", released)
    assert dict(letters.written) == {SUBJECTS[0]: ["a", POISON, "c"], SUBJECTS[1]: ["b"]}
    await publisher.publish([record._replace(offset=None) for record in words.all()])
    words.say(1, "new")
    await publisher.publish([words.records[1][-1]._replace(offset=None)])

    async def seen() -> bool:
        return letters.written[SUBJECTS[1]] == ["b", "new"]

    await running("policies", seen)
    assert letters.written[SUBJECTS[0]] == ["a", POISON, "c"]
    await publisher.close()
    await mongo.beside(CHECKPOINTS_DATABASE).drop_database()


@pytest.mark.parametrize("starts", ["now", "beginning"])
async def test_a_policy_that_is_new_says_what_it_makes_of_what_was_published_before(
    kafka_url, mongo, letters, monkeypatch, starts
):
    topic = Topic(f"test.history.{next(_NUMBERS)}", 2, "subject id", "words")
    monkeypatch.setitem(EVENTS, "customer", topic)
    publisher, service = KafkaPublisher(kafka_url), f"testhistory{next(_NUMBERS)}"
    policy = Policy("when_said_then_write", (topic.name,), frozenset({WORD}), letters.write, starts)
    await ensure_topics(kafka_url, [topic, dead_letters(f"{service}.{policy.name}")])
    words = Words(2, topic.name)
    told = [0, 0]

    async def tell(*said: tuple[int, str]) -> None:
        for subject, word in said:
            words.say(subject, word)
        words.mark()
        for partition, records in enumerate(words.records):
            fresh, told[partition] = records[told[partition] :], len(records)
            await publisher.publish([record._replace(offset=None) for record in fresh])

    def runner() -> PolicyRunner:
        return PolicyRunner(
            "policies", [policy], service=service, mongo=mongo, broker=Kafka(kafka_url), publisher=publisher,
            clock=SystemClock(),
        )  # fmt: skip

    await tell(*[(number % 5, f"old{number}") for number in range(40)])
    checkpoints = MongoCheckpoints(
        mongo.beside(CHECKPOINTS_DATABASE), f"{service}.{policy.name}", policy.name
    )
    await prepare_checkpoints(mongo.beside(CHECKPOINTS_DATABASE))
    await runner()._begin(policy, checkpoints)  # and then it dies
    await mongo.beside(CHECKPOINTS_DATABASE).delete(POSITIONS, {"partition": 1})  # in the middle
    await tell((0, "new"), (1, "new"))
    stopping = asyncio.Event()
    both = [asyncio.create_task(runner().run(stopping)) for _ in range(2)]

    async def seen() -> bool:
        return all("new" in letters.written[SUBJECTS[subject]] for subject in (0, 1))

    assert await comes(seen)
    stopping.set()
    await asyncio.gather(*both)
    old = sum(word.startswith("old") for those in letters.written.values() for word in those)
    assert old == (0 if starts == "now" else 40)
    await publisher.publish([record._replace(offset=None) for record in words.records[1]])  # all of it again
    await publisher.close()
    await mongo.beside(CHECKPOINTS_DATABASE).drop_database()
