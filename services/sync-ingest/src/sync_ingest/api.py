"""HTTP of sync-ingest: batches in, quarantine and certificates out."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Protocol
from uuid import UUID

import msgspec
from chassis.deciding import CommandContext, Refusal
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from sync_ingest.adapters.registry import FORMATS
from sync_ingest.archive import PAGE_MAX
from sync_ingest.batches import BatchFile, IngestDesk
from sync_ingest.domain.records import canonical_schema
from sync_ingest.ingesting import SOURCE_CHARACTERS_MAX

FILES_PER_BATCH_MAX: Final = 100
BATCH_BYTES_MAX: Final = 16 << 20
MAPPING_CHARACTERS_MAX: Final = 65_536
SOURCE_PATTERN: Final = r"^[^\s:](?:[^:]*[^\s:])?$"
BATCHES_PATH: Final = "/ingest/batches"

MinorUnits = int | dict[str, int]
Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class BatchResult(BaseModel):
    """What became of a batch. Sums are integers of one currency, or one integer per currency."""

    records: int
    posted: int
    duplicates: int
    quarantined: int
    accounts: int
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: str | list[str] | None
    certificate: Literal["GREEN", "RED"]
    seconds: float


class TakenIn(BatchResult):
    """The result of a batch, with the ids to ask about it again, and the position up to which it is stored."""

    certificate_id: UUID | None
    intake_ids: list[UUID]
    position: int


class QuarantineItem(BaseModel):
    """A record that could not be posted: reason and place, without the record, which is personal."""

    id: UUID
    number: int
    source: str
    intake: UUID
    file: str
    line: int
    column: str | None
    reason: str
    detail: str
    quarantined_at: str
    status: Literal["waiting", "released"]


class QuarantinePage(BaseModel):
    """A page in the order of arrival; `next` is the cursor of the page after it."""

    items: list[QuarantineItem]
    next: str | None


class CurrencyTotals(BaseModel):
    """opening + credits - debits = closing over all accounts of one currency."""

    currency: str
    opening_minor: int
    credits_minor: int
    debits_minor: int
    closing_minor: int
    stated_credits_minor: int
    stated_debits_minor: int


class PrintedBalancesOfRun(BaseModel):
    """Balances that the feed printed, compared row by row."""

    rows: int
    exact: int
    within_tolerance: int
    beyond_tolerance: int
    largest_minor: int
    accounts_differing: int
    difference_minor: int


class ProblemFound(BaseModel):
    """Why a certificate is RED, with the account it holds for."""

    code: str
    account: str | None
    account_id: UUID | None
    currency: str | None
    expected: int
    found: int
    detail: str | None


class Certificate(BaseModel):
    """A reconciliation certificate."""

    number: int
    certificate_id: UUID
    source: str
    certified_at: str
    status: Literal["GREEN", "RED"]
    records: int
    posted: int
    duplicates: int
    quarantined: int
    master_records: int
    accounts: int
    late: int
    back_dated: int
    booked_through: str | None
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: str | list[str] | None
    totals: list[CurrencyTotals]
    printed_balances: PrintedBalancesOfRun
    problems: list[ProblemFound]
    problems_total: int


class CertificatePage(BaseModel):
    """Certificates, newest first; `next` is the cursor of the page after it."""

    items: list[Certificate]
    next: str | None


class Repair(BaseModel):
    """The canonical record that takes the place of a quarantined one; see GET /ingest/schema."""

    model_config = ConfigDict(extra="forbid")

    record: dict[str, str | Integer | bool | None] = Field(min_length=1, max_length=50)


class BatchMalformed(Refusal):
    """The request is no batch: the text says what is missing."""

    code = "batch-malformed"
    status = 422
    title = "The request holds no batch"
    title_zh = "请求中没有可接收的数据"


class BatchOversized(Refusal):
    """More bytes than one request may bring."""

    code = "batch-oversized"
    status = 413
    title = "The batch is larger than one request may be"
    title_zh = "数据批次超过单次请求上限"


class CertificateUnknown(Refusal):
    """No certificate of that id."""

    code = "certificate-unknown"
    status = 404
    title = "There is no such certificate"
    title_zh = "没有该对账证书"


class Doors(Protocol):
    """What the process that serves these routes puts before each of them, as dependencies."""

    @property
    def caller(self) -> Callable[..., Any]:
        """Who asks; refuses whoever has no valid token."""
        ...

    @property
    def commanding(self) -> Callable[..., Any]:
        """The `CommandContext` of a caller who commands."""
        ...


_BATCH_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one file, or a form with several; the form's fields go before the query's.",
        "content": {
            **{
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/octet-stream", "application/x-ndjson", "text/csv", "text/plain")
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": FILES_PER_BATCH_MAX,
                        },
                        "format": {"type": "string", "enum": list(FORMATS)},
                        "source": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": SOURCE_CHARACTERS_MAX,
                            "pattern": SOURCE_PATTERN,
                        },
                        "mapping": {"type": "string", "maxLength": MAPPING_CHARACTERS_MAX},
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}

Source = Annotated[str | None, Query(description="only of this source", max_length=SOURCE_CHARACTERS_MAX)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(description="`next` of the page before", pattern="^[0-9]{1,18}$")]


def create_router(desk: IngestDesk, doors: Doors, *, batch_bytes_max: int = BATCH_BYTES_MAX) -> APIRouter:
    """The routes of ingest. The process lets bodies of `batch_bytes_max` through to BATCHES_PATH."""
    router = APIRouter(prefix="/ingest", tags=["ingest"], dependencies=[Depends(doors.caller)])
    Commanding = Annotated[CommandContext, Depends(doors.commanding)]

    @router.post("/batches", status_code=201, openapi_extra=_BATCH_BODY)
    async def take_batch_in(
        request: Request,
        response: Response,
        context: Commanding,
        source: Annotated[
            str | None, Query(description="the system that the feed comes from; here or in the form")
        ] = None,
        format: Annotated[
            str | None, Query(description=f"one of {', '.join(FORMATS)}; canonical by default")
        ] = None,
        mapping: Annotated[
            str | None,
            Query(description="the mapping of a csv feed (TOML)", max_length=MAPPING_CHARACTERS_MAX),
        ] = None,
        name: Annotated[str, Query(description="the name of the file", max_length=200)] = "batch",
    ) -> TakenIn:
        """Keeps the bytes, books what is new, sets aside what cannot be read, and certifies."""
        fields = {"source": source, "format": format, "mapping": mapping}
        files = await _files(request, fields, name, batch_bytes_max)
        if not fields["source"]:
            raise BatchMalformed("it names no source")
        answer = await desk.batch(
            context,
            fields["source"],
            files,
            format=fields["format"] or "canonical",
            mapping=fields["mapping"],
        )
        response.headers["Consistency-Token"] = f"ingest-{answer['position']}"
        return TakenIn(**answer)

    @router.get("/quarantine")
    async def list_quarantine(
        source: Source = None,
        status: Annotated[Literal["waiting", "released"] | None, Query()] = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> QuarantinePage:
        """Records that could not be posted, in the order they came, without their content."""
        found = await desk.quarantine(source, status, int(after or 0), limit)
        return QuarantinePage(
            items=[QuarantineItem(**each) for each in found],
            next=str(found[-1]["number"]) if len(found) == limit else None,
        )

    @router.post("/quarantine/{entry}/release", status_code=201)
    async def release(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], repair: Repair
    ) -> TakenIn:
        """Books the repaired record in the place of the quarantined one; `quarantined` 1 says it is still broken."""
        answer = await desk.release(context, entry, msgspec.json.encode(repair.record))
        response.headers["Consistency-Token"] = f"ingest-{answer['position']}"
        return TakenIn(**answer)

    @router.get("/certificates")
    async def list_certificates(
        source: Source = None, after: Cursor = None, limit: Limit = 50
    ) -> CertificatePage:
        """Reconciliation certificates, newest first."""
        found = await desk.certificates(source, int(after) if after else None, limit)
        return CertificatePage(
            items=[Certificate(**each) for each in found],
            next=str(found[-1]["number"]) if len(found) == limit else None,
        )

    @router.get("/certificates/{certificate_id}")
    async def get_certificate(certificate_id: Annotated[UUID, Path()]) -> Certificate:
        """One reconciliation certificate."""
        found = await desk.certificate(certificate_id)
        if found is None:
            raise CertificateUnknown(str(certificate_id))
        return Certificate(**found)

    @router.get("/schema")
    async def get_schema() -> dict[str, Any]:
        """JSON Schema of one line of a canonical feed: what branch systems send."""
        return canonical_schema()

    return router


async def _files(
    request: Request, fields: dict[str, str | None], name: str, bytes_max: int
) -> list[BatchFile]:
    """The files of the request; a form's text fields are put into `fields`."""
    if int(request.headers.get("content-length") or 0) > bytes_max:
        raise BatchOversized(f"more than {bytes_max} bytes")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        return [BatchFile(name, await _body(request, bytes_max))]
    if "content-length" not in request.headers:
        raise BatchMalformed("a form says its length")
    files = []
    async with request.form(max_files=FILES_PER_BATCH_MAX, max_fields=len(fields)) as form:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.append(BatchFile(value.filename or field, await value.read()))
            elif field in fields:
                fields[field] = value
    if not files:
        raise BatchMalformed("the form holds no file")
    return files


async def _body(request: Request, bytes_max: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise BatchOversized(f"more than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)
