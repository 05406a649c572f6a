"""Many at once: one command for each item of a list, with a result each; paused, resumed, undone."""

from chassis.bulk.deciding import (
    BULK_RUNS,
    BulkNotFinished,
    BulkNotReady,
    BulkOversized,
    BulkUnknown,
)
from chassis.bulk.following import following
from chassis.bulk.running import Bulk, Bulkable, BulkShown, ItemResult, Preview

__all__ = [
    "BULK_RUNS",
    "Bulk",
    "BulkNotFinished",
    "BulkNotReady",
    "BulkOversized",
    "BulkShown",
    "BulkUnknown",
    "Bulkable",
    "ItemResult",
    "Preview",
    "following",
]
