"""Needs of customers (客户需求): noted by staff, also without a connection, corrected, and closed with what came of them (R065)."""

from collections.abc import Sequence
from datetime import date
from typing import Final, assert_never

from msgspec import structs

from customer.domain.commands import CloseNeed, CorrectNeed, RecordNeed
from customer.domain.dictionary import Entry, stands
from customer.domain.events import NeedClosed, NeedCorrected, NeedRecorded
from customer.domain.refusals import (
    NEEDS_OPEN_MAX,
    NeedChanged,
    NeedKindUnknown,
    NeedNotOpen,
    NeedTooOld,
    TooManyNeeds,
)
from customer.domain.state import Customer, Need, OpenNeed

NeedCommand = RecordNeed | CorrectNeed | CloseNeed
NeedEvent = NeedRecorded | NeedCorrected | NeedClosed


KINDS: Final = (
    Entry("remittance", "汇款", "remittance"),
    Entry("study-abroad", "留学金融", "finance of studies abroad"),
    Entry("foreign-exchange", "外汇兑换", "foreign exchange"),
    Entry("deposit", "存款", "deposit"),
    Entry("wealth", "理财", "wealth management"),
    Entry("insurance", "保险", "insurance"),
    Entry("fund", "基金", "fund"),
    Entry("housing-loan", "住房贷款", "housing loan"),
    Entry("consumer-loan", "消费贷款", "consumer loan"),
    Entry("credit-card", "信用卡", "credit card"),
    Entry("account-service", "账户服务", "service of an account"),
)
"""The dictionary of kinds of needs."""


def decide_needs(command: NeedCommand, customer: Customer) -> Sequence[NeedEvent]:
    """The events of a command; raises NeedKindUnknown, NeedTooOld, TooManyNeeds, NeedNotOpen, NeedChanged."""
    match command:
        case RecordNeed(need, stated, channel, branch, served_by, at, on, earliest):
            if at < earliest:
                raise NeedTooOld(f"before {earliest.isoformat()}")
            require_kind(stated.kind, on)
            if len(customer.needs) >= NEEDS_OPEN_MAX:
                raise TooManyNeeds
            kind, kind_text, text = structs.astuple(stated)
            return [NeedRecorded(need, kind, kind_text, text, channel, branch, served_by)]
        case CorrectNeed(need, stated, corrections, on):
            known = _open(customer, command)
            if known.need == stated:
                return []
            if known.corrections != corrections:
                raise NeedChanged
            if stated.kind != known.need.kind:
                require_kind(stated.kind, on)
            return [NeedCorrected(need, *structs.astuple(stated))]
        case CloseNeed(need, outcome, text):
            _open(customer, command)
            return [NeedClosed(need, outcome, text)]
        case _:
            assert_never(command)


def require_kind(code: str | None, on: date, kinds: Sequence[Entry] = KINDS) -> None:
    """Raises NeedKindUnknown where no kind has this code on a business date; None names none."""
    if code is not None and not stands(code, on, kinds):
        raise NeedKindUnknown


def evolve_needs(customer: Customer, event: NeedEvent) -> Customer:
    """The customer after an event."""
    match event:
        case NeedRecorded(need, kind, kind_text, text):
            return _with(customer, event, OpenNeed(Need(kind, kind_text, text)))
        case NeedCorrected(need, kind, kind_text, text):
            corrections = customer.needs[need].corrections + 1
            return _with(customer, event, OpenNeed(Need(kind, kind_text, text), corrections))
        case NeedClosed(need):
            left = {one: each for one, each in customer.needs.items() if one != need}
            return structs.replace(customer, needs=left)
        case _:
            assert_never(event)


def _open(customer: Customer, command: CorrectNeed | CloseNeed) -> OpenNeed:
    if (known := customer.needs.get(command.need)) is None:
        raise NeedNotOpen
    return known


def _with(customer: Customer, event: NeedRecorded | NeedCorrected, need: OpenNeed) -> Customer:
    return structs.replace(customer, needs={**customer.needs, event.need: need})
