"""The derived views of customer: functions of the documents of its views."""

from typing import Final

from customer.derived import customer_facts

DERIVED: Final = (customer_facts.VIEW,)
"""The derived views of this service."""
