"""The application service of ingest for HTTP: calls in threads over a small pool of connections."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from chassis.write.deciding import CommandContext, CommandKeyReused
from chassis.write.store import Command

from sync_ingest.archive.connection import LOCK_WAIT_SECONDS_MAX, SourceBusy
from sync_ingest.archive.quarantine import Proposal, QuarantineEntry
from sync_ingest.domain.identities import QuarantineId, request_fingerprint
from sync_ingest.domain.records import ControlRecord
from sync_ingest.enduring import Opened, enduring
from sync_ingest.reporting import certificate_of, note_run, proposal_of, quarantine_page_of, result_of
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.ports import Acting
from sync_ingest.runs.refusals import CertificateUnknown, QuarantineUnknown
from sync_ingest.runs.results import FeedContent, RunResult

RUNS_AT_ONCE_MAX: Final = 4
READS_AT_ONCE_MAX: Final = 4
LOST_PAUSES_SECONDS: Final = (0.0, 0.1, 0.5, 1.0)
"""A caller waits for a short loss, such as connections that a restarted database left dead; after a longer
one it is 503."""

Value = TypeVar("Value")
Answer = dict[str, Any]


class BatchFile(NamedTuple):
    """One file of a batch."""

    name: str
    content: bytes


class Turns:
    """Allows one run at a time per source, and at most `runs_max` in all.

    A wait for a busy source delays no other source.

    Waiting ends with SourceBusy after `wait_seconds_max`. For one event loop.
    """

    def __init__(self, runs_max: int, wait_seconds_max: float) -> None:
        self._runs = asyncio.Semaphore(runs_max)
        self._wait_seconds_max = wait_seconds_max
        self._sources: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, source: str) -> AsyncIterator[None]:
        """The turn of one run."""
        lock, waiting = self._sources.get(source, (asyncio.Lock(), 0))
        self._sources[source] = lock, waiting + 1
        try:
            try:
                async with asyncio.timeout(self._wait_seconds_max):
                    await lock.acquire()
                    try:
                        await self._runs.acquire()
                    except BaseException:
                        lock.release()
                        raise
            except TimeoutError:
                raise SourceBusy(source) from None
            try:
                yield
            finally:
                self._runs.release()
                lock.release()
        finally:
            lock, waiting = self._sources.pop(source)
            if waiting > 1:
                self._sources[source] = lock, waiting - 1


@dataclass(slots=True)
class IngestService:
    """Runs ingest for the API. Runs have threads of their own, so that no run delays a query."""

    opened: Opened
    runs_at_once_max: int = RUNS_AT_ONCE_MAX
    wait_seconds_max: float = LOCK_WAIT_SECONDS_MAX
    _turns: Turns = field(init=False)
    _threads: ThreadPoolExecutor = field(init=False)
    _reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE_MAX))

    def __post_init__(self) -> None:
        self._turns = Turns(self.runs_at_once_max, self.wait_seconds_max)
        self._threads = ThreadPoolExecutor(self.runs_at_once_max, thread_name_prefix="ingest-run")

    def close(self) -> None:
        """Closes the threads of runs, after the last run."""
        self._threads.shutdown()

    async def batch(
        self,
        context: CommandContext,
        source: str,
        files: Sequence[BatchFile],
        *,
        format: str,
        mapping: str | None,
        controls: Sequence[ControlRecord] = (),
    ) -> Answer:
        """Takes one batch in, books and certifies it. The same request again gives the same response."""
        asked: list[str | bytes] = [
            "batch",
            source,
            format,
            mapping or "",
            *map(msgspec.json.encode, controls),
            *(part for file in files for part in file),
        ]

        def run(ingest: Ingest, command: Command) -> Answer:
            contents = [FeedContent(file.name, lambda file=file: io.BytesIO(file.content)) for file in files]  # type: ignore[misc]
            return _taken(
                ingest.run(
                    source, contents, format=format, mapping=mapping, command=command, controls=controls
                )
            )

        return await self._run(source, context, asked, run)

    async def release(self, context: CommandContext, entry: UUID, repaired: bytes) -> Answer:
        """Books what replaces a quarantined record, or proposes it; the same request again gives the same
        answer."""
        asked: list[str | bytes] = ["release", str(entry), repaired, context.reason or ""]

        def run(ingest: Ingest, command: Command) -> Answer:
            done = ingest.release(QuarantineId(entry), repaired, command)
            return proposal_of(done) if isinstance(done, Proposal) else _taken(done)

        return await self._run(await self._source_of(entry), context, asked, run)

    async def approve(self, context: CommandContext, entry: UUID, repair: UUID) -> Answer:
        """Books the repair that another person proposed."""
        asked = ["approve", str(entry), str(repair), context.reason or ""]

        def run(ingest: Ingest, command: Command) -> Answer:
            return _taken(ingest.approve(QuarantineId(entry), repair, command))

        return await self._run(await self._source_of(entry), context, asked, run)

    async def reject(self, context: CommandContext, entry: UUID, repair: UUID) -> int:
        """Refuses the repair that another person proposed; the position of its event."""
        asked = ["reject", str(entry), str(repair), context.reason or ""]

        def run(ingest: Ingest, command: Command) -> int:
            return ingest.reject(QuarantineId(entry), repair, command)

        return await self._run(await self._source_of(entry), context, asked, run)

    async def withdraw(self, context: CommandContext, entry: UUID, repair: UUID) -> int:
        """Takes the own repair back; the position of its event."""
        asked = ["withdraw", str(entry), str(repair), context.reason or ""]

        def run(ingest: Ingest, command: Command) -> int:
            return ingest.withdraw(QuarantineId(entry), repair, command)

        return await self._run(await self._source_of(entry), context, asked, run)

    async def dismiss(self, context: CommandContext, entry: UUID) -> int:
        """Closes an entry without booking anything; the position of its event."""
        asked = ["dismiss", str(entry), context.reason or ""]

        def run(ingest: Ingest, command: Command) -> int:
            return ingest.dismiss(QuarantineId(entry), command)

        return await self._run(await self._source_of(entry), context, asked, run)

    async def acknowledge(
        self, context: CommandContext, certificate: UUID, contradictions: Sequence[UUID]
    ) -> Answer:
        """Takes contradictions of a certificate as known; the same request again gives the certificate of
        then on."""
        parts = [str(each) for each in contradictions]
        asked = ["acknowledge", str(certificate), *parts, context.reason or ""]
        named = await self._read(lambda ingest: ingest.certificate(certificate))
        if named is None:
            raise CertificateUnknown(str(certificate))

        def run(ingest: Ingest, command: Command) -> Answer:
            return certificate_of(ingest.acknowledge(certificate, contradictions, command), {})

        return await self._run(named.source, context, asked, run)

    async def close_releases(self, context: CommandContext, source: str, party: UUID) -> int:
        """Has no record of quarantine released that names the party; the position of its event."""

        def run(ingest: Ingest, command: Command) -> int:
            return ingest.close_releases(source, party, command)

        return await self._run(
            source, context, ["close-releases", source, str(party), context.reason or ""], run
        )

    async def open_releases(self, context: CommandContext, source: str, party: UUID) -> int:
        """Takes `close_releases` back; the position of its event."""

        def run(ingest: Ingest, command: Command) -> int:
            return ingest.open_releases(source, party, command)

        return await self._run(
            source, context, ["open-releases", source, str(party), context.reason or ""], run
        )

    async def quarantine(
        self, source: str | None, status: str | None, after: int, limit: int
    ) -> list[Answer]:
        """A page of quarantine entries in the order they came, with the repairs that wait for a second
        person."""

        return await self._read(lambda ingest: quarantine_page_of(ingest, source, status, after, limit))

    async def certificates(self, source: str | None, before: int | None, limit: int) -> list[Answer]:
        """A page of certificates, newest first. Accounts are named by id: their numbers are personal."""
        return await self._read(
            lambda ingest: [certificate_of(each, {}) for each in ingest.certificates(source, before, limit)]
        )

    async def certificate(self, identity: UUID) -> Answer | None:
        """One certificate."""

        def read(ingest: Ingest) -> Answer | None:
            found = ingest.certificate(identity)
            return certificate_of(found, {}) if found else None

        return await self._read(read)

    async def _source_of(self, entry: UUID) -> str:
        def read(ingest: Ingest) -> QuarantineEntry | None:
            return ingest.archive.quarantine.among([QuarantineId(entry)]).get(QuarantineId(entry))

        found = await self._read(read)
        if found is None:
            raise QuarantineUnknown(entry)
        return found.source

    async def _run(
        self,
        source: str,
        context: CommandContext,
        asked: Sequence[str | bytes],
        run: Callable[[Ingest, Command], Value],
    ) -> Value:
        def acted(ingest: Ingest) -> Value:
            ingest.acting = Acting(
                context.actor,
                context.post,
                context.on_behalf_of,
                context.client_address,
                context.reason,
            )
            digest = _digest(context, asked)
            try:
                return run(ingest, Command(context.key, request_fingerprint(ingest.ids, digest)))
            except CommandKeyReused:
                # A version before remembered requests by the digest alone.
                return run(ingest, Command(context.key, digest))

        async with self._turns.of(source):
            return await self._in(self._threads, acted)

    async def _read(self, read: Callable[[Ingest], Value]) -> Value:
        async with self._reads:
            return await self._in(None, read)

    async def _in(self, threads: ThreadPoolExecutor | None, call: Callable[[Ingest], Value]) -> Value:
        """Long runs have threads of their own. The shared threads are for calls that return at once."""
        traced = partial(copy_context().run, enduring, self.opened, call, pauses_seconds=LOST_PAUSES_SECONDS)
        return await asyncio.get_running_loop().run_in_executor(threads, traced)


def _digest(context: CommandContext, asked: Sequence[str | bytes]) -> bytes:
    """A digest of a request in which no two lists of parts look the same. On whose behalf it is made is a part, too."""
    hasher = blake2b(digest_size=32)
    behalf = ("on-behalf-of", context.on_behalf_of) if context.on_behalf_of else ()
    for part in (*behalf, *asked):
        content = part.encode() if isinstance(part, str) else part
        hasher.update(len(content).to_bytes(8, "big"))
        hasher.update(content)
    return hasher.digest()


def _taken(result: RunResult) -> Answer:
    note_run("run ended", result)
    return result_of(result) | {
        "certificate_id": str(result.certificate) if result.certificate else None,
        "intake_ids": [str(intake) for intake in result.intakes],
        "position": result.position,
    }
