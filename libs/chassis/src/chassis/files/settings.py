"""Where the files of a service lie, from the settings."""

from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from chassis.connections.settings import Settings
from chassis.files.checking import SIZE_BYTES_MAX
from chassis.files.folder import Folder
from chassis.files.objects import Objects


def _storage_url(value: SecretStr) -> SecretStr:
    """An address that `objects_of` can read; the error does not repeat it, because it may hold a password."""
    parts = urlsplit(value.get_secret_value())
    folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    bucket = parts.scheme in {"s3", "s3+http"} and bool(parts.hostname) and "/" not in parts.path[1:]
    if not folder and not bucket:
        raise ValueError("file:///FOLDER, s3://BUCKET or s3://KEY:SECRET@HOST:PORT/BUCKET")
    return value


class FilesSettings(Settings):
    """`files_url`: where the content of files lies. `file:///FOLDER`, which must be there and which all processes of the
    service share; `s3://BUCKET` with the identity of the pod; `s3://KEY:SECRET@HOST:PORT/BUCKET` at any server that speaks
    S3, `s3+http` without TLS. By default a folder below `data`, which development alone makes.
    `files_bytes_max`: a file has at most so many bytes.
    """

    files_url: Annotated[SecretStr, AfterValidator(_storage_url)] | None = None
    files_bytes_max: int = Field(default=SIZE_BYTES_MAX, ge=1, le=SIZE_BYTES_MAX)


def objects_of(settings: FilesSettings, context: str) -> Objects:
    """The objects of a context, in the storage that the settings name."""
    if settings.files_url is None:
        return Folder(settings.data / "files", context, create=settings.development)
    parts = urlsplit(settings.files_url.get_secret_value())
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)), context)
    return _bucket(parts, context)


def _bucket(parts: SplitResult, context: str) -> Objects:
    from chassis.files.s3 import Access, Bucket

    bucket = parts.path.strip("/")
    if not bucket:
        return Bucket(parts.hostname or "", context)
    access = None
    if parts.username is not None and parts.password is not None:
        access = Access(unquote(parts.username), unquote(parts.password))
    scheme = "http" if parts.scheme == "s3+http" else "https"
    return Bucket(bucket, context, f"{scheme}://{parts.netloc.rpartition('@')[2]}", access)
