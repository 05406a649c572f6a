"""Notices to a gateway over HTTP: a signed POST with the notice's id as `Idempotency-Key`."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.posting import ANSWER_SECONDS_MAX, UNANSWERED, Answered, Poster
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

_NOT_ABOUT_THE_NOTICE: Final = frozenset({401, 403, 404, 405, 407, 408, 409, 421, 425, 429})
"""The gateway did not look at the notice: address, secret or load are at fault, or it is at the same notice already."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}")


class WebhookProvider(Poster, Provider):
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
        super().__init__(seconds_max=answer_seconds_max, verify=trusting(ca_file))
        self.name = name
        self._url = url
        self._secret = secret
        self._clock = clock

    @override
    async def hand_over(self, message: Message) -> Answer:
        body = msgspec.json.encode(message, order="deterministic")
        id = str(message.id)
        headers = {
            "Idempotency-Key": id,
            **signed_headers(self._secret, id, self._clock.now(), body),
        }
        try:
            answered = await self.post(self._url, body, headers)
        except UNANSWERED as error:
            raise ProviderUnanswered(f"{self.name}: {type(error).__name__}") from error
        return self._answer(answered)

    def _answer(self, answered: Answered) -> Answer:
        status, content, retry_after = answered
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
