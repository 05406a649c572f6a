"""What a run asks of the event store and of the custody of keys, and for whom it acts."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, Protocol
from uuid import UUID

from chassis.connections.postgres import Connection
from chassis.write.events import RecordedEvent, StoredEvent
from chassis.write.store import Command, Fence

from sync_ingest.folding import Movements
from sync_ingest.pipeline.ports import LedgerPort


class Acting(NamedTuple):
    """Who has a run done, and why; the machinery itself where nobody is named."""

    actor: str = "sync-ingest"
    post: str | None = None
    on_behalf_of: str | None = None
    client_address: str | None = None
    reason: str | None = None
    privilege: Literal["normal", "high"] = "normal"


ITSELF: Final = Acting()


class Ledger(LedgerPort, Movements, Protocol):
    """The store as a whole run needs it: the pipeline's ledger, and reading accounts back."""

    def account_numbers(self, accounts: Sequence[UUID]) -> dict[UUID, str]:
        """How the source names these accounts, where that can still be read."""
        ...

    def head_position(self) -> int:
        """Position of the last event of the store."""
        ...

    def within(self, connection: Connection) -> AbstractContextManager[None]:
        """Meanwhile what is stored is part of the transaction that `connection` has open."""
        ...

    def append_for(self, command: Command | None, stream: UUID, sealed: Sequence[StoredEvent]) -> int:
        """Stores events of one stream and the command that they come of in one transaction; the position after it.

        Raises CommandKeyReused where the key is taken, AppendConflict where the stream has moved on.
        """
        ...

    def outcome(self, command: Command) -> tuple[RecordedEvent, ...] | None:
        """What came of the command when it was carried out; None where it was not. Raises CommandKeyReused."""
        ...

    def fenced(self, fence: Fence) -> AbstractContextManager[None]:
        """Meanwhile what is to be stored is refused with Fenced from when another run took the source."""
        ...

    def said_by(self, acting: Acting, trace: Mapping[str, str]) -> None:
        """What is stored from now on names who had it stored, and in which trace unless its record brought its own."""
        ...


class Vault(Protocol):
    """Seals what ingest keeps beside its events."""

    def seal_bytes(self, subject: UUID, place: str, plain: bytes) -> bytes: ...

    def open_bytes(self, subject: UUID, place: str, sealed: bytes) -> bytes: ...


class SubjectErased(Exception):
    """The key under which something was kept has been destroyed."""
