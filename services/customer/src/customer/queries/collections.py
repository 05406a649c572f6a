"""The collections of the live views."""

from dataclasses import dataclass

from chassis.lists import LiveViews
from chassis.read.documents import DocumentsUnavailable
from chassis.read.generations import NotBuilt
from chassis.read.mongo import Mongo

from customer.views import asset_panorama, customers, needs, tags
from customer.views.asset_panorama import ACCOUNTS, MOVEMENTS, PARTIES, SOURCES
from customer.views.customers import CUSTOMERS
from customer.views.needs import NEEDS
from customer.views.tags import TAGS


@dataclass(frozen=True, slots=True)
class Collections:
    """Names the collections of the views as they are live now. Each raises DocumentsUnavailable before its view is
    built."""

    mongo: Mongo
    live: LiveViews

    async def customers(self) -> str:
        """The customers."""
        return await self._named(customers.VIEW.name, CUSTOMERS)

    async def accounts(self) -> str:
        """The accounts, with what is summed of each."""
        return await self._named(asset_panorama.VIEW.name, ACCOUNTS)

    async def movements(self) -> str:
        """The movements of all accounts."""
        return await self._named(asset_panorama.VIEW.name, MOVEMENTS)

    async def parties(self) -> str:
        """The parties as master data describes them."""
        return await self._named(asset_panorama.VIEW.name, PARTIES)

    async def sources(self) -> str:
        """The sources with their last certificates."""
        return await self._named(asset_panorama.VIEW.name, SOURCES)

    async def tags(self) -> str:
        """The tags."""
        return await self._named(tags.VIEW.name, TAGS)

    async def needs(self) -> str:
        """The needs of all customers."""
        return await self._named(needs.VIEW.name, NEEDS)

    async def _named(self, view: str, name: str) -> str:
        try:
            return await self.live.collection(view, name)
        except NotBuilt as error:
            raise DocumentsUnavailable(f"the view {view} is not built yet") from error
