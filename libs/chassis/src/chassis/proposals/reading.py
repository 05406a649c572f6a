"""Reads the proposals of a context that wait, for programs that look at it from outside. Blocking, and without keys."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

from chassis.proposals.deciding import MADE, PROPOSALS, ProposalMade
from chassis.write.catalogue import Catalogue
from chassis.write.store import Recorder

WAITING_READ: Final = 500
_DECIDED: Final = [name for name in PROPOSALS if name != MADE]


class Waiting(NamedTuple):
    """A proposal on which nobody has decided. What is proposed is sealed, and not here."""

    proposal_id: UUID
    kind: str
    subject: UUID
    proposed_by: str
    on_behalf_of: str | None
    reason: str
    expires_at: datetime
    digest: str


def waiting_proposals(recorder: Recorder, catalogue: Catalogue) -> Iterator[Waiting]:
    """The proposals without a decision, in the order of their ids, those that have expired too; raises
    StoreUnavailable. None where the context has no proposals."""
    if MADE not in catalogue.names:
        return
    for id, stored in recorder.open_streams(MADE, _DECIDED, WAITING_READ):
        made = cast(ProposalMade, catalogue.decode(stored[0]).event)
        yield Waiting(
            id,
            made.kind,
            made.subject,
            made.proposed_by,
            made.on_behalf_of,
            made.reason,
            made.expires_at,
            made.digest,
        )
