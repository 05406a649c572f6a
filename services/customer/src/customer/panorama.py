"""A customer's asset panorama from the documents of its accounts: pure, integers only, one block per
currency.

Assets are positive balances, liabilities are amounts owed; both are positive numbers. AUM is the sum of
the assets, and net worth is assets less liabilities. A figure names its accounts' sources, the date up to
which they are booked, their freshness, and links to its events, which sum to it exactly. Amounts of
different currencies are never added.

A joint account counts in full for each of its owners, and every figure says how much of it is held
jointly. A closed account counts only with a balance that is left on it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from chassis.money import decimal_text
from chassis.web.formats import Day, Id, Instant, Month
from chassis.write.events import event_id
from typing_extensions import TypedDict

from customer.holdings import SIGNATORY, Role, owners, role_of
from customer.views.asset_panorama import MONTHS_KEPT_MAX

Section = Literal["deposits", "wealth", "credit_balances", "loans", "cards", "overdrafts"]
Status = Literal["GREEN", "AMBER", "RED"]

ASSETS: Final[tuple[Section, ...]] = ("deposits", "wealth", "credit_balances")
LIABILITIES: Final[tuple[Section, ...]] = ("loans", "cards", "overdrafts")
SPENDING_KINDS: Final = ("card", "cash", "household", "insurance", "fee", "penalty_interest", "other")
"""The transaction types that count as spending. Transfers, purchases of wealth products and repayments do
not."""
_SPENDING_PRODUCTS: Final = frozenset({"deposit", "card"})
_ASSET_OF: Final[dict[str, Section]] = {"deposit": "deposits", "wealth": "wealth"}
_DEBT_OF: Final[dict[str, Section]] = {"loan": "loans", "card": "cards"}
HUNDRED_PERCENT: Final = 10_000
MONTH_PATTERN: Final = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
"""A month of the bank's calendar, YYYY-MM."""


class Figure(TypedDict):
    """An amount in minor units and as people write it, and where it comes from.

    `as_of`: the bank date up to which every source of it is booked. `recorded_at`: when its newest event
    was written down. `freshness_seconds`: how long ago its stalest source was last received from. `stale`:
    the sources among its own that have been silent for longer than the rules allow; where there is one,
    the figure may have been overtaken (amber). `position`: the highest position in the store of ingest
    among its events. `events`: links to what sums to it; movements of a liability sum to minus it.
    """

    amount_minor: int
    amount: str
    joint_minor: int
    accounts: int
    sources: list[str]
    as_of: Day | None
    recorded_at: Instant | None
    freshness_seconds: int | None
    stale: list[str]
    position: int | None
    events: list[str]


class Share(TypedDict):
    """A part of AUM; `percent` has two decimals, `hundredths` is the same as an integer. They sum to 100.00."""

    section: Section
    amount_minor: int
    percent: str
    hundredths: int


class SpendingOfKind(TypedDict):
    """What was spent in one way."""

    kind: str
    amount_minor: int
    amount: str


class Spending(Figure):
    """What went out in a month, reversals taken back."""

    month: Month
    by_kind: list[SpendingOfKind]


class CurrencyBlock(TypedDict):
    """Everything in one currency."""

    currency: str
    aum: Figure
    liabilities: Figure
    net_worth: Figure
    deposits: Figure
    wealth: Figure
    credit_balances: Figure
    loans: Figure
    cards: Figure
    overdrafts: Figure
    spending: Spending
    allocation: list[Share]


class HeldBalance(TypedDict):
    """The balance of an account in one currency, and where it counts."""

    currency: str
    balance_minor: int
    balance: str
    movements: int
    section: Section
    booked_through: Day | None
    events: str


class HeldCard(TypedDict):
    """A card on an account."""

    card: str | None
    kind: str | None
    issued_on: Day


class HeldLoan(TypedDict):
    """A loan as master data states it.

    `outstanding_minor` is null where an account of its own carries the debt.

    `granted_by` is the event that granted it, of the account's stream; `events` are the movements that
    repay it. outstanding = granted - repaid, and `repaid_minor` is this loan's part of the outflows behind
    `events`.
    """

    loan: str
    granted_by: Id
    currency: str
    granted_minor: int
    repaid_minor: int | None
    outstanding_minor: int | None
    payment_minor: int
    duration_months: int
    granted_on: Day
    status: str | None
    events: str


class LoansSum(TypedDict):
    """What loans without an account of their own amount to."""

    currency: str
    granted_minor: int
    repaid_minor: int
    outstanding_minor: int


class HeldAccount(TypedDict):
    """An account of the customer. `holders` are its owners; with role `signatory` its money is in no figure."""

    account_id: Id
    account: str | None
    source: str
    product: str
    role: Role
    holders: int
    joint: bool
    opened_on: Day | None
    closed_on: Day | None
    balances: list[HeldBalance]
    cards: list[HeldCard]
    loans: list[HeldLoan]
    standing_orders: int
    source_status: Status | None
    as_of: Day | None
    recorded_at: Instant
    freshness_seconds: int


class SourceShown(TypedDict):
    """A source of the panorama: how far it is booked, and its status by its last certificate.

    GREEN: everything read is posted and checked. AMBER: something waits for a person or could not be
    checked. RED: figures contradict each other. `reasons` are codes of why it is not GREEN.
    """

    source: str
    booked_through: Day | None
    heard_at: Instant
    freshness_seconds: int
    stale: bool
    certificate: Id | None
    status: Status | None
    reasons: list[str]
    certified_at: Instant | None


class Rules(TypedDict):
    """The rules behind the figures."""

    joint_accounts: str
    aum: str
    loans: str
    spending_kinds: list[str]
    stale_after_seconds: int


class Panorama(TypedDict):
    """What a customer owns and owes."""

    customer_id: Id
    name: str | None
    kind: str
    month: Month
    as_of: Day | None
    currencies: list[CurrencyBlock]
    accounts: list[HeldAccount]
    sources: list[SourceShown]
    rules: Rules


STALE_AFTER_SECONDS: Final = 30 * 60
"""The schedule of a source whose certificates state none."""
STALE_AFTER_TIMES: Final = 2
"""A source is stale once it has been silent for this many times its interval."""

_NOTHING: Final[Figure] = {
    "amount_minor": 0,
    "amount": "0",
    "joint_minor": 0,
    "accounts": 0,
    "sources": [],
    "as_of": None,
    "recorded_at": None,
    "freshness_seconds": None,
    "stale": [],
    "position": None,
    "events": [],
}


_NO_BALANCE: Final = {"minor": 0, "movements": 0, "booked_through": None}
"""The balance of an account that is open in a currency and has no movement yet."""


@dataclass(slots=True)
class _Sum:
    """A figure while it is summed."""

    minor: int = 0
    joint_minor: int = 0
    accounts: dict[str, None] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    recorded_at: str | None = None
    position: int = 0
    events: list[str] = field(default_factory=list)

    def add(self, minor: int, account: "_Account", events: str) -> None:
        self.minor += minor
        if account.joint:
            self.joint_minor += minor
        self.accounts[account.id] = None
        self.sources[account.source] = None
        if self.recorded_at is None or account.recorded_at > self.recorded_at:
            self.recorded_at = account.recorded_at
        self.position = max(self.position, account.position)
        if events not in self.events:
            self.events.append(events)

    def plus(self, other: "_Sum", sign: int = 1) -> None:
        if not other.accounts:
            return
        self.minor += sign * other.minor
        self.joint_minor += sign * other.joint_minor
        self.accounts |= other.accounts
        self.sources |= other.sources
        if other.recorded_at is not None:
            self.recorded_at = max(self.recorded_at or "", other.recorded_at)
        self.position = max(self.position, other.position)
        self.events += other.events


@dataclass(slots=True)
class _Account:
    id: str
    source: str
    product: str
    joint: bool
    recorded_at: str
    position: int
    link: str


@dataclass(slots=True)
class _Source:
    """The date up to which a source is booked, when it was last received, and how long ago that is."""

    booked_through: str | None = None
    heard_at: str = ""
    status: Status | None = None
    certificate: str | None = None
    reasons: list[str] = field(default_factory=list)
    expected_every_seconds: int | None = None
    certified_at: str | None = None
    freshness_seconds: int = 0
    stale: bool = False

    def hears(self, booked_through: str | None, at: str) -> None:
        if booked_through is not None and (
            self.booked_through is None or booked_through > self.booked_through
        ):
            self.booked_through = booked_through
        self.heard_at = max(self.heard_at, at)


class Block:
    """The figures of one currency while they are summed."""

    __slots__ = ("by_kind", "sections", "spending")

    def __init__(self) -> None:
        self.sections: defaultdict[Section, _Sum] = defaultdict(_Sum)
        """Only the sections that have an account."""
        self.spending = _Sum()
        self.by_kind: dict[str, int] = {}


def allocation(parts: Sequence[tuple[Section, int]]) -> list[Share]:
    """Shares of non-negative amounts in hundredths of a per cent that sum to exactly 100.00; none of a sum of
    0.

    Largest remainder; equal remainders go to the part that stands first.
    """
    total = sum(amount for _, amount in parts)
    if total <= 0:
        return []
    floors = [divmod(amount * HUNDRED_PERCENT, total) for _, amount in parts]
    missing = HUNDRED_PERCENT - sum(whole for whole, _ in floors)
    up = set(sorted(range(len(parts)), key=lambda at: (-floors[at][1], at))[:missing])
    shares: list[Share] = []
    for at, (section, amount) in enumerate(parts):
        hundredths = floors[at][0] + (at in up)
        percent = f"{hundredths // 100}.{hundredths % 100:02d}"
        shares.append(
            {"section": section, "amount_minor": amount, "percent": percent, "hundredths": hundredths}
        )
    return shares


def section_of(product: str, balance_minor: int) -> Section:
    """The section of a balance: a debt on a deposit is an overdraft, a positive balance of a card or loan a
    credit balance."""
    if balance_minor < 0:
        return _DEBT_OF.get(product, "overdrafts")
    if product in _DEBT_OF:
        return _DEBT_OF[product] if balance_minor == 0 else "credit_balances"
    return _ASSET_OF.get(product, "deposits")


def keeps(months: Mapping[str, Any], month: str) -> bool:
    """Whether an account's kept months of outflow in a currency cover this month."""
    return len(months) < MONTHS_KEPT_MAX or month >= min(months)


def panorama(
    customer: Mapping[str, Any],
    accounts: Sequence[Mapping[str, Any]],
    sources: Iterable[Mapping[str, Any]],
    *,
    now: datetime,
    month: str | None = None,
    stale_after_seconds: int = STALE_AFTER_SECONDS,
    customers: Mapping[str, str] | None = None,
) -> Panorama:
    """The panorama of a customer; documents as the views keep them, personal values opened and masked before.

    The accounts are those of `holdings.held`, and `customers` says whose the parties of others are.

    `month` is YYYY-MM, by default the month in which the newest movement was booked. Of an account that no
    longer keeps the month (see `keeps`) the documents must hold it all the same.
    """
    received = _last_received(accounts, sources, now, stale_after_seconds)
    parties = {one["party_id"] for one in customer["parties"]}
    roles = {one["_id"]: role_of(one["holders"], parties) for one in accounts}
    owned = [one for one in accounts if roles[one["_id"]] != SIGNATORY]
    month = month or _newest_month(owned, now)
    base = f"/customers/{customer['_id']}"
    blocks: dict[str, Block] = {}
    held: list[HeldAccount] = []
    for document in accounts:
        role = roles[document["_id"]]
        holders = owners(document["holders"], parties, customers or {})
        account = _Account(
            document["_id"],
            document["source"],
            document["product"] or "deposit",
            role != SIGNATORY and holders > 1,
            document["changed_at"],
            document["position"],
            f"{base}/accounts/{document['_id']}/movements",
        )
        # A signatory's accounts belong to others: they are listed, and summed in blocks that are not returned.
        counted = {} if role == SIGNATORY else blocks
        balances = _balances(document, account, counted)
        loans = loans_of(account.id, document, account.link) if document["loans"] else []
        _owed(loans, account, counted)
        if account.product in _SPENDING_PRODUCTS:
            _spending(document, account, month, counted)
        of_source = received[account.source]
        held.append(
            {
                "account_id": account.id,
                "account": document["account"],
                "source": account.source,
                "product": account.product,
                "role": role,
                "holders": holders,
                "joint": account.joint,
                "opened_on": document["opened_on"],
                "closed_on": document.get("closed_on"),
                "balances": balances,
                "cards": [
                    {"card": one["card"], "kind": one["kind"], "issued_on": one["issued_on"]}
                    for one in document["cards"]
                ],
                "loans": loans,
                "standing_orders": len(document["orders"]),
                "source_status": of_source.status,
                "as_of": of_source.booked_through,
                "recorded_at": account.recorded_at,
                "freshness_seconds": of_source.freshness_seconds,
            }
        )
    return {
        "customer_id": customer["_id"],
        "name": customer["name"],
        "kind": customer["kind"],
        "month": month,
        "as_of": _as_of({one["source"] for one in owned}, received),
        "currencies": [_block(code, blocks[code], received, month) for code in sorted(blocks)],
        "accounts": held,
        "sources": [_shown(name, received[name]) for name in sorted(received)],
        "rules": {
            "joint_accounts": "in-full-for-each-holder",
            "aum": "assets-without-deducting-liabilities",
            "loans": "debt-of-the-loan-account-or-granted-less-repaid",
            "spending_kinds": list(SPENDING_KINDS),
            "stale_after_seconds": stale_after_seconds,
        },
    }


def _balances(document: Mapping[str, Any], account: _Account, blocks: dict[str, Block]) -> list[HeldBalance]:
    held: list[HeldBalance] = []
    balances = document["balances"]
    if not balances and document["currency"] is not None:
        balances = {document["currency"]: _NO_BALANCE}
    for currency, balance in balances.items():
        minor = balance["minor"]
        section = section_of(account.product, minor)
        link = f"{account.link}?currency={currency}"
        if minor or not document.get("closed"):
            block = blocks.get(currency) or blocks.setdefault(currency, Block())
            block.sections[section].add(-minor if section in LIABILITIES else minor, account, link)
        held.append(
            {
                "currency": currency,
                "balance_minor": minor,
                "balance": decimal_text(minor, currency),
                "movements": balance["movements"],
                "section": section,
                "booked_through": balance["booked_through"],
                "events": link,
            }
        )
    return held


def loans_of(account_id: str, document: Mapping[str, Any], movements: str) -> list[HeldLoan]:
    """Loans that master data states. Without an account of its own a loan is owed as granted less repaid.

    Repayments do not say which loan they are for: they go to the loans of their currency in the order of
    granting. `movements` is the link to the account's movements.
    """
    found: list[HeldLoan] = []
    own_account = document["product"] == "loan"
    unassigned = dict(document["repaid"])
    for loan in sorted(document["loans"], key=lambda one: (one["granted_on"], one["loan"])):
        currency, granted = loan["currency"], loan["amount_minor"]
        repaid = None if own_account else max(0, min(granted, unassigned.get(currency, 0)))
        unassigned[currency] = unassigned.get(currency, 0) - (repaid or 0)
        found.append(
            {
                "loan": loan["loan"],
                "granted_by": str(event_id(UUID(account_id), loan["sequence"])),
                "currency": currency,
                "granted_minor": granted,
                "repaid_minor": repaid,
                "outstanding_minor": None if repaid is None else granted - repaid,
                "payment_minor": loan["payment_minor"],
                "duration_months": loan["duration_months"],
                "granted_on": loan["granted_on"],
                "status": loan["status"],
                "events": f"{movements}?currency={currency}&kind=loan_repayment",
            }
        )
    return found


def _owed(loans: Sequence[HeldLoan], account: _Account, blocks: dict[str, Block]) -> None:
    """Counts loans without an account of their own; the link is to the loans, whose sum is the figure."""
    for loan in loans:
        currency, outstanding = loan["currency"], loan["outstanding_minor"]
        if outstanding is not None:
            block = blocks.get(currency) or blocks.setdefault(currency, Block())
            link = f"{account.link.removesuffix('movements')}loans?currency={currency}"
            block.sections["loans"].add(outstanding, account, link)


def _spending(document: Mapping[str, Any], account: _Account, month: str, blocks: dict[str, Block]) -> None:
    for currency, months in document["outflows"].items():
        kinds = months.get(month)
        if kinds is None:
            continue
        spent = {kind: minor for kind, minor in kinds.items() if kind in SPENDING_KINDS}
        if not spent:
            continue
        block = blocks.get(currency) or blocks.setdefault(currency, Block())
        link = f"{account.link}?currency={currency}&month={month}&spending=true"
        block.spending.add(sum(spent.values()), account, link)
        for kind, minor in spent.items():
            block.by_kind[kind] = block.by_kind.get(kind, 0) + minor


def _block(currency: str, block: Block, received: Mapping[str, _Source], month: str) -> CurrencyBlock:
    aum, liabilities, net = _Sum(), _Sum(), _Sum()
    sections = block.sections
    for of_side, names in ((aum, ASSETS), (liabilities, LIABILITIES)):
        for name in names:
            if name in sections:
                of_side.plus(sections[name])
    net.plus(aum)
    net.plus(liabilities, -1)

    nothing: Figure = {**_NOTHING, "amount": decimal_text(0, currency)}

    def figure(of: _Sum | None) -> Figure:
        return _figure(of, currency, received) if of is not None and of.accounts else nothing

    spending: Spending = {
        **figure(block.spending),
        "month": month,
        "by_kind": [
            {"kind": kind, "amount_minor": minor, "amount": decimal_text(minor, currency)}
            for kind, minor in sorted(block.by_kind.items())
        ],
    }
    return {
        "currency": currency,
        "aum": figure(aum),
        "liabilities": figure(liabilities),
        "net_worth": figure(net),
        "deposits": figure(sections.get("deposits")),
        "wealth": figure(sections.get("wealth")),
        "credit_balances": figure(sections.get("credit_balances")),
        "loans": figure(sections.get("loans")),
        "cards": figure(sections.get("cards")),
        "overdrafts": figure(sections.get("overdrafts")),
        "spending": spending,
        "allocation": allocation(
            [(name, sections[name].minor if name in sections else 0) for name in ASSETS]
        ),
    }


def _figure(of: _Sum, currency: str, received: Mapping[str, _Source]) -> Figure:
    sources = list(of.sources)
    if len(sources) == 1:
        only = received[sources[0]]
        as_of, freshness_seconds = only.booked_through, only.freshness_seconds
        stale = sources if only.stale else []
    else:
        sources.sort()
        as_of, stale = _as_of(sources, received), [source for source in sources if received[source].stale]
        freshness_seconds = max([received[source].freshness_seconds for source in sources])
    return {
        "amount_minor": of.minor,
        "amount": decimal_text(of.minor, currency),
        "joint_minor": of.joint_minor,
        "accounts": len(of.accounts),
        "sources": sources,
        "as_of": as_of,
        "recorded_at": of.recorded_at,
        "freshness_seconds": freshness_seconds,
        "stale": stale,
        "position": of.position,
        "events": of.events,
    }


def _last_received(
    accounts: Sequence[Mapping[str, Any]],
    sources: Iterable[Mapping[str, Any]],
    now: datetime,
    stale_after_seconds: int,
) -> dict[str, _Source]:
    received: dict[str, _Source] = {}
    for account in accounts:
        found = received.get(account["source"]) or received.setdefault(account["source"], _Source())
        found.hears(account["booked_through"], account["changed_at"])
    for source in sources:
        known = received.get(source["source"])
        if known is not None:
            known.hears(source["booked_through"], source.get("heard_at") or source["certified_at"])
            known.status, known.certificate = source["status"], source["certificate"]
            known.certified_at = source["certified_at"]
            known.reasons = source.get("reasons") or []
            known.expected_every_seconds = source.get("expected_every_seconds")
    for known in received.values():
        known.freshness_seconds = _seconds_since(known.heard_at, now)
        every_seconds = known.expected_every_seconds
        bound_seconds = stale_after_seconds if every_seconds is None else STALE_AFTER_TIMES * every_seconds
        known.stale = known.freshness_seconds > bound_seconds
    return received


def _shown(name: str, source: _Source) -> SourceShown:
    return {
        "source": name,
        "booked_through": source.booked_through,
        "heard_at": source.heard_at,
        "freshness_seconds": source.freshness_seconds,
        "stale": source.stale,
        "certificate": source.certificate,
        "status": source.status,
        "reasons": source.reasons,
        "certified_at": source.certified_at,
    }


def _newest_month(accounts: Sequence[Mapping[str, Any]], now: datetime) -> str:
    newest = max((one["booked_through"] for one in accounts if one["booked_through"]), default=None)
    return (newest or now.date().isoformat())[:7]


def _as_of(sources: Collection[str], received: Mapping[str, _Source]) -> str | None:
    """The day up to which all of these sources are booked; None where one of them has booked nothing."""
    through = [received[source].booked_through for source in sources]
    known = [day for day in through if day is not None]
    return min(known) if known and len(known) == len(through) else None


def _seconds_since(instant: str, now: datetime) -> int:
    return max(0, int((now - datetime.fromisoformat(instant)).total_seconds()))
