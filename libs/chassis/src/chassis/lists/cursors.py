"""Cursors: where a page ended, sealed for the question and the caller that it was given to.

A cursor of another list, filter, order, scope or caller does not open, and nobody reads or makes one.
"""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from chassis.lists.ordering import Place
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey, open_bytes, seal_bytes
from chassis.web.paging import CursorInvalid

PURPOSE: Final = "list-cursors"
"""The purpose under which the key custody keeps the secret of cursors. Where it is lost, pages begin anew."""
_NOBODY: Final = UUID(int=0)
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
        self._key: DataKey | None = None

    async def cursor(self, ended: Ended, asked: Any) -> str:
        """The cursor of the page after a place."""
        sealed = seal_bytes(await self._secret(), _place(asked), _encode(ended))
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    async def ended(self, cursor: str, asked: Any) -> Ended:
        """Where the page before ended; raises CursorInvalid."""
        try:
            sealed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            content = open_bytes(await self._secret(), _place(asked), sealed)
        except (ValueError, Tampered) as error:
            raise CursorInvalid from error
        if content is None:
            raise CursorInvalid
        return msgspec.json.decode(content, type=Ended)

    async def _secret(self) -> DataKey:
        if self._key is None:
            self._key = DataKey(_NOBODY, _NOBODY, await asyncio.to_thread(self._ask, PURPOSE))
        return self._key


def _place(asked: Any) -> str:
    return _encode(asked).decode()
