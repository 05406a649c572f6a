"""Objects in a bucket of a server that speaks S3: `<context>/<stream>/<object>`.

An object of more than one part is a multipart upload: it is there when it is completed, and not before.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from typing_extensions import override

from chassis.files.objects import (
    Found,
    Name,
    ObjectMissing,
    Objects,
    Reading,
    StorageUnavailable,
    Writing,
    name_of,
)

CONNECT_SECONDS_MAX: Final = 3
ANSWER_SECONDS_MAX: Final = 10
"""From one byte of an answer to the next."""
ATTEMPTS_MAX: Final = 2
CONNECTIONS_MAX: Final = 16
PART_BYTES: Final = 8 << 20
"""So much of an object is in memory while it is written. S3 takes parts of at least 5 MiB."""
_MISSING: Final = frozenset({"NoSuchKey", "404"})

T = TypeVar("T")


class Access(NamedTuple):
    """The name and the password of an S3 server's user."""

    key: str
    secret: str


class Bucket(Objects):
    """The objects of a context in `bucket` at `endpoint`, by default that of the region.

    Region and credentials are found as every client of AWS finds them, where none are given: the environment, or the
    identity of the pod.
    """

    def __init__(
        self,
        bucket: str,
        context: str,
        endpoint: str | None = None,
        access: Access | None = None,
        *,
        answer_seconds: float = ANSWER_SECONDS_MAX,
        part_bytes: int = PART_BYTES,
    ) -> None:
        limits = Config(
            connect_timeout=min(CONNECT_SECONDS_MAX, answer_seconds),
            read_timeout=answer_seconds,
            retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
            max_pool_connections=CONNECTIONS_MAX,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "auto" if endpoint is None else "path"},
        )
        self._bucket = bucket
        self._prefix = f"{context}/"
        self._part_bytes = part_bytes
        given = (
            {}
            if access is None
            else {"aws_access_key_id": access.key, "aws_secret_access_key": access.secret}
        )
        self._client: Any = _asked(lambda: boto3.client("s3", endpoint_url=endpoint, config=limits, **given))

    @override
    def write(self, name: Name) -> Writing:
        return _Upload(self._client, self._place(name), self._part_bytes)

    @override
    def read(self, name: Name) -> Reading:
        return _Body(_asked(lambda: self._client.get_object(**self._place(name))["Body"]))

    @override
    def delete(self, name: Name) -> None:
        _asked(lambda: self._client.delete_object(**self._place(name)))

    @override
    def found(self) -> Iterator[Found]:
        for page in self._pages("list_objects_v2"):
            for one in page.get("Contents", ()):
                _, _, rest = one["Key"].partition("/")
                stream, _, object = rest.partition("/")
                if (name := name_of(stream, object)) is not None:
                    yield Found(name, one["LastModified"])

    @override
    def forget_unfinished(self, before: datetime) -> int:
        count = 0
        for page in self._pages("list_multipart_uploads"):
            for one in page.get("Uploads", ()):
                if one["Initiated"] < before:
                    place = {"Bucket": self._bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
                    _asked(partial(self._client.abort_multipart_upload, **place))
                    count += 1
        return count

    def _place(self, name: Name) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name.stream.hex}/{name.object.hex}"}

    def _pages(self, list: str) -> Iterator[dict[str, Any]]:
        pages = iter(self._client.get_paginator(list).paginate(Bucket=self._bucket, Prefix=self._prefix))
        while (page := _asked(lambda: next(pages, None))) is not None:
            yield page


class _Upload(Writing):
    def __init__(self, client: Any, place: dict[str, str], part_bytes: int) -> None:
        self._client = client
        self._place = place
        self._part_bytes = part_bytes
        self._held = bytearray()
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []

    @override
    def write(self, part: bytes) -> None:
        self._held += part
        if len(self._held) >= self._part_bytes:
            self._send()

    @override
    def commit(self) -> None:
        if self._id is None:
            _asked(lambda: self._client.put_object(**self._place, Body=bytes(self._held))["ETag"])
            return
        if self._held:
            self._send()
        whole = {"Parts": self._parts}
        _asked(
            lambda: self._client.complete_multipart_upload(
                **self._place, UploadId=self._id, MultipartUpload=whole
            )["ETag"]
        )
        self._id = None

    @override
    def abandon(self) -> None:
        self._held.clear()
        if self._id is not None:
            try:
                _asked(lambda: self._client.abort_multipart_upload(**self._place, UploadId=self._id))
            except (StorageUnavailable, ObjectMissing):
                return

    def _send(self) -> None:
        if self._id is None:
            self._id = _asked(lambda: self._client.create_multipart_upload(**self._place)["UploadId"])
        number = len(self._parts) + 1
        etag = _asked(
            lambda: self._client.upload_part(
                **self._place, UploadId=self._id, PartNumber=number, Body=bytes(self._held)
            )["ETag"]
        )
        self._parts.append({"PartNumber": number, "ETag": etag})
        self._held.clear()


class _Body(Reading):
    def __init__(self, body: Any) -> None:
        self._body = body

    @override
    def read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            part: bytes = _asked(partial(self._body.read, size - len(found)))
            if not part:
                break
            found += part
        return bytes(found)

    @override
    def close(self) -> None:
        self._body.close()


def _asked(ask: Callable[[], T]) -> T:
    """Raises the errors of the port in place of the library's; none quotes what was sent.

    An answer that lacks what S3 answers with is none: a proxy may have given it.
    """
    try:
        return ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in _MISSING:
            raise ObjectMissing("the object is not there") from error
        raise StorageUnavailable(f"the S3 server refuses: {code}") from error
    except Exception as error:  # the library raises errors of any kind on what is no answer of S3
        raise StorageUnavailable(f"the S3 server does not answer: {type(error).__name__}") from error
