"""Recipes of what every service begins with: an event, the command that gives it, the view that keeps it, the question that
reads the view, and a policy."""

from tests.architecture.recipes.recipe import (
    CONTRACTS,
    SERVICE,
    SOURCE,
    Edit,
    Recipe,
    allowed,
    imported,
    with_policy,
)

EVENT = Recipe(
    heading="Add an event",
    files={
        f"{CONTRACTS}/golden/$name.closed.v1.json": (
            '{\n  "outcome": "answered",\n  "remark": "k1.c3ViamVjdA.c2VhbGVkLXJlbWFyaw"\n}\n'
        ),
        f"{SERVICE}/tests/test_closed.py": '''"""What is closed is so, and others learn of it, with its remark sealed."""

import json
from uuid import UUID

from chassis.privacy.keys import DataKey, is_token
from chassis.write.catalogue import NewEvent
from chassis.write.events import Metadata
from $name.catalogue import catalogue
from $name.domain.$name import ${Name}, ${name}_decider
from $name.domain.events import ${Name}Closed, ${Name}Opened
from $name.publishing import published

from tests.support.fixtures import AT
from tests.support.specification import Specification

SUBJECT = UUID(int=7)
CLOSED = ${Name}Closed("answered", "by phone")


def test_what_is_closed_is_so():
    opened = ${Name}Opened("a title")
    Specification(${name}_decider).given(opened, CLOSED).then_state(${Name}(opened=True, closed="answered"))


def test_others_learn_the_outcome_and_get_the_remark_sealed():
    key = DataKey(SUBJECT, UUID(int=8), b"k" * 32)
    ids = {"command_id": SUBJECT, "correlation_id": SUBJECT, "causation_id": SUBJECT}
    metadata = Metadata(effective_at=AT, recorded_at=AT, actor="staff:lin", **ids)
    [stored] = catalogue().stored([NewEvent(SUBJECT, 2, CLOSED, metadata)], {SUBJECT: key})
    body = json.loads(published(stored).body)
    assert (body["outcome"], is_token(body["remark"])) == ("answered", True)
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/domain/events.py",
            "${Name}Event = ${Name}Opened | ${Name}Acknowledged\n",
            '''class ${Name}Closed(Event, frozen=True):
    """The $name is done with."""

    outcome: str
    remark: Annotated[str | None, personal("C2")] = None


${Name}Event = ${Name}Opened | ${Name}Acknowledged | ${Name}Closed
''',
        ),
        Edit(
            f"{SOURCE}/domain/events.py",
            '    "$name-acknowledged": ${Name}Acknowledged,\n',
            '    "$name-acknowledged": ${Name}Acknowledged,\n    "$name-closed": ${Name}Closed,\n',
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "import ${Name}Acknowledged, ${Name}Event, ${Name}Opened",
            "import ${Name}Acknowledged, ${Name}Closed, ${Name}Event, ${Name}Opened",
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "    acknowledged: bool = False\n",
            "    acknowledged: bool = False\n    closed: str | None = None\n",
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "        case _:\n            assert_never(event)",
            "        case ${Name}Closed(outcome):\n            return msgspec.structs.replace(state, closed=outcome)\n"
            "        case _:\n            assert_never(event)",
        ),
        Edit(f"{SOURCE}/domain/$name.py", "state_type=${Name}\n", "state_type=${Name}, state_version=2\n"),
        Edit(
            f"{SOURCE}/publishing.py",
            "    **dict.fromkeys(OPERATIONS",
            '    "$name-closed": public.${Name}Closed,\n    **dict.fromkeys(OPERATIONS',
        ),
        Edit(
            f"{CONTRACTS}/src/contracts/$name.py",
            "\n\nEVENTS: ",
            '''

class ${Name}Closed(${Name}ContextEvent):
    """The $name is done with."""

    TYPE = "$name.closed"
    PERSONAL = frozenset({"remark"})

    outcome: str
    remark: str | None = None


EVENTS: ''',
        ),
        Edit(
            f"{CONTRACTS}/src/contracts/$name.py",
            "${Name}AcknowledgedV2)",
            "${Name}AcknowledgedV2, ${Name}Closed)",
        ),
    ),
)

COMMAND = Recipe(
    heading="Add a command",
    files={
        f"{SERVICE}/tests/test_closing.py": '''"""A $name is closed once, with one outcome."""

from $name.domain.$name import Close${Name}, ${Name}ClosedOtherwise, ${Name}NotOpened, ${name}_decider
from $name.domain.events import ${Name}Closed, ${Name}Opened

from tests.support.specification import Specification

$name = Specification(${name}_decider)
OPENED = ${Name}Opened("a title")
CLOSE = Close${Name}("answered", "by phone")


def test_it_is_closed_once():
    $name.given(OPENED).when(CLOSE).then(${Name}Closed("answered", "by phone")).when(CLOSE).then_nothing()


def test_it_is_not_closed_with_another_outcome():
    $name.given(OPENED, ${Name}Closed("withdrawn")).when(CLOSE).then_rejected(${Name}ClosedOtherwise)


def test_what_was_never_opened_cannot_be_closed():
    $name.given().when(CLOSE).then_rejected(${Name}NotOpened)
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/domain/$name.py",
            "class Open${Name}(msgspec.Struct",
            '''class ${Name}ClosedOtherwise(Refusal):
    """The $name was closed with another outcome."""

    code: ClassVar[str] = "$name-closed-otherwise"
    title: ClassVar[str] = "The $name was closed with another outcome"
    title_zh: ClassVar[str] = "该对象已以其他结果关闭"


class Open${Name}(msgspec.Struct''',
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "${Name}Command = Open${Name} | Acknowledge${Name}\n",
            '''class Close${Name}(msgspec.Struct, frozen=True):
    """Ends a $name with its outcome."""

    outcome: str
    remark: str | None = None


${Name}Command = Open${Name} | Acknowledge${Name} | Close${Name}
''',
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "        case _:\n            assert_never(command)",
            """        case Close${Name}(outcome, remark):
            if not state.opened:
                raise ${Name}NotOpened
            if state.closed not in (None, outcome):
                raise ${Name}ClosedOtherwise
            return [${Name}Closed(outcome, remark)] if state.closed is None else []
        case _:
            assert_never(command)""",
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "class Done(BaseModel):",
            '''class CloseBody(DatedExplainedBody):
    """How it ended."""

    outcome: Literal["answered", "withdrawn"]
    remark: str | None = Field(default=None, max_length=2_000)


class Done(BaseModel):''',
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "import CommandBody, ExplainedBody, Page",
            "import CommandBody, DatedExplainedBody, ExplainedBody, Page",
        ),
        Edit(f"{SOURCE}/shapes.py", "from uuid import", "from typing import Literal\nfrom uuid import"),
        Edit(
            f"{SOURCE}/api.py",
            '    @router.post("/${name}s/acknowledgements"',
            '''    @router.post("/${name}s/{${name}_id}/close", responses=_CLOSED)
    async def close_$name(
        response: Response,
        context: Commanding,
        version: Expected,
        ${name}_id: SubjectPath,
        body: CloseBody,
    ) -> Done:
        """Ends the $name, with its outcome."""
        command = Close${Name}(body.outcome, body.remark)
        return _done(response, await service.change(${name}_id, command, context, version))

    @router.post("/${name}s/acknowledgements"''',
        ),
        Edit(
            f"{SOURCE}/api.py",
            "\n\ndef create_router",
            """_CLOSED: Final[Answers] = {
    200: _TAGGED,
    **refusals(${Name}NotOpened, ${Name}ClosedOtherwise, VersionMismatch, TooManyConflicts),
}


def create_router""",
        ),
        imported(
            "api.py",
            "from $name.domain.$name import Close${Name}, ${Name}ClosedOtherwise",
            "from $name.shapes import CloseBody",
        ),
        Edit(
            f"{SOURCE}/api.py",
            '    "reason": "it was seen',
            '    "outcome": "answered",\n    "remark": "by phone",\n    "reason": "it was seen',
        ),
        allowed("close_$name"),
    ),
)

VIEW = Recipe(
    heading="Add a view",
    files={
        f"{SOURCE}/views/closings.py": '''"""The view `${name}_closings`: one document per closing. Its remark stays sealed."""

from typing import Final

from chassis.read.documents import Document, sealed
from chassis.read.projecting import Collection, Delivered, DocumentKey, View
from contracts.topics import EVENTS

from $name.views.${name}s import NotTaken

COLLECTION: Final = "closings"


def keys(event: Delivered) -> list[DocumentKey]:
    """The document of the closing."""
    return [DocumentKey(COLLECTION, str(event.id))]


def project(_: DocumentKey, __: Document | None, event: Delivered) -> Document:
    """The document of an event, which nothing changes afterwards."""
    match event.type:
        case "$name.closed":
            return {
                "${name}_id": str(event.subject),
                "outcome": event.data["outcome"],
                "remark": sealed(event, "remark"),
                "position": event.position,
            }
        case _:
            raise NotTaken(event.type)


VIEW: Final = View(
    name="${name}_closings",
    version=1,
    sources=(EVENTS["$name"].name,),
    events=frozenset({"$name.closed"}),
    collections=(Collection(COLLECTION, insert_only=True),),
    keys=keys,
    project=project,
)
''',
        f"{SERVICE}/tests/test_closings.py": '''"""The view as a plain fold: each closing has a document of its own, whatever came before it."""

from uuid import UUID

import pytest
from $name.views import closings
from $name.views.${name}s import NotTaken

from tests.support.fixtures import delivered

SUBJECT = UUID(int=7)


def test_a_closing_is_one_document():
    closed = delivered("$name.closed", SUBJECT, 2, outcome="answered", remark="k1.a.b")
    [key] = closings.keys(closed)
    assert (key.collection, key.id) == (closings.COLLECTION, str(closed.id))
    document = closings.project(key, None, closed)
    assert (document["${name}_id"], document["outcome"]) == (str(SUBJECT), "answered")
    assert document["remark"]["t"] == "k1.a.b"


def test_what_it_does_not_take_is_refused():
    opened = delivered("$name.opened", SUBJECT, 1, title="a title")
    with pytest.raises(NotTaken):
        closings.project(closings.keys(opened)[0], None, opened)
''',
    },
    edits=(
        Edit(f"{SOURCE}/views/__init__.py", "(${name}s.VIEW,)", "(${name}s.VIEW, closings.VIEW)"),
        imported("views/__init__.py", "from $name.views import closings"),
    ),
)

QUESTION = Recipe(
    heading="Add a question",
    files={
        f"{SERVICE}/tests/test_closing_shown.py": '''"""Who asks how a $name ended is told the outcome, and its remark masked."""

from uuid import UUID

from chassis.clock import SystemClock
from chassis.read.generations import Generations, ViewReader
from $name.queries import Queries
from $name.views import VIEWS, closings

from tests.support.fixtures import delivered
from tests.support.generations import shown_generation

SUBJECT = UUID(int=7)
CLOCK = SystemClock()


async def test_a_remark_is_shown_masked_and_what_is_not_closed_has_no_closing(mongo, key_ring):
    generation = await shown_generation(Generations(mongo, closings.VIEW, "$name", CLOCK))
    closed = delivered("$name.closed", SUBJECT, 2, ring=key_ring, outcome="answered", remark="by phone")
    [key] = closings.keys(closed)
    document = {"_id": key.id, "_seq": 2, **closings.project(key, None, closed)}
    await mongo.insert_new(generation.prefix + closings.COLLECTION, document)
    queries = Queries(mongo, ViewReader(mongo, CLOCK, VIEWS), key_ring)
    shown = await queries.closing(SUBJECT)
    assert (shown["outcome"], shown["remark"]) == ("answered", "***")
    assert await queries.closing(UUID(int=8)) is None
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/views/closings.py",
            "(Collection(COLLECTION, insert_only=True),)",
            '(Collection(COLLECTION, (Index((("${name}_id", 1),)),), insert_only=True),)',
        ),
        Edit(
            f"{SOURCE}/views/closings.py",
            "import Collection, Delivered, DocumentKey, View",
            "import Collection, Delivered, DocumentKey, Index, View",
        ),
        Edit(
            f"{SOURCE}/queries.py",
            "    async def _collection(self) -> str:",
            '''    async def closing(self, subject: UUID) -> Document | None:
        """How a $name ended, with its remark masked; None where it was not closed."""
        collection = await self.views.collection(closings.VIEW.name, closings.COLLECTION)
        found = await self.mongo.find(collection, {"${name}_id": str(subject)}, limit=1)
        if not found:
            return None
        [document], keys = found, await keys_of(self.ring, [subject])
        remark = keys.masked(
            document["remark"], masked_text, context=CONTEXT, subject=subject, field="remark"
        )
        return {**document, "remark": remark}

    async def _collection(self) -> str:''',
        ),
        Edit(
            f"{SOURCE}/queries.py",
            "from $name.views import ${name}s",
            "from $name.views import closings, ${name}s",
        ),
        Edit(
            f"{SOURCE}/domain/$name.py",
            "class Open${Name}(msgspec.Struct",
            '''class ${Name}NotClosed(Refusal):
    """The $name has not ended."""

    code: ClassVar[str] = "$name-not-closed"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The $name has not ended"
    title_zh: ClassVar[str] = "该对象尚未关闭"


class Open${Name}(msgspec.Struct''',
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    ${Name}NotOpened,\n    decide,\n",
            "    ${Name}NotClosed,\n    ${Name}NotOpened,\n    decide,\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    async def shown(self, subject: UUID)",
            '''    async def closing(self, subject: UUID) -> Document:
        """How a $name ended; raises ${Name}NotClosed."""
        found = await self.queries.closing(subject)
        if found is None:
            raise ${Name}NotClosed
        return found

    async def shown(self, subject: UUID)''',
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "class ${Name}Page(",
            '''class ClosingShown(BaseModel):
    """How a $name ended. Its remark is personal: it is shown masked."""

    outcome: Literal["answered", "withdrawn"]
    remark: str | None


class ${Name}Page(''',
        ),
        Edit(
            f"{SOURCE}/api.py",
            '    @router.get("/${name}s", dependencies=asking)\n',
            '''    @router.get(
        "/${name}s/{${name}_id}/closing", dependencies=asking, responses=refusals(${Name}NotClosed)
    )
    async def get_${name}_closing(${name}_id: SubjectPath) -> ClosingShown:
        """How the $name ended."""
        found = await service.closing(${name}_id)
        return ClosingShown(outcome=found["outcome"], remark=found["remark"])

    @router.get("/${name}s", dependencies=asking)
''',
        ),
        imported(
            "api.py",
            "from $name.domain.$name import ${Name}NotClosed",
            "from $name.shapes import ClosingShown",
        ),
        allowed("get_${name}_closing"),
    ),
)

POLICY = Recipe(
    heading="Add a policy",
    files={
        f"{SOURCE}/policies/when_${{name}}_closed_then_acknowledge_it.py": '''"""When a $name is closed, then it was seen: it is acknowledged."""

from dataclasses import dataclass
from typing import Final

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from contracts.topics import EVENTS

from $name.application import Handler
from $name.connections import WriteSide
from $name.domain.$name import Acknowledge${Name}

NAME: Final = "when_${name}_closed_then_acknowledge_it"
EVENT: Final = "$name.closed"


@dataclass(frozen=True, slots=True)
class AcknowledgeClosed:
    """The policy, with what it needs."""

    handler: Handler
    clock: Clock

    async def __call__(self, event: Delivered) -> None:
        """Acknowledges the $name. A second call changes nothing, because the command has its outcome already."""
        context = command_of(event, NAME, event.subject, self.clock)
        await self.handler.handle(event.subject, Acknowledge${Name}(), context)


def _reaction(write: WriteSide) -> Reaction:
    return Reaction(AcknowledgeClosed(write.handler, write.clock))


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(EVENTS["$name"].name,),
    events=frozenset({EVENT}),
    starts="now",
    reaction=_reaction,
)
''',
        f"{SERVICE}/tests/test_closed_policy.py": '''"""When a $name is closed, then it is acknowledged, once, by a command whose id follows from the event."""

from uuid import UUID

from chassis.clock import SystemClock
from chassis.write.deciding import CommandContext
from $name.domain.$name import Close${Name}, Open${Name}
from $name.policies import POLICIES
from $name.policies.when_${name}_closed_then_acknowledge_it import POLICY, AcknowledgeClosed

from tests.support.fixtures import AT, delivered

SUBJECT = UUID(int=7)


async def test_it_is_acknowledged_once(handler):
    for number, command in enumerate([Open${Name}("a title"), Close${Name}("answered")], 1):
        context = CommandContext(actor="staff:lin", now=AT, command_id=UUID(int=number))
        await handler.handle(SUBJECT, command, context)
    react = AcknowledgeClosed(handler, SystemClock())
    for _ in range(2):
        await react(delivered("$name.closed", SUBJECT, 2, outcome="answered"))
    loaded = await handler.load(SUBJECT)
    assert (loaded.version, loaded.state.acknowledged) == (3, True)
    assert POLICY in POLICIES
''',
    },
    edits=with_policy("when_${name}_closed_then_acknowledge_it", "closed"),
)
