"""From which positions on a read shows everything that watchers were told."""

from collections.abc import Sequence

from chassis.read.generations import ViewReader, partitions_of
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.read.projecting import View
from chassis.web.consistency import consistency_tokens


class Reaching:
    """The positions that documents of these views may show, as they were when they were renewed last."""

    def __init__(self, views: Sequence[View], reader: ViewReader) -> None:
        self.at_least = ""
        """The consistency token of the positions."""
        self._views = views
        self._reader = reader
        self._shown: dict[str, int] = {}

    async def renew(self) -> None:
        """Reads them anew; none goes back."""
        for context, position in (await self._positions()).items():
            self._shown[context] = max(position, self._shown.get(context, 0))
        self.at_least = consistency_tokens(self._shown)

    async def _positions(self) -> dict[str, int]:
        """By context: no document shows an event after this position."""
        found: dict[str, int] = {}
        for view in self._views:
            group = (await self._reader.live(view.name)).group
            contexts = partitions_of(view.sources)
            shown = await MongoCheckpoints(self._reader.mongo, group, view.name).shown()
            for place, at in shown.items():
                if at and (context := contexts.get(place)) is not None:
                    found[context] = max(at, found.get(context, 0))
        return found
