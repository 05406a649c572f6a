"""Recipes of the read side."""

from tests.architecture.recipes.recipe import SERVICE, SOURCE, Edit, Recipe, allowed, examples, imported

DERIVED = Recipe(
    heading="Add a derived view",
    files={
        f"{SOURCE}/derived/__init__.py": '''"""The derived views of $name: functions of the documents of its views."""

from typing import Final

from $name.derived import titles

DERIVED: Final = (titles.VIEW,)
"""The derived views of this service."""
''',
        f"{SOURCE}/derived/titles.py": '''"""The derived view `titles`: the title of each, and how many have it, summed in buckets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from chassis.read.deriving import DerivedView, Inputs, Touched
from chassis.read.documents import Document, DocumentId
from chassis.read.projecting import Collection
from chassis.read.summing import Sums

from $name.views import ${name}s

_VIEW: Final = ${name}s.VIEW.name
TITLES: Final = "titles"
BUCKETS: Final = 64


async def depending(inputs: Inputs, touched: Touched) -> Iterable[DocumentId]:
    """What changed."""
    return touched.get((_VIEW, ${name}s.COLLECTION), ())


async def derive(inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
    """The title of each, and whether it was seen."""
    found = await inputs.by_id(_VIEW, ${name}s.COLLECTION, ids)
    return {id: {"title": one["title"], "acknowledged": one["acknowledged"]} for id, one in found.items()}


async def everything(inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
    """All of them."""
    return await inputs.ids(_VIEW, ${name}s.COLLECTION, after, limit)


def _summands(document: Document) -> Iterable[tuple[str, Mapping[str, int]]]:
    yield document["title"], {"opened": 1, "acknowledged": int(document["acknowledged"])}


SUMS: Final = Sums("totals", BUCKETS, ("title", "acknowledged"), _summands)
"""How many have each title, and how many of these were seen."""

VIEW: Final = DerivedView(
    name=TITLES,
    version=1,
    inputs=(${name}s.VIEW,),
    collection=Collection(TITLES),
    depending=depending,
    derive=derive,
    everything=everything,
    sums=SUMS,
)
''',
        f"{SERVICE}/tests/test_derived.py": '''"""Titles are counted over all documents of the view."""

from datetime import date
from uuid import UUID

from chassis.clock import SystemClock
from chassis.read.deriving import Deriver, InputGeneration, MongoInputs
from chassis.read.mongo import MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.read.summing import add_stored, no_totals
from $name.derived import titles
from $name.views import ${name}s

PREFIX = "${name}s_v1_"


async def still():
    return True


async def test_a_title_counts_what_has_it_and_what_of_that_was_seen(mongo):
    generation = InputGeneration(${name}s.VIEW, PREFIX, "test.${name}s.v1")
    inputs = MongoInputs(mongo, [generation], lambda: date(2026, 1, 5))
    shown = [("a", True), ("a", False), ("b", False)]
    ids = [str(UUID(int=number)) for number in range(len(shown))]
    for id, (title, acknowledged) in zip(ids, shown, strict=True):
        document = {"_id": id, "_seq": 1, "title": title, "acknowledged": acknowledged}
        await mongo.insert_new(PREFIX + ${name}s.COLLECTION, document)
    assert await titles.everything(inputs, None, 10) == ids
    assert set(await titles.depending(inputs, {("${name}s", "${name}s"): ids[:2]})) == set(ids[:2])
    documents = MongoDocuments(mongo, "titles_v1_")
    checkpoints = MongoCheckpoints(mongo, "test.titles.v1", titles.TITLES)
    deriver = Deriver(titles.VIEW, documents, checkpoints, inputs, SystemClock())
    await deriver.derive(ids)
    await deriver.summing.sum_marked(still)
    totals = no_totals()
    for bucket in await mongo.find("titles_v1_totals"):
        add_stored(totals, bucket)
    assert totals == {"a": {"opened": 2, "acknowledged": 1}, "b": {"opened": 1}}
''',
    },
    edits=(
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

from tests.support.generations import shown_generation

CLOCK = SystemClock()


async def told(watcher, event):
    async with asyncio.timeout(30):
        while (sent := watcher.next()) is None:
            await CLOCK.sleep(0.02)
    assert sent.event == event
    return sent.data


async def test_a_change_is_told(mongo):
    generation = await shown_generation(Generations(mongo, ${name}s.VIEW, "$name", CLOCK))
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
            "        hub = Hub(WATCHED, views, clock, partial(settings.business_date, clock))\n        service = ",
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
            '    "list_${name}s": Rights(_SERVING, WHOLE),\n',
            '    "list_${name}s": Rights(_SERVING, WHOLE),\n    "watch_${name}s": Rights(_SERVING, WHOLE),\n',
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

LIST = Recipe(
    heading="Add a list",
    files={
        f"{SOURCE}/lists.py": '''"""The list of ${name}s, and which of them a caller may see."""

from typing import Final

from chassis.conditions import DataClass, Field, Fields, Label, Type
from chassis.conditions.language import IsAmong
from chassis.lists import Listing, Scope
from chassis.lists.describing import AskedList
from chassis.privacy.tokens import Caller
from contracts.roles import ADMINISTRATOR, RELATIONSHIP_MANAGER

LISTING: Final = Listing(
    name="${name}s",
    view="${name}s",
    collection="${name}s",
    fields=Fields([Field("title", Type.CHOICE, Label("标题", "title"), "title", DataClass.INTERNAL)]),
    sorts=("title",),
)
ASKED: Final = (AskedList(LISTING, ("select_${name}s",), {}),)


def scope_of(caller: Caller) -> Scope:
    """A teller sees what came up at the counter, the others see all."""
    if caller.roles & {ADMINISTRATOR, RELATIONSHIP_MANAGER}:
        return Scope.all()
    return Scope.where(IsAmong(field="title", values=("counter",)))
''',
        f"{SERVICE}/tests/test_lists.py": '''"""A caller finds what is in its scope, filtered and sorted."""

from datetime import date

from chassis.clock import SystemClock
from chassis.lists import Cursors, Reader, question
from chassis.privacy.tokens import Caller
from chassis.read.generations import Generations, ViewReader
from contracts.roles import ADMINISTRATOR, TELLER
from $name.lists import LISTING, scope_of
from $name.views import VIEWS, ${name}s

from tests.support.generations import shown_generation

CLOCK = SystemClock()


async def test_a_caller_finds_what_is_in_its_scope(mongo, key_ring):
    generation = await shown_generation(Generations(mongo, ${name}s.VIEW, "$name", CLOCK))
    for id, title in (("a", "counter"), ("b", "phone"), ("c", "branch")):
        document = {"_id": id, "_seq": 1, "title": title}
        await mongo.insert_new(generation.prefix + ${name}s.COLLECTION, document)
    cursors = Cursors(key_ring.secret)
    reader = Reader(LISTING, mongo, ViewReader(mongo, CLOCK, VIEWS), cursors, lambda: date(2026, 1, 5))
    all_of_it = scope_of(Caller("lin", roles=frozenset({ADMINISTRATOR})))
    counter = scope_of(Caller("wu", roles=frozenset({TELLER})))
    asked = question(LISTING, frozenset(), "title is (counter, phone)", "-title")
    found = [await reader.page(scope, asked, "lin", limit=9) for scope in (all_of_it, counter)]
    assert [[one["_id"] for one in page.documents] for page in found] == [["b", "a"], ["a"]]
    assert [await reader.covers(counter, id) for id in ("a", "b", "z")] == [True, False, None]
''',
    },
    edits=(
        Edit(
            f"{SOURCE}/views/${{name}}s.py",
            "(Collection(COLLECTION),)",
            "(Collection(COLLECTION, LISTING.indexes),)",
        ),
        imported("views/${name}s.py", "from $name.lists import LISTING"),
        Edit(f"{SOURCE}/application.py", "    hub: Hub\n", "    hub: Hub\n    reader: Reader\n"),
        imported("application.py", "from chassis.lists import Reader"),
        Edit(f"{SERVICE}/tests/test_bulk.py", "CLOCK, None)", "CLOCK, None, None)"),
        Edit(
            f"{SOURCE}/connections.py",
            "        service = ",
            "        today = partial(settings.business_date, clock)\n"
            "        reader = Reader(LISTING, mongo, views, Cursors(write.ring.secret), today)\n        service = ",
        ),
        Edit(f"{SOURCE}/connections.py", "catalogue(), clock, hub)", "catalogue(), clock, hub, reader)"),
        imported(
            "connections.py",
            "from chassis.lists import Cursors, Reader",
            "from $name.lists import LISTING",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "    router = DescribedRouter(CONTEXT, DESCRIPTION, EXAMPLES, dependencies=[Depends(dependencies.caller)])\n",
            """
    async def within_scope(
        request: Request, caller: Annotated[Caller, Depends(dependencies.caller)]
    ) -> None:
        named = request.path_params.get("${name}_id")
        if named is not None and not await service.reader.covers(scope_of(caller), named):
            raise ${Name}NotOpened

    guards = [Depends(dependencies.caller), Depends(within_scope)]
    router = DescribedRouter(
        CONTEXT, DESCRIPTION, EXAMPLES, dependencies=guards, schemas=condition_components
    )
    add_conditions(router, ASKED, ROLES, CONTEXT)
""",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "    asking = [Depends(dependencies.at_least)]\n",
            '''    asking = [Depends(dependencies.at_least)]
    Asking = Annotated[Caller, Depends(dependencies.caller)]

    @router.get("/${name}s/selected", dependencies=asking, responses=LISTED)
    async def select_${name}s(
        caller: Asking,
        page: Paged,
        where: Filtered = None,
        sort: Sorted = None,
        as_of: AsOf = None,
        total: Totalled = False,
    ) -> SelectedPage:
        """What meets a condition, of what you may see."""
        scope, asked = scope_of(caller), question(LISTING, frozenset(), where, sort, as_of)
        found = await service.reader.page(scope, asked, caller.subject, limit=page.limit, after=page.after)
        counted = Total.of(await service.reader.count(scope, asked)) if total else None
        items = [Selected(${name}_id=one[ID], title=one["title"]) for one in found.documents]
        return SelectedPage(items=items, next=found.next, total=counted)
''',
        ),
        Edit(f"{SOURCE}/api.py", "Path, Query, Response", "Path, Query, Request, Response"),
        imported(
            "api.py",
            "from chassis.lists import question",
            "from chassis.lists.describing import EXAMPLES as CONDITION_EXAMPLES",
            "from chassis.lists.describing import add_conditions, condition_components",
            "from chassis.lists.routes import LISTED, AsOf, Filtered, Sorted, Total, Totalled",
            "from chassis.privacy.tokens import Caller",
            "from $name.lists import ASKED, LISTING, scope_of",
            "from $name.permissions import ROLES",
            "from $name.shapes import Selected, SelectedPage",
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "class ${Name}Page(",
            '''class Selected(BaseModel):
    """What is shown of a $name in the list."""

    ${name}_id: UUID
    title: str


class SelectedPage(Page[Selected]):
    """A page of the list; `total` where it was asked for."""

    total: Total | None


class ${Name}Page(''',
        ),
        Edit(
            f"{SOURCE}/shapes.py",
            "from chassis.web import",
            "from chassis.lists.routes import Total\nfrom chassis.web import",
        ),
        examples("CONDITION_EXAMPLES"),
        allowed("select_${name}s", scope='RowScope("title")'),
        allowed("get_${name}_conditions", scope='no_rows("it shows no $name")'),
        Edit(
            f"{SOURCE}/permissions.py",
            "WHOLE, Rights, roles_of",
            "WHOLE, Rights, RowScope, no_rows, roles_of",
        ),
        Edit(f"{SOURCE}/service.py", "    views=VIEWS,\n", "    views=VIEWS,\n    lists=ASKED,\n"),
        imported("service.py", "from $name.lists import ASKED"),
    ),
)
