"""Sealed content: what is cut off, put in another order, taken from elsewhere or changed does not open."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from chassis.files.sealing import (
    CHUNK_BYTES,
    HEAD_BYTES,
    SEALED_CHUNK_BYTES,
    Opening,
    Sealing,
    sealed_size,
)
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey

KEY = DataKey(UUID(int=1), UUID(int=2), bytes(range(32)))
OTHER = DataKey(UUID(int=3), UUID(int=4), bytes(reversed(range(32))))
CONTENT = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"the end"
SIZES = (1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, len(CONTENT))


def sealed(content: bytes, pieces: int = 1_000_000, key: DataKey = KEY, place: str = "here") -> bytes:
    sealing = Sealing(key, place)
    written = [sealing.add(content[at : at + pieces]) for at in range(0, len(content), pieces)]
    return b"".join([*written, sealing.end()])


def opened(whole: bytes, chunks: int = 2, key: DataKey = KEY, place: str = "here") -> bytes:
    opening, rest, found = Opening(key, place, whole[:HEAD_BYTES]), whole[HEAD_BYTES:], b""
    size = chunks * SEALED_CHUNK_BYTES
    for at in range(0, max(len(rest), 1), size):
        found += b"".join(opening.opened(rest[at : at + size], last=at + size >= len(rest)))
    return found


def shuffled(whole: bytes, order: Sequence[int]) -> bytes:
    rest = whole[HEAD_BYTES:]
    chunks = [rest[at : at + SEALED_CHUNK_BYTES] for at in range(0, len(rest), SEALED_CHUNK_BYTES)]
    return whole[:HEAD_BYTES] + b"".join(chunks[number] for number in order)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [1_000, CHUNK_BYTES, 1_000_000])
def test_content_of_any_size_in_any_pieces_opens(size: int, pieces: int) -> None:
    whole = sealed(CONTENT[:size], pieces)
    assert len(whole) == sealed_size(size)
    assert CONTENT[:size] not in whole or size < 20
    assert [opened(whole, chunks) for chunks in (1, 2, 16)] == [CONTENT[:size]] * 3


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1), (1, 0, 2, 3), (0, 2, 3), (0, 0, 1, 2, 3), (3,), ()])
def test_chunks_that_are_cut_off_left_out_or_in_another_order_do_not_open(order: Sequence[int]) -> None:
    with pytest.raises(Tampered):
        opened(shuffled(sealed(CONTENT), order))


@pytest.mark.parametrize("at", [0, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + SEALED_CHUNK_BYTES, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    whole = bytearray(sealed(CONTENT))
    whole[at] ^= 1
    with pytest.raises(Tampered):
        opened(bytes(whole))


def test_content_of_another_object_or_key_does_not_open() -> None:
    for key, place in ((KEY, "there"), (OTHER, "here")):
        with pytest.raises(Tampered):
            opened(sealed(CONTENT, key=key, place=place))
    here, there = sealed(CONTENT), sealed(CONTENT, place="there")
    with pytest.raises(Tampered):
        opened(here[: HEAD_BYTES + SEALED_CHUNK_BYTES] + there[HEAD_BYTES + SEALED_CHUNK_BYTES :])


def test_what_is_added_at_the_end_is_noticed() -> None:
    with pytest.raises(Tampered):
        opened(sealed(CONTENT) + b"more")
