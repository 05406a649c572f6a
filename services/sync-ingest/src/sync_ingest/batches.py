"""What HTTP may ask of ingest, as plain calls in threads over a few connections that are used again."""

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from chassis.deciding import CommandContext, CommandKeyReused, Refusal

from sync_ingest.domain.identities import QuarantineId
from sync_ingest.enduring import Opened, enduring
from sync_ingest.ingesting import Acting, FeedContent, Ingest, RunResult
from sync_ingest.reporting import certificate_of, quarantine_of, result_of

RUNS_AT_ONCE_MAX: Final = 4
LOST_PAUSES_SECONDS: Final = (0.0, 0.1, 0.5, 1.0)
"""A caller waits for a short loss, such as connections that a restarted database left dead; after a longer one it is 503."""

Value = TypeVar("Value")
Answer = dict[str, Any]


class BatchFile(NamedTuple):
    """One file of a batch."""

    name: str
    content: bytes


@dataclass(slots=True)
class IngestDesk:
    """Runs ingest for the API; a semaphore holds back what the database could not take anyway."""

    opened: Opened
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RUNS_AT_ONCE_MAX))

    async def batch(
        self,
        context: CommandContext,
        source: str,
        files: Sequence[BatchFile],
        *,
        format: str,
        mapping: str | None,
    ) -> Answer:
        """Takes one batch in, books and certifies it; the same request again gives the same answer."""
        fingerprint = _fingerprint(
            "batch", source, format, mapping or "", *(part for file in files for part in file)
        )

        def run(ingest: Ingest) -> Answer:
            contents = [FeedContent(file.name, lambda file=file: io.BytesIO(file.content)) for file in files]  # type: ignore[misc]
            return _answer(ingest, ingest.run(source, contents, format=format, mapping=mapping))

        return await self._with(lambda ingest: _once(ingest, context, fingerprint, run))

    async def release(self, context: CommandContext, entry: UUID, repaired: bytes) -> Answer:
        """Books the record that replaces a quarantined one; the same request again gives the same answer."""

        def run(ingest: Ingest) -> Answer:
            return _answer(ingest, ingest.release(QuarantineId(entry), repaired))

        fingerprint = _fingerprint("release", str(entry), repaired)
        return await self._with(lambda ingest: _once(ingest, context, fingerprint, run))

    async def quarantine(
        self, source: str | None, status: str | None, after: int, limit: int
    ) -> list[Answer]:
        """A page of quarantine entries in the order they came."""
        return await self._with(
            lambda ingest: [
                quarantine_of(number, entry)
                for number, entry in ingest.archive.quarantine_page(source, status, after, limit)
            ]
        )

    async def certificates(self, source: str | None, before: int | None, limit: int) -> list[Answer]:
        """A page of certificates, newest first. Accounts are named by id: their numbers are personal."""
        return await self._with(
            lambda ingest: [certificate_of(each, {}) for each in ingest.certificates(source, before, limit)]
        )

    async def certificate(self, identity: UUID) -> Answer | None:
        """One certificate."""

        def read(ingest: Ingest) -> Answer | None:
            found = ingest.certificate(identity)
            return certificate_of(found, {}) if found else None

        return await self._with(read)

    async def _with(self, call: Callable[[Ingest], Value]) -> Value:
        async with self._slots:
            return await asyncio.to_thread(enduring, self.opened, call, pauses_seconds=LOST_PAUSES_SECONDS)


def _once(
    ingest: Ingest, context: CommandContext, fingerprint: bytes, run: Callable[[Ingest], Answer]
) -> Answer:
    """Runs unless this request was answered before. A run that was cut off runs again, and adds nothing twice."""
    key = f"{context.actor}|{context.idempotency_key or context.command_id}"
    asked = ingest.archive.ask(key, fingerprint, ingest.now())
    if asked.fingerprint != fingerprint:
        raise CommandKeyReused(str(context.idempotency_key))
    ingest.acting = Acting(context.actor, context.post, context.on_behalf_of, context.client_address)
    answer = asked.answer
    if answer is None:
        try:
            answer = msgspec.json.encode(run(ingest))
        except Refusal:
            ingest.archive.forget(key)
            raise
        answer = ingest.archive.answer(key, answer)
    remembered: Answer = msgspec.json.decode(answer)
    return remembered


def _answer(ingest: Ingest, result: RunResult) -> Answer:
    return result_of(result) | {
        "certificate_id": str(result.certificate) if result.certificate else None,
        "intake_ids": [str(intake) for intake in result.intakes],
        "position": ingest.ledger.head_position(),
    }


def _fingerprint(*parts: str | bytes) -> bytes:
    """A digest in which no two lists of parts look the same."""
    hasher = blake2b(digest_size=32)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        hasher.update(len(content).to_bytes(8, "big"))
        hasher.update(content)
    return hasher.digest()
