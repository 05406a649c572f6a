"""What somebody writes who follows a recipe of CONTRIBUTING in a service that has the skeleton and nothing else.

A recipe is the files that it adds and the lines that it changes. Every `old` stands once in its file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` becomes `new` in a file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The heading of a recipe in CONTRIBUTING, and what is written for it, its test included."""

    heading: str
    files: Mapping[str, str]
    edits: tuple[Edit, ...]

    def follow(self, root: Path, name: str) -> None:
        """Writes it into the service of that name; raises ValueError where the skeleton has not what is changed."""
        values = {"name": name, "Name": name.capitalize()}
        for path, text in self.files.items():
            file = root / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(values))
        for edit in self.edits:
            file = root / Template(edit.file).substitute(values)
            text, old = file.read_text(), Template(edit.old).substitute(values)
            if text.count(old) != 1:
                raise ValueError(f"{edit.file} has {text.count(old)} times: {old}")
            file.write_text(text.replace(old, Template(edit.new).substitute(values)))


SERVICE = "services/$name"
SOURCE = f"{SERVICE}/src/$name"
CONTRACTS = "libs/contracts"

BULK = Recipe(
    heading="Add a bulk command",
    files={
        f"{SERVICE}/tests/test_bulk.py": '''"""Many are acknowledged at once, each once."""

from uuid import UUID

from chassis.bulk import following
from chassis.bulk.running import listed
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
        kind = Bulkable(Acknowledge${Name}, self.handler.handle, self._acknowledges, self.handler.prepare)
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
            '    "list_${name}s": _SERVING,\n',
            '    "list_${name}s": _SERVING,\n    "prepare_acknowledgements": _SERVING,\n'
            '    "get_${name}_bulk": _SERVING,\n    "preview_${name}_bulk": _SERVING,\n'
            '    "start_${name}_bulk": _SERVING,\n    "pause_${name}_bulk": _SERVING,\n'
            '    "undo_${name}_bulk": _SERVING,\n    "list_${name}_bulk_results": _SERVING,\n',
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
            "from chassis.bulk.running import listed\nfrom chassis.read.documents import ID, Document\n",
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

DERIVED = Recipe(
    heading="Add a derived view",
    files={
        f"{SOURCE}/derived/__init__.py": '''"""The derived views of $name: functions of the documents of its views."""

from typing import Final

from $name.derived import titles

DERIVED: Final = (titles.VIEW,)
"""The derived views of this service."""
''',
        f"{SOURCE}/derived/titles.py": '''"""The derived view `titles`: how many have a title, and how many of these were seen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from chassis.read.deriving import DerivedView, Inputs, Touched
from chassis.read.documents import Document, DocumentId
from chassis.read.projecting import Collection

from $name.views import ${name}s

_VIEW: Final = ${name}s.VIEW.name
TITLES: Final = "titles"


async def depending(inputs: Inputs, touched: Touched) -> Iterable[DocumentId]:
    """The titles of what changed. A title stays as it is."""
    ids = touched.get((_VIEW, ${name}s.COLLECTION), ())
    return {one["title"] for one in (await inputs.by_id(_VIEW, ${name}s.COLLECTION, ids)).values()}


async def derive(inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
    """The counts of these titles."""
    found: dict[DocumentId, Document] = {}
    for one in await inputs.having(_VIEW, ${name}s.COLLECTION, "title", ids):
        counts = found.setdefault(one["title"], {"opened": 0, "acknowledged": 0})
        counts["opened"] += 1
        counts["acknowledged"] += one["acknowledged"]
    return found


async def everything(inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
    """All titles, as many at once as of some ${name}s."""
    seen = await inputs.ids(_VIEW, ${name}s.COLLECTION, None, ${name}s.MANY)
    titles = {one["title"] for one in (await inputs.by_id(_VIEW, ${name}s.COLLECTION, seen)).values()}
    return sorted(title for title in titles if after is None or title > str(after))[:limit]


VIEW: Final = DerivedView(
    name=TITLES,
    version=1,
    inputs=(${name}s.VIEW,),
    collection=Collection(TITLES),
    depending=depending,
    derive=derive,
    everything=everything,
)
''',
        f"{SERVICE}/tests/test_derived.py": '''"""Titles are counted from the documents of the view."""

from datetime import date
from uuid import UUID

from chassis.read.deriving import InputGeneration, MongoInputs
from $name.derived import titles
from $name.views import ${name}s

PREFIX = "${name}s_v1_"


async def test_a_title_counts_what_has_it_and_what_of_that_was_seen(mongo):
    generation = InputGeneration(${name}s.VIEW, PREFIX, "test.${name}s.v1")
    inputs = MongoInputs(mongo, [generation], lambda: date(2026, 1, 5))
    shown = [("a", True), ("a", False), ("b", False)]
    ids = [str(UUID(int=number)) for number in range(len(shown))]
    for id, (title, acknowledged) in zip(ids, shown, strict=True):
        document = {"_id": id, "_seq": 1, "title": title, "acknowledged": acknowledged}
        await mongo.insert_new(PREFIX + ${name}s.COLLECTION, document)
    assert await titles.everything(inputs, None, 10) == ["a", "b"]
    assert set(await titles.depending(inputs, {("${name}s", "${name}s"): ids[:2]})) == {"a"}
    assert await titles.derive(inputs, ["a", "b", "c"]) == {
        "a": {"opened": 2, "acknowledged": 1},
        "b": {"opened": 1, "acknowledged": 0},
    }
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/views/${{name}}s.py",
            "(Collection(COLLECTION),)",
            '(Collection(COLLECTION, (Index((("title", 1),)),)),)',
        ),
        Edit(
            f"{SOURCE}/views/${{name}}s.py",
            "Delivered, DocumentKey, View",
            "Delivered, DocumentKey, Index, View",
        ),
        Edit(
            f"{SOURCE}/views/${{name}}s.py",
            'COLLECTION: Final = "${name}s"\n',
            'COLLECTION: Final = "${name}s"\nMANY: Final = 10_000\n',
        ),
        Edit(
            f"{SOURCE}/service.py",
            "    policies=POLICIES,\n",
            "    policies=POLICIES,\n    derived=DERIVED,\n",
        ),
        Edit(
            f"{SOURCE}/service.py",
            "from $name.permissions import",
            "from $name.derived import DERIVED\nfrom $name.permissions import",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            '        "policies": lambda',
            '        "derived": lambda: DerivedRole(SERVICE_NAME, DERIVED, settings),\n        "policies": lambda',
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from chassis.read.viewing",
            "from chassis.read.derived_following import DerivedRole\nfrom chassis.read.viewing",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from $name.policies import",
            "from $name.derived import DERIVED\nfrom $name.policies import",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "heads={CONTEXT: head, **others}",
            "heads={CONTEXT: head, **others},"
            " wait_for_derived=partial(sides.views.wait_for, views=[one.name for one in DERIVED])",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "opened_views(settings, VIEWS, clock)",
            "opened_views(settings, VIEWS, clock, DERIVED)",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "from $name.domain.$name",
            "from $name.derived import DERIVED\nfrom $name.domain.$name",
        ),
    ),
)

WATCH = Recipe(
    heading="Let callers watch a view",
    files={
        f"{SOURCE}/watching.py": '''"""What callers can watch."""

from typing import Final

from chassis.conditions import DataClass, Field, Fields, Label, Type
from chassis.watching import Watched

from $name.views import ${name}s

_TITLE: Final = Field("title", Type.CHOICE, Label("标题", "title"), "title", DataClass.INTERNAL)
WATCHED: Final = Watched(${name}s.VIEW, ${name}s.COLLECTION, Fields([_TITLE]))
''',
        f"{SERVICE}/tests/test_watching.py": '''"""Who watches is told of what changed."""

import asyncio

from chassis.read.generations import Generations, ViewReader
from chassis.clock import SystemClock
from chassis.watching import Hub, Wanted, hearing
from $name.views import VIEWS, ${name}s
from $name.watching import WATCHED

CLOCK = SystemClock()


async def told(watcher, event):
    async with asyncio.timeout(30):
        while (sent := watcher.next()) is None:
            await CLOCK.sleep(0.02)
    assert sent.event == event
    return sent.data


async def test_a_change_is_told(mongo):
    async def unused(_):
        return False

    made = Generations(mongo, ${name}s.VIEW, "$name", CLOCK)
    generation = await made.begin(unused)
    await made.prepare(generation)
    await made.switch(generation)
    hub = Hub(WATCHED, ViewReader(mongo, CLOCK, VIEWS), CLOCK, lambda: CLOCK.now().date())
    async with hearing(hub), hub.watching(Wanted(frozenset({"a"})), None, lambda: None) as watcher:
        await told(watcher, "reset")
        document = {"_id": "a", "_seq": 1, "title": "a title"}
        await mongo.insert_new(generation.prefix + ${name}s.COLLECTION, document)
        assert (await told(watcher, "changed"))["changed"] == ["a"]
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/application.py",
            "    clock: Clock\n",
            "    clock: Clock\n    hub: Hub\n",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "from chassis.write.catalogue import Catalogue\n",
            "from chassis.watching import Hub\nfrom chassis.write.catalogue import Catalogue\n",
        ),
        Edit(f"{SERVICE}/tests/test_bulk.py", "catalogue(), CLOCK)", "catalogue(), CLOCK, None)"),
        Edit(
            f"{SOURCE}/connections.py",
            "        service = ",
            "        hub = Hub(WATCHED, views, clock, partial(settings.today, clock))\n        service = ",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "catalogue(), clock)\n        yield",
            "catalogue(), clock, hub)\n        yield",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "from dataclasses import dataclass\n",
            "from dataclasses import dataclass\nfrom functools import partial\n",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "from chassis.write.handling",
            "from chassis.watching import Hub\nfrom chassis.write.handling",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "from $name.views import VIEWS\n",
            "from $name.views import VIEWS\nfrom $name.watching import WATCHED\n",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "following(sides.service.bulk, clock)",
            "following(sides.service.bulk, clock), hearing(sides.service.hub)",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from chassis.web import",
            "from chassis.watching import hearing\nfrom chassis.web import",
        ),
        Edit(
            f"{SOURCE}/permissions.py",
            '    "list_${name}s": _SERVING,\n',
            '    "list_${name}s": _SERVING,\n    "watch_${name}s": _SERVING,\n',
        ),
        Edit(
            f"{SOURCE}/api.py",
            "EXAMPLES: Final = {\n",
            "EXAMPLES: Final = {\n    **WATCHING_EXAMPLES,\n",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "from chassis.web import (\n",
            "from chassis.watching import LastEventId, Seconds, Wanted, streamed, watched\n"
            "from chassis.watching.routes import EXAMPLES as WATCHING_EXAMPLES\n"
            "from chassis.web.streams import STREAM_SECONDS_MAX, EventStream\nfrom chassis.web import (\n",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "    asking = [Depends(dependencies.at_least)]\n",
            '''    asking = [Depends(dependencies.at_least)]

    @router.get("/${name}s/changes", dependencies=asking, responses=watched(), response_class=EventStream)
    async def watch_${name}s(
        ${name}s: Annotated[list[UUID], Query(max_length=100, description="which ones")],
        seconds: Seconds = STREAM_SECONDS_MAX,
        after: LastEventId = None,
    ) -> Response:
        """Server-sent events: which of these changed."""
        return streamed(service.hub, Wanted(frozenset(map(str, ${name}s))), after, seconds)
''',
        ),
        Edit(f"{SOURCE}/api.py", "Depends, Path, Response", "Depends, Path, Query, Response"),
    ),
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

TIMER = Recipe(
    heading="Add a timer",
    files={
        f"{SOURCE}/timers.py": '''"""The timers of $name: what is done at a time that an event has set."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from chassis.clock import Clock
from chassis.timers import Change, Due, SetTimer, TimerRule, Timers, WithdrawTimer, given_by
from chassis.write.events import RecordedEvent

from $name.catalogue import catalogue
from $name.connections import write_side
from $name.domain.$name import Acknowledge${Name}
from $name.domain.events import ${Name}Acknowledged, ${Name}Opened
from $name.settings import ${Name}Settings

SEEN_WITHIN: Final = timedelta(days=1)


def changes(recorded: RecordedEvent) -> Sequence[Change]:
    """What an event sets and withdraws."""
    match recorded.event:
        case ${Name}Opened():
            return [SetTimer(recorded.metadata.effective_at + SEEN_WITHIN)]
        case ${Name}Acknowledged():
            return [WithdrawTimer()]
        case _:
            return []


UNSEEN: Final = TimerRule("$name-unseen", 1, frozenset({"$name-opened", "$name-acknowledged"}), changes)
"""What nobody has seen for a day is acknowledged."""


def command(_: Due) -> Acknowledge${Name}:
    """What is given then."""
    return Acknowledge${Name}()


def rules(_: ${Name}Settings) -> tuple[TimerRule, ...]:
    """When the timers are due."""
    return (UNSEEN,)


@asynccontextmanager
async def timers(settings: ${Name}Settings, clock: Clock) -> AsyncIterator[Timers]:
    """Opens what the commands of the timers are given to."""
    async with write_side(settings, clock) as write:
        yield Timers([UNSEEN.giving(given_by(write.handler, command))], write.store, catalogue())
''',
        f"{SERVICE}/tests/test_timers.py": '''"""What nobody has seen for a day is acknowledged, once."""

from uuid import UUID

from chassis.timers import Due, SetTimer, WithdrawTimer, given_by
from chassis.write.deciding import CommandContext
from chassis.write.events import event_id
from $name.catalogue import catalogue
from $name.domain.$name import Open${Name}
from $name.timers import SEEN_WITHIN, UNSEEN, command

from tests.support.fixtures import AT

SUBJECT = UUID(int=7)


async def changes_of(store):
    return [UNSEEN.changes(catalogue().decode(one)) for one in await store.read_stream(SUBJECT)]


async def test_it_is_acknowledged_after_a_day_once(store, handler):
    opened = CommandContext(actor="staff:lin", now=AT, command_id=UUID(int=1))
    await handler.handle(SUBJECT, Open${Name}("a title"), opened)
    due_at = AT + SEEN_WITHIN
    assert await changes_of(store) == [[SetTimer(due_at)]]
    due = Due(UNSEEN.name, SUBJECT, "", event_id(SUBJECT, 1), 1, due_at, {})
    timer = UNSEEN.giving(given_by(handler, command))
    for _ in range(2):
        await timer.give(due, due.context(due_at), 1)
    assert await changes_of(store) == [[SetTimer(due_at)], [WithdrawTimer()]]
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/settings.py",
            "from chassis.connections.settings import Settings",
            "from chassis.calendar.settings import CalendarSettings",
        ),
        Edit(f"{SOURCE}/settings.py", "Settings(Settings):", "Settings(CalendarSettings):"),
        Edit(
            f"{SOURCE}/service.py", "    policies=POLICIES,\n", "    policies=POLICIES,\n    timers=rules,\n"
        ),
        Edit(
            f"{SOURCE}/service.py",
            "from $name.views import",
            "from $name.timers import rules\nfrom $name.views import",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            '        "policies": lambda',
            '        "timers": lambda: TimersRole(\n'
            "            SERVICE_NAME, CONTEXT, SCHEMA, partial(timers, settings), settings\n        ),\n"
            '        "policies": lambda',
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from chassis.relay import",
            "from chassis.timers import TimersRole\nfrom chassis.relay import",
        ),
        Edit(
            f"{SOURCE}/bootstrap.py",
            "from $name.views import",
            "from $name.timers import timers\nfrom $name.views import",
        ),
    ),
)

RECIPES = (VERSION, BULK, DERIVED, WATCH, TIMER)
"""In this order: each is followed in what the one before left."""
