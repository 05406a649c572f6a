"""Raw intakes: bytes as they came, sealed, and control totals that came beside them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO, Final, NamedTuple
from uuid import UUID

from chassis.write.deciding import Refusal
from chassis.write.store import Command
from contracts.identity import ExternalIds
from typing_extensions import override

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.domain.identities import ContentId, IntakeId, QuarantineId, content_id, intake_id
from sync_ingest.domain.records import masked_file

CHUNK_BYTES: Final = 1 << 20
INTAKE_BYTES_MAX: Final = 64 << 30
PASSES_MAX: Final = 3
"""How often a file that changed while it was read is read again."""
SealPart = Callable[[ContentId, str, bytes], bytes]
OpenPart = Callable[[ContentId, str, bytes], bytes]
"""Seals and opens a part of an intake: a chunk of its bytes by its number, or its `NAME`."""
NAME: Final = "name"


class FeedChanging(Refusal):
    """The file was written to while it was read. No part of it is kept."""

    code = "feed-changing"
    title = "The file changes while it is read"
    title_zh = "读取期间文件仍在变化"


class IntakeOversized(Refusal):
    """More bytes than one intake may have."""

    code = "intake-oversized"
    status = 413
    title = "The feed is larger than one intake may be"
    title_zh = "数据文件超过单次接收上限"


@dataclass(frozen=True, slots=True)
class Intake:
    """Bytes as they came: where from, how large, how to read them, and whether a certificate covers them.

    `content` is what its bytes are kept under; another reading of them is another intake. `set_aside` is
    the reason why booking them broke; no later run waits for them then, until they come again. `repairs`
    is the quarantine entry that they are the repair of. `request` and `fingerprint` are those of the
    command that brought them, so that whoever finishes what a crash left open answers it. `again` is the
    certified intake of the same bytes that they are read once more for, because more of them can be booked
    now.
    """

    id: IntakeId
    content: ContentId
    source: str
    sha256: bytes
    name_sealed: bytes | None
    format: str
    mapping: str | None
    size_bytes: int
    received_at: datetime
    certified: bool
    set_aside: str | None = None
    repairs: QuarantineId | None = None
    request: str | None = None
    fingerprint: bytes | None = None
    again: IntakeId | None = None

    @property
    def command(self) -> Command | None:
        """The command that brought them."""
        if self.request is None or self.fingerprint is None:
            return None
        return Command(self.request, self.fingerprint)


class Statement(NamedTuple):
    """Control totals that came beside a batch and are not checked yet: sealed, with the intakes that came of
    it so far."""

    number: int
    intakes: tuple[IntakeId, ...]
    sealed: bytes


class Intakes:
    """The intakes of all sources."""

    def __init__(self, db: ArchiveConnection, ids: ExternalIds) -> None:
        self._db = db
        self._ids = ids

    def take_in(
        self,
        source: str,
        name: str,
        content: BinaryIO,
        *,
        format: str,
        mapping: str | None,
        reading: str,
        received_at: datetime,
        seal: SealPart,
        command: Command | None = None,
        repairs: QuarantineId | None = None,
        statement: int | None = None,
    ) -> Intake:
        """Keeps the bytes, sealed chunk by chunk, before they are read. The same bytes are kept once.

        `statement`: the control totals beside the batch that these bytes are of, by their number.

        The same bytes to be read in another way are another intake of the same content. A first pass says
        whether they are known; what is kept is hashed once more while it is kept, and only under the hash
        of its own bytes. Raises IntakeOversized, and FeedChanging where no two passes give the same bytes.
        """
        digest, size = _hashed(name, content)
        for _ in range(PASSES_MAX):
            intake = intake_id(self._ids, source, digest, reading)
            known = self.one(intake)
            if known is not None:
                with self._db.writing():
                    self._state_of(statement, intake)
                return known
            kept = content_id(self._ids, source, digest)
            fresh = Intake(
                intake,
                kept,
                source,
                digest,
                seal(kept, NAME, name.encode()),
                format,
                mapping,
                size,
                received_at,
                certified=False,
                repairs=repairs,
                request=command.key if command else None,
                fingerprint=command.fingerprint if command else None,
            )
            try:
                with self._db.writing():
                    if not self._where("where source = %s and sha256 = %s limit 1", (source, digest)):
                        content.seek(0)
                        found = _hashed(name, content, partial(self._keep, fresh.content, seal))
                        if found != (digest, size):
                            raise _Changed(found)
                    self._db.execute(
                        "insert into {s}.intakes (id, source, sha256, name_sealed, format, mapping, size_bytes,"
                        " received_at, repairs, request, fingerprint)"
                        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                        (
                            intake,
                            source,
                            digest,
                            fresh.name_sealed,
                            format,
                            mapping,
                            size,
                            received_at,
                            repairs,
                            fresh.request,
                            fresh.fingerprint,
                        ),
                    )
                    self._state_of(statement, intake)
            except _Changed as changed:
                digest, size = changed.found
            else:
                return fresh
        raise FeedChanging(masked_file(name))

    def _state_of(self, statement: int | None, intake: IntakeId) -> None:
        if statement is not None:
            self._db.execute(
                "update {s}.statements set intakes = array_append(intakes, %s) where number = %s",
                (intake, statement),
            )

    def state(self, source: str, sealed: bytes) -> int:
        """Keeps control totals beside a batch, of which nothing has been taken in yet; their number."""
        with self._db.writing():
            return int(
                self._db.row(
                    "insert into {s}.statements (source, intakes, sealed) values (%s, '{{}}', %s)"
                    " returning number",
                    (source, sealed),
                )[0]
            )

    def statements(self, source: str) -> list[Statement]:
        """Control totals beside batches of a source that are not checked yet, the oldest first."""
        rows = self._db.rows(
            "select number, intakes, sealed from {s}.statements where source = %s order by number", (source,)
        )
        return [Statement(number, tuple(intakes), bytes(sealed)) for number, intakes, sealed in rows]

    def checked(self, statements: Sequence[int]) -> None:
        """Forgets control totals beside batches: they are checked, or nothing came of their batch."""
        self._db.write("delete from {s}.statements where number = any(%s)", (list(statements),))

    def take_in_again(
        self, intake: Intake, identity: IntakeId, received_at: datetime, command: Command | None
    ) -> Intake:
        """The bytes of a certified intake as another intake, which brings what of them can be booked now."""
        fresh = replace(
            intake,
            id=identity,
            received_at=received_at,
            certified=False,
            request=command.key if command else None,
            fingerprint=command.fingerprint if command else None,
            again=intake.id,
        )
        self._db.write(
            "insert into {s}.intakes (id, source, sha256, name_sealed, format, mapping, size_bytes, received_at, request,"
            " fingerprint, again) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                fresh.id,
                fresh.source,
                fresh.sha256,
                fresh.name_sealed,
                fresh.format,
                fresh.mapping,
                fresh.size_bytes,
                fresh.received_at,
                fresh.request,
                fresh.fingerprint,
                fresh.again,
            ),
        )
        return fresh

    def _keep(self, content: ContentId, seal: SealPart, number: int, chunk: bytes) -> None:
        sealed = seal(content, str(number), chunk)
        self._db.execute("insert into {s}.intake_chunks values (%s, %s, %s)", (content, number, sealed))

    def one(self, intake: IntakeId) -> Intake | None:
        """The intake of that id, if it was kept."""
        rows = self._where("where id = %s", (intake,))
        return rows[0] if rows else None

    def among(self, ids: Sequence[IntakeId]) -> dict[IntakeId, Intake]:
        """The intakes among `ids` that were kept."""
        return {intake.id: intake for intake in self._where("where id = any(%s)", (list(ids),))}

    def open(self, source: str) -> list[Intake]:
        """Intakes that no certificate covers yet, oldest first."""
        return self._where(
            "where source = %s and certificate is null and set_aside is null order by number", (source,)
        )

    def sources_with_open(self, format: str) -> list[str]:
        """Sources with an intake of `format` that no certificate covers yet."""
        return [
            row[0]
            for row in self._db.rows(
                "select distinct source from {s}.intakes"
                " where certificate is null and set_aside is null and format = %s order by source",
                (format,),
            )
        ]

    def set_aside(self, intakes: Sequence[IntakeId], reason: str | None) -> None:
        """Records why booking these intakes failed, or that it no longer does."""
        self._db.write("update {s}.intakes set set_aside = %s where id = any(%s)", (reason, list(intakes)))

    def discard(self, intakes: Sequence[Intake]) -> None:
        """Removes intakes from which nothing was booked, and their bytes where no other intake reads them."""
        with self._db.writing():
            self._db.execute(
                "delete from {s}.intakes where id = any(%s)", ([intake.id for intake in intakes],)
            )
            for intake in intakes:
                if not self._where(
                    "where source = %s and sha256 = %s limit 1", (intake.source, intake.sha256)
                ):
                    self._db.execute("delete from {s}.intake_chunks where content = %s", (intake.content,))

    def _where(self, where: str, values: tuple[object, ...]) -> list[Intake]:
        columns = (
            "id, source, sha256, name_sealed, format, mapping, size_bytes, received_at, certificate is not null,"
            " set_aside, repairs, request, fingerprint, again"
        )
        rows = self._db.rows(f"select {columns} from {{s}}.intakes {where}", values)
        return [Intake(row[0], content_id(self._ids, row[1], row[2]), *row[1:]) for row in rows]

    def read(self, intake: Intake, open_chunk: OpenPart) -> BinaryIO:
        """The bytes as they came; chunks are fetched one by one."""

        def chunk(number: int) -> bytes | None:
            rows = self._db.rows(
                "select sealed from {s}.intake_chunks where content = %s and number = %s",
                (intake.content, number),
            )
            return open_chunk(intake.content, str(number), rows[0][0]) if rows else None

        return io.BufferedReader(_Chunks(chunk), CHUNK_BYTES)

    def others_open(self, source: str, intakes: Sequence[UUID]) -> bool:
        """Whether intakes beside these are covered by no certificate."""
        return bool(
            self._db.row(
                "select exists (select from {s}.intakes"
                " where source = %s and certificate is null and not id = any(%s))",
                (source, list(intakes)),
            )[0]
        )

    def certified_among(self, intakes: Sequence[UUID]) -> set[UUID]:
        """Those of these intakes that a certificate covers."""
        return {
            row[0]
            for row in self._db.rows(
                "select id from {s}.intakes where id = any(%s) and certificate is not null", (list(intakes),)
            )
        }

    def readings(self, intakes: Sequence[Intake]) -> dict[IntakeId, frozenset[UUID]]:
        """Of each intake all that are of the same bytes, and what took the place of records of these bytes."""
        rows = self._db.rows(
            "with same as (select one.id as of, other.id from {s}.intakes as one"
            " join {s}.intakes as other using (source, sha256) where one.id = any(%s))"
            " select of, id from same union all"
            " select same.of, r.id from {s}.intakes as r join {s}.quarantine as q on q.id = r.repairs"
            " join same on same.id = q.intake where r.repairs is not null and r.source = any(%s)",
            ([intake.id for intake in intakes], list({intake.source for intake in intakes})),
        )
        found: dict[IntakeId, set[UUID]] = {}
        for intake, other in rows:
            found.setdefault(intake, set()).add(other)
        return {intake: frozenset(others) for intake, others in found.items()}


class _Changed(Exception):
    """The bytes that were kept are not those that were hashed before: digest and size of what was found."""

    def __init__(self, found: tuple[bytes, int]) -> None:
        super().__init__("changed while it was read")
        self.found = found


def _hashed(
    name: str, content: BinaryIO, keep: Callable[[int, bytes], None] = lambda _, __: None
) -> tuple[bytes, int]:
    """Digest and size of a stream, whose chunks go to `keep` as they are hashed."""
    hasher, size, number = sha256(), 0, 0
    while chunk := content.read(CHUNK_BYTES):
        hasher.update(chunk)
        size += len(chunk)
        if size > INTAKE_BYTES_MAX:
            raise IntakeOversized(masked_file(name))
        keep(number, chunk)
        number += 1
    return hasher.digest(), size


class _Chunks(io.RawIOBase):
    """A raw stream over numbered chunks."""

    def __init__(self, chunk: Callable[[int], bytes | None]) -> None:
        super().__init__()
        self._chunk = chunk
        self._number = 0
        self._rest = memoryview(b"")

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            found = self._chunk(self._number)
            if found is None:
                return 0
            self._number += 1
            self._rest = memoryview(found)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
