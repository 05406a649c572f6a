"""The last step of every response: headers, 304 for a client that has it already, compression, HEAD.

A response in one piece is buffered until it is complete. A response in several pieces is passed on piece
by piece.
"""

import gzip
import re
from hashlib import blake2b
from typing import Final

from starlette.types import Message, Send

COMPRESSED_BYTES_MIN: Final = 1_024
"""Below this size the header of a compressed body costs more than the compression saves."""
COMPRESSION_LEVEL: Final = 3
_ALWAYS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of every response. They keep personal data out of caches, and forbid clients to guess the media
type."""
_COMPRESSIBLE: Final = re.compile(rb"(?:text/|application/(?:[a-z.+-]+\+)?json|application/javascript).*")
_OF_CONTENT: Final = frozenset((b"content-length", b"content-type", b"content-encoding"))
_GZIP: Final = re.compile(
    rb"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q\s*=\s*(?:1(?:\.0*)?|0?\.0*[1-9][0-9]*)\s*)?(?:,|$)", re.I
)

Headers = list[tuple[bytes, bytes]]


class Answer:
    """Sends one response; `status` is 0 until it has begun."""

    __slots__ = (
        "_accepts_gzip",
        "_head",
        "_held",
        "_more",
        "_none_match",
        "_reads",
        "_send",
        "gone",
        "status",
    )

    def __init__(self, send: Send, method: str, more: Headers, none_match: bytes, accepted: bytes) -> None:
        self._send = send
        self._head = method == "HEAD"
        self._reads = method in {"GET", "HEAD"}
        self._none_match = none_match if self._reads else b""
        self._accepts_gzip = b"gzip" in accepted and _GZIP.search(accepted) is not None
        self._more = more
        self._held: Message | None = None
        self.status = 0
        self.gone = False

    @property
    def bodyless(self) -> bool:
        """Whether no body is sent, because none was asked for."""
        return self._head

    async def __call__(self, message: Message) -> None:
        """Sends one message of the response, as ASGI's `send` does."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_ALWAYS, *self._more]
            self._held = message
            return
        start, self._held = self._held, None
        if start is not None:
            if not message.get("more_body", False):
                message["body"] = self._whole(start, message.get("body", b""))
            await self._send(start)
        if self._head:
            message["body"] = b""
        await self._send(message)

    def _whole(self, start: Message, body: bytes) -> bytes:
        """Returns the body to send, and changes the head to match it."""
        headers: Headers = start["headers"]
        if start["status"] == 200 and body and self._reads:
            tag = next((value for name, value in headers if name == b"etag"), None)
            if tag is None:
                tag = b'W/"%b"' % blake2b(body, digest_size=12).hexdigest().encode()
                headers.append((b"etag", tag))
            if self._none_match and _matches(self._none_match, tag):
                self.status = start["status"] = 304
                start["headers"] = [each for each in headers if each[0] not in _OF_CONTENT]
                return b""
        if self._accepts_gzip and len(body) >= COMPRESSED_BYTES_MIN and _may_be_compressed(headers):
            body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
            start["headers"] = [
                *(each for each in headers if each[0] != b"content-length"),
                (b"content-length", b"%d" % len(body)),
                (b"content-encoding", b"gzip"),
                (b"vary", b"Accept-Encoding"),
            ]
        return body


def _matches(none_match: bytes, tag: bytes) -> bool:
    """Whether `If-None-Match` names the tag (RFC 9110, weak comparison)."""
    if none_match.strip() == b"*":
        return True
    bare = tag.removeprefix(b"W/")
    return any(each.strip().removeprefix(b"W/") == bare for each in none_match.split(b","))


def _may_be_compressed(headers: Headers) -> bool:
    kind = encoded = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            encoded = value
    return not encoded and _COMPRESSIBLE.fullmatch(kind) is not None
