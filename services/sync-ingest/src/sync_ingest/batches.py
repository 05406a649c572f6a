"""What HTTP may ask of ingest, as plain calls in threads: one short-lived connection each, bounded in number."""

import asyncio
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from sync_ingest.domain.certificate import Findings
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.ingesting import FeedContent, Ingest
from sync_ingest.reporting import certificate_of, quarantine_of, result_of

RUNS_AT_ONCE_MAX: Final = 4

Value = TypeVar("Value")
Opened = Callable[[], AbstractContextManager[Ingest]]


@dataclass(slots=True)
class IngestDesk:
    """Runs ingest for the API; a semaphore holds back what the database could not take anyway."""

    opened: Opened
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RUNS_AT_ONCE_MAX))

    async def batch(
        self, source: str, name: str, content: bytes, *, format: str, mapping: str | None
    ) -> dict[str, Any]:
        """Takes one batch in, books and certifies it."""

        def run(ingest: Ingest) -> dict[str, Any]:
            feed = [FeedContent(name, lambda: io.BytesIO(content))]
            result = ingest.run(source, feed, format=format, mapping=mapping)
            return result_of(result) | {
                "certificate_id": str(result.certificate) if result.certificate else None,
                "intake_id": str(result.intakes[0]),
            }

        return await self._with(run)

    async def quarantine(
        self, source: str | None, status: str | None, after: int, limit: int
    ) -> list[dict[str, Any]]:
        """A page of quarantine entries."""
        return await self._with(
            lambda ingest: [
                quarantine_of(number, entry)
                for number, entry in ingest.archive.quarantine_page(source, status, after, limit)
            ]
        )

    async def release(self, entry: UUID, repaired: bytes) -> dict[str, Any]:
        """Books the record that replaces a quarantined one."""
        return await self._with(lambda ingest: result_of(ingest.release(QuarantineId(entry), repaired)))

    async def certificates(self, source: str | None, before: int | None, limit: int) -> list[dict[str, Any]]:
        """A page of certificates, newest first."""

        def read(ingest: Ingest) -> list[dict[str, Any]]:
            return [
                self._certificate(ingest, row) for row in ingest.archive.certificates(source, before, limit)
            ]

        return await self._with(read)

    async def certificate(self, identity: UUID) -> dict[str, Any] | None:
        """One certificate."""

        def read(ingest: Ingest) -> dict[str, Any] | None:
            row = ingest.archive.certificate(identity)
            return self._certificate(ingest, row) if row else None

        return await self._with(read)

    def _certificate(self, ingest: Ingest, row: tuple[Any, ...]) -> dict[str, Any]:
        number, identity, source, certified_at, _, findings = row
        named = certificate_of(
            identity, source, certified_at, msgspec.json.decode(findings, type=Findings), {}
        )
        return {"number": number} | named

    async def _with(self, call: Callable[[Ingest], Value]) -> Value:
        def in_thread() -> Value:
            with self.opened() as ingest:
                return call(ingest)

        async with self._slots:
            return await asyncio.to_thread(in_thread)
