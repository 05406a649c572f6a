"""Topics and events are named once, and what refers to one of them refers to one that is there."""

import re
from collections import Counter
from uuid import UUID

import pytest
from contracts.registry import BY_CONTEXT, TypeUnknown, VersionNewer, context_of, lifts_of, model_of
from contracts.topics import CONSUMERS, EVENTS, PARTITIONS, TOPICS, murmur2, partition_of


def test_names_are_there_once():
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    assert len({group.name for group in CONSUMERS}) == len(CONSUMERS)


def test_kafka_takes_every_name():
    for topic in TOPICS:
        assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic.name), topic.name


def test_kafka_metrics_tell_all_topics_apart():
    """The broker's metric names turn a dot into an underscore."""
    seen = Counter(topic.name.replace(".", "_") for topic in TOPICS)
    assert [name for name, count in seen.items() if count > 1] == []


def test_consumers_read_topics_that_exist_and_have_dead_letters():
    names = {topic.name for topic in TOPICS}
    for group in CONSUMERS:
        assert set(group.topics) <= names
        assert group.dead_letters in TOPICS


def test_every_context_has_events_and_a_topic():
    assert set(BY_CONTEXT) == set(EVENTS)
    for context, events in BY_CONTEXT.items():
        for event in events:
            assert model_of(event.TYPE, event.VERSION) is event
            assert context_of(event.TYPE, event.VERSION) == context


def test_types_are_unique_across_contexts():
    names = [(event.TYPE, event.VERSION) for events in BY_CONTEXT.values() for event in events]
    assert len(set(names)) == len(names)


def test_every_version_but_the_newest_is_lifted_to_the_next():
    newest = dict(sorted((event.TYPE, event.VERSION) for events in BY_CONTEXT.values() for event in events))
    for name, last in newest.items():
        for version in range(1, last + 1):
            assert len(lifts_of(name, version)) == last - version, f"{name} {version}"


def test_an_unknown_type_or_version_is_named():
    with pytest.raises(VersionNewer, match=r"posting\.booked version 99"):
        model_of("posting.booked", 99)
    for name, version in [("posting.booked", 0), ("posting.lost", 99)]:
        with pytest.raises(TypeUnknown) as unknown:
            model_of(name, version)
        assert not isinstance(unknown.value, VersionNewer)


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_in_the_tests_of_kafka_itself(key, signed):
    """The vectors of `org.apache.kafka.common.utils.UtilsTest.testMurmur2`."""
    assert murmur2(key) == signed % 2**32


def test_the_partition_of_a_subject_never_changes():
    """Another answer would put a subject's next event into another partition."""
    assert [partition_of(UUID(int=number)) for number in range(8)] == [3, 2, 5, 1, 0, 3, 5, 2]


def test_subjects_spread_over_all_partitions():
    spread = Counter(partition_of(UUID(int=number * 7919)) for number in range(6_000))
    assert set(spread) == set(range(PARTITIONS))
    assert min(spread.values()) > 800
