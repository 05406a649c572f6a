"""From a canonical record to the private event that states it. Pure: ids, digests and times are arguments."""

from typing import assert_never
from uuid import UUID

from contracts.identity import account_id, party_id

from sync_ingest.domain.events import (
    AccountOpened,
    CardIssued,
    HolderNamed,
    LoanGranted,
    PartyDescribed,
    PostingBooked,
    PostingEvent,
    PostingReversed,
    StandingOrderSet,
)
from sync_ingest.domain.records import (
    AccountRecord,
    CardRecord,
    HolderRecord,
    LoanRecord,
    MasterRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
)

MasterEvent = AccountOpened | HolderNamed | CardIssued | LoanGranted | StandingOrderSet | PartyDescribed


def booked(
    source: str,
    posting: Posting,
    *,
    identity: UUID,
    digest: str,
    intake: UUID,
    line: int,
    reverses: UUID | None,
) -> PostingEvent:
    """The event of one posting, `reverses` naming what it undoes if it is a reversal."""
    if reverses is not None:
        return PostingReversed(
            source=source,
            posting_id=identity,
            reverses=reverses,
            core_transaction_id=posting.core_transaction_id,
            leg=posting.leg,
            amount_minor=posting.amount_minor,
            currency=posting.currency,
            booked_on=posting.booked_on,
            value_on=posting.value_on,
            balance_after_minor=posting.balance_after_minor,
            product=posting.product,
            channel=posting.channel,
            kind=posting.kind,
            branch=posting.branch,
            teller=posting.teller,
            counterparty_bank=posting.counterparty_bank,
            counterparty_account=posting.counterparty_account,
            counterparty_name=posting.counterparty_name,
            text=posting.text,
            digest=digest,
            intake=intake,
            line=line,
        )
    return PostingBooked(
        source=source,
        posting_id=identity,
        core_transaction_id=posting.core_transaction_id,
        leg=posting.leg,
        amount_minor=posting.amount_minor,
        currency=posting.currency,
        booked_on=posting.booked_on,
        value_on=posting.value_on,
        balance_after_minor=posting.balance_after_minor,
        product=posting.product,
        channel=posting.channel,
        kind=posting.kind,
        branch=posting.branch,
        teller=posting.teller,
        counterparty_bank=posting.counterparty_bank,
        counterparty_account=posting.counterparty_account,
        counterparty_name=posting.counterparty_name,
        text=posting.text,
        digest=digest,
        intake=intake,
        line=line,
    )


def subject_of(source: str, record: MasterRecord) -> str:
    """What a master record describes: describing it again replaces what was said before."""
    match record:
        case PartyRecord():
            return f"{source}:party:{record.party}"
        case AccountRecord():
            return f"{source}:account:{record.account}"
        case HolderRecord():
            return f"{source}:holder:{len(record.account)}:{record.account}:{record.party}"
        case CardRecord():
            return f"{source}:card:{record.card}"
        case LoanRecord():
            return f"{source}:loan:{record.loan}"
        case StandingOrderRecord():
            return f"{source}:order:{record.order}"
        case _:
            assert_never(record)


def stream_of(source: str, record: MasterRecord) -> UUID:
    """The stream on which a master record is stored."""
    match record:
        case PartyRecord():
            return party_id(source, record.party)
        case AccountRecord() | HolderRecord() | CardRecord() | LoanRecord() | StandingOrderRecord():
            return account_id(source, record.account)
        case _:
            assert_never(record)


def described(source: str, record: MasterRecord) -> MasterEvent:
    """The event of one master record."""
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
        case HolderRecord():
            return HolderNamed(source=source, party_id=party_id(source, record.party), role=record.role)
        case CardRecord():
            return CardIssued(
                source=source,
                card=record.card,
                party_id=party_id(source, record.party) if record.party else None,
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
