"""Signatures of webhooks, in both directions: Standard Webhooks 1.0 (standardwebhooks.com), symmetric.

The signature is of id, time and body. Who has the secret can therefore neither be imitated nor repeated later.
"""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import ClassVar, Final

from chassis.write.deciding import Refusal

TOLERANCE_SECONDS: Final = 300
SECRET_BYTES_MIN: Final = 24
PREFIX: Final = "whsec_"
ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
SIGNATURES_MAX: Final = 5
"""A sender signs with two secrets while it changes from one to the other."""


class SignatureInvalid(Refusal):
    """A receipt whose signature is missing, wrong or of another time."""

    code: ClassVar[str] = "signature-invalid"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "The signature does not hold"
    title_zh: ClassVar[str] = "签名无效"


def secret_bytes(text: str) -> bytes:
    """The bytes of a secret as it is written, `whsec_` and base64; raises ValueError."""
    try:
        found = b64decode(text.removeprefix(PREFIX), validate=True)
    except NotBase64 as error:
        raise ValueError("no secret of a webhook: it is not base64") from error
    if len(found) < SECRET_BYTES_MIN:
        raise ValueError(f"a secret of a webhook has at least {SECRET_BYTES_MIN} bytes")
    return found


def signed_headers(secret: bytes, id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of a request with this body."""
    timestamp = str(int(now.timestamp()))
    return {ID: id, TIMESTAMP: timestamp, SIGNATURE: _signature(secret, id, timestamp, body)}


def verified(secret: bytes, headers: Mapping[str, str], now: datetime, body: bytes) -> str:
    """The id of a request whose signature holds; raises SignatureInvalid."""
    id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise SignatureInvalid
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureInvalid
    expected = _signature(secret, id, timestamp, body).encode()
    given = headers.get(SIGNATURE, "").split(" ")[:SIGNATURES_MAX]
    if not any(hmac.compare_digest(expected, one.encode("utf-8", "replace")) for one in given):
        raise SignatureInvalid
    return id


def _signature(secret: bytes, id: str, timestamp: str, body: bytes) -> str:
    said = f"{id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.new(secret, said, sha256).digest()).decode("ascii")
