"""Many at once: one command for each item of a list, with a result each; paused, resumed, undone, by two persons where
they are many."""

from chassis.bulk.approving import BulkDiffers, StartRun, propose_start, starts
from chassis.bulk.deciding import (
    BULK_RUNS,
    BulkNeedsApproval,
    BulkNotFinished,
    BulkNotReady,
    BulkOversized,
    BulkUnknown,
)
from chassis.bulk.declaring import Approval, Bulkable
from chassis.bulk.following import following
from chassis.bulk.listing import listed
from chassis.bulk.running import Bulk, BulkShown, ItemResult, Preview

__all__ = [
    "BULK_RUNS",
    "Approval",
    "Bulk",
    "BulkDiffers",
    "BulkNeedsApproval",
    "BulkNotFinished",
    "BulkNotReady",
    "BulkOversized",
    "BulkShown",
    "BulkUnknown",
    "Bulkable",
    "ItemResult",
    "Preview",
    "StartRun",
    "following",
    "listed",
    "propose_start",
    "starts",
]
