"""The consumer groups and the topics that they read. Generated from the services (`make generate`). Do not edit."""

from typing import Final

# fmt: off
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "customer.customers.v1": ("crm.customer.events",),
    "customer.asset_panorama.v1": ("crm.ingest.events",),
    "customer.tags.v1": ("crm.customer.events",),
    "customer.needs.v1": ("crm.customer.events",),
    "customer.customer_facts.v1": ("crm.customer.events", "crm.ingest.events",),
    "customer.when_party_described_then_register_customer": ("crm.ingest.events",),
    "customer.when_customer_erased_then_destroy_keys": ("crm.customer.events",),
    "customer.when_erasure_preparation_changes_then_run_saga": ("crm.customer.events",),
    "customer.when_contact_details_change_then_tell_customer": ("crm.customer.events",),
    "sync-ingest.feed": ("corebank.postings",),
}
