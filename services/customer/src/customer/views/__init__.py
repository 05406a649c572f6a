"""The views of customer: pure functions from events to documents."""

from typing import Final

from customer.views import asset_panorama, customers, needs, tags

VIEWS: Final = (customers.VIEW, asset_panorama.VIEW, tags.VIEW, needs.VIEW)
"""The views of this service."""
