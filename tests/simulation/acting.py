"""What one person does in a simulation: under a name and a key, until it is answered or refused."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.write.deciding import CommandContext, Refusal, TooManyConflicts

from tests.simulation.kernel import Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken

TRIES_MAX = 200


class Scene(Protocol):
    """Where persons act."""

    kernel: Kernel
    broken: list[Broken]


def by(scene: Scene, actor: str, key: str) -> CommandContext:
    """What one person does."""
    return CommandContext(
        actor=actor,
        now=scene.kernel.now(),
        command_id=uuid5(NAMESPACE, f"{actor}|{key}"),
        idempotency_key=key,
        reason="so",
    )


async def answered(scene: Scene, act: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, or the refusal, of an act that is tried until it has one."""
    for _ in range(TRIES_MAX):
        try:
            return await act()
        except (StoreUnavailable, Injected, TooManyConflicts):
            await scene.kernel.sleep(0.01)
        except Refusal as refusal:
            return refusal
    scene.broken.append(Broken("I10", "no answer"))
    return None
