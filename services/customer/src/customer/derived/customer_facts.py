"""The derived view `customer_facts`: what conditions ask of a customer, one document each.

It is a function of the customer's document, of the accounts that its parties own, of the tags, and of the business date: rights and
links hold from one day on until before another. Only ownership counts; a joint account counts in full for each of
its owners. Amounts are as the panorama sums them, by currency. There is nothing personal in a document but digests, of
values by which a customer is found and of the codes of its profile. An erased customer has no document. What the
customers of a branch add up to is summed over the documents (`customer.branches`).

AUM of a whole month, at its end and on average over its days, is of the accounts that are owned on the day of derivation,
as in the panorama: who may see an account sees its history. An account counts in a month where its balance, or the average
of it, is an asset. The facts change when a month begins; the running month has no figures.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from chassis.lists.declaring import BLIND
from chassis.money import TURNOVER_MINOR_MAX
from chassis.read.blind import SealedAt
from chassis.read.deriving import DerivedView, Inputs, Touched
from chassis.read.documents import ID, Document, DocumentId
from chassis.read.projecting import Collection, Index

from customer.branches import SUMS
from customer.catalogue import CONTEXT
from customer.domain.events import CONTACT, PROFILE_FIELDS
from customer.facts import CONSENTS
from customer.holdings import SIGNATORY, held, parties_on, role_of
from customer.lists import FACTS_LIST
from customer.merging import stand_for
from customer.months import balances, month_after, whole_months
from customer.panorama.accounts import loans_of
from customer.panorama.rules import LIABILITIES, section_of
from customer.views import asset_panorama, customers, tags
from customer.views.asset_panorama import ACCOUNTS
from customer.views.customers import CUSTOMERS, TAG_CODES
from customer.views.tags import INTO, TAGS

FACTS: Final = FACTS_LIST.collection
CHANGES_ON: Final = "changes_on"
_CUSTOMERS: Final = customers.VIEW.name
_PANORAMA: Final = asset_panorama.VIEW.name
_TAGS: Final = tags.VIEW.name

_OF_CUSTOMER: Final = (
    *(
        "kind",
        "origin",
        "branch",
        "questions",
        "parties",
        "tags",
        "consents",
        "profile",
        "tier",
        "erased_at",
        "contact_erased_at",
    ),
    *FACTS_LIST.searched,
)
_OF_ACCOUNT: Final = (
    *("product", "opened_on", "closed_on", "holders", "cards", "loans", "orders"),
    *("repaid", "months", "balances", "booked_through"),
)
"""The fields that facts are derived from. A customer's document is mostly where its values come from."""

Amounts = dict[str, int]


async def depending(inputs: Inputs, touched: Touched) -> Iterable[DocumentId]:
    """The customers themselves, those whose parties hold or held an account, and those who have a tag that stands for
    another one: only a merge of tags changes facts."""
    found = set(touched.get((_CUSTOMERS, CUSTOMERS), ()))
    accounts = await inputs.by_id(_PANORAMA, ACCOUNTS, touched.get((_PANORAMA, ACCOUNTS), ()), ["holders"])
    parties = {one["party_id"] for account in accounts.values() for one in account["holders"]}
    if parties:
        linked = await inputs.having(_CUSTOMERS, CUSTOMERS, "parties.party_id", sorted(parties), [ID])
        found |= {one[ID] for one in linked}
    touched_tags = await inputs.by_id(_TAGS, TAGS, touched.get((_TAGS, TAGS), ()), [INTO])
    merged = {str(code) for code, tag in touched_tags.items() if tag[INTO] is not None}
    if merged:
        codes = sorted(merged | await _merged_into(inputs, merged))
        tagged = await inputs.having(_CUSTOMERS, CUSTOMERS, TAG_CODES, codes, [ID])
        found |= {one[ID] for one in tagged}
    return found


async def _merged_into(inputs: Inputs, codes: AbstractSet[str]) -> set[str]:
    """The tags that stand for one of these, over any number of merges."""
    found, last = set[str](), set(codes)
    while last:
        merged = await inputs.having(_TAGS, TAGS, INTO, sorted(last), [ID])
        last = {str(one[ID]) for one in merged} - found - codes
        found |= last
    return found


async def derive(inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
    """The facts of these customers."""
    day = inputs.day()
    known = await inputs.by_id(_CUSTOMERS, CUSTOMERS, ids, _OF_CUSTOMER)
    customer_of = defaultdict[str, set[DocumentId]](set)
    for id, customer in known.items():
        for link in customer["parties"]:
            customer_of[link["party_id"]].add(id)
    accounts = defaultdict[DocumentId, dict[str, Document]](dict)
    if customer_of:
        parties = sorted(customer_of)
        for account in await inputs.having(_PANORAMA, ACCOUNTS, "holders.party_id", parties, _OF_ACCOUNT):
            for holder in account["holders"]:
                for id in customer_of.get(holder["party_id"], ()):
                    accounts[id][account[ID]] = account
    there = {id: customer for id, customer in known.items() if customer.get("erased_at") is None}
    codes = {one["code"] for each in there.values() for one in each.get("tags", ())}
    ends = await stand_for(codes, lambda some: inputs.by_id(_TAGS, TAGS, some, [INTO]))
    digests = await _digests(inputs, there)
    return {
        id: {
            **facts(customer, [accounts[id][each] for each in sorted(accounts[id])], day, ends),
            BLIND: digests[id],
        }
        for id, customer in there.items()
    }


async def _digests(
    inputs: Inputs, customers: Mapping[DocumentId, Document]
) -> dict[DocumentId, dict[str, str | None]]:
    """By customer and field, the digests by which a customer is found, and those of its profile, which conditions ask for."""
    places, values = list[tuple[DocumentId, str]](), list[SealedAt]()
    for id, customer in customers.items():
        # A key that is still in the memory of this process must not bring back a digest of what is erased.
        gone = CONTACT if customer.get("contact_erased_at") is not None else ()
        there = {
            field: customer[field]
            for field in FACTS_LIST.searched
            if customer.get(field) is not None and field not in gone
        }
        profile = customer.get("profile", {})
        there |= {field: one["value"] for field, one in profile.items() if one["value"] is not None}
        places += [(id, field) for field in there]
        values += [SealedAt(value, CONTEXT, UUID(str(id)), field) for field, value in there.items()]
    found = {id: dict[str, str | None].fromkeys((*FACTS_LIST.searched, *PROFILE_FIELDS)) for id in customers}
    for (id, field), digest in zip(places, await inputs.digests(values), strict=True):
        found[id][field] = digest
    return found


async def everything(inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
    """All customers."""
    return await inputs.ids(_CUSTOMERS, CUSTOMERS, after, limit)


def facts(
    customer: Mapping[str, Any],
    accounts: Sequence[Mapping[str, Any]],
    day: str,
    ends: Mapping[str, str] = MappingProxyType({}),
) -> Document:
    """The facts of a customer on a business date. `accounts`: all over which its parties have or had a right, in order of
    their ids. `ends`: by code of a tag, the one that it stands for."""
    parties = parties_on(customer, day)
    owned = [
        account
        for account in held(accounts, parties, day)
        if role_of(account["holders"], parties) != SIGNATORY
    ]
    open_ones = [account for account in owned if not account["closed"]]
    sections = _sections(owned)
    aum, liabilities = Amounts(), Amounts()
    for section, amounts in sections.items():
        _add(liabilities if section in LIABILITIES else aum, amounts)
    net = dict(aum)
    _add(net, {currency: -minor for currency, minor in liabilities.items()})
    closing, average = _months(owned, day)
    opened = [account["opened_on"] for account in owned if account["opened_on"] is not None]
    moved = [account["booked_through"] for account in owned if account["booked_through"] is not None]
    found = {
        "kind": customer["kind"],
        "origin": customer["origin"],
        "branch": customer.get("branch"),
        "questions": list(customer["questions"]),
        "tags": sorted({ends.get(one["code"], one["code"]) for one in customer.get("tags", ())}),
        CONSENTS: _consents(customer, day),
        "tier": (customer.get("tier") or {}).get("tier"),
        "aum": aum,
        "aum_month_end": closing,
        "aum_month_average": average,
        "aum_months_falling": months_falling(average),
        "liabilities": liabilities,
        "net_worth": net,
        "deposits": sections.get("deposits", {}),
        "wealth": sections.get("wealth", {}),
        "loans": sections.get("loans", {}),
        "products": sorted({_product(account) for account in open_ones}),
        "currencies": sorted({currency for account in open_ones for currency in account["balances"]}),
        "accounts": len(open_ones),
        "cards": sum(len(account["cards"]) for account in open_ones),
        "standing_orders": sum(len(account["orders"]) for account in open_ones),
        "first_opened_on": min(opened, default=None),
        "last_movement_on": max(moved, default=None),
        "relations": _relations(owned),
        CHANGES_ON: _changes_on(customer, accounts, day),
    }
    return {**found, **FACTS_LIST.months_ago(found, date.fromisoformat(day))}


def _sections(accounts: Iterable[Mapping[str, Any]]) -> dict[str, Amounts]:
    """What is in each section of a panorama: see `panorama.accounts`."""
    found = defaultdict[str, Amounts](dict)
    for account in accounts:
        for currency, balance in account["balances"].items():
            minor = balance["minor"]
            section = section_of(_product(account), minor)
            _add(found[section], {currency: -minor if section in LIABILITIES else minor})
        for loan in loans_of(str(account[ID]), account, "") if account["loans"] else ():
            if loan["outstanding_minor"] is not None:
                _add(found["loans"], {loan["currency"]: loan["outstanding_minor"]})
    return found


def _months(accounts: Iterable[Mapping[str, Any]], day: str) -> tuple[dict[str, Amounts], dict[str, Amounts]]:
    """AUM at the end of whole months, and its daily average in whole minor units; what is less than one is cut off, so that
    an average reaches an amount where it does. A month that an account does not keep is left out."""
    wanted = whole_months(day)
    known = len(wanted)
    closing, daily = defaultdict[str, Amounts](dict), defaultdict[str, Amounts](dict)
    for account in accounts:
        kept = account.get("months")  # an account of a generation before has none
        for currency, balance in account["balances"].items():
            found = {} if kept is None else balances(balance["minor"], kept.get(currency, {}), wanted)
            known = min(known, len(found))
            for month, (closing_minor, daily_minor) in found.items():
                if closing_minor > 0:
                    closing[month][currency] = closing[month].get(currency, 0) + closing_minor
                if daily_minor > 0:
                    daily[month][currency] = daily[month].get(currency, 0) + daily_minor
    return (
        {month: _fitting(closing[month], 1) for month, _ in wanted[:known]},
        {month: _fitting(daily[month], days) for month, days in wanted[:known]},
    )


def months_falling(average: Mapping[str, Amounts]) -> int:
    """How many whole months in a row, the last one among them, AUM was lower on average than in the month before (R054). Only
    `FALLING_IN` is compared. `average` is by month, from the latest to the earliest; before it nothing is known to fall."""
    in_currency = [amounts.get(FALLING_IN, 0) for amounts in average.values()]
    return next(
        (at for at, (after, before) in enumerate(pairwise(in_currency)) if after >= before),
        max(0, len(in_currency) - 1),
    )


def _fitting(amounts: Amounts, days: int) -> Amounts:
    """Amounts for each of so many days, as the database holds them. Late postings may give a month a larger balance than
    any that was ever stored: what is beyond `TURNOVER_MINOR_MAX` is that, which is more than anybody asks for."""
    return {currency: min(minor // days, TURNOVER_MINOR_MAX) for currency, minor in amounts.items()}


def _product(account: Mapping[str, Any]) -> str:
    return str(account["product"] or "deposit")


def _add(to: Amounts, amounts: Mapping[str, int]) -> None:
    """Adds amounts. What is zero is left out: a condition reads a missing currency as zero."""
    for currency, minor in amounts.items():
        after = to.get(currency, 0) + minor
        if after:
            to[currency] = after
        else:
            to.pop(currency, None)


def _relations(accounts: Iterable[Mapping[str, Any]]) -> list[Document]:
    """Openings and closings of accounts, issues of cards and grants of loans, counted by day."""
    counted = defaultdict[tuple[str, str, str], int](int)
    for account in accounts:
        product = _product(account)
        for action, on in (("opened", account["opened_on"]), ("closed", account["closed_on"])):
            if on is not None:
                counted[on, action, product] += 1
        for card in account["cards"]:
            counted[card["issued_on"], "issued", "card"] += 1
        for loan in account["loans"]:
            counted[loan["granted_on"], "granted", "loan"] += 1
    latest = sorted(counted, reverse=True)[:RELATIONS_MAX]
    return [
        {"action": action, "object": product, "on": on, "times": counted[on, action, product]}
        for on, action, product in reversed(latest)
    ]


def _consents(customer: Mapping[str, Any], day: str) -> list[str]:
    """The channels and purposes to which a consent is valid on a business date."""
    return sorted(
        f"{one['channel']}-{one['purpose']}"
        for one in customer.get("consents", ())
        if one["given"] and (one["valid_until"] is None or day < one["valid_until"])
    )


def _changes_on(customer: Mapping[str, Any], accounts: Iterable[Mapping[str, Any]], day: str) -> str:
    """The first day after this one on which a month, a right, a link, an account or a consent begins or ends."""
    days: list[str | None] = [month_after(day), *(account["closed_on"] for account in accounts)]
    days += [one["valid_until"] for one in customer.get("consents", ())]
    for one in [*customer["parties"], *(holder for account in accounts for holder in account["holders"])]:
        days += [one.get("from"), one.get("until")]
    return min(each for each in days if each is not None and each > day)


FALLING_IN: Final = "CNY"
"""Amounts of other currencies are not counted: the bank has no rates here."""
RELATIONS_MAX: Final = 200
"""The latest that a document keeps."""

VIEW: Final = DerivedView(
    name=FACTS_LIST.view,
    version=10,
    inputs=(customers.VIEW, asset_panorama.VIEW, tags.VIEW),
    collection=Collection(FACTS, (*FACTS_LIST.indexes, Index(((CHANGES_ON, 1),)))),
    depending=depending,
    derive=derive,
    everything=everything,
    changes_on=CHANGES_ON,
    digests=BLIND,
    sums=SUMS,
)
