"""Which tag a merged tag stands for in the end."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from customer.views.tags import INTO

Load = Callable[[Sequence[str]], Awaitable[Mapping[Any, Mapping[str, Any]]]]
"""The documents of tags by their codes, with what each was merged into."""


async def stand_for(codes: Collection[str], load: Load) -> dict[str, str]:
    """By code, the tag that stands for no other. A tag of which there is no document stands for itself."""
    into, last = dict[str, str](), set(codes)
    while last:
        there = await load(sorted(last))
        step = {str(code): str(tag[INTO]) for code, tag in there.items() if tag[INTO] is not None}
        into |= step
        last = set(step.values()) - into.keys()
    return {code: _end(into, code) for code in codes}


def _end(into: Mapping[str, str], code: str) -> str:
    while code in into:
        code = into[code]
    return code
