"""HTTP of sync-ingest: batches in, quarantine and certificates out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Protocol
from uuid import UUID

import msgspec
from chassis.money import TURNOVER_MINOR_MAX
from chassis.web import ExplainedBody, Reason, refusals
from chassis.web.formats import Integer
from chassis.web.openapi import DescribedRouter
from chassis.web.paging import Page, Paged, Paging, cursor, cursor_values
from chassis.write.deciding import CommandContext, Refusal
from contracts.identity import SOURCE_CHARACTERS_MAX
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema, model_validator
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sync_ingest.adapters.registry import FORMATS
from sync_ingest.archive.quarantine import QuarantineStatus
from sync_ingest.batches import BatchFile, IngestService
from sync_ingest.domain.records import RECORD_KINDS, ControlRecord, canonical_schema
from sync_ingest.examples import EXAMPLES, POSTING
from sync_ingest.runs.refusals import CertificateUnknown, PartyUnknown
from sync_ingest.runs.repairing import REPAIR_RECORDS_MAX

FILES_PER_BATCH_MAX: Final = 100
BATCH_BYTES_MAX: Final = 16 << 20
MAPPING_CHARACTERS_MAX: Final = 65_536
RECORD_MEMBERS_MAX: Final = 1_000
SOURCE_PATTERN: Final = r"^[^\s:](?:[^:]*[^\s:])?$"
BATCHES_PATH: Final = "/ingest/batches"
FILE_FIELD: Final = "file"
TAG: Final = "ingest"
DESCRIPTION: Final = "Feeds come in, records that could not be read wait in quarantine (隔离), certificates say how a source stands."


class SumsPerCurrency(RootModel[dict[str, int]]):
    """A sum in minor units for each currency code."""


MinorUnits = Annotated[int, Field(title="SumOfOneCurrency")] | SumsPerCurrency
"""One sum where all records are of one currency, else a sum per currency code."""
Currencies = (
    Annotated[str, Field(title="OneCurrency")] | Annotated[list[str], Field(title="SeveralCurrencies")]
)
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
RecordKind = Annotated[str, WithJsonSchema({"type": "string", "enum": sorted(RECORD_KINDS)})]
StoredInteger = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class BatchResult(BaseModel):
    """What became of a batch. Sums are integers of one currency, or one integer per currency."""

    records: int
    posted: int
    duplicates: int
    quarantined: int
    accounts: int
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: Currencies | None
    certificate: Literal["GREEN", "AMBER", "RED"]
    reasons: list[str]


class TakenIn(BatchResult):
    """The result of a batch, with the ids to ask about it again, and the position up to which it is stored."""

    certificate_id: UUID | None
    intake_ids: list[UUID]
    position: int


class Proposed(BaseModel):
    """A repair that waits for a second person. `repair` names exactly its bytes; `amounts_minor` are absolute sums."""

    repair: UUID
    records: int
    amounts_minor: dict[str, int]
    proposed_by: str
    reason: str
    proposed_at: Instant


class Dismissed(BaseModel):
    """An entry was closed; `position` is that of the event that says so."""

    position: int


class ControlMalformed(Refusal):
    """The control totals beside a batch are none."""

    code = "control-malformed"
    status = 422
    title = "The control totals of the batch are malformed"
    title_zh = "批次控制总数格式错误"


class QuarantineItem(BaseModel):
    """A record that could not be posted: reason and place, without the record, which is personal.

    `whole_file`: it stands for all records of its file. `kind` is the kind of record, where the reader knows it.
    """

    id: UUID
    number: int
    source: str
    intake: UUID
    file: str
    line: int
    column: str | None
    reason: str
    detail: str
    quarantined_at: Instant
    status: QuarantineStatus
    kind: RecordKind | None
    whole_file: bool
    proposal: Proposed | None


class QuarantinePage(Page[QuarantineItem]):
    """A page of the quarantine, in the order in which the records came."""


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
    """A contradiction that makes a certificate RED, with the account it holds for; its id acknowledges it."""

    code: str
    account: str | None
    account_id: UUID | None
    contradiction: UUID | None
    new: bool
    currency: str | None
    expected: int
    found: int
    detail: str | None


class PlaceInFeed(BaseModel):
    """A record of a feed: the intake that its file became, and its line."""

    intake: UUID
    line: int


class Certificate(BaseModel):
    """A reconciliation certificate."""

    number: int
    certificate_id: UUID
    source: str
    certified_at: Instant
    status: Literal["GREEN", "AMBER", "RED"]
    reasons: list[str]
    records: int
    posted: int
    duplicates: int
    quarantined: int
    master_records: int
    accounts: int
    late: int
    back_dated: int
    differing: int
    differing_fields: dict[str, int]
    coverage_unstated: int
    repeats_older: int
    repeats_older_at: list[PlaceInFeed]
    closed_early: int
    closed_early_at: list[PlaceInFeed]
    booked_through: Day | None
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: Currencies | None
    totals: list[CurrencyTotals]
    printed_balances: PrintedBalancesOfRun
    problems: list[ProblemFound]
    problems_total: int
    acknowledges: UUID | None


class CertificatePage(Page[Certificate]):
    """A page of certificates, newest first."""


class Acknowledgement(ExplainedBody):
    """Why contradictions of a certificate count no longer; `contradictions`: some of them, all where it is left out."""

    contradictions: list[UUID] = Field(default=[], max_length=1_000)


Members = Annotated[list[dict[str, str | StoredInteger | bool | None]], Field(max_length=RECORD_MEMBERS_MAX)]
"""A list in a record, such as the holders of an account."""
Record = Annotated[dict[str, str | StoredInteger | bool | Members | None], Field(min_length=1, max_length=50)]


class Repair(ExplainedBody):
    """What takes the place of a quarantined entry, in canonical records (see GET /ingest/schema), and why.

    One `record`; for an entry that stands for a whole file, its `records`.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"record": POSTING, "reason": "the branch confirmed the amount"}]},
    )

    record: Record | None = None
    records: list[Record] | None = Field(default=None, min_length=1, max_length=REPAIR_RECORDS_MAX)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Repair":
        if (self.record is None) == (self.records is None):
            raise ValueError("either record or records")
        return self

    def lines(self) -> bytes:
        """The records as canonical JSON lines."""
        return b"\n".join(msgspec.json.encode(each) for each in (self.records or [self.record or {}]))


class Approval(ExplainedBody):
    """Which repair is approved, as the entry's `proposal` names it, and why."""

    repair: UUID


class ProposedRepair(ExplainedBody):
    """Which repair is rejected or withdrawn, as the entry's `proposal` names it, and why."""

    repair: UUID


class ProposalEnded(BaseModel):
    """A repair waits for nobody any more; `position` is that of the event that says so."""

    position: int


class Dismissal(ExplainedBody):
    """Why an entry is closed without being booked."""


class PartyOfSource(ExplainedBody):
    """The source whose party it is, and why."""

    source: str = Field(max_length=SOURCE_CHARACTERS_MAX, pattern=SOURCE_PATTERN)


class ReleasesSwitched(BaseModel):
    """Releases of a party are closed or open; `position` is that of the event that says so."""

    position: int


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


class Dependencies(Protocol):
    """What the process that serves these routes puts before each of them, as dependencies."""

    @property
    def caller(self) -> Callable[..., Any]:
        """Who asks; refuses whoever has no valid token."""
        ...

    @property
    def commanding(self) -> Callable[..., Any]:
        """The `CommandContext` of a caller who commands."""
        ...


_CONTROL_FIELDS: Final[dict[str, Any]] = {
    "control_records": {"type": "integer", "minimum": 0},
    "control_credits_minor": {"type": "integer", "minimum": 0},
    "control_debits_minor": {"type": "integer", "minimum": 0},
    "control_opening_minor": {"type": "integer"},
    "control_closing_minor": {"type": "integer"},
    "control_currency": {"type": "string"},
    "control_account": {"type": "string"},
    "control_branch": {"type": "string"},
    "control_first_number": {"type": "integer", "minimum": 0},
    "control_last_number": {"type": "integer", "minimum": 0},
}
"""Control totals of all files of a batch together, as form fields: an account's number does not belong in an address."""

_BATCH_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one file, or a form with several; the form's fields go before the query's.",
        "content": {
            **{
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/octet-stream", "text/csv", "text/plain")
            },
            "application/x-ndjson": {
                "schema": {"type": "string", "format": "binary"},
                "example": msgspec.json.encode(POSTING).decode(),
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
                        **_CONTROL_FIELDS,
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}

PartyPath = Annotated[UUID, Path(description="the party that a source's number names")]
_SWITCHED: Final = refusals(PartyUnknown)
Source = Annotated[str | None, Query(description="only of this source", max_length=SOURCE_CHARACTERS_MAX)]
Count = Annotated[
    Integer | None, Query(description="a control total of the batch", ge=0, le=TURNOVER_MINOR_MAX)
]


def create_router(
    service: IngestService, dependencies: Dependencies, *, batch_bytes_max: int = BATCH_BYTES_MAX
) -> APIRouter:
    """The routes of ingest. The process lets bodies of `batch_bytes_max` through to BATCHES_PATH."""
    router = DescribedRouter(
        TAG, DESCRIPTION, EXAMPLES, prefix="/ingest", dependencies=[Depends(dependencies.caller)]
    )
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]

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
        control_records: Count = None,
        control_credits_minor: Count = None,
        control_debits_minor: Count = None,
        control_currency: Annotated[str | None, Query(description="of the control totals")] = None,
        reason: Annotated[Reason | None, Query(description="why it is sent")] = None,
    ) -> TakenIn:
        """Keeps the bytes, books what is new, sets aside what cannot be read, and certifies.

        Control totals of the whole batch may come beside it: some in the query, all of them in a form.
        """
        fields: dict[str, str | None] = dict.fromkeys(_CONTROL_FIELDS)
        stated = {"records": control_records, "credits_minor": control_credits_minor}
        stated |= {"debits_minor": control_debits_minor}
        fields |= {f"control_{figure}": None if n is None else str(n) for figure, n in stated.items()}
        fields |= {"control_currency": control_currency, "source": source, "format": format}
        fields["mapping"] = mapping
        files = await _files(request, fields, name, batch_bytes_max)
        if not fields["source"]:
            raise BatchMalformed("it names no source")
        answer = await service.batch(
            context,
            fields["source"],
            files,
            format=fields["format"] or "canonical",
            mapping=fields["mapping"],
            controls=_controls(fields),
        )
        return _taken_in(response, answer)

    @router.get("/quarantine")
    async def list_quarantine(
        source: Source = None,
        status: Annotated[QuarantineStatus | None, Query()] = None,
        *,
        page: Paged,
    ) -> QuarantinePage:
        """Records that could not be posted, in the order they came, without their content."""
        found = await service.quarantine(source, status, _number(page) or 0, page.limit)
        return QuarantinePage(items=[QuarantineItem(**each) for each in found], next=_next(found, page))

    @router.post(
        "/quarantine/{entry}/release",
        status_code=201,
        responses={202: {"model": Proposed, "description": "a second person must approve it"}},
    )
    async def release(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], repair: Repair
    ) -> TakenIn | Proposed:
        """Books the repair in the place of what was quarantined; from the amount that is set on it is proposed (202)."""
        answer = await service.release(context, entry, repair.lines())
        if "repair" in answer:
            response.status_code = 202
            return Proposed(**answer)
        return _taken_in(response, answer)

    @router.post("/quarantine/{entry}/approve", status_code=201)
    async def approve(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], approval: Approval
    ) -> TakenIn:
        """Books the repair that another person proposed, and nothing else."""
        return _taken_in(response, await service.approve(context, entry, approval.repair))

    @router.post("/quarantine/{entry}/reject")
    async def reject(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], proposed: ProposedRepair
    ) -> ProposalEnded:
        """Refuses the repair that another person proposed. The entry goes on waiting."""
        return _ended(response, await service.reject(context, entry, proposed.repair))

    @router.post("/quarantine/{entry}/withdraw")
    async def withdraw(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], proposed: ProposedRepair
    ) -> ProposalEnded:
        """Takes the own proposed repair back. The entry goes on waiting."""
        return _ended(response, await service.withdraw(context, entry, proposed.repair))

    @router.post("/quarantine/{entry}/dismiss")
    async def dismiss(
        response: Response, context: Commanding, entry: Annotated[UUID, Path()], dismissal: Dismissal
    ) -> Dismissed:
        """Closes the entry without booking anything."""
        position = await service.dismiss(context, entry)
        response.headers["Consistency-Token"] = f"ingest-{position}"
        return Dismissed(position=position)

    @router.post("/parties/{party_id}/close-releases", responses=_SWITCHED)
    async def close_releases(
        response: Response, context: Commanding, party_id: PartyPath, body: PartyOfSource
    ) -> ReleasesSwitched:
        """Has no record of quarantine released that names the party, or an account that it holds."""
        return _switched(response, await service.close_releases(context, body.source, party_id))

    @router.post("/parties/{party_id}/open-releases", responses=_SWITCHED)
    async def open_releases(
        response: Response, context: Commanding, party_id: PartyPath, body: PartyOfSource
    ) -> ReleasesSwitched:
        """Has records of quarantine that name the party released again."""
        return _switched(response, await service.open_releases(context, body.source, party_id))

    @router.get("/certificates")
    async def list_certificates(source: Source = None, *, page: Paged) -> CertificatePage:
        """Reconciliation certificates, newest first."""
        found = await service.certificates(source, _number(page), page.limit)
        return CertificatePage(items=[Certificate(**each) for each in found], next=_next(found, page))

    @router.get("/certificates/{certificate_id}")
    async def get_certificate(certificate_id: Annotated[UUID, Path()]) -> Certificate:
        """One reconciliation certificate."""
        found = await service.certificate(certificate_id)
        if found is None:
            raise CertificateUnknown(str(certificate_id))
        return Certificate(**found)

    @router.post("/certificates/{certificate_id}/acknowledge", status_code=201)
    async def acknowledge(
        context: Commanding, certificate_id: Annotated[UUID, Path()], acknowledgement: Acknowledgement
    ) -> Certificate:
        """Contradictions that a person takes as known count no longer; the answer is the certificate of now."""
        return Certificate(
            **await service.acknowledge(
                context,
                certificate_id,
                acknowledgement.contradictions,
            )
        )

    @router.get("/schema")
    async def get_schema() -> dict[str, Any]:
        """JSON Schema of one line of a canonical feed: what branch systems send."""
        return canonical_schema()

    return router


def _ended(response: Response, position: int) -> ProposalEnded:
    response.headers["Consistency-Token"] = f"ingest-{position}"
    return ProposalEnded(position=position)


def _switched(response: Response, position: int) -> ReleasesSwitched:
    response.headers["Consistency-Token"] = f"ingest-{position}"
    return ReleasesSwitched(position=position)


def _taken_in(response: Response, answer: dict[str, Any]) -> TakenIn:
    response.headers["Consistency-Token"] = f"ingest-{answer['position']}"
    return TakenIn(**answer)


def _number(page: Paging) -> int | None:
    """The number that a page goes on after; None for the first."""
    return int(cursor_values(page.after, int)[0]) if page.after else None


def _next(found: Sequence[Mapping[str, Any]], page: Paging) -> str | None:
    return cursor(found[-1]["number"]) if len(found) == page.limit else None


def _controls(fields: Mapping[str, str | None]) -> list[ControlRecord]:
    """The control record that a request states in its fields, if it states one; raises ControlMalformed."""
    stated = {name.removeprefix("control_"): fields[name] for name in _CONTROL_FIELDS if fields[name]}
    if not stated:
        return []
    try:
        return [msgspec.convert(stated, ControlRecord, strict=False)]
    except msgspec.ValidationError as error:
        raise ControlMalformed(str(error).partition(" - at")[0]) from None


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
    files, named = [], set[str]()
    form = await _form(request, len(fields), bytes_max)
    try:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                if field != FILE_FIELD:
                    raise BatchMalformed(f"a file is sent as {FILE_FIELD}, not as another field")
                files.append(BatchFile(value.filename or field, await value.read()))
            elif field not in fields or field in named:
                raise BatchMalformed(f"beside {FILE_FIELD} a form has {', '.join(fields)}, each at most once")
            else:
                fields[field] = value
                named.add(field)
    finally:
        await form.close()
    if len(fields["mapping"] or "") > MAPPING_CHARACTERS_MAX:
        raise BatchMalformed(f"a mapping has at most {MAPPING_CHARACTERS_MAX} characters")
    if not files:
        raise BatchMalformed("the form holds no file")
    return files


async def _form(request: Request, fields_max: int, bytes_max: int) -> FormData:
    """The form, held in memory as far as a batch may be large: nothing of it is written to a disk."""

    class Parser(MultiPartParser):
        spool_max_size = bytes_max

    parser = Parser(
        request.headers,
        request.stream(),
        max_files=FILES_PER_BATCH_MAX,
        max_fields=fields_max,
        max_part_size=4 * MAPPING_CHARACTERS_MAX,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BatchMalformed(error.message) from error


async def _body(request: Request, bytes_max: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise BatchOversized(f"more than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)
