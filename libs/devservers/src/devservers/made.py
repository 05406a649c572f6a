"""Files that are made while they are read, so that their size costs no memory."""

from collections.abc import Callable, Iterator


class MadeFile:
    """A file of these lines. `lines()` makes the same ones each time that it is called."""

    def __init__(self, lines: Callable[[], Iterator[bytes]]) -> None:
        self._again = lines
        self.seek(0)

    def __enter__(self) -> "MadeFile":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def seek(self, position: int) -> None:
        """Only back to the beginning, where the same bytes come again."""
        if position:
            raise ValueError("a made file begins anew or goes on")
        self._lines, self._rest = self._again(), b""

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than `size` only at the end."""
        parts, held = [self._rest], len(self._rest)
        while held < size and (line := next(self._lines, b"")):
            parts.append(line)
            held += len(line)
        content = b"".join(parts)
        self._rest = content[size:]
        return content[:size]
