"""The content of a file, sealed in chunks, so that it is written and read in bounded memory.

Each chunk is AES-256-GCM under a key of this object alone, which follows from the key of its subject. The number of the
chunk, and whether it is the last one, are its nonce and associated data. A content that was cut off, or whose chunks were
left out, put in another order or taken from another object, does not open.
"""

from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey

CHUNK_BYTES: Final = 64 << 10
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + 16
_FORMAT: Final = b"CRMFILE1"
HEAD_BYTES: Final = len(_FORMAT) + 16


class ChunkSealer:
    """Seals the chunks of one object, or opens them, in their order. `place` names the object, and is never used again."""

    def __init__(self, key: DataKey, place: str) -> None:
        self.head: Final = _FORMAT + key.id.bytes
        """What the object begins with."""
        self._aad = self.head + place.encode()
        self._cipher = AESGCM(key.derive(f"file|{place}"))
        self._number = 0

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        """The next chunk: of CHUNK_BYTES, the last one of up to so many."""
        if len(chunk) > CHUNK_BYTES or (len(chunk) < CHUNK_BYTES and not last):
            raise ValueError(f"a chunk has {CHUNK_BYTES} bytes")
        return self._cipher.encrypt(self._nonce(last), chunk, self._aad)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """The next chunk in clear; raises Tampered."""
        try:
            return self._cipher.decrypt(self._nonce(last), sealed, self._aad)
        except (InvalidTag, ValueError) as error:
            raise Tampered("a chunk of the content does not open here") from error

    def _nonce(self, last: bool) -> bytes:
        self._number += 1
        return self._number.to_bytes(8, "big") + bytes([0, 0, 0, last])


class Sealing:
    """Seals content that comes in pieces of any size."""

    def __init__(self, key: DataKey, place: str) -> None:
        self._sealer = ChunkSealer(key, place)
        self._held = bytearray()
        self._begun = False

    def add(self, part: bytes) -> bytes:
        """What can be written by now. One chunk is held back, because it may be the last."""
        self._held += part
        sealed = [] if self._begun else [self._sealer.head]
        self._begun = True
        while len(self._held) > CHUNK_BYTES:
            sealed.append(self._sealer.seal(bytes(self._held[:CHUNK_BYTES]), last=False))
            del self._held[:CHUNK_BYTES]
        return b"".join(sealed)

    def end(self) -> bytes:
        """The rest."""
        return self.add(b"") + self._sealer.seal(bytes(self._held), last=True)


class Opening:
    """Opens what `Sealing` has sealed; each piece has whole sealed chunks, but for the last one."""

    def __init__(self, key: DataKey, place: str, head: bytes) -> None:
        self._sealer = ChunkSealer(key, place)
        if head != self._sealer.head:
            raise Tampered("the content was sealed under another key, or is none")

    def opened(self, sealed: bytes, *, last: bool) -> Iterator[bytes]:
        """The chunks of a piece in clear; `last` says that nothing follows it. Raises Tampered."""
        ends = range(SEALED_CHUNK_BYTES, len(sealed) + SEALED_CHUNK_BYTES, SEALED_CHUNK_BYTES)
        for end in ends or (0,):
            final = last and end >= len(sealed)
            yield self._sealer.open(sealed[max(end - SEALED_CHUNK_BYTES, 0) : end], last=final)


def sealed_size(size_bytes: int) -> int:
    """How many bytes a content of that size has when it is sealed."""
    chunks = max(-(-size_bytes // CHUNK_BYTES), 1)
    return HEAD_BYTES + size_bytes + chunks * (SEALED_CHUNK_BYTES - CHUNK_BYTES)
