"""Where the files of a service lie, from the settings."""

from pathlib import Path

from pydantic import Field

from chassis.connections.settings import Settings
from chassis.files.checking import SIZE_BYTES_MAX
from chassis.files.folder import Folder
from chassis.files.objects import Objects


class FilesSettings(Settings):
    """`files_folder`: a folder that all processes of the service share; it must be there, but in development.
    `files_bucket`: a bucket of an S3 server, in place of the folder. `files_endpoint`: the address of that server, by
    default that of the region. `files_bytes_max`: a file has at most so many bytes.
    """

    files_folder: Path = Field(default_factory=lambda known: known["data"] / "files")
    files_bucket: str | None = Field(default=None, min_length=1)
    files_endpoint: str | None = None
    files_bytes_max: int = Field(default=SIZE_BYTES_MAX, ge=1, le=SIZE_BYTES_MAX)


def objects_of(settings: FilesSettings, context: str) -> Objects:
    """The objects of a context, in the storage that the settings name."""
    if settings.files_bucket is None:
        return Folder(settings.files_folder, context, create=settings.development)
    from chassis.files.s3 import Bucket

    return Bucket(settings.files_bucket, context, settings.files_endpoint)
