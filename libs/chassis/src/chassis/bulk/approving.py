"""Two persons start a bulk run: one proposes the start with all that it does, and another approves exactly that.

The list of a run does not change once it is complete, so what is approved is what was previewed: who comes to meet the
condition afterwards is not added, and who ceases to is not left out.
"""

from functools import partial
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec

from chassis.bulk.deciding import BulkNotReady
from chassis.bulk.running import Bulk, Contents, Preview
from chassis.proposals import FourEyes, Proposable, ProposalShown, require_second_person
from chassis.write.deciding import CommandContext, Outcome, Refusal

_KIND: Final = "start-{}"
"""The kind of proposal that starts runs of a kind."""


class StartRun(msgspec.Struct, frozen=True):
    """Starts a run: what it gives to which items, and what its preview came to when the start was proposed."""

    run: Contents
    preview: Preview


class BulkDiffers(Refusal):
    """What the run would do is not what was proposed."""

    code: ClassVar[str] = "bulk-differs"
    title: ClassVar[str] = "The bulk run is not the one that was proposed"
    title_zh: ClassVar[str] = "该批量任务与提议内容不一致"


def starts(bulk: Bulk) -> dict[str, Proposable]:
    """The kinds of proposals that start runs, for the `FourEyes` of the context."""
    return {
        _KIND.format(name): Proposable(
            StartRun, kind.approval.approvers, kind.approval.lives, partial(_start, bulk), kind.approval.title
        )
        for name, kind in bulk.kinds.items()
        if kind.approval is not None
    }


async def propose_start(bulk: Bulk, eyes: FourEyes, run: UUID, context: CommandContext) -> ProposalShown:
    """Proposes to start a run; the same key gives the same proposal. Raises BulkUnknown, BulkNotReady, ReasonMissing."""
    contents = await bulk.contents(run)
    kind = _KIND.format(contents.gives)
    before = await eyes.proposed_before(kind, run, context)
    if before is not None:
        return before
    shown = await bulk.shown(run)
    if not shown.needs_approval:
        raise BulkNotReady("one person may start it" if shown.status == "ready" else f"it is {shown.status}")
    if kind not in eyes.kinds:
        raise BulkNotReady("nobody approves runs of this kind any more; it is prepared anew")
    return await eyes.propose(kind, run, StartRun(contents, await bulk.preview(run)), context)


async def _start(bulk: Bulk, run: UUID, command: StartRun, context: CommandContext) -> Outcome[Any]:
    if await bulk.contents(run) != command.run:
        raise BulkDiffers
    require_second_person(await bulk.prepared_by(run), (context.actor, context.on_behalf_of))
    return await bulk.begin(run, context)
