"""Records as another client may send them, which ours would not: the name of a header is no text."""

from typing import Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.producer.message_accumulator import BatchBuilder  # type: ignore[import-untyped]
from aiokafka.record.util import calc_crc32c  # type: ignore[import-untyped]
from typing_extensions import override

BATCH_BYTES_MAX: Final = 1 << 16
_CRC_AT, _AFTER_CRC = 17, 21
"""Where the checksum of a batch of records is, and where what it covers begins (message format 2)."""


class _Strange(BatchBuilder):  # type: ignore[misc]
    name = b""

    @override
    def _build(self) -> bytearray:
        built = bytearray(bytes(super()._build()).replace(b"~" * len(self.name), self.name))
        built[_CRC_AT:_AFTER_CRC] = calc_crc32c(built[_AFTER_CRC:]).to_bytes(4, "big")
        return built


async def send_strange(kafka_url: str, topic: str, partition: int, name: bytes, value: bytes = b"x") -> int:
    """Publishes a record with a header of this name, and returns its offset."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_url, acks="all", enable_idempotence=False)
    await producer.start()
    try:
        batch: Any = _Strange(BATCH_BYTES_MAX, 0)
        batch.name = name
        batch.append(timestamp=None, key=b"k", value=value, headers=[("~" * len(name), b"v")])
        sent = await (await producer.send_batch(batch, topic, partition=partition))
        return int(sent.offset)
    finally:
        await producer.stop()
