"""Generations whose documents a test writes itself, so that no consumer group reads anything for them."""

from chassis.read.generations import Generation, Generations, KeptT


async def shown_generation(generations: Generations[KeptT]) -> Generation:
    """A new generation, which readers see. It is empty."""
    generation = await generations.begin()
    assert await generations.switch(generation)
    return generation
