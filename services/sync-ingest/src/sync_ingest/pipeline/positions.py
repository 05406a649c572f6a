"""A set of store positions."""

from collections.abc import Iterable


class Positions:
    """A set of store positions, one bit each, so that a million records cost some hundred kilobytes."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, position: int) -> bool:
        """Whether `position` is new to the set."""
        page = self._pages.get(position >> 16)
        if page is None:
            page = self._pages[position >> 16] = bytearray(8192)
        at, bit = (position & 0xFFFF) >> 3, 1 << (position & 7)
        if page[at] & bit:
            return False
        page[at] |= bit
        return True

    def add_all(self, positions: Iterable[int]) -> None:
        """Adds all of them."""
        pages, number, page = self._pages, -1, bytearray()
        for position in positions:
            if position >> 16 != number:
                number = position >> 16
                page = pages.setdefault(number, bytearray(8192))
            page[(position & 0xFFFF) >> 3] |= 1 << (position & 7)
