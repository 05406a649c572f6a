"""Key-encryption keys: what wraps data keys, so that the key database alone opens nothing.

The root key is outside of the database: a file in development, a KMS in production. It wraps the data keys itself, or
it wraps key-encryption keys that lie in the key database and wrap the data keys (`chassis.privacy.rotating`).
"""

import contextlib
import os
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

from chassis.connections.transient import Transient

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_READABLE_BY_GROUP: Final = 0o440
"""A Secret in a pod: the kubelet's file belongs to root, and the pod's group (`fsGroup`) may read it. Nobody
may write it."""


class Tampered(Exception):
    """A sealed value was moved to another place, or was changed."""


class WrongKeyEncryption(Tampered, Transient):
    """A data key was wrapped by another key-encryption key than the current one, or for another subject."""


class KeyEncryptionGone(WrongKeyEncryption):
    """There is no key-encryption key of this number: a rotation has destroyed it, and wrapped its rows by another one."""


class KeyEncryptionUnusable(Transient):
    """The configured key-encryption key is no valid key, or may not be used."""


class KeyEncryptionMissing(KeyEncryptionUnusable):
    """There is no file of the key-encryption key.

    A new key would not open the values that were sealed before.
    """


class KeyEncryptionUnavailable(Transient):
    """The KMS does not answer."""


class KeyEncryption(Protocol):
    """A key that wraps other keys.

    `remote` says that each call leaves the process: such a key wraps key-encryption keys, and no data keys.
    """

    remote: bool = False

    def wrap(self, material: bytes, aad: bytes) -> bytes:
        """The wrapped key."""
        ...

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """The unwrapped key; raises Tampered where it was wrapped for another subject."""
        ...


def wrapped_and_opened(encryption: KeyEncryption, material: bytes, aad: bytes) -> bytes:
    """The wrapped key, which was opened again: what one that only wraps has wrapped, nobody opens any more.

    Raises what wrapping and opening raise, and WrongKeyEncryption where another key comes out.
    """
    wrapped = encryption.wrap(material, aad)
    if encryption.unwrap(wrapped, aad) != material:
        raise WrongKeyEncryption("what was wrapped does not come out again")
    return wrapped


class AesKeyEncryption(KeyEncryption):
    """A key-encryption key in memory, AES-256-GCM."""

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise KeyEncryptionUnusable(f"a key-encryption key has {KEY_BYTES} bytes, not {len(material)}")
        self._cipher = AESGCM(material)

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, material, aad)

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], aad)
        except (InvalidTag, ValueError) as error:
            raise WrongKeyEncryption(
                "the data key was wrapped by another key or for another subject"
            ) from error


class FileKeyEncryption(AesKeyEncryption):
    """A key-encryption key in a file that only its owner may read, or that is mounted into a pod for its
    group to read."""

    @classmethod
    def at(cls, path: Path, *, create: bool = False) -> "FileKeyEncryption":
        """Reads the key; raises KeyEncryptionMissing where there is none.

        `create`, for development alone, makes a missing key. Two processes that start at once then use the
        same one.
        """
        try:
            return cls(_read_key(path))
        except FileNotFoundError:
            if not create:
                raise KeyEncryptionMissing(f"there is no key-encryption key at {path}") from None
            path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
        return cls(_read_key(path))


def _read_key(path: Path) -> bytes:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077 and mode != _READABLE_BY_GROUP:
        raise PermissionError(f"{path} may be read by others (mode {mode:o}); chmod 600 it")
    return path.read_bytes()
