"""Generations whose documents a test writes itself, so that no consumer group reads anything for them."""

from collections.abc import Mapping

from chassis.read.generations import Generation, Generations, KeptT


async def new_generation(
    generations: Generations[KeptT], inputs: Mapping[str, int] | None = None
) -> Generation:
    """A new generation, which is not shown."""

    async def used(_: str) -> bool:
        return False

    return await generations.begin(used, inputs)


async def shown_generation(generations: Generations[KeptT]) -> Generation:
    """A new generation, which readers see. It is empty."""
    generation = await new_generation(generations)
    assert await generations.switch(generation)
    return generation
