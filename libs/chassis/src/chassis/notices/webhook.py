"""Notices to a gateway over HTTP: a signed POST with the notice's id as `Idempotency-Key`."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
from typing_extensions import override

from chassis.clock import Clock
from chassis.notices.providers import (
    Accepted,
    Answer,
    Message,
    Provider,
    ProviderUnanswered,
    Rejected,
    code_of,
    provider_id,
    shown,
)
from chassis.notices.signing import signed_headers
from chassis.notices.trusting import trusting

ANSWER_SECONDS_MAX: Final = 10.0
"""From the first byte that is sent to the last one of the answer."""
ANSWER_BYTES_MAX: Final = 64 * 1024
_NOT_ABOUT_THE_NOTICE: Final = frozenset({401, 403, 404, 405, 407, 408, 409, 421, 425, 429})
"""The gateway did not look at the notice: address, secret or load are at fault, or it is at the same notice already."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}")


class WebhookProvider(Provider):
    """A gateway by its address.

    Takes 2xx as accepted, with the gateway's `id` where the answer is JSON with one; other 4xx as a refusal for good,
    with its `code`; everything else, redirects too, as no answer. The body is the same at each try; only the time of
    its signature differs. `ca_file` names whom we trust beside the system's authorities.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secret: bytes,
        clock: Clock,
        *,
        ca_file: Path | None = None,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self.name = name
        self._url = url
        self._secret = secret
        self._clock = clock
        self._seconds_max = answer_seconds_max
        # Without the proxies of the environment: personal values go to no one else. The time limit is that of the call.
        self._client = httpx.AsyncClient(
            verify=trusting(ca_file),
            timeout=None,  # noqa: S113
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @override
    async def hand_over(self, message: Message) -> Answer:
        body = msgspec.json.encode(message, order="deterministic")
        id = str(message.id)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": id,
            **signed_headers(self._secret, id, self._clock.now(), body),
        }
        try:
            async with asyncio.timeout(self._seconds_max):
                status, content, retry_after = await self._posted(body, headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise ProviderUnanswered(f"{self.name}: {type(error).__name__}") from error
        return self._answer(status, content, retry_after)

    async def _posted(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        content = bytearray()
        async with self._client.stream(
            "POST", self._url, content=body, headers={**headers, "Accept-Encoding": "identity"}
        ) as answer:
            async for part in answer.aiter_raw():
                content += part
                if len(content) > ANSWER_BYTES_MAX:
                    break
            return (
                answer.status_code,
                bytes(content[:ANSWER_BYTES_MAX]),
                answer.headers.get("retry-after", ""),
            )

    def _answer(self, status: int, content: bytes, retry_after: str) -> Answer:
        said = shown(content.decode("utf-8", "replace"))
        if 200 <= status < 300:
            return Accepted(provider_id(_field(content, "id")), said)
        if not 400 <= status < 500 or status in _NOT_ABOUT_THE_NOTICE:
            seconds = float(retry_after) if _SECONDS.fullmatch(retry_after) else None
            raise ProviderUnanswered(f"{self.name}: answered {status}", seconds)
        return Rejected(code_of(_field(content, "code"), f"http-{status}"), said)


def _field(content: bytes, name: str) -> Any:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.get(name) if isinstance(found, dict) else None
