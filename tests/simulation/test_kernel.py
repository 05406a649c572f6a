"""The machine under the simulation: a seed is a history, the dead have no effect, waiting for ever is noticed."""

import pytest

from tests.simulation.kernel import Faults, Injected, Kernel, Stuck


async def history(seed: int) -> tuple[str, list[str]]:
    kernel = Kernel(seed)
    effects: list[str] = []

    def actor(name: str) -> None:
        async def main() -> None:
            while effects.count(name) < 20:
                try:
                    await kernel.call("write", lambda: effects.append(name))
                except Injected:
                    await kernel.sleep(0.01)

        kernel.spawn(name, main)

    for name in ("a", "b", "c"):
        actor(name)
    await kernel.run()
    return kernel.digest(), effects


async def test_the_same_seed_is_the_same_history() -> None:
    first, again, other = await history(7), await history(7), await history(8)
    assert first == again
    assert first != other


async def test_actors_interleave_and_all_finish() -> None:
    _, effects = await history(3)
    assert {name: effects.count(name) >= 20 for name in "abc"} == {"a": True, "b": True, "c": True}
    assert effects != sorted(effects)


async def test_the_dead_have_no_effect() -> None:
    kernel = Kernel(1, Faults(crash=1.0, crashes_max=1, unanswered=0.0))
    effects: list[str] = []

    async def main() -> None:
        try:
            await kernel.call("first", lambda: effects.append("first"))
        finally:
            if not effects:
                await kernel.call("cleaning up after death", lambda: effects.append("ghost"))

    kernel.spawn("mortal", main)
    await kernel.run()
    assert effects == ["first"]


async def test_waiting_for_ever_is_noticed() -> None:
    kernel = Kernel(1)

    async def main() -> None:
        while True:
            await kernel.sleep(1)

    kernel.spawn("sleeper", main)
    with pytest.raises(Stuck, match="sleeper at sleep"):
        await kernel.run()
    await kernel.close()
