"""Fetching from Kafka past a record that the client cannot decode, and no longer than the client works.

aiokafka decodes the names of headers as UTF-8 while it returns records. After one name that is not UTF-8
it raises on every call, and loses the good records that it had already taken out of its buffers. Here such
a record is returned in its place, without key, value and headers, because the client does not give them.
The record itself stays in its topic for the topic's retention.

aiokafka coordinates its group, fetches, and finds the brokers in three tasks of its own. An error that it does not
expect ends such a task, and it starts none again. From then on every call raises an error that looks passing, or
returns nothing. Here the call says that the consumer has stopped.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import ConsumerStoppedError, KafkaError  # type: ignore[import-untyped]
from typing_extensions import override

from chassis.ending import ended

UNREADABLE: Final = (("unreadable", b"the name of a header is not UTF-8"),)
"""The headers of the substitute for a record that cannot be decoded; the substitute is recognised by their
identity."""
UNREADABLE_REASON: Final = "the name of a header is not UTF-8"
SINGLY_RECORDS_MAX: Final = 1_000
"""Records of a partition that are fetched one by one before the other partitions are fetched again."""
SINGLY_MILLISECONDS_MAX: Final = 500


class RecordReader(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, which goes on after a record that it cannot decode, and stops where its tasks have ended.

    A record may be returned twice.
    """

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._given: dict[TopicPartition, int] = {}
        """Behind the last record of each partition that was handed out, or where somebody sought to."""

    @override
    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._given[partition] = offset
        self._let_go(partition)
        super().seek(partition, offset)

    @override
    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]]
        if self._has_ended():
            raise ConsumerStoppedError
        try:
            found = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        except UnicodeDecodeError:
            assigned = self.assignment()
            asked = [at for at in partitions or assigned if at in assigned]
            await self._back(asked)
            found = await self._until_unreadable(asked)
        for at, records in found.items():
            self._given[at] = records[-1].offset + 1
        return found

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
        such objects (`chassis.garbage`): a handler that fails for hours would fill the memory.
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
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
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


def _placeholder(at: TopicPartition, offset: int) -> ConsumerRecord:
    return ConsumerRecord(at.topic, at.partition, offset, 0, 0, None, None, None, -1, -1, UNREADABLE)
