"""A root key in a KMS that speaks the protocol of AWS KMS. It never leaves the KMS, which wraps and unwraps with it."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from typing_extensions import override

from chassis.privacy.key_encryption import (
    KeyEncryption,
    KeyEncryptionUnavailable,
    KeyEncryptionUnusable,
    WrongKeyEncryption,
)

CONNECT_SECONDS_MAX: Final = 3
ANSWER_SECONDS_MAX: Final = 5
ATTEMPTS_MAX: Final = 2
_OF_ANOTHER: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_BUSY: Final = frozenset({"ThrottlingException", "KMSInternalException", "DependencyTimeoutException"})

T = TypeVar("T")


class KmsKeyEncryption(KeyEncryption):
    """The key `key` (an id, an ARN or an alias) of the KMS at `endpoint`, by default that of the region.

    Region and credentials are found as every client of AWS finds them: the environment, or the identity of the pod.
    """

    remote = True

    def __init__(
        self, key: str, endpoint: str | None = None, *, answer_seconds: float = ANSWER_SECONDS_MAX
    ) -> None:
        self._key = key
        limits = Config(
            connect_timeout=min(CONNECT_SECONDS_MAX, answer_seconds),
            read_timeout=answer_seconds,
            retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
        )
        self._client: Any = _asked(lambda: boto3.client("kms", endpoint_url=endpoint, config=limits))

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        return _asked(
            lambda: _bytes_of(
                self._client.encrypt(KeyId=self._key, Plaintext=material, EncryptionContext=_place(aad)),
                "CiphertextBlob",
            )
        )

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        return _asked(
            lambda: _bytes_of(
                self._client.decrypt(KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=_place(aad)),
                "Plaintext",
            )
        )


def _place(aad: bytes) -> dict[str, str]:
    return {"place": b64encode(aad).decode("ascii")}


def _bytes_of(answer: Any, field: str) -> bytes:
    found = answer[field]
    if not isinstance(found, bytes) or not found:
        raise TypeError(field)
    return found


def _asked(ask: Callable[[], T]) -> T:
    """Raises the errors of key encryption in place of the library's; none quotes what was sent.

    An answer that lacks what a KMS answers with is none: a proxy may have given it.
    """
    try:
        return ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in _OF_ANOTHER:
            raise WrongKeyEncryption(
                "the key was wrapped by another key of the KMS or for another place"
            ) from error
        if code in _BUSY:
            raise KeyEncryptionUnavailable(f"the KMS is busy: {code}") from error
        raise KeyEncryptionUnusable(f"the KMS refuses: {code}") from error
    except Exception as error:  # the library raises errors of any kind on what is no answer of a KMS
        raise KeyEncryptionUnavailable(f"the KMS does not answer: {type(error).__name__}") from error
