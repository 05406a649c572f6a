"""Needs of customers (客户需求): noted by staff, also without a connection, corrected, and closed with what came of them (R065)."""

from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple, assert_never

from msgspec import structs

from customer.domain.commands import CloseNeed, CorrectNeed, RecordNeed
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


class NeedKind(NamedTuple):
    """A kind of need, from the business date `since` on and before `until`. Its code is never used for another one."""

    code: str
    zh: str
    en: str
    since: date = date(2026, 1, 1)
    until: date | None = None

    def stands_on(self, day: date) -> bool:
        """Whether needs of a business date may be of this kind."""
        return self.since <= day and (self.until is None or day < self.until)


KINDS: Final = (
    NeedKind("remittance", "汇款", "remittance"),
    NeedKind("study-abroad", "留学金融", "finance of studies abroad"),
    NeedKind("foreign-exchange", "外汇兑换", "foreign exchange"),
    NeedKind("deposit", "存款", "deposit"),
    NeedKind("wealth", "理财", "wealth management"),
    NeedKind("insurance", "保险", "insurance"),
    NeedKind("fund", "基金", "fund"),
    NeedKind("housing-loan", "住房贷款", "housing loan"),
    NeedKind("consumer-loan", "消费贷款", "consumer loan"),
    NeedKind("credit-card", "信用卡", "credit card"),
    NeedKind("account-service", "账户服务", "service of an account"),
)
"""The dictionary of kinds of needs. A kind that is given up gets an `until` and stays: needs of before have its code."""


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


def require_kind(code: str | None, on: date, kinds: Sequence[NeedKind] = KINDS) -> None:
    """Raises NeedKindUnknown where no kind has this code on a business date; None names none."""
    if code is not None and not any(one.code == code and one.stands_on(on) for one in kinds):
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
