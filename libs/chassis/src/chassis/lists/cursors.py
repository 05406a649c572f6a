"""Cursors: where a page ended, sealed for the question and the caller that it was given to.

A cursor of another list, filter, order, scope or caller does not open, and nobody reads or makes one. The same page has
the same cursor (AES-SIV, RFC 5297), so that a client which has a page already is told so.
"""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import date
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from chassis.lists.ordering import Place
from chassis.web.paging import CursorInvalid

PURPOSE: Final = "list-cursors"
"""The purpose under which the key custody keeps the secret of cursors. Where it is lost, pages begin anew."""
_KEY_BYTES: Final = 64
_encode: Final = msgspec.json.Encoder().encode


class Ended(NamedTuple):
    """Where a page ended, and the day from which its days were counted."""

    as_of: date
    value: Any
    id: str

    @property
    def place(self) -> Place:
        """The place in the order."""
        return Place(self.value, self.id)


class Cursors:
    """Seals and opens cursors. `asked` is what a cursor belongs to, as JSON can say it.

    `secret` gives the secret of a purpose, of 32 bytes (`KeyRing.secret`); it is asked for once, in a thread.
    """

    def __init__(self, secret: Callable[[str], bytes]) -> None:
        self._ask = secret
        self._cipher: AESSIV | None = None

    async def cursor(self, ended: Ended, asked: Any) -> str:
        """The cursor of the page after a place."""
        sealed = (await self._opened()).encrypt(_encode(ended), [_encode(asked)])
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    async def ended(self, cursor: str, asked: Any) -> Ended:
        """Where the page before ended; raises CursorInvalid."""
        try:
            sealed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            content = (await self._opened()).decrypt(sealed, [_encode(asked)])
        except (ValueError, InvalidTag) as error:
            raise CursorInvalid from error
        return msgspec.json.decode(content, type=Ended)

    async def _opened(self) -> AESSIV:
        if self._cipher is None:
            secret = await asyncio.to_thread(self._ask, PURPOSE)
            self._cipher = AESSIV(blake2b(PURPOSE.encode(), key=secret, digest_size=_KEY_BYTES).digest())
        return self._cipher
