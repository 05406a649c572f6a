"""Identities derived from outside keys.

The same source and key give the same id in every service, so a fact that arrives twice, or in two places,
is recognised without asking anybody. Sources and keys are joined by a colon; a source name therefore holds none.
"""

from typing import NewType
from uuid import UUID, uuid5

AccountId = NewType("AccountId", UUID)
PartyId = NewType("PartyId", UUID)
PostingId = NewType("PostingId", UUID)

CRM_NAMESPACE = UUID("5b0c9c7e-4f0d-5f0e-8a53-0d2f3ad5c0a1")


def account_id(source: str, account: str) -> AccountId:
    """Id of the account that `source` knows under its own number `account`."""
    return AccountId(_derive("account", source, account))


def party_id(source: str, party: str) -> PartyId:
    """Id of the person or company that `source` knows under its own customer number `party`."""
    return PartyId(_derive("party", source, party))


def posting_id(source: str, account: str, core_transaction_id: str, leg: int) -> PostingId:
    """Id of one leg of a core-bank transaction: what makes a posting the same posting (DESIGN, Ingest)."""
    return PostingId(_derive("posting", source, f"{len(account)}:{account}:{core_transaction_id}:{leg}"))


def _derive(kind: str, source: str, key: str) -> UUID:
    if not source or ":" in source:
        raise ValueError(f"a source name is not empty and holds no colon: {source!r}")
    if not key:
        raise ValueError(f"a {kind} key is not empty")
    return uuid5(CRM_NAMESPACE, f"{kind}:{source}:{key}")
