"""The change streams of MongoDB in the simulation: the writes of the server, in their order."""

from collections.abc import Collection

from chassis.read.changes import Changed, ChangeLog, Changes, ChangesLost
from chassis.read.documents import DocumentId
from typing_extensions import override

from tests.simulation.mongo_server import MongoServer

AT_ONCE = 3


def place_of(number: int) -> str:
    """The place after so many writes, as long as one of the server's."""
    return f"82{number:016X}"


class ListedChanges(Changes):
    """The changes of one collection."""

    def __init__(
        self, log: "ListedLog", collection: str, at: int, ids: Collection[DocumentId] | None
    ) -> None:
        self.place = place_of(at)
        self._log = log
        self._collection = collection
        self._at = at
        self._ids = ids

    @override
    async def next(self, seconds_max: float) -> Changed:
        written, kernel = self._log.server.written, self._log.server.kernel
        if self._at >= len(written):
            await kernel.sleep(seconds_max)

        again = set[DocumentId]()

        def some() -> tuple[DocumentId, ...]:
            self._log.require(self._at)
            found = dict[DocumentId, None]()
            while self._at < len(written) and len(found) < AT_ONCE:
                collection, id = written[self._at]
                self._at += 1
                if collection == self._collection and (self._ids is None or id in self._ids):
                    again.update({id} & found.keys())
                    found[id] = None
            return tuple(found)

        before = self._at
        try:
            ids = await self._log.server._ask(f"changes of {self._collection}", some)
        except BaseException:
            self._at = before  # the server's cursor is opened again from the last place
            raise
        self.place = place_of(self._at)
        return Changed(ids, self.place, None, len(ids) == AT_ONCE, frozenset(again))

    @override
    async def close(self) -> None:
        pass


class ListedLog(ChangeLog):
    """The writes of a simulated server."""

    def __init__(self, server: MongoServer) -> None:
        self.server = server
        self._first = 0

    def forget(self) -> None:
        """The server does not know any more what was written before now."""
        self._first = len(self.server.written)

    def require(self, at: int) -> None:
        """Raises ChangesLost where the server has forgotten what comes after a place."""
        if at < self._first:
            raise ChangesLost(str(at))

    @override
    async def opened(
        self, collection: str, after: str | None = None, ids: Collection[DocumentId] | None = None
    ) -> ListedChanges:
        def begun() -> int:
            at = len(self.server.written) if after is None else int(after[2:], 16)
            self.require(at)
            return at

        at = await self.server._ask(f"changes of {collection}", begun)
        return ListedChanges(self, collection, at, ids)

    @override
    async def end(self) -> str:
        return await self.server._ask("end", lambda: place_of(len(self.server.written)))
