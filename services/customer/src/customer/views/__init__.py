"""The views of customer: pure functions from events to documents."""

from typing import Final

from customer.views import asset_panorama, customers, tags

VIEWS: Final = (customers.VIEW, asset_panorama.VIEW, tags.VIEW)
"""The views of this service."""
