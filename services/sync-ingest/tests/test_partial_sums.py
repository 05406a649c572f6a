"""Sums that were stored in parts are the sums that are kept in one piece."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from random import Random
from typing import get_args
from uuid import NAMESPACE_OID, UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.records import ControlRecord, NumberedBy, Posting
from sync_ingest.domain.totals import AccountCurrency, ControlTotals


class InOrder:
    """Partial sums in memory, which give those of one account in the wrong order."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[tuple[UUID, bytes]]] = {}

    def store(self, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        self.kinds.setdefault(kind, []).extend(rows)

    def stored(self, kind: str) -> Iterator[tuple[UUID, bytes]]:
        latest_first = self.kinds[kind][::-1]
        yield from sorted(latest_first, key=lambda row: row[0])

    def stored_of(self, kind: str, accounts: Sequence[UUID]) -> Iterator[tuple[UUID, bytes]]:
        return (row for row in self.stored(kind) if row[0] in accounts)

    def accounts(self, kind: str) -> int:
        return len({account for account, _ in self.kinds[kind]})


def account_id(name: str) -> UUID:
    return uuid5(NAMESPACE_OID, name)


chances = st.randoms(use_true_random=False)


@given(chances, st.integers(0, 40), st.integers(1, 3))
def test_sums_that_were_stored_in_parts_are_those_of_the_whole(chance: Random, many: int, at_once: int):
    whole, parts = ControlTotals(), ControlTotals(partial_sums=InOrder())
    for _ in range(many):
        account_currency = AccountCurrency(account_id(chance.choice("ABCDE")), chance.choice(["CNY", "USD"]))
        amount_minor, posted = chance.choice([-(10**18), -3, 0, 5, 10**18]), chance.random() < 0.6
        for totals in (whole, parts):
            if posted:
                totals.count_posted([(totals.run_total(account_currency), amount_minor)])
            else:
                totals.count_duplicate(totals.run_total(account_currency), amount_minor, first_in_feed=True)
        if chance.random() < 0.3:
            parts.store()
    some = list(parts.by_account(at_once))
    assert {account_currency: run_total for each in some for account_currency, run_total in each.items()} == {
        account_currency: run_total
        for each in whole.by_account(100)
        for account_currency, run_total in each.items()
    }
    accounts = [{account_currency.account for account_currency in each} for each in some]
    assert all(len(each) <= at_once for each in accounts)
    assert sum(map(len, accounts)) == whole.accounts == parts.accounts
    assert parts.stated_by_currency() == whole.stated_by_currency()
    assert parts.posted_by_currency() == whole.posted_by_currency()
    wanted = [account_id("A"), account_id("B")]
    assert parts.run_totals_of(wanted) == whole.run_totals_of(wanted)


@given(chances, st.integers(0, 40), st.integers(1, 3))
def test_what_was_read_and_stored_in_parts_is_what_was_read(chance: Random, many: int, at_once: int):
    whole, parts = FeedRead(account_id), FeedRead(account_id, InOrder())
    for line in range(many):
        name, file = chance.choice("ABCDE"), chance.randrange(2)
        content = Posting(
            account=name,
            core_transaction_id=str(line),
            amount_minor=chance.choice([-(10**18), 5, 10**18]),
            currency=chance.choice(["CNY", "USD"]),
            booked_on=date(2026, 3, chance.randrange(1, 4)),
            branch=chance.choice([None, "B1"]),
            sequence_number=chance.choice([None, chance.randrange(9)]),
            numbered_by=chance.choice(get_args(NumberedBy)),
        )
        control = chance.choice(
            [ControlRecord(records=line), ControlRecord(account=name, records=line, first_number=line)]
        )
        for read in (whole, parts):
            read.count(file, line, content)
            read.count_booked([content])
            if line % 3 == 0:
                read.count(file, line, control)
        if chance.random() < 0.3:
            parts.store()
    found = list(parts.by_account(at_once))
    (expected,) = list(whole.by_account(100)) or [FeedRead()]
    for of_file, of in expected.files.items():
        some = [each.files[of_file] for each in found if of_file in each.files]
        assert {key: value for one in some for key, value in one.accounts.items()} == of.accounts
        assert {key: value for one in some for key, value in one.series.items()} == of.series
        assert sorted((line, str(c)) for one in some for line, c in one.controls) == sorted(
            (line, str(c)) for line, c in of.controls
        )
        assert all(
            [line for line, _ in one.controls] == sorted(line for line, _ in one.controls) for one in some
        )
    booked = {scope: numbers.booked for each in found for scope, numbers in each.booked.items()}
    assert booked == {scope: numbers.booked for scope, numbers in expected.booked.items()}
    repeated = {scope: numbers.intervals for each in found for scope, numbers in each.repeated.items()}
    assert repeated == {scope: numbers.intervals for scope, numbers in expected.repeated.items()}
    assert {file: read.sums for file, read in parts.files.items()} == {
        file: read.sums for file, read in whole.files.items()
    }
    assert parts.files == whole.files
