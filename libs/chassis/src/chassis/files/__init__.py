"""Files of subjects: sealed content in a folder or in S3, and what happens to them as events of the owning context."""

from chassis.files.checking import Limits
from chassis.files.deciding import FILES, FileGone, FileHeld, FileUnknown
from chassis.files.keeping import Content, FileKeeper, FileShown, FileUnreadable, Kept, Offered
from chassis.files.objects import StorageUnavailable
from chassis.files.settings import FilesSettings, objects_of
from chassis.files.storage import Storage
from chassis.files.sweeping import sweep, sweeping

__all__ = [
    "FILES",
    "Content",
    "FileGone",
    "FileHeld",
    "FileKeeper",
    "FileShown",
    "FileUnknown",
    "FileUnreadable",
    "FilesSettings",
    "Kept",
    "Limits",
    "Offered",
    "Storage",
    "StorageUnavailable",
    "objects_of",
    "sweep",
    "sweeping",
]
