"""Blind indexes: digests by which sealed values are found by their whole value, and by nothing else.

A digest is keyed with a secret of the key custody, so nobody who reads the index can try values. Digests lie in
derived documents and in no event: when its subject is erased, a digest goes with the document.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

from chassis.privacy.keys import ERASED, KeyRing
from chassis.read.showing import keys_of

PURPOSE: Final = "blind-index"
"""The purpose under which the key custody keeps the secret. Where it is lost, what has digests is derived anew."""
DIGEST_BYTES: Final = 16


class SealedAt(NamedTuple):
    """A sealed value of a document: the context, the subject and the field of the event that it comes from."""

    value: Mapping[str, Any] | None
    context: str
    subject: UUID
    field: str


class BlindIndex:
    """Makes digests. The same value of another field has another digest."""

    def __init__(self, ring: KeyRing, *, create: bool = True) -> None:
        """Without `create` a missing secret is not made: then digests raise SecretMissing."""
        self._ring = ring
        self._create = create
        self._secret: bytes | None = None

    async def digest(self, field: str, value: str) -> str:
        """The digest of a value in clear."""
        return _digest(await self._key(), field, value)

    async def digests(self, values: Sequence[SealedAt]) -> list[str | None]:
        """The digest of each value; None where there is no value, or its key was destroyed."""
        secret = await self._key()
        keys = await keys_of(self._ring, {one.subject for one in values if one.value is not None})
        found = list[str | None]()
        for value, context, subject, field in values:
            clear = keys.opened(value, context=context, subject=subject, field=field)
            found.append(None if clear is None or clear == ERASED else _digest(secret, field, clear))
        return found

    async def _key(self) -> bytes:
        if self._secret is None:
            self._secret = await asyncio.to_thread(self._ring.secret, PURPOSE, create=self._create)
        return self._secret


def _digest(secret: bytes, field: str, value: str) -> str:
    text = f"{len(field)}:{field}:{value}".encode("utf-8", "surrogatepass")
    return blake2b(text, key=secret, digest_size=DIGEST_BYTES).hexdigest()
