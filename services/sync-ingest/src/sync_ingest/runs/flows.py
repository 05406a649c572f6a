"""What intakes moved, where a certificate covers them and others are open."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from sync_ingest.domain.partial_sums import PartialSums
from sync_ingest.domain.totals import AccountCurrency, Flow
from sync_ingest.folding import ACCOUNTS_PER_FOLD


class _PartialFlow(msgspec.Struct, array_like=True):
    currency: str
    flow: Flow


_flow: Final = msgspec.json.Decoder(_PartialFlow)


class Flows:
    """What some intakes moved, by account and currency. It leaves the process where there are many accounts."""

    KIND: Final = "flows"

    def __init__(self, partial_sums: PartialSums, kept_max: int) -> None:
        self._partial_sums = partial_sums
        self._kept_max = kept_max
        self._kept: dict[AccountCurrency, Flow] = {}
        self._stored = False

    def add(self, flows: Mapping[AccountCurrency, Flow]) -> None:
        """Adds those of further accounts."""
        self._kept |= flows
        if len(self._kept) >= self._kept_max:
            self._store()

    def by_account(self) -> Iterator[Mapping[AccountCurrency, Flow]]:
        """All of them, some at a time."""
        if not self._stored:
            yield self._kept
            return
        self._store()
        rows = self._partial_sums.stored(self.KIND)
        while some := list(islice(rows, ACCOUNTS_PER_FOLD)):
            decoded = [(account, _flow.decode(body)) for account, body in some]
            yield {AccountCurrency(account, partial.currency): partial.flow for account, partial in decoded}

    def _store(self) -> None:
        rows = [
            (account_currency.account, msgspec.json.encode(_PartialFlow(account_currency.currency, flow)))
            for account_currency, flow in self._kept.items()
        ]
        self._partial_sums.store(self.KIND, rows)
        self._kept, self._stored = {}, True
