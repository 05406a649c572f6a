"""Our topics with clients that others wrote: confluent-kafka, and the CloudEvents SDK's own parser."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID, uuid5

from chassis.clock import SystemClock, uuid7
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, ensure_topics
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.v1.kafka import KafkaMessage as OldMessage
from cloudevents.v1.kafka import from_binary as from_binary_of_old
from confluent_kafka import Consumer, Producer, TopicPartition
from contracts.envelope import WATERMARK, Envelope, Watermark
from contracts.topics import Topic, partition_of

AT = datetime(2026, 1, 5, 8, 0, 0, 123456, tzinfo=UTC)
PARTITIONS = 6
SUBJECTS = [uuid5(UUID(int=0), str(number)) for number in range(300)]
SECONDS_MAX = 100.0


async def made(kafka_url: str) -> Topic:
    topic = Topic(f"test.others-{uuid7(SystemClock().now())}", PARTITIONS, "subject", "of a test")
    await ensure_topics(kafka_url, [topic])
    return topic


def consumed(kafka_url: str, topic: Topic, count: int) -> list:
    """The first `count` records of a topic as confluent-kafka gives them."""
    consumer = Consumer({"bootstrap.servers": kafka_url, "group.id": topic.name, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic.name, number, 0) for number in range(PARTITIONS)])
        found = []
        while len(found) < count:
            some = consumer.consume(count - len(found), SECONDS_MAX)
            assert some, f"{len(found)} of {count} records within {SECONDS_MAX} s"
            found += some
        return found
    finally:
        consumer.close()


async def test_a_client_with_the_java_default_partitioner_puts_a_subject_where_we_do(kafka_url):
    topic = await made(kafka_url)

    def produce() -> list:
        # In librdkafka this is the partitioner that is compatible with the Java client's default.
        producer = Producer({"bootstrap.servers": kafka_url, "partitioner": "murmur2_random"})
        for subject in SUBJECTS:
            producer.produce(topic.name, key=str(subject), value=b"{}")
        assert producer.flush(SECONDS_MAX) == 0
        return consumed(kafka_url, topic, len(SUBJECTS))

    places = {UUID(record.key().decode()): record.partition() for record in await asyncio.to_thread(produce)}
    assert places == {subject: partition_of(subject, PARTITIONS) for subject in SUBJECTS}
    assert len(set(places.values())) == PARTITIONS


async def test_every_record_of_an_event_topic_is_a_cloud_event_with_a_json_body(kafka_url):
    topic, publisher = await made(kafka_url), KafkaPublisher(kafka_url)
    event = Envelope(
        UUID(int=1), "posting.booked", 1, "ingest", SUBJECTS[0], 7, 4711, AT, AT, "posting-booked",
        UUID(int=2), UUID(int=3), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    mark, key = Watermark("ingest", 4711, AT), str(SUBJECTS[0]).encode()
    place = partition_of(SUBJECTS[0], PARTITIONS)
    try:
        await publisher.publish(
            [Record(topic.name, place, key, event.headers(), b'{"amount_minor": 5}')]
            + [Record(topic.name, n, b"", mark.headers(n), mark.body) for n in range(PARTITIONS)]
        )
    finally:
        await publisher.close()
    records = await asyncio.to_thread(consumed, kafka_url, topic, PARTITIONS + 1)
    read = [
        from_kafka(KafkaMessage(dict(each.headers()), each.key(), each.value()), JSONFormat())
        for each in records
    ]
    assert {one.get_id() for one in read} == {str(UUID(int=1))} | {
        dict(mark.headers(n))["ce_id"].decode() for n in range(PARTITIONS)
    }
    assert {one.get_source() for one in read} == {"/crm/ingest"}
    for one, record in zip(read, records, strict=True):
        assert one.get_datacontenttype() == "application/json"
        assert one.get_time() == AT
        assert one.get_data() == json.loads(record.value())
        if one.get_type() == WATERMARK:
            assert one.get_data() == {"position": int(one.get_extension("position"))}
        else:
            assert (one.get_subject(), one.get_extension("sequence")) == (str(SUBJECTS[0]), "7")
    for record in records:
        old = from_binary_of_old(OldMessage(dict(record.headers()), record.key(), record.value()))
        assert old.data == json.loads(record.value()), "the SDK before 2.0 reads it too"
