"""POST to another system, in a bounded time and with a bounded answer."""

import asyncio
from collections.abc import Mapping
from ssl import SSLContext
from types import TracebackType
from typing import Final, NamedTuple, Self

import httpx

ANSWER_SECONDS_MAX: Final = 10.0
"""From the first byte that is sent to the last one of the answer."""
ANSWER_BYTES_MAX: Final = 64 * 1024
UNANSWERED: Final = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError)
"""What `Poster.post` raises where no whole answer came in time."""


class Answered(NamedTuple):
    """An answer, without what goes beyond `ANSWER_BYTES_MAX`."""

    status: int
    content: bytes
    retry_after: str


class Poster:
    """A client that posts, without the proxies of the environment: what is sent goes to no one else."""

    def __init__(self, base_url: str = "", *, seconds_max: float, verify: SSLContext | bool = True) -> None:
        self._seconds_max = seconds_max
        # The time limit is that of the whole call: who sends a byte now and then keeps one of a single read.
        self._client = httpx.AsyncClient(
            base_url=base_url,
            verify=verify,
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

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
        """The answer; raises one of `UNANSWERED`."""
        content = bytearray()
        # The answer is read as it comes: what is packed may be of any size.
        asked = {**headers, "Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with (
            asyncio.timeout(self._seconds_max),
            self._client.stream("POST", url, content=body, headers=asked) as answer,
        ):
            async for part in answer.aiter_raw():
                content += part
                if len(content) > ANSWER_BYTES_MAX:
                    break
            found = bytes(content[:ANSWER_BYTES_MAX])
            return Answered(answer.status_code, found, answer.headers.get("retry-after", ""))
