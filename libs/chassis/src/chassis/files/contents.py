"""The content of files between its storage and whoever sends or reads it: checked, sealed, opened, part by part."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid5

from chassis.files.checking import HEAD_BYTES, FileEmpty, FileOversized, check_head
from chassis.files.deciding import FileAttached
from chassis.files.objects import Name
from chassis.files.sealing import HEAD_BYTES as SEALED_HEAD_BYTES
from chassis.files.sealing import SEALED_CHUNK_BYTES, Opening, Sealing, sealed_size
from chassis.files.storage import Download, Storage
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey

NAMESPACE: Final = UUID("5a0e1f86-2f0d-5c8e-8a57-7d1f3f2c9b40")
PIECE_BYTES: Final = 16 * SEALED_CHUNK_BYTES
"""So much of a content is in memory while it is read."""


class ContentStore:
    """The contents of the files of one event store."""

    def __init__(self, of_store: str, storage: Storage) -> None:
        self._of_store = of_store
        self._storage = storage

    async def write(
        self,
        at: Name,
        key: DataKey,
        content: AsyncIterator[bytes],
        media_type: str,
        size_bytes_max: int,
        announce: Callable[[], Awaitable[None]],
    ) -> tuple[int, str]:
        """Writes a content, sealed, to the disk of the storage; its size and its digest. `announce` is called before the object
        is whole.

        Leaves nothing where it raises: FileTypeRefused, FileOversized, FileEmpty, StorageUnavailable, or what `content` raises.
        """
        upload, digest = self._storage.write(at), _hash(key)
        sealing, size, head = Sealing(key, self._place(at)), 0, b""
        try:
            async for part in content:
                size += len(part)
                if size > size_bytes_max:
                    raise FileOversized(f"at most {size_bytes_max} bytes")
                if len(head) < HEAD_BYTES:
                    head += part[: HEAD_BYTES - len(head)]
                    if len(head) == HEAD_BYTES:
                        check_head(head, media_type)
                digest.update(part)
                if sealed := sealing.add(part):
                    await upload.write(sealed)
            if not size:
                raise FileEmpty
            check_head(head, media_type)
            await upload.write(sealing.end())
            await announce()
            await upload.commit()
        except BaseException:
            # Also where the caller is cancelled once more.
            await asyncio.shield(asyncio.ensure_future(upload.abandon()))
            raise
        return size, digest.hexdigest()

    async def parts(self, download: Download, held: FileAttached, key: DataKey) -> AsyncIterator[bytes]:
        """A content in clear, part by part; raises Tampered, StorageUnavailable."""
        opening = Opening(key, self._place(self.name_of(held)), await download.read(SEALED_HEAD_BYTES))
        left = sealed_size(held.size_bytes) - SEALED_HEAD_BYTES
        while left:
            piece = await download.read(min(left, PIECE_BYTES))
            left -= len(piece)
            if left and len(piece) < PIECE_BYTES:
                raise Tampered("the content was cut off")
            for part in opening.opened(piece, last=not left):
                yield part
        if await download.read(1):
            raise Tampered("something was added to the content")

    async def verify(self, held: FileAttached, key: DataKey) -> None:
        """Reads a content whole; raises ObjectMissing, Tampered, StorageUnavailable."""
        digest, size = _hash(key), 0
        async with await self._storage.read(self.name_of(held)) as download:
            async for part in self.parts(download, held, key):
                digest.update(part)
                size += len(part)
        if size != held.size_bytes or digest.hexdigest() != held.digest:
            raise Tampered("the content is another one")

    async def find(self, held: FileAttached) -> None:
        """Raises ObjectMissing where there is no content, and StorageUnavailable."""
        async with await self._storage.read(self.name_of(held)):
            return

    def name_of(self, held: FileAttached) -> Name:
        """The object that a file has."""
        return Name(stream_of(self._of_store, held.subject), held.object)

    def _place(self, at: Name) -> str:
        return f"{self._of_store}|{at.stream.hex}|{at.object.hex}"


def stream_of(of_store: str, subject: UUID) -> UUID:
    """The stream of the files of a subject in a store."""
    return uuid5(NAMESPACE, f"{of_store}|{subject}")


def digest_of(key: DataKey, content: bytes) -> str:
    """The digest of a content, keyed with the key of its subject."""
    digest = _hash(key)
    digest.update(content)
    return digest.hexdigest()


def _hash(key: DataKey) -> blake2b:
    return blake2b(key=key.derived("file-digest"), digest_size=32)
