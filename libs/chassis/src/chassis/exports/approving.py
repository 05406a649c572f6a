"""Two persons release a large export: one proposes it with all that it has, and another approves exactly that."""

from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from chassis.exports.deciding import ExportDiffers
from chassis.exports.running import ExportContents, Exports
from chassis.privacy.tokens import Caller
from chassis.proposals import FourEyes, Proposable, ProposalShown, require_second_person
from chassis.write.deciding import CommandContext, Outcome

_KIND: Final = "export-{}"
"""The kind of proposal that releases exports of a list."""


class ReleaseExport(msgspec.Struct, frozen=True):
    """Releases an export: which rows and columns of which list, how many rows they are, and for whom."""

    export: ExportContents


def releases(exports: Exports) -> dict[str, Proposable]:
    """The kinds of proposals that release exports, for the `FourEyes` of the context."""
    return {
        _KIND.format(name): Proposable(
            ReleaseExport, kind.approvers, kind.lives, partial(_release, exports), kind.title
        )
        for name, kind in exports.kinds.items()
    }


async def propose_export(
    exports: Exports, eyes: FourEyes, export: UUID, caller: Caller, context: CommandContext
) -> ProposalShown:
    """Proposes that an export of the caller is made; the same key gives the same proposal.

    Raises ExportUnknown, ExportNotWaiting, ReasonMissing."""
    contents = (await exports.shown(export, caller)).contents
    kind = _KIND.format(contents.listing)
    before = await eyes.proposed_before(kind, export, context)
    if before is not None:
        return before
    await exports.require_waiting(export)
    return await eyes.propose(kind, export, ReleaseExport(contents), context)


async def _release(
    exports: Exports, export: UUID, command: ReleaseExport, context: CommandContext
) -> Outcome[Any]:
    contents = await exports.contents(export)
    if contents != command.export:
        raise ExportDiffers
    asked = contents.asked_by, contents.on_behalf_of
    require_second_person(asked, (context.actor, context.on_behalf_of))
    return await exports.release(export, context)
