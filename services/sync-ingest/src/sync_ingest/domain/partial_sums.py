"""Partial sums of a run, by account. They leave the process, so that its memory does not grow with the accounts.

A run keeps the sums of a bounded number of accounts. When there are more, it stores the partial sums and begins anew.
At its end it reads all of them back in the order of accounts, and adds up those of one account.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol
from uuid import UUID

ACCOUNTS_KEPT_MAX: Final = 20_000
"""Accounts whose sums a run keeps in memory, and as many of them in each file and for each kind of sum."""


class PartialSums(Protocol):
    """The partial sums of one run. A kind is read in full only after it was stored in full."""

    def store(self, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        """Stores a sum for each account named; one account may come any number of times."""
        ...

    def stored(self, kind: str) -> Iterator[tuple[UUID, bytes]]:
        """All sums of a kind, in the order of accounts. Others may be stored meanwhile."""
        ...

    def stored_of(self, kind: str, accounts: Sequence[UUID]) -> Iterator[tuple[UUID, bytes]]:
        """Those of these accounts."""
        ...

    def accounts(self, kind: str) -> int:
        """The number of different accounts with a sum of a kind."""
        ...
