"""Plays schedules of other seeds than `make test` does and prints those in which something does not hold:
`python -m tests.simulation.run [--first SEED] [--schedules N] [--kind KIND]`.

Without a seed it begins at one that nobody has played, and prints it. Most schedules are of the log and of commands, which
take a tenth of the time of those of the whole delivery. `--kind delivery --first 7 --schedules 1` replays one.
"""

import argparse
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from random import SystemRandom
from time import monotonic
from typing import Any

from chassis.read.summing import Summing
from structlog.testing import capture_logs

from tests.simulation import (
    approvals,
    commands,
    compensating,
    derived,
    derived_switches,
    exporting,
    holds,
    keeping,
    many,
    noticing,
    reactions,
    rebuilds,
    starting,
    test_delivery,
    test_log,
    test_two_contexts,
    tiering,
    timing,
    updating,
    watching,
)
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

SCHEDULES = 100_000
AT_ONCE = 20
PROGRESS_SECONDS = 60.0
SEED_MAX = 1 << 40
FAILURES_SHOWN_MAX = 20


async def log(seed: int) -> list[Broken]:
    """Clients and a following reader over the log."""
    return await test_log.run(seed, Flaws())


async def delivery(seed: int) -> list[Broken]:
    """Relays, broker, views and parked subjects; in every tenth a leader freezes for good."""
    broken, _ = await test_delivery.run(seed, frozen=seed % 10 == 0)
    return broken


async def updates(seed: int) -> list[Broken]:
    """Relays and views, or policies, of two versions while an update goes on."""
    if seed % 2:
        return updating.check(await updating.lived(seed))
    return reactions.check(await updating.lived_with_policies(seed))


async def both_contexts(seed: int) -> list[str]:
    """A view over the topics of two contexts."""
    return test_two_contexts.wrong(*await test_two_contexts.lived(seed))


async def commanded(seed: int) -> list[Broken]:
    """Commands over the command handler."""
    return commands.check(await commands.lived(seed))


async def policies(seed: int) -> list[Broken]:
    """Policies over relays, broker and command handler."""
    return reactions.check(await reactions.lived(seed))


async def rebuilding(seed: int) -> list[Broken]:
    """Views that are rebuilt under load."""
    return rebuilds.check(await rebuilds.lived(seed))


async def derived_view(seed: int) -> list[Broken]:
    """A derived view over two others; every second one with sums."""
    if seed % 2:
        return derived.check(await derived.lived(seed))
    world = await derived.lived(seed, sums=Summing)
    return derived.check(world) + derived.check_sums(world)


async def switches(seed: int) -> list[Broken]:
    """A derived view whose inputs are rebuilt, switched and dropped."""
    return derived_switches.check(await derived_switches.lived(seed))


async def legal_holds(seed: int) -> list[Broken]:
    """Legal holds and erasures at once."""
    return holds.check(await holds.lived(seed))


async def timers(seed: int) -> list[Broken]:
    """Timers that are set, moved and withdrawn while two processes give what is due."""
    return timing.check(await timing.lived(seed))


async def tiers(seed: int) -> list[Broken]:
    """Tiers over months in which facts are late, postings are corrected and customers are erased."""
    return tiering.check(await tiering.lived(seed))


async def many_at_once(seed: int) -> list[Broken]:
    """Bulk runs by several runners."""
    return many.check(await many.lived(seed))


async def four_eyes(seed: int) -> list[Broken]:
    """Proposals that several persons decide on."""
    return approvals.check(await approvals.lived(seed))


async def bulk_starts(seed: int) -> list[Broken]:
    """Bulk runs that two persons start."""
    return starting.check(await starting.lived(seed))


async def sagas(seed: int) -> list[Broken]:
    """Sagas that are refused, time out and take back."""
    return compensating.check(await compensating.lived(seed))


async def watchers(seed: int) -> list[Broken]:
    """Watchers of documents that change, while generations are switched."""
    return watching.check(await watching.lived(seed))


async def files(seed: int) -> list[Broken]:
    """Files that are attached, removed and swept at once."""
    return (await keeping.lived(seed))[1]


async def exports(seed: int) -> list[Broken]:
    """Exports that several processes make."""
    return (await exporting.lived(seed))[1]


async def notices(seed: int) -> list[Broken]:
    """Notices that are handed over to a gateway, which sends receipts."""
    return noticing.check(await noticing.lived(seed))


KINDS: dict[str, tuple[int, Callable[[int], Coroutine[Any, Any, Sequence[object]]]]] = {
    "log": (20, log),
    "commands": (25, commanded),
    "delivery": (5, delivery),
    "updates": (2, updates),
    "both_contexts": (2, both_contexts),
    "policies": (4, policies),
    "rebuilds": (1, rebuilding),
    "derived": (4, derived_view),
    "switches": (1, switches),
    "holds": (3, legal_holds),
    "timers": (5, timers),
    "tiers": (2, tiers),
    "many": (2, many_at_once),
    "starts": (2, bulk_starts),
    "approvals": (4, four_eyes),
    "sagas": (4, sagas),
    "watching": (4, watchers),
    "files": (4, files),
    "exports": (2, exports),
    "notices": (4, notices),
}
"""How many of 100 schedules are of a kind, and what plays one."""


def parts(first: int, schedules: int, kind: str | None) -> list[tuple[str, range]]:
    """What each process plays at a time; all kinds in turn, so that a run that is ended early has played all of them."""
    shares = {each: share for each, (share, _) in KINDS.items()} if kind is None else {kind: 100}
    found: list[tuple[float, str, range]] = []
    begun = 0
    for each, share in shares.items():
        ended = begun + share
        seeds = range(first + schedules * begun // 100, first + schedules * ended // 100)
        begun = ended
        for at in range(seeds.start, seeds.stop, AT_ONCE):
            part = range(at, min(at + AT_ONCE, seeds.stop))
            found.append(((part.stop - seeds.start) / len(seeds), each, part))
    return [(each, part) for _, each, part in sorted(found, key=lambda one: one[:2])]


def played(part: tuple[str, range]) -> list[str]:
    """What does not hold in a part."""
    kind, seeds = part
    found: list[str] = []
    with capture_logs():
        for seed in seeds:
            try:
                broken = simulated(KINDS[kind][1](seed))
            except Exception as error:  # noqa: BLE001 (whatever it is, the seed replays it)
                broken = [repr(error)]
            found += [f"--kind {kind} --first {seed}: {each}" for each in broken]
    return found


def main() -> int:
    """The number of schedules in which something does not hold, at most 1 as an exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int)
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    parser.add_argument("--kind", choices=KINDS)
    given = parser.parse_args()
    first = SystemRandom().randrange(SEED_MAX) if given.first is None else given.first
    began, failures, done = monotonic(), list[str](), 0
    shown = began
    print(f"{given.schedules} schedules from seed {first} on", flush=True)
    mine = parts(first, given.schedules, given.kind)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for (_, seeds), found in zip(mine, pool.map(played, mine), strict=True):
            failures += found
            done += len(seeds)
            if monotonic() - shown > PROGRESS_SECONDS:
                shown = monotonic()
                print(f"{done} played, {len(failures)} failures, {shown - began:.0f} s", flush=True)
            for each in found[:FAILURES_SHOWN_MAX]:
                print(each, flush=True)
    print(f"{given.schedules} schedules, {len(failures)} failures, {monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
