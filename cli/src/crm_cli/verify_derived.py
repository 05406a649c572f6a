"""Derived views against their inputs: every document is derived again and compared (I1, I4)."""

from collections.abc import Callable
from datetime import date
from typing import Final

from chassis.clock import Clock
from chassis.privacy.keys import SecretMissing
from chassis.read.arrivals import NOWHERE
from chassis.read.blind import BlindIndex
from chassis.read.derived_following import pinned
from chassis.read.derived_rebuilding import compare_sums, compare_with_inputs
from chassis.read.deriving import OWED, DerivedView, InputReplaced, MongoInputs
from chassis.read.generations import Generation, Generations, live_generation
from chassis.read.rebuilding import documents_hash

from crm_cli.verify_report import Report

POLL_SECONDS: Final = 0.1


async def check_derived(
    generations: Generations[DerivedView],
    today: Callable[[], date],
    report: Report,
    clock: Clock,
    wait_seconds: float,
    blind: BlindIndex | None = None,
) -> None:
    """Checks that a derived view is derived from the live inputs, has read what they have, owes nothing, and that
    each of its documents is what the inputs give; without `blind`, all of it but digests. Buckets are what their
    documents add up to."""
    view = generations.view
    until = clock.monotonic() + wait_seconds
    while (reason := await _behind(generations, today)) and clock.monotonic() < until:
        await clock.sleep(POLL_SECONDS)
    live = await generations.live()
    if live is None or reason == _NO_INPUTS:
        if reason != _NO_INPUTS:
            report.broken("I1", f"the derived view {view.name} is not built")
        return
    if reason:
        report.broken("I1", f"{view.name}: {reason}")
    try:
        inputs = await pinned(generations, live, today, blind)
        found = await compare_with_inputs(generations, live, inputs)
        sums = await compare_sums(generations, live)
        digest = await documents_hash(generations.mongo, view, live)
    except (InputReplaced, SecretMissing) as error:
        report.broken("I4", f"{view.name} is not checked: {error}")
        return
    report.passed(
        "I4", found.documents - found.differences + sums.documents - sums.differences - sums.unsettled
    )
    for name in sums.named:
        is_mark = view.sums is not None and name.startswith(f"{view.sums.marks}/")
        wrong = "says that more was summed than changed" if is_mark else "is not the sum of its documents"
        report.broken("I4", f"{view.name}: {name} {wrong}")
    if sums.differences > len(sums.named):
        others = sums.differences - len(sums.named)
        report.broken("I4", f"{view.name}: {others} other buckets differ too", others)
    for name in found.named:
        report.broken("I4", f"{view.name}: {name} is not what its inputs give")
    if found.differences > len(found.named):
        report.broken("I4", f"{view.name}: {found.differences - len(found.named)} other documents differ too")
    report.figures.setdefault("views", {})[view.name] = {
        "generation": live.number,
        "documents": found.documents,
        "hash": digest,
        "differing": found.differences,
        **(
            {}
            if view.sums is None
            else {
                "buckets": sums.documents,
                "buckets_differing": sums.differences,
                "buckets_unsettled": sums.unsettled,
            }
        ),
        **({} if view.digests is None else {"digests_compared": blind is not None}),
    }


_NO_INPUTS: Final = "no input is built"


async def _behind(generations: Generations[DerivedView], today: Callable[[], date]) -> str:
    """Why the derived view does not show what its inputs show; empty where it does."""
    live = await generations.live()
    if live is None:
        return _NO_INPUTS if not await _any_input(generations) else "it is not built"
    try:
        inputs = await pinned(generations, live, today)
    except InputReplaced as error:
        return str(error)
    if await _short(generations, live, inputs):
        return "it has not read what its inputs have"
    if await _due(generations, live, today().isoformat()):
        return "documents that change on this day or before are not derived anew yet"
    parked = await inputs.parked()
    for one in await generations.mongo.find(OWED, {"group": live.group}):
        if (one["context"], one["subject"]) not in parked.get(one["view"], {}):
            return f"what depends on {one['subject']} is owed since its release"
    return ""


async def _due(generations: Generations[DerivedView], live: Generation, day: str) -> bool:
    view = generations.view
    if view.changes_on is None:
        return False
    where = {view.changes_on: {"$lte": day}}
    return bool(await generations.mongo.count(live.prefix + view.collection.name, where, limit=1))


async def _any_input(generations: Generations[DerivedView]) -> bool:
    found = [await live_generation(generations.mongo, view.name) for view in generations.view.inputs]
    return any(found)


async def _short(generations: Generations[DerivedView], live: Generation, inputs: MongoInputs) -> bool:
    reached = await generations.checkpoints(live).positions()
    return any(
        reached.get(place, NOWHERE).offset < at.offset
        for positions in (await inputs.positions()).values()
        for place, at in positions.items()
    )
