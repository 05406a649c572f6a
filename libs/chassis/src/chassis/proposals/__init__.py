"""Four eyes: what one person proposes and another one approves; the approval and its effect are stored together."""

from chassis.proposals.approving import Carried, FourEyes, Proposable, ProposalShown
from chassis.proposals.deciding import (
    PROPOSALS,
    ApprovalForbidden,
    DigestDiffers,
    ProposalHasExpired,
    ProposalSettled,
    ProposalUnknown,
    ProposerNeeded,
    SecondPersonNeeded,
    require_second_person,
)

__all__ = [
    "PROPOSALS",
    "ApprovalForbidden",
    "Carried",
    "DigestDiffers",
    "FourEyes",
    "Proposable",
    "ProposalHasExpired",
    "ProposalSettled",
    "ProposalShown",
    "ProposalUnknown",
    "ProposerNeeded",
    "SecondPersonNeeded",
    "require_second_person",
]
