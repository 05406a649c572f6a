"""Fetching from Kafka past a record that the client cannot decode, and no longer than the client works.

aiokafka decodes the names of headers as UTF-8 while it returns records. After one name that is not UTF-8
it raises on every call, and loses the good records that it had already taken out of its buffers. Here such
a record is returned in its place, without key, value and headers, because the client does not give them.
The record itself stays in its topic for the topic's retention.

aiokafka coordinates its group, fetches, and finds the brokers in three tasks of its own. An error that it does not
expect ends such a task, and it starts none again. From then on every call raises an error that looks passing, or
returns nothing. Here the call says that the consumer has stopped.

aiokafka makes an object of eleven fields of each record, in Python. Here a record is made once, as `Record`.

A record of a transaction is returned once that is committed, and never where it is aborted: a branch system that sends in
transactions has said nothing until then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError  # type: ignore[import-untyped]
from typing_extensions import override

from chassis.ending import ended
from chassis.messaging.records import Record

UNREADABLE: Final = (("unreadable", b"the name of a header is not UTF-8"),)
"""The headers of the substitute for a record that cannot be decoded; the substitute is recognised by their
identity."""
UNREADABLE_REASON: Final = "the name of a header is not UTF-8"
SINGLY_RECORDS_MAX: Final = 1_000
"""Records of a partition that are fetched one by one before the other partitions are fetched again."""
SINGLY_MILLISECONDS_MAX: Final = 500
COALESCED_RECORDS_LEAST: Final = 100
"""After a batch of so many records the broker coalesces the next one: a batch costs its consumer several commands, however
few records it has."""
COALESCED_BYTES: Final = 1 << 19
COALESCED_MILLISECONDS_MAX: Final = 300
"""The broker answers when it has as many bytes, or after this time. It answers others as soon as it has a record."""
UNCOALESCED_MILLISECONDS_MAX: Final = 500
PARTIAL_MILLISECONDS_MAX: Final = 50
"""While records wait for their handler, the client fetches the other partitions alone. It fetches those of the records again
when the broker has answered that, so a record behind them would wait as long as the broker does. What is coalesced waits on
purpose."""


class RecordReader(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, which goes on after a record that it cannot decode, and stops where its tasks have ended.

    A record may be returned twice. A call waits for records for `poll_milliseconds` at least.
    """

    def __init__(self, *topics: str, poll_milliseconds: int = 0, **options: Any) -> None:
        super().__init__(*topics, **{**options, "isolation_level": "read_committed"})
        self._poll_milliseconds = poll_milliseconds
        self._given: dict[TopicPartition, int] = {}
        """Behind the last record of each partition that was handed out, or where somebody sought to."""

    @override
    async def start(self) -> None:
        await super().start()
        self._fetcher._records = _Fetched(self._fetcher)

    @override
    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._given[partition] = offset
        self._let_go(partition)
        super().seek(partition, offset)

    @override
    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        found: dict[TopicPartition, list[Record]]
        if self._has_ended():
            raise ConsumerStoppedError
        timeout_ms = max(timeout_ms, self._poll_milliseconds)
        try:
            found = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        except UnicodeDecodeError:
            assigned = self.assignment()
            asked = [at for at in partitions or assigned if at in assigned]
            await self._back(asked)
            found = await self._until_unreadable(asked)
        for at, records in found.items():
            self._given[at] = (records[-1].offset or 0) + 1
        self._coalesce(0 if self._group_id is None else sum(map(len, found.values())))
        return found

    def _coalesce(self, many: int) -> None:
        """Says how the next batch is fetched after one of so many records."""
        fetcher = self._fetcher
        if many >= COALESCED_RECORDS_LEAST:
            fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = COALESCED_BYTES, COALESCED_MILLISECONDS_MAX
        else:
            beside = bool(fetcher._records)
            fetcher._fetch_min_bytes = 1
            fetcher._fetch_max_wait_ms = PARTIAL_MILLISECONDS_MAX if beside else UNCOALESCED_MILLISECONDS_MAX

    @override
    async def stop(self) -> None:
        if not self._has_ended():
            await super().stop()
            return
        self._closed = True
        await ended(*self._tasks())
        for part in (self._coordinator, self._fetcher, self._client):
            with suppress(KafkaError, RuntimeError):
                await part.close()
        for connection in self._client._conns.values():
            connection.close()

    def _let_go(self, at: TopicPartition) -> None:
        """Ends the reading of what is buffered of a partition, up to 1 MiB.

        The buffer and the generator that reads it hold each other, and a role looks for cycles only after thousands of
        such objects (`chassis.heap`): a handler that fails for hours would fill the memory.
        """
        buffered = getattr(self._fetcher._records.get(at), "_partition_records", None)
        reading = getattr(buffered, "_records_iterator", None)
        if reading is not None:
            reading.close()

    def _has_ended(self) -> bool:
        """Whether one of the tasks has ended that the client needs."""
        return any(task.done() for task in self._tasks())

    def _tasks(self) -> list["asyncio.Task[None]"]:
        """The tasks that coordinate the group, fetch records, and find the brokers."""
        owners = (
            (self._coordinator, "_coordination_task"),
            (self._fetcher, "_fetch_task"),
            (self._client, "_sync_task"),
        )
        found = [getattr(owner, name, None) for owner, name in owners]
        return [task for task in found if task is not None]

    async def _back(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetches again the records that were taken out of the buffers and not returned when a record could
        not be decoded."""
        for at in partitions:
            offset = self._given.get(at)
            if offset is None and self._group_id is not None:
                offset = await self.committed(at)
            if offset is None:
                offset = (await self.beginning_offsets([at]))[at]
            self.seek(at, offset)

    async def _until_unreadable(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, list[Record]]:
        found: dict[TopicPartition, list[Record]] = {}
        for at in partitions:
            records = []
            for _ in range(SINGLY_RECORDS_MAX):
                try:
                    got = await super().getmany(at, timeout_ms=SINGLY_MILLISECONDS_MAX, max_records=1)
                except UnicodeDecodeError:
                    offset = await self.position(at)
                    records.append(_placeholder(at, offset))
                    self.seek(at, offset + 1)
                    break
                if not got:
                    break
                records += got[at]
            if records:
                found[at] = records
                if records[-1].headers is UNREADABLE:
                    break  # the others come with the next call
        return found


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What the client has fetched and not returned, by partition. Its records are read as ours. While there are any,
    the broker answers soon."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        super().__init__(fetcher._records)

    @override
    def __setitem__(self, at: TopicPartition, fetched: Any) -> None:
        if self._fetcher._fetch_min_bytes == 1:
            self._fetcher._fetch_max_wait_ms = PARTIAL_MILLISECONDS_MAX
        records = getattr(fetched, "_partition_records", None)
        if records is not None:
            records._records_iterator = _records(records)
        super().__setitem__(at, fetched)


def _records(fetched: Any) -> Iterator[Record]:
    """The records of what was fetched of a partition, as the client reads them where transactions are waited for."""
    topic, partition = fetched._tp
    batches, new, aborted = fetched._records, tuple.__new__, fetched._aborted_producers
    while batches.has_next():
        batch = batches.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"invalid checksum in {topic}[{partition}]")
        if batch.is_transactional:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                aborted.discard(batch.producer_id)
        is_aborted = batch.is_transactional and batch.producer_id in aborted
        if not batch.is_control_batch and not is_aborted:
            at = fetched.next_fetch_offset
            for each in batch:
                offset = each.offset
                if offset < at:  # a batch is fetched whole
                    continue
                at = fetched.next_fetch_offset = offset + 1
                # The constructor of a named tuple is a function in Python.
                values = (topic, partition, each.key or b"", each.headers, each.value or b"", offset)
                yield new(Record, values)
        fetched.next_fetch_offset = batch.next_offset


def _placeholder(at: TopicPartition, offset: int) -> Record:
    return Record(at.topic, at.partition, b"", UNREADABLE, b"", offset)
