"""How often a process looks for cycles among its objects."""

import gc
from typing import Final

THRESHOLDS: Final = (300_000, 4, 50)
"""Batches and answers are many objects that die together: with Python's own thresholds a view spends a
quarter of its time, and a large answer a third, on looking for cycles among them. A batch of 10,000 records
is 200,000 objects: the first threshold is above that."""


def look_less_often() -> None:
    """For processes that work in batches: exempts existing objects, and collects only after many new ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
