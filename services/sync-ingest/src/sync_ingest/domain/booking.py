"""From a canonical record to the private event that states it. Pure: ids, digests and times are arguments."""

from datetime import date
from typing import Final, NamedTuple, assert_never
from uuid import UUID

from contracts.identity import ExternalIds

from sync_ingest.domain.events import (
    AccountClosed,
    AccountOpened,
    AccountReopened,
    CardIssued,
    HolderNamed,
    HolderRemoved,
    LoanGranted,
    PartyDescribed,
    PostingBooked,
    PostingEvent,
    PostingReversed,
    StandingOrderSet,
)
from sync_ingest.domain.records import (
    AccountClosedRecord,
    AccountRecord,
    CardRecord,
    DescribingRecord,
    HolderRecord,
    HoldersRecord,
    LoanRecord,
    MasterRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
)


class Reversed(NamedTuple):
    """The fields of a reversed posting that its reversal needs."""

    posting_id: UUID
    kind: str | None
    booked_on: date


DescribingEvent = (
    AccountOpened
    | AccountClosed
    | AccountReopened
    | CardIssued
    | LoanGranted
    | StandingOrderSet
    | PartyDescribed
)
MasterEvent = DescribingEvent | HolderNamed | HolderRemoved
NO_TRANSACTION_ID: Final = "none-"
"""The prefix of the transaction id of a posting without one of the bank."""


def booked(
    source: str,
    posting: Posting,
    identity: UUID,
    digest: str,
    intake: UUID,
    line: int,
    reverses: "Reversed | None",
) -> PostingEvent:
    """The event of one posting, `reverses` saying what it undoes if it is a reversal."""
    p = posting
    transaction = p.core_transaction_id or f"{NO_TRANSACTION_ID}{identity.hex}"
    # By position, because names cost a third of the call, and this is called for every posting there is. The test of
    # this module compares every field.
    if reverses is not None:
        return PostingReversed(
            source, identity, reverses.posting_id, transaction, p.leg, p.amount_minor, p.currency, p.booked_on,
            p.value_on, p.balance_after_minor, p.product, p.channel, p.kind, p.branch, p.teller,
            p.counterparty_bank, p.counterparty_account, p.counterparty_name, p.text, digest, intake, line,
            reverses.kind, reverses.booked_on,
        )  # fmt: skip
    return PostingBooked(
        source, identity, transaction, p.leg, p.amount_minor, p.currency, p.booked_on, p.value_on,
        p.balance_after_minor, p.product, p.channel, p.kind, p.branch, p.teller, p.counterparty_bank,
        p.counterparty_account, p.counterparty_name, p.text, digest, intake, line,
    )  # fmt: skip


DESCRIPTION: Final = (
    "value_on",
    "balance_after_minor",
    "product",
    "channel",
    "kind",
    "branch",
    "teller",
    "counterparty_bank",
    "counterparty_account",
    "counterparty_name",
    "text",
)
"""The descriptive fields of a posting, which are neither its identity nor its money."""


def differences(held: PostingEvent | Posting, reverses: bool, posting: Posting) -> frozenset[str]:
    """Names of the fields in which a duplicate describes a posting differently; `reverses`: it is held as a
    reversal."""
    found = {name for name in DESCRIPTION if getattr(held, name) != getattr(posting, name)}
    if reverses != (posting.reverses is not None):
        found.add("reverses")
    return frozenset(found or {"other"})


def subject_of(  # noqa: PLR0911 (one arm per record)
    ids: ExternalIds, source: str, record: MasterRecord
) -> UUID:
    """What a master record describes: describing it again replaces what was said before."""
    match record:
        case PartyRecord():
            return ids.party(source, record.party)
        case AccountRecord():
            return ids.account(source, record.account)
        case AccountClosedRecord():
            return ids.of_source("closed", source, record.account)
        case HolderRecord() | HoldersRecord():
            # All holders of an account together, because a complete list replaces what single records said.
            return ids.of_source("holders", source, record.account)
        case CardRecord():
            return ids.of_source("card", source, record.card)
        case LoanRecord():
            return ids.of_source("loan", source, record.loan)
        case StandingOrderRecord():
            return ids.of_source("standing-order", source, record.order)
        case _:
            assert_never(record)


def stream_of(ids: ExternalIds, source: str, record: MasterRecord) -> UUID:
    """The stream on which a master record is stored."""
    match record:
        case PartyRecord():
            return ids.party(source, record.party)
        case (
            AccountRecord()
            | AccountClosedRecord()
            | HolderRecord()
            | HoldersRecord()
            | CardRecord()
            | LoanRecord()
            | StandingOrderRecord()
        ):
            return ids.account(source, record.account)
        case _:
            assert_never(record)


def days_of(record: MasterRecord) -> tuple[date, ...]:
    """The business dates from which a master record takes effect, the last of them being that of its event."""
    days: tuple[date | None, ...]
    match record:
        case AccountRecord():
            return (record.opened_on,)
        case AccountClosedRecord():
            days = (record.closed_on,)
        case HolderRecord():
            days = record.held_from, record.held_until
        case HoldersRecord():
            days = (record.listed_on,)
        case PartyRecord() | CardRecord() | LoanRecord() | StandingOrderRecord():
            return ()
        case _:
            assert_never(record)
    return tuple(day for day in days if day is not None)


def described(  # noqa: PLR0911 (one arm per record)
    ids: ExternalIds, source: str, record: DescribingRecord
) -> DescribingEvent:
    """The event of one master record that describes a thing by itself; for holders see `holders`."""
    match record:
        case PartyRecord():
            return PartyDescribed(
                source=source,
                party=record.party,
                kind=record.kind,
                name=record.name,
                born_on=record.born_on.isoformat() if record.born_on else None,
                gender=record.gender,
                identity_number=record.identity_number,
                phone=record.phone,
                email=record.email,
                address=record.address,
                branch=record.branch,
            )
        case AccountRecord():
            return AccountOpened(
                source=source,
                account=record.account,
                opened_on=record.opened_on,
                product=record.product,
                currency=record.currency,
                branch=record.branch,
                name=record.name,
                statement_frequency=record.statement_frequency,
            )
        case AccountClosedRecord():
            if record.closed_on is None:
                return AccountReopened(source=source)
            return AccountClosed(source=source, closed_on=record.closed_on)
        case CardRecord():
            return CardIssued(
                source=source,
                card=record.card,
                party_id=ids.party(source, record.party) if record.party else None,
                kind=record.kind,
                issued_on=record.issued_on,
            )
        case LoanRecord():
            return LoanGranted(
                source=source,
                loan=record.loan,
                granted_on=record.granted_on,
                amount_minor=record.amount_minor,
                currency=record.currency,
                duration_months=record.duration_months,
                payment_minor=record.payment_minor,
                status=record.status,
            )
        case StandingOrderRecord():
            return StandingOrderSet(
                source=source,
                order=record.order,
                amount_minor=record.amount_minor,
                currency=record.currency,
                kind=record.kind,
                counterparty_bank=record.counterparty_bank,
                counterparty_account=record.counterparty_account,
            )
        case _:
            assert_never(record)
