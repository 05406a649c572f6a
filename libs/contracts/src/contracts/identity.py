"""Identities derived from external ids, under one secret of the key custody.

The same source and key give the same id in every service, so a fact that arrives twice, or in two places,
is recognised without asking anybody. An account number has few digits: without a secret, whoever sees an id and a
masked number finds the number by trying. Sources and keys are joined by a colon; a source name therefore holds none. A
source is named in one spelling (Unicode NFKC), however its letters are composed.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NewType
from unicodedata import normalize
from uuid import UUID, SafeUUID

from typing_extensions import override

AccountId = NewType("AccountId", UUID)
PartyId = NewType("PartyId", UUID)
PostingId = NewType("PostingId", UUID)

CRM_NAMESPACE = UUID("5b0c9c7e-4f0d-5f0e-8a53-0d2f3ad5c0a1")
EXTERNAL_IDS: Final = "outside-ids"
"""The purpose under which the key custody keeps the secret of these ids."""
SECRET_BYTES: Final = 32
SOURCE_CHARACTERS_MAX: Final = 64

_ID_BYTES: Final = 16
_CLEAR: Final = ~((0xF000 << 64) | (0xC000 << 48))
_VERSION_8: Final = (8 << 76) | (0x8000 << 48)
_UNKNOWN: Final = SafeUUID.unknown
_new: Final = object.__new__
_number: Final = int.from_bytes
_set_int: Final = UUID.__dict__["int"].__set__
_set_safe: Final = UUID.__dict__["is_safe"].__set__


def spelled(source: str) -> str:
    """The one spelling of the name of a source: Unicode NFKC, in which wide letters are plain ones and accents are
    composed."""
    return normalize("NFKC", source)


def source_name(text: str) -> str:
    """The name of a source in its one spelling; raises ValueError where it is no name."""
    name = spelled(text)
    if not 1 <= len(name) <= SOURCE_CHARACTERS_MAX or ":" in name or not name.isprintable():
        raise ValueError(f"1 to {SOURCE_CHARACTERS_MAX} printable characters, no colon")
    if name != name.strip():
        raise ValueError("no blank at either end")
    return name


class ExternalIds:
    """Ids of external ids: keyed BLAKE2b (RFC 7693) of kind, source and number, as UUID version 8 (RFC 9562)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret of external ids has {SECRET_BYTES} bytes")
        self._secret = secret

    def account(self, source: str, account: str) -> AccountId:
        """Id of the account that `source` knows under its own number `account`."""
        return AccountId(self.of_source("account", source, account))

    def party(self, source: str, party: str) -> PartyId:
        """Id of the person or company that `source` knows under its own customer number `party`."""
        return PartyId(self.of_source("party", source, party))

    def posting(self, source: str, account: str, core_transaction_id: str, leg: int) -> PostingId:
        """Id of one leg of a core-bank transaction: what makes a posting the same posting."""
        return self.postings(source, [(account, core_transaction_id, leg)])[0]

    def postings(self, source: str, legs: Iterable[tuple[str, str, int]]) -> list[PostingId]:
        """`posting` of each account, core transaction id and leg, without what `UUID` adds to each."""
        started = self._started("posting", source).copy
        made = []
        for account, transaction, leg in legs:
            hasher = started()
            rest = f"{len(account)}:{account}:{transaction}:{leg}"
            hasher.update(rest.encode("utf-8", "surrogatepass"))
            identity = _new(UUID)
            _set_int(identity, _number(hasher.digest(), "big") & _CLEAR | _VERSION_8)
            _set_safe(identity, _UNKNOWN)
            made.append(PostingId(identity))
        return made

    def of_source(self, kind: str, source: str, key: str) -> UUID:
        """Id of what `source` knows as `key`, among its things of this kind (at most 16 letters)."""
        if not key:
            raise ValueError(f"a {kind} key is not empty")
        hasher = self._started(kind, source)
        hasher.update(key.encode("utf-8", "surrogatepass"))
        return UUID(int=_number(hasher.digest(), "big") & _CLEAR | _VERSION_8)

    def _started(self, kind: str, source: str) -> blake2b:
        name = spelled(source)
        if not name or ":" in name:
            raise ValueError(f"a source name is not empty and holds no colon: {source!r}")
        hasher = blake2b(key=self._secret, digest_size=_ID_BYTES, person=kind.encode())
        hasher.update(f"{name}:".encode("utf-8", "surrogatepass"))
        return hasher

    @override
    def __repr__(self) -> str:
        return "ExternalIds(secret=***)"
