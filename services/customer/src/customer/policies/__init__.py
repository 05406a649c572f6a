"""The policies of this context: reactions to published events, never replayed."""

from typing import Final

from customer.policies import when_contact_details_change_then_tell_customer as changed
from customer.policies import when_customer_erased_then_destroy_keys as erased
from customer.policies import when_erasure_preparation_changes_then_run_saga as preparing
from customer.policies import when_party_described_then_register_customer as described

POLICIES: Final = (described.POLICY, erased.POLICY, preparing.POLICY, changed.POLICY)
"""The policies of this service."""
