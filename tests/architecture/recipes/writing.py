"""Recipes of the write side."""

from tests.architecture.recipes.recipe import (
    CONTRACTS,
    SERVICE,
    SOURCE,
    Edit,
    Recipe,
    allowed,
    examples,
    imported,
    stored,
)

VERSION = Recipe(
    heading="Add a version of an event",
    files={
        f"{CONTRACTS}/golden/$name.acknowledged.v2.json": '{\n  "channel": "counter"\n}\n',
        f"{SERVICE}/tests/test_versions.py": '''"""What was stored as version 1 is read as version 2 and published as version 1, and readers get version 2 of it."""

import json
from uuid import UUID

from chassis.write.events import StoredEvent
from $name.catalogue import catalogue
from $name.domain.events import ${Name}Acknowledged
from $name.publishing import published

from tests.support.fixtures import delivered

SUBJECT = UUID(int=7)
META = {
    "effective_at": "2026-01-05T00:00:00Z",
    "recorded_at": "2026-01-05T00:00:00Z",
    "actor": "staff:lin",
    "command_id": str(SUBJECT),
    "correlation_id": str(SUBJECT),
    "causation_id": str(SUBJECT),
}


def stored(data):
    body = json.dumps({"meta": META, "data": data}).encode()
    return StoredEvent(SUBJECT, 2, "$name-acknowledged", body, position=2)


def test_a_version_1_that_is_stored_is_read_as_version_2_and_published_as_it_was():
    assert catalogue().open(stored({"v": 1}), None).event == ${Name}Acknowledged("unknown")
    old, new = published(stored({"v": 1})), published(stored({"v": 2, "channel": "counter"}))
    assert (old.event.VERSION, json.loads(old.body)) == (1, {})
    assert (new.event.VERSION, json.loads(new.body)) == (2, {"channel": "counter"})


def test_a_reader_gets_version_2_of_both():
    lifted = delivered("$name.acknowledged", SUBJECT, 2)
    assert (lifted.version, lifted.data) == (1, {"channel": "unknown"})
    assert delivered("$name.acknowledged", SUBJECT, 2, version=2, channel="app").data == {"channel": "app"}
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/domain/events.py",
            '    """Somebody has seen the $name."""\n',
            '''    """Somebody has seen the $name: at the counter, in the app. Version 1 did not say where."""

    channel: str


def acknowledged_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Where it was is not known any more."""
    return {**data, "channel": "unknown"}
''',
        ),
        Edit(
            f"{SOURCE}/domain/events.py",
            "]] = {}\n",
            ']] = {\n    ("$name-acknowledged", 1): acknowledged_v1_to_v2\n}\n',
        ),
        Edit(f"{SOURCE}/domain/$name.py", "[${Name}Acknowledged()]", '[${Name}Acknowledged("counter")]'),
        Edit(
            f"{SERVICE}/tests/test_$name.py",
            ".then(${Name}Acknowledged())",
            '.then(${Name}Acknowledged("counter"))',
        ),
        Edit(
            f"{SERVICE}/tests/test_$name.py",
            "OPENED, ${Name}Acknowledged())",
            'OPENED, ${Name}Acknowledged("app"))',
        ),
        Edit(
            f"{SOURCE}/publishing.py",
            '"$name-acknowledged": public.${Name}Acknowledged,',
            '"$name-acknowledged": public.${Name}AcknowledgedV2,',
        ),
        Edit(
            f"{SOURCE}/publishing.py",
            "]] = {}\n",
            ']] = {\n    ("$name-acknowledged", 1): (public.${Name}Acknowledged, _same)\n}\n',
        ),
        Edit(
            f"{CONTRACTS}/src/contracts/$name.py",
            "\n\nEVENTS: ",
            '''

class ${Name}AcknowledgedV2(${Name}ContextEvent):
    """Somebody has seen the $name."""

    TYPE = "$name.acknowledged"
    VERSION = 2

    channel: str


def acknowledged_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Where it was is not known any more."""
    return {**data, "channel": "unknown"}


EVENTS: ''',
        ),
        Edit(
            f"{CONTRACTS}/src/contracts/$name.py",
            "(${Name}Opened, ${Name}Acknowledged)",
            "(${Name}Opened, ${Name}Acknowledged, ${Name}AcknowledgedV2)",
        ),
        Edit(
            f"{CONTRACTS}/src/contracts/$name.py",
            "]] = {}\n",
            ']] = {\n    ("$name.acknowledged", 1): acknowledged_v1_to_v2\n}\n',
        ),
    ),
)

BULK = Recipe(
    heading="Add a bulk command",
    files={
        f"{SERVICE}/tests/test_bulk.py": '''"""Many are acknowledged at once, each once."""

from uuid import UUID

from chassis.bulk import following
from chassis.bulk import listed
from chassis.clock import SystemClock
from chassis.write.deciding import CommandContext
from $name.application import ACKNOWLEDGE, ${Name}Service
from $name.catalogue import catalogue
from $name.domain.$name import Acknowledge${Name}, Open${Name}

from tests.support.fixtures import AT

CLOCK = SystemClock()


def context(number):
    return CommandContext(actor="staff:lin", now=AT, command_id=UUID(int=number), reason="they were seen")


async def test_what_is_listed_is_acknowledged_with_a_result_each(store, handler):
    service = ${Name}Service(handler, store, None, None, catalogue(), CLOCK)
    for number in (1, 2):
        await handler.handle(UUID(int=number), Open${Name}("a title"), context(number))
    await handler.handle(UUID(int=2), Acknowledge${Name}(), context(3))
    items = listed([UUID(int=1), UUID(int=2), UUID(int=7)])
    run = await service.bulk.prepare(ACKNOWLEDGE, Acknowledge${Name}(), items, context(4))
    await service.bulk.start(run.run_id, context(5))
    async with following(service.bulk, CLOCK, look_seconds=0.01):
        while (await service.bulk.shown(run.run_id)).status != "finished":
            await CLOCK.sleep(0.01)
    results = [one.result for one in await service.bulk.results(run.run_id)]
    assert results == ["done", "unchanged", "$name-not-opened"]
'''
    },
    edits=(
        Edit(
            f"{SOURCE}/application.py",
            "from chassis.read.documents import Document\n",
            "from chassis.bulk import Bulk, Bulkable\nfrom chassis.clock import Clock\n"
            "from chassis.read.documents import Document\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "from chassis.write.deciding import CommandContext, Outcome\n",
            "from chassis.write.catalogue import Catalogue\n"
            "from chassis.write.deciding import CommandContext, Outcome\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "from dataclasses import dataclass\n",
            "from dataclasses import dataclass, field\nfrom typing import Final\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "from $name.domain.$name import Open${Name}, ${Name}, ${Name}Command, ${Name}NotOpened\n",
            "from $name.domain.$name import (\n    Acknowledge${Name},\n    Open${Name},\n    ${Name},\n"
            "    ${Name}Command,\n    ${Name}NotOpened,\n    decide,\n)\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    caught_up: Callable[[int], Awaitable[bool]]\n",
            """    caught_up: Callable[[int], Awaitable[bool]]
    catalogue: Catalogue
    clock: Clock
    bulk: Bulk = field(init=False)

    def __post_init__(self) -> None:
        kind = Bulkable(Acknowledge${Name}, self.handler.handle, self._acknowledges, self.handler.read)
        many = Bulk(self.store, self.catalogue, self.handler.keys, {ACKNOWLEDGE: kind}, self.clock)
        object.__setattr__(self, "bulk", many)

    async def _acknowledges(self, subject: UUID, command: Acknowledge${Name}) -> bool:
        return bool(decide(command, (await self.handler.load(subject)).state))
""",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "\n\n@dataclass(frozen=True, slots=True)\nclass ${Name}Service",
            '\nACKNOWLEDGE: Final = "acknowledge"\n\n\n@dataclass(frozen=True, slots=True)\nclass ${Name}Service',
        ),
        Edit(f"{SOURCE}/connections.py", "queries, caught_up)", "queries, caught_up, catalogue(), clock)"),
        Edit(f"{SOURCE}/catalogue.py", "STORED_NAMES | OPERATIONS", "STORED_NAMES | OPERATIONS | BULK_RUNS"),
        Edit(
            f"{SOURCE}/catalogue.py",
            "from chassis.write.catalogue",
            "from chassis.bulk import BULK_RUNS\nfrom chassis.write.catalogue",
        ),
        Edit(
            f"{SOURCE}/publishing.py",
            "**dict.fromkeys(OPERATIONS),",
            "**dict.fromkeys(OPERATIONS | BULK_RUNS),",
        ),
        Edit(
            f"{SOURCE}/publishing.py",
            "from chassis.write.events",
            "from chassis.bulk import BULK_RUNS\nfrom chassis.write.events",
        ),
        Edit(
            f"{SOURCE}/permissions.py",
            '    "list_${name}s": Rights(_SERVING, WHOLE),\n',
            '    "list_${name}s": Rights(_SERVING, WHOLE),\n    "prepare_acknowledgements": Rights(_SERVING, WHOLE, _AT_ONCE),\n'
            '    "get_${name}_bulk": Rights(_SERVING, WHOLE),\n    "preview_${name}_bulk": Rights(_SERVING, WHOLE),\n'
            '    "start_${name}_bulk": Rights(_SERVING, WHOLE, _AT_ONCE),\n    "pause_${name}_bulk": Rights(_SERVING, WHOLE, _AT_ONCE),\n'
            '    "undo_${name}_bulk": Rights(_SERVING, WHOLE, _AT_ONCE),\n    "list_${name}_bulk_results": Rights(_SERVING, WHOLE),\n    "list_${name}_bulk_items": Rights(_SERVING, WHOLE),\n',
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "class Done(BaseModel):",
            'class AcknowledgementsBody(ExplainedBody):\n    """What is acknowledged."""\n\n'
            "    ${name}s: list[UUID] = Field(min_length=1, max_length=1_000)\n\n\nclass Done(BaseModel):",
        ),
        Edit(f"{SOURCE}/shapes.py", "import CommandBody, Page", "import CommandBody, ExplainedBody, Page"),
        Edit(
            f"{SOURCE}/api.py",
            "from chassis.read.documents import ID, Document\n",
            "from chassis.bulk.routes import EXAMPLES as BULK_EXAMPLES\n"
            "from chassis.bulk.routes import PREPARED, BulkAnswer, add_bulk, prepared\n"
            "from chassis.bulk import listed\nfrom chassis.read.documents import ID, Document\n",
        ),
        Edit(f"{SOURCE}/api.py", "EXAMPLES: Final = {\n", "EXAMPLES: Final = {\n    **BULK_EXAMPLES,\n"),
        Edit(
            f"{SOURCE}/api.py",
            "from $name.application import ${Name}Service\n",
            "from $name.application import ACKNOWLEDGE, ${Name}Service\n",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "from $name.shapes import Done,",
            "from $name.shapes import AcknowledgementsBody, Done,",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "\n\ndef _add_questions",
            '''
    @router.post("/${name}s/acknowledgements", status_code=201, responses=PREPARED)
    async def prepare_acknowledgements(
        response: Response, context: Commanding, body: AcknowledgementsBody
    ) -> BulkAnswer:
        """Lists what is to be acknowledged. Nothing is done until the run is started."""
        run = await service.bulk.prepare(ACKNOWLEDGE, Acknowledge${Name}(), listed(body.${name}s), context)
        return prepared(response, CONTEXT, run)

    add_bulk(router, lambda: service.bulk, dependencies, CONTEXT)


def _add_questions''',
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "        async with checking_readiness(checks, clock) as not_ready:\n",
            "        async with checking_readiness(checks, clock) as not_ready, following(sides.service.bulk, clock):\n",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from chassis.clock import",
            "from chassis.bulk import following\nfrom chassis.clock import",
        ),
    ),
)

FOUR_EYES = Recipe(
    heading="Make a command need two persons",
    files={
        f"{SERVICE}/tests/test_two_persons.py": '''"""What one person proposes is acknowledged when another one approves it; so are many at once."""

from uuid import UUID

import pytest
from chassis.bulk import BulkNeedsApproval, propose_start
from chassis.bulk import listed
from chassis.clock import SystemClock
from chassis.proposals import SecondPersonNeeded
from chassis.write.deciding import CommandContext
from $name.application import ACKNOWLEDGE, ACKNOWLEDGED_ALONE_MAX, ${Name}Service
from $name.catalogue import catalogue
from $name.domain.$name import Acknowledge${Name}, Open${Name}, ${Name}NotOpened
from $name.permissions import APPROVERS

from tests.support.fixtures import AT

SUBJECT = UUID(int=1)


def by(actor, number):
    return CommandContext(actor=actor, now=AT, command_id=UUID(int=number), reason="it was seen")


@pytest.fixture
def service(store, handler):
    return ${Name}Service(handler, store, None, None, catalogue(), SystemClock(), None, None)


async def test_another_person_approves_what_one_proposes(service):
    with pytest.raises(${Name}NotOpened):
        await service.propose(SUBJECT, by("lin", 1))
    await service.handler.handle(SUBJECT, Open${Name}("a title"), by("lin", 2))
    shown = await service.propose(SUBJECT, by("lin", 3))
    with pytest.raises(SecondPersonNeeded):
        await service.eyes.approve(shown.proposal_id, shown.digest, by("lin", 4), APPROVERS)
    await service.eyes.approve(shown.proposal_id, shown.digest, by("chen", 5), APPROVERS)
    *_, last = await service.store.read_stream(SUBJECT)
    meta = service.catalogue.metadata_of(last)
    assert (last.name, meta.actor, meta.proposed_by) == ("$name-acknowledged", "chen", "lin")


async def test_more_than_one_person_may_acknowledge_alone_are_started_by_two(service):
    many = listed(UUID(int=number) for number in range(ACKNOWLEDGED_ALONE_MAX + 1))
    run = (await service.bulk.prepare(ACKNOWLEDGE, Acknowledge${Name}(), many, by("lin", 1))).run_id
    with pytest.raises(BulkNeedsApproval):
        await service.bulk.start(run, by("lin", 2))
    shown = await propose_start(service.bulk, service.eyes, run, by("lin", 3))
    await service.eyes.approve(shown.proposal_id, shown.digest, by("chen", 4), APPROVERS)
    assert (await service.bulk.shown(run)).status == "running"
'''
    },
    edits=(
        *stored("PROPOSALS", "chassis.proposals"),
        Edit(
            f"{SOURCE}/permissions.py",
            "\n\nROUTES: Final[",
            '\nAPPROVERS: Final = frozenset({ADMINISTRATOR})\n"""Who may approve what another person proposed."""\n\nROUTES: Final[',
        ),
        allowed(
            "get_${name}_proposal",
            commands=("propose_$name", "withdraw_${name}_proposal", "propose_${name}_bulk"),
        ),
        allowed(commands=("approve_${name}_proposal", "reject_${name}_proposal"), roles="APPROVERS"),
        Edit(
            f"{SOURCE}/application.py",
            "        kind = Bulkable(Acknowledge${Name}, self.handler.handle, self._acknowledges, self.handler.read)\n",
            """        kind = Bulkable(
            Acknowledge${Name},
            self.handler.handle,
            self._acknowledges,
            self.handler.read,
            approval=Approval(ACKNOWLEDGED_ALONE_MAX, APPROVERS, PROPOSALS_LIVE, "批量确认"),
        )
""",
        ),
        Edit(
            f"{SOURCE}/application.py",
            '        object.__setattr__(self, "bulk", many)\n',
            """        object.__setattr__(self, "bulk", many)
        alone = Proposable(Acknowledge${Name}, APPROVERS, PROPOSALS_LIVE, self.handler.handle, "确认")
        kinds = {ACKNOWLEDGE: alone, **starts(many)}
        object.__setattr__(self, "eyes", FourEyes(self.store, self.catalogue, self.handler.keys, kinds))
""",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    bulk: Bulk = field(init=False)\n",
            "    bulk: Bulk = field(init=False)\n    eyes: FourEyes = field(init=False)\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            'ACKNOWLEDGE: Final = "acknowledge"\n',
            'ACKNOWLEDGE: Final = "acknowledge"\nACKNOWLEDGED_ALONE_MAX: Final = 100\n'
            "PROPOSALS_LIVE: Final = timedelta(days=3)\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    async def open(self",
            '''    async def propose(self, subject: UUID, context: CommandContext) -> ProposalShown:
        """Proposes to acknowledge; raises what would refuse it now."""
        decide(Acknowledge${Name}(), (await self.handler.load(subject)).state)
        return await self.eyes.propose(ACKNOWLEDGE, subject, Acknowledge${Name}(), context)

    async def open(self''',
        ),
        Edit(
            f"{SOURCE}/application.py",
            "from chassis.bulk import Bulk, Bulkable\n",
            "from datetime import timedelta\nfrom chassis.bulk import Approval, Bulk, Bulkable, starts\n"
            "from chassis.proposals import FourEyes, Proposable, ProposalShown\n"
            "from $name.permissions import APPROVERS\n",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "    add_bulk(router, lambda: service.bulk, dependencies, CONTEXT)\n",
            '''    add_bulk(router, lambda: service.bulk, dependencies, CONTEXT, lambda: service.eyes)

    @router.post("/${name}s/{${name}_id}/propose", status_code=202, responses={**PROPOSED, **_SHOWN})
    async def propose_$name(
        response: Response, context: Commanding, ${name}_id: SubjectPath, body: ExplainedBody
    ) -> ProposalAnswer:
        """Proposes to say that the $name was seen; another person approves it."""
        return proposed(response, CONTEXT, await service.propose(${name}_id, context))

    add_proposals(router, lambda: service.eyes, dependencies, CONTEXT)
''',
        ),
        Edit(f"{SOURCE}/api.py", "    CommandBody,\n", "    CommandBody,\n    ExplainedBody,\n"),
        imported(
            "api.py",
            "from chassis.proposals.routes import EXAMPLES as PROPOSAL_EXAMPLES",
            "from chassis.proposals.routes import PROPOSED, ProposalAnswer, add_proposals, proposed",
        ),
        examples("PROPOSAL_EXAMPLES"),
    ),
)

FILES = Recipe(
    heading="Keep files",
    files={
        f"{SOURCE}/files.py": '''"""The files of a $name over HTTP: attached, listed, and read with a reason."""

from collections.abc import Callable
from typing import Annotated, Final
from uuid import UUID

from chassis.files import FileKeeper, Limits, Offered
from chassis.files.routes import (
    ATTACHED,
    READ,
    FileAnswer,
    FileList,
    FileName,
    FilePath,
    FileResponse,
    answered,
    body_of,
    named,
)
from chassis.web import Dependencies, ExplainedBody, Reason, consistency_token
from chassis.web.edge import BODY_BYTES_MAX
from chassis.write.deciding import CommandContext
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from $name.catalogue import CONTEXT

LIMITS: Final = Limits(frozenset({"application/pdf"}))
PLACE: Final = "/${name}s/{${name}_id}/files"
SubjectPath = Annotated[UUID, Path(description="the $name")]


def body_limits(bytes_max: int) -> dict[str, int]:
    """The limits of bodies of these routes."""
    place = "/${name}s/{}/files"
    return {place: bytes_max, f"{place}/{{}}/content": BODY_BYTES_MAX}


def add_files(router: APIRouter, keeper: Callable[[], FileKeeper], dependencies: Dependencies) -> None:
    """Adds the routes of files. Who adds them looks that the subject is there."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]

    @router.post(PLACE, status_code=201, responses=ATTACHED, openapi_extra=body_of(LIMITS))
    async def attach_${name}_file(
        request: Request,
        response: Response,
        context: Commanding,
        ${name}_id: SubjectPath,
        name: FileName,
        reason: Annotated[Reason | None, Query(description="why it is kept")] = None,
    ) -> FileAnswer:
        """Keeps a file."""
        offered = Offered(named(name), request.headers.get("content-type", ""), "letter")
        kept = await keeper().attach(${name}_id, offered, request.stream(), context)
        response.headers["Location"] = f"/${name}s/{${name}_id}/files"
        response.headers["Consistency-Token"] = consistency_token(CONTEXT, kept.outcome.position)
        return answered(kept.shown)

    @router.get(PLACE)
    async def list_${name}_files(request: Request, ${name}_id: SubjectPath) -> FileList:
        """The files, without their content."""
        now = request.app.state.clock.now()
        return FileList(items=[answered(one) for one in await keeper().files(${name}_id, now)])

    @router.post(f"{PLACE}/{{file_id}}/content", responses=READ, response_class=Response)
    async def read_${name}_file(
        context: Commanding, ${name}_id: SubjectPath, file_id: FilePath, body: ExplainedBody
    ) -> Response:
        """The content of a file, as a download."""
        return FileResponse(await keeper().read(${name}_id, file_id, context))
''',
        f"{SERVICE}/tests/test_files.py": '''"""A file is kept, and each reading of it is an event."""

from uuid import UUID

from chassis.files import FileKeeper, Offered, Storage
from chassis.files.folder import Folder
from chassis.write.deciding import CommandContext
from $name.catalogue import CONTEXT, catalogue
from $name.files import LIMITS

from tests.support.fixtures import AT

SUBJECT = UUID(int=7)
PDF = b"%PDF-1.7 a letter"


def by(number):
    return CommandContext(actor="lin", now=AT, command_id=UUID(int=number), reason="it was asked for")


async def content():
    yield PDF


async def test_a_file_is_kept_and_each_reading_is_an_event(store, key_ring, tmp_path):
    storage = Storage(Folder(tmp_path / "files", CONTEXT, create=True))
    keeper = FileKeeper(store, catalogue(), key_ring, storage, LIMITS)
    kept = await keeper.attach(SUBJECT, Offered("a.pdf", "application/pdf", "letter"), content(), by(1))
    read = await keeper.read(SUBJECT, kept.shown.file_id, by(2))
    async with read.download:
        assert b"".join([part async for part in read.parts]) == PDF
    assert [one.name for one in await store.read_after(0)][-1] == "file-read"
    await storage.close()
''',
    },
    edits=(
        *stored("FILES", "chassis.files"),
        Edit(f"{SOURCE}/settings.py", "(CalendarSettings):", "(CalendarSettings, FilesSettings):"),
        Edit(
            f"{SOURCE}/settings.py",
            "from chassis.calendar.settings",
            "from chassis.files import FilesSettings\nfrom chassis.calendar.settings",
        ),
        Edit(f"{SOURCE}/service.py", "    policies=POLICIES,\n", "    policies=POLICIES,\n    files=True,\n"),
        Edit(
            f"{SOURCE}/application.py",
            "    bulk: Bulk = field(init=False)\n",
            "    keeper: FileKeeper | None = None\n    bulk: Bulk = field(init=False)\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    async def open(self",
            '''    @property
    def files(self) -> FileKeeper:
        """The files, in a process that has a storage."""
        if self.keeper is None:
            raise TypeError("this process has no storage of files")
        return self.keeper

    async def open(self''',
        ),
        imported("application.py", "from chassis.files import FileKeeper"),
        Edit(
            f"{SOURCE}/connections.py",
            "        yield BothSides(service, write.store, mongo, views)\n",
            """        storage = Storage(objects_of(settings, CONTEXT))
        limits = LIMITS._replace(size_bytes_max=settings.files_bytes_max)
        keeper = FileKeeper(write.store, catalogue(), write.ring, storage, limits)
        try:
            yield BothSides(replace(service, keeper=keeper), write.store, mongo, views)
        finally:
            await storage.close()
""",
        ),
        Edit(f"{SOURCE}/connections.py", "import dataclass\n", "import dataclass, replace\n"),
        imported(
            "connections.py",
            "from chassis.files import FileKeeper, Storage, objects_of",
            "from $name.files import LIMITS",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "following(sides.service.bulk, clock),",
            "following(sides.service.bulk, clock), sweeping(sides.service.files, sides.service.handler.keys,"
            " settings.postgres_url, SCHEMA, clock),",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "create_router(sides.service, entered), {}, not_ready",
            "create_router(sides.service, entered), body_limits(settings.files_bytes_max), not_ready",
        ),
        imported("bootstrap.py", "from chassis.files import sweeping", "from $name.files import body_limits"),
        Edit(
            f"{SOURCE}/api.py",
            "\n\ndef _add_questions",
            "\n    add_files(router, lambda: service.files, dependencies)\n\n\ndef _add_questions",
        ),
        imported(
            "api.py",
            "from chassis.files.routes import EXAMPLES as FILE_EXAMPLES",
            "from $name.files import add_files",
        ),
        examples("FILE_EXAMPLES"),
        allowed("list_${name}_files", commands=("attach_${name}_file", "read_${name}_file")),
    ),
)

EXPORT = Recipe(
    heading="Make files of a list",
    files={
        f"{SOURCE}/exports.py": '''"""The list of which files are made."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import Final

from chassis.exports import Exportable, ExportNotPermitted, Rights, columns_of
from chassis.lists import Counted, Question, Reader, Scope
from chassis.privacy.tokens import Caller
from chassis.read.documents import Document

from $name.lists import LISTING, scope_of
from $name.permissions import APPROVERS, ROLES

EXPORTED_ALONE_MAX: Final = 100


def exportable(reader: Reader) -> Exportable:
    """What its page shows."""

    async def shown(found: Sequence[Document]) -> Sequence[Document]:
        return found

    def documents(scope: Scope, asked: Question) -> AsyncIterator[list[Document]]:
        return reader.documents(scope, asked)

    async def counted(scope: Scope, asked: Question, most: int) -> Counted:
        return await reader.count(scope, asked, most)

    def today() -> date:
        return reader.today()

    return Exportable(
        listing=LISTING,
        columns=columns_of(LISTING.fields, ("title",)),
        documents=documents,
        counted=counted,
        shown=shown,
        rights=_rights,
        today=today,
        alone_rows_max=EXPORTED_ALONE_MAX,
        approvers=APPROVERS,
        lives=timedelta(days=3),
        title="导出",
    )


def _rights(caller: Caller) -> Rights:
    if caller.roles.isdisjoint(ROLES["select_${name}s"]):
        raise ExportNotPermitted
    return Rights(scope_of(caller), frozenset())
''',
        f"{SERVICE}/tests/test_exports.py": '''"""A file of the list has what its caller may see."""

from datetime import date
from uuid import UUID

from chassis.clock import SystemClock
from chassis.exports import Asked, Exports
from chassis.files import Storage
from chassis.files.folder import Folder
from chassis.lists import Cursors, Reader
from chassis.privacy.tokens import Caller
from chassis.read.generations import Generations, ViewReader
from chassis.write.deciding import CommandContext
from contracts.roles import TELLER
from $name.catalogue import CONTEXT, catalogue
from $name.exports import exportable
from $name.lists import LISTING
from $name.views import VIEWS, ${name}s

from tests.support.generations import shown_generation

CLOCK = SystemClock()


async def test_a_file_has_what_its_caller_may_see(mongo, store, key_ring, tmp_path):
    generation = await shown_generation(Generations(mongo, ${name}s.VIEW, "$name", CLOCK))
    for id, title in (("a", "counter"), ("b", "phone")):
        document = {"_id": id, "_seq": 1, "title": title}
        await mongo.insert_new(generation.prefix + ${name}s.COLLECTION, document)

    def today():
        return date(2026, 1, 5)

    reader = Reader(LISTING, mongo, ViewReader(mongo, CLOCK, VIEWS), Cursors(key_ring.secret), today)
    storage = Storage(Folder(tmp_path / "files", CONTEXT, create=True))
    kinds = {"${name}s": exportable(reader)}
    exports = Exports(store, catalogue(), key_ring, kinds, CLOCK, storage)
    wu = Caller("wu", roles=frozenset({TELLER}))

    def by(key):
        now = CLOCK.now()
        return CommandContext(actor="wu", now=now, command_id=UUID(int=key), reason="it was asked for")

    shown = await exports.request(Asked("${name}s"), wu, by(1))
    assert await exports.make(shown.contents.export_id) == "made"
    read = await exports.read(shown.contents.export_id, wu, by(2))
    async with read.download:
        lines = b"".join([part async for part in read.parts]).decode("utf-8-sig").splitlines()
    assert lines[:2] == ["标题", "counter"]
    assert lines[2].startswith("# rows: 1;")
    await storage.close()
''',
    },
    edits=(
        *stored("EXPORTS", "chassis.exports"),
        Edit(
            f"{SOURCE}/application.py",
            "    bulk: Bulk = field(init=False)\n",
            "    storage: Storage | None = None\n    exports: Exports = field(init=False)\n"
            "    bulk: Bulk = field(init=False)\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    def __post_init__(self) -> None:\n",
            """    def __post_init__(self) -> None:
        lists = {"${name}s": exportable(self.reader)}
        exports = Exports(self.store, self.catalogue, self.handler.keys, lists, self.clock, self.storage)
        object.__setattr__(self, "exports", exports)
""",
        ),
        Edit(f"{SOURCE}/application.py", "**starts(many)", "**starts(many), **releases(exports)"),
        imported(
            "application.py",
            "from chassis.exports import Exports, releases",
            "from chassis.files import Storage",
            "from $name.exports import exportable",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "        keeper = FileKeeper(write.store",
            "        service = replace(service, storage=storage)\n        keeper = FileKeeper(write.store",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "following(sides.service.bulk, clock),",
            "following(sides.service.bulk, clock), making(sides.service.exports, clock),",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "body_limits(settings.files_bytes_max), not_ready",
            "body_limits(settings.files_bytes_max) | export_limits(CONTEXT), not_ready",
        ),
        imported(
            "bootstrap.py",
            "from chassis.exports import making",
            "from chassis.exports.routes import body_limits as export_limits",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "\n\ndef _add_questions",
            "\n    add_exports(router, lambda: service.exports, dependencies, CONTEXT, lambda: service.eyes)\n"
            "\n\ndef _add_questions",
        ),
        imported(
            "api.py",
            "from chassis.exports.routes import EXAMPLES as EXPORT_EXAMPLES",
            "from chassis.exports.routes import add_exports",
        ),
        examples("EXPORT_EXAMPLES"),
        allowed(
            "list_${name}_exports",
            "get_${name}_export",
            commands=("request_${name}_export", "propose_${name}_export", "read_${name}_export"),
        ),
    ),
)
