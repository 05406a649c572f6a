"""What a batch of postings will do: decided on what the store holds and on what is under way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast
from uuid import UUID

import msgspec
from chassis.money import BALANCE_MINOR_MAX, TURNOVER_MINOR_MAX
from msgspec import structs

from sync_ingest.adapters.port import Item
from sync_ingest.domain.booking import Reversed, booked, differences
from sync_ingest.domain.events import AccountSeen, PostingUndone
from sync_ingest.domain.identities import Digester, contents, seen_id, undone_id
from sync_ingest.domain.records import Posting
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, RunTotal
from sync_ingest.pipeline.ports import Entry, StoredPosting
from sync_ingest.pipeline.refusing import SUMS, conflict, original_of, orphan, refused, unfit
from sync_ingest.pipeline.run import Quarantined, Run

DEFERRED_MAX: Final = 50_000


class Limits(NamedTuple):
    """How large the sums of one account and currency may be, and the turnover of a source's accounts in one."""

    balance_minor: int = BALANCE_MINOR_MAX
    turnover_minor: int = TURNOVER_MINOR_MAX


@dataclass(slots=True)
class _Account:
    """What a run remembers of an account: its stream, digester, head (tentative while a batch is under way)."""

    id: UUID
    digest: Digester | None
    head: int
    run_totals: dict[str, RunTotal] = field(default_factory=dict)
    held: Mapping[str, AccountTotal] | None = None


@dataclass(slots=True)
class Plan:
    """What one batch will do; nothing is counted before its events are stored."""

    posted: list[tuple[RunTotal, Posting, int]] = field(default_factory=list)
    posted_before: list[tuple[RunTotal, Posting, int]] = field(default_factory=list)
    duplicates: list[tuple[RunTotal, int, int | None]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    deferred: list[tuple[Item, UUID]] = field(default_factory=list)
    undone: set[UUID] = field(default_factory=set)
    differing: dict[UUID, Posting] = field(default_factory=dict)
    differing_in_feed: list[frozenset[str]] = field(default_factory=list)
    coverage_unstated: int = 0
    doubtful: bool = False
    """Whether a row is refused by a day or a sum."""
    entries: list[Entry] = field(default_factory=list)


class _New(msgspec.Struct, frozen=True, gc=False):
    """A posting that the store does not hold yet."""

    item: Item
    posting: Posting
    identity: UUID
    digest: str
    original: UUID | None
    account: _Account
    run_total: RunTotal
    reverses: Reversed | None = None


class Planner:
    """Plans the postings of one run. What it plans counts in its limits until it is forgotten."""

    def __init__(self, run: Run, limits: Limits, accounts_kept_max: int) -> None:
        self._run = run
        self._limits = limits
        self._accounts_kept_max = accounts_kept_max
        self._accounts: dict[str, _Account] = {}
        self._turnovers = run.book.turnovers()
        self.deferred: list[tuple[Item, UUID]] = []
        """Reversals that came before their originals."""

    def overflows(self, postings: Sequence[Posting]) -> bool:
        """Whether these postings have more accounts than may be remembered beside those that are."""
        accounts = self._accounts
        missing = len({p.account for p in postings if p.account not in accounts})
        return (missing > 0 and len(accounts) + missing > self._accounts_kept_max) or self._run.totals.full

    def store(self) -> None:
        """Stores the run totals and forgets the accounts. Everything that was planned must be counted before."""
        self._run.totals.store()
        self._accounts.clear()

    def forget_accounts(self) -> None:
        """The next batch asks the store anew about its accounts."""
        self._accounts.clear()

    def forget(self, plan: Plan) -> None:
        """Nothing of a plan was stored: it is planned anew, and what it counted is counted then."""
        self._accounts.clear()
        for _, posting, _ in plan.posted:
            self._turnovers[posting.currency] -= abs(posting.amount_minor)

    def plan(
        self,
        items: Sequence[Item],
        postings: Sequence[Posting],
        identities: Sequence[UUID],
        known: Mapping[UUID, StoredPosting],
    ) -> Plan:
        """Plans a batch. `known` are the postings among `identities` that the store holds."""
        plan = Plan()
        source, intakes_read = self._run.source, self._run.intakes
        accounts = self._accounts_of(postings)
        named = {posting.source for posting in postings} - {None}
        if named:
            postings = [structs.replace(p, source=None) if p.source else p for p in postings]
        foreign = named - {source}
        first_day, last_day = self._run.days.first, self._run.days.last
        new: dict[int, _New] = {}
        reversing: list[_New] = []
        for item, posting, identity, content in zip(
            items, postings, identities, contents(postings), strict=True
        ):
            if foreign and cast("Posting", item.content).source in foreign:
                detail = "the record names another source than its feed"
                plan.quarantined.append(refused(item, "source-mismatch", detail))
                continue
            account = accounts[posting.account]
            run_total = account.run_totals.get(posting.currency) or self._run_total(account, posting.currency)
            digest = account.digest(content) if account.digest else ""
            stored = known.get(identity) if known else None
            if stored is not None:
                if stored[1:4] != (posting.amount_minor, posting.currency, posting.booked_on):
                    plan.quarantined.append(conflict(item))
                    continue
                self._plan_known(plan, item, posting, run_total, stored)
                if digest and stored.digest and stored.digest != digest:
                    plan.differing[identity] = posting
                continue
            number = identity.int
            twin = new.get(number)
            if twin is not None:
                self._plan_twin(plan, item, posting, run_total, twin)
                continue
            if not first_day <= posting.booked_on <= last_day:
                plan.doubtful = True
                plan.quarantined.append(refused(item, "date-out-of-window", self._run.days.text))
                continue
            if intakes_read[item.file].closed:
                plan.quarantined.append(unfit(self._run, item))
                continue
            original = original_of(self._run, posting) if posting.reverses else None
            new[number] = fresh = _New(item, posting, identity, digest, original, account, run_total)
            if original is not None:
                reversing.append(fresh)
        if reversing:
            self._plan_reversals(plan, new, reversing)
        self._plan_entries(plan, _originals_first(new) if reversing else new.values())
        return plan

    def _run_total(self, account: _Account, currency: str) -> RunTotal:
        run_total = account.run_totals[currency] = self._run.totals.run_total(
            AccountCurrency(account.id, currency)
        )
        held = account.held.get(currency) if account.held else None
        run_total.balance_minor = held.balance_minor if held else 0
        run_total.turnover_minor = held.turnover_minor if held else 0
        return run_total

    def _accounts_of(self, postings: Sequence[Posting]) -> dict[str, _Account]:
        accounts = self._accounts
        missing = {p.account for p in postings if p.account not in accounts}
        if missing:
            ids, source = self._run.ids, self._run.source
            streams: dict[str, UUID] = {account: ids.account(source, account) for account in missing}
            keys = self._run.ledger.digest_keys(list(streams.values()))
            heads = self._run.ledger.heads(list(streams.values()))
            held: dict[UUID, dict[str, AccountTotal]] = {}
            for account_currency, total in self._run.book.ledger_totals(list(heads)).items() if heads else ():
                held.setdefault(account_currency.account, {})[account_currency.currency] = total
            for account, stream in streams.items():
                key = keys.get(stream)
                digest = Digester(key) if key else None
                accounts[account] = _Account(stream, digest, heads.get(stream, 0), held=held.get(stream))
        return accounts

    def _plan_known(
        self, plan: Plan, item: Item, posting: Posting, run_total: RunTotal, stored: StoredPosting
    ) -> None:
        of_intake = self._run.intakes[item.file]
        if of_intake.open and stored.intake == of_intake.intake and stored.line == item.line:
            plan.posted_before.append((run_total, posting, stored.position))
            return
        if posting.core_transaction_id is None and stored.intake not in of_intake.readings:
            if of_intake.covers == "parts":
                # Somebody else booked this ordinal meanwhile, without the lock of the source.
                plan.quarantined.append(conflict(item))
                return
            plan.coverage_unstated += of_intake.covers is None
        plan.duplicates.append((run_total, posting.amount_minor, stored.position))

    def _plan_twin(self, plan: Plan, item: Item, posting: Posting, run_total: RunTotal, twin: _New) -> None:
        """A posting whose identity came before in the same batch."""
        held = twin.posting
        if (held.amount_minor, held.currency, held.booked_on) != (
            posting.amount_minor,
            posting.currency,
            posting.booked_on,
        ):
            plan.quarantined.append(conflict(item))
            return
        of_intake = self._run.intakes[item.file]
        if (
            posting.core_transaction_id is None
            and self._run.intakes[twin.item.file].intake not in of_intake.readings
        ):
            plan.coverage_unstated += of_intake.covers is None
        if held != posting:
            plan.differing_in_feed.append(differences(held, twin.original is not None, posting))
        plan.duplicates.append((run_total, posting.amount_minor, None))

    def _plan_reversals(self, plan: Plan, new: dict[int, _New], reversing: Sequence[_New]) -> None:
        originals = list({fresh.original for fresh in reversing if fresh.original})
        stored = self._run.ledger.postings(originals)
        undone_before = self._run.ledger.known([undone_id(original) for original in originals])
        for fresh in reversing:
            original = fresh.original
            if original is None:
                continue
            twin, held = new.get(original.int), stored.get(original)
            if held is not None:
                undone = (held.amount_minor, held.currency, held.reversal)
                reverses = Reversed(original, held.kind, held.booked_on)
            elif twin is not None:
                undone = (twin.posting.amount_minor, twin.posting.currency, twin.original is not None)
                reverses = Reversed(original, twin.posting.kind, twin.posting.booked_on)
            else:
                del new[fresh.identity.int]
                if len(self.deferred) + len(plan.deferred) < DEFERRED_MAX:
                    plan.deferred.append((fresh.item, fresh.identity))
                else:
                    plan.quarantined.append(orphan(self._run, fresh.item))
                continue
            if undone != (-fresh.posting.amount_minor, fresh.posting.currency, False):
                detail = "a reversal undoes exactly one posting, with the opposite amount in its currency"
                del new[fresh.identity.int]
                plan.quarantined.append(refused(fresh.item, "reversal-mismatch", detail))
            elif original in plan.undone or undone_id(original) in undone_before:
                del new[fresh.identity.int]
                plan.quarantined.append(refused(fresh.item, "already-reversed", "reversed before"))
            else:
                plan.undone.add(original)
                new[fresh.identity.int] = structs.replace(fresh, reverses=reverses)

    def _plan_entries(self, plan: Plan, new: Iterable[_New]) -> None:
        """Entries of what is new, as far as every sum that it enters stays within its limit; what is under way counts."""
        source, entries, posted, intakes_read = self._run.source, plan.entries, plan.posted, self._run.intakes
        turnovers, (balance_minor_max, turnover_minor_max) = self._turnovers, self._limits
        day_starts, not_booked = self._run.day_starts, set[UUID]()
        for fresh in new:
            item, posting, account, run_total = fresh.item, fresh.posting, fresh.account, fresh.run_total
            if fresh.original is not None and fresh.original in not_booked:
                plan.undone.discard(fresh.original)
                plan.quarantined.append(orphan(self._run, item))
                continue
            amount_minor, currency = posting.amount_minor, posting.currency
            size = abs(amount_minor)
            balance_minor, turnover_minor = (
                run_total.balance_minor + amount_minor,
                run_total.turnover_minor + size,
            )
            of_source = turnovers.get(currency, 0) + size
            if (
                abs(balance_minor) > balance_minor_max
                or turnover_minor > turnover_minor_max
                or of_source > turnover_minor_max
            ):
                plan.doubtful = True
                not_booked.add(fresh.identity)
                plan.quarantined.append(refused(item, "sum-out-of-range", SUMS))
                continue
            run_total.balance_minor, run_total.turnover_minor = balance_minor, turnover_minor
            turnovers[currency] = of_source
            intake = intakes_read[item.file].intake
            effective_at = day_starts(posting.booked_on)
            if account.head == 0:
                account.head = 1
                seen = AccountSeen(source=source, account=posting.account)
                entries.append(
                    Entry(account.id, 1, seen, seen_id(account.id), effective_at, intake, item.trace)
                )
            account.head += 1
            identity = fresh.identity
            event = booked(source, posting, identity, fresh.digest, intake, item.line, fresh.reverses)
            posted.append((run_total, posting, len(entries)))
            entries.append(Entry(account.id, account.head, event, identity, effective_at, intake, item.trace))
            if fresh.reverses is not None:
                original = fresh.reverses.posting_id
                once, undone = undone_id(original), PostingUndone(source, original, identity)
                entries.append(Entry(once, 1, undone, once, effective_at, intake, item.trace))


def _originals_first(new: Mapping[int, _New]) -> Iterator[_New]:
    """Postings as they came, but a reversal after its original: it is booked only if its original is."""
    met: set[int] = set()
    waiting: dict[int, list[_New]] = {}
    for number, fresh in new.items():
        original = None if fresh.original is None else fresh.original.int
        if original is not None and original in new and original not in met:
            waiting.setdefault(original, []).append(fresh)
            continue
        yield fresh
        met.add(number)
        yield from waiting.pop(number, ())
