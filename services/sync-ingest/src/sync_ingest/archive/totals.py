"""The totals of accounts, their days, and the turnover of sources, folded from the events."""

from collections.abc import Mapping, Sequence
from datetime import date
from operator import attrgetter
from typing import Final
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.archive.contradictions import Contradictions, OpenContradictions
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, Flow

_TOTAL: Final = ", ".join(AccountTotal.__struct_fields__)
_TOTAL_SET: Final = ", ".join(f"{name} = excluded.{name}" for name in AccountTotal.__struct_fields__)
_TOTAL_ARRAYS: Final = ", ".join(
    ["%b::uuid[]", "%b::text[]"]
    + [
        "%b::int[]" if name == "version" else "%b::date[]" if name == "last_on" else "%b::bigint[]"
        for name in AccountTotal.__struct_fields__
    ]
)


class Totals:
    """What is folded of all accounts."""

    def __init__(self, db: ArchiveConnection, contradictions: OpenContradictions) -> None:
        self._db = db
        self._contradictions = contradictions

    def of(self, accounts: Sequence[UUID]) -> dict[AccountCurrency, AccountTotal]:
        """Returns the folded totals of these accounts."""
        rows = self._db.rows(
            f"select account, currency, {_TOTAL} from {{s}}.account_totals where account = any(%b::uuid[])",
            (list(accounts),),
        )
        return {
            AccountCurrency(account, currency): AccountTotal(*values) for account, currency, *values in rows
        }

    def balances(self, source: str) -> dict[AccountCurrency, int]:
        """The balance of every account of a source, as far as it is folded."""
        rows = self._db.rows(
            "select account, currency, credits_minor - debits_minor from {s}.account_totals where source = %s",
            (source,),
        )
        return {AccountCurrency(account, currency): balance for account, currency, balance in rows}

    def days(self, since: Mapping[AccountCurrency, date]) -> dict[AccountCurrency, dict[date, bytes]]:
        """The days of each account and currency from a day on, and the last one before it."""
        account_currencies = list(since)
        rows = self._db.rows(
            "select w.account, w.currency, d.day, d.body"
            " from unnest(%b::uuid[], %b::text[], %b::date[]) as w(account, currency, since)"
            " cross join lateral ((select day, body from {s}.account_days as a"
            " where a.account = w.account and a.currency = w.currency and a.day >= w.since)"
            " union all (select day, body from {s}.account_days as a where a.account = w.account"
            " and a.currency = w.currency and a.day < w.since order by a.day desc limit 1)) as d",
            (
                [p.account for p in account_currencies],
                [p.currency for p in account_currencies],
                list(since.values()),
            ),
        )
        found: dict[AccountCurrency, dict[date, bytes]] = {}
        for account, currency, day, body in rows:
            found.setdefault(AccountCurrency(account, currency), {})[day] = bytes(body)
        return found

    def turnovers(self, source: str) -> dict[str, int]:
        """The sum of absolute amounts of a source's accounts by currency, as far as they are folded."""
        return dict(
            self._db.rows("select currency, turnover_minor from {s}.turnovers where source = %s", (source,))
        )

    def fold(
        self,
        source: str,
        totals: Mapping[AccountCurrency, AccountTotal],
        days: Mapping[tuple[AccountCurrency, date], bytes],
        turnovers: Mapping[str, int],
        contradictions: "Contradictions",
    ) -> None:
        """Stores the result of a fold in one transaction."""
        columns = [[*map(attrgetter(name), totals.values())] for name in AccountTotal.__struct_fields__]
        with self._db.writing():
            self._db.execute(
                f"insert into {{s}}.account_totals (source, account, currency, {_TOTAL})"
                f" select %s, * from unnest({_TOTAL_ARRAYS})"
                f" on conflict (account, currency) do update set {_TOTAL_SET}",
                (source, [p.account for p in totals], [p.currency for p in totals], *columns),
            )
            if days:
                self._db.execute(
                    "insert into {s}.account_days select * from"
                    " unnest(%b::uuid[], %b::text[], %b::date[], %b::bytea[])"
                    " on conflict (account, currency, day) do update set body = excluded.body",
                    (
                        [p.account for p, _ in days],
                        [p.currency for p, _ in days],
                        [day for _, day in days],
                        list(days.values()),
                    ),
                )
            self._db.execute(
                "insert into {s}.turnovers as t select %s, * from unnest(%s::text[], %s::bigint[])"
                " on conflict (source, currency)"
                " do update set turnover_minor = t.turnover_minor + excluded.turnover_minor",
                (source, list(turnovers), list(turnovers.values())),
            )
            self._contradictions.note_within(source, contradictions)

    def cover(self, flows: Mapping[AccountCurrency, Flow]) -> None:
        """Counts these movements as certified, in the transaction of their certificate."""
        self._db.execute(
            "update {s}.account_totals as t set certified_postings = t.certified_postings + f.postings,"
            " certified_credits_minor = t.certified_credits_minor + f.credits_minor,"
            " certified_debits_minor = t.certified_debits_minor + f.debits_minor"
            " from unnest(%b::uuid[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[])"
            " as f(account, currency, postings, credits_minor, debits_minor)"
            " where t.account = f.account and t.currency = f.currency",
            (
                [account_currency.account for account_currency in flows],
                [account_currency.currency for account_currency in flows],
                [flow.postings for flow in flows.values()],
                [flow.credits_minor for flow in flows.values()],
                [flow.debits_minor for flow in flows.values()],
            ),
        )
