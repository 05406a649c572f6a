"""Recipes of what a service does by itself."""

from tests.architecture.recipes.recipe import (
    SERVICE,
    SOURCE,
    Edit,
    Recipe,
    allowed,
    examples,
    imported,
    role,
    stored,
    with_policy,
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

SAGA = Recipe(
    heading="Add a saga",
    files={
        f"{SOURCE}/sagas.py": '''"""The sagas of $name. What is opened is acknowledged; where that is refused, the saga ends as compensated."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, assert_never
from uuid import UUID

import msgspec
from chassis.clock import Clock
from chassis.sagas import (
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    LocalPeer,
    Move,
    Opened,
    Refused,
    Request,
    Saga,
    Sagas,
    Started,
    TimedOut,
    peers_of,
    saga_handler,
)
from chassis.sagas.running import Handler as SagaHandler
from chassis.write.deciding import CommandContext

from $name.catalogue import CONTEXT, catalogue
from $name.connections import WriteSide, write_side
from $name.domain.$name import Acknowledge${Name}
from $name.settings import ${Name}Settings

SEE: Final = "see-$name"


class Seeing(msgspec.Struct, frozen=True):
    """What is to be seen."""

    subject: str = ""


def evolve(seeing: Seeing, came: Came) -> Seeing:
    """The state after what came."""
    match came:
        case Started(data):
            return Seeing(data["subject"])
        case Answered() | Refused() | Heard() | TimedOut():
            return seeing
        case _:
            assert_never(came)


def decide(seeing: Seeing, came: Came) -> Sequence[Move]:
    """What follows."""
    match came:
        case Started():
            return [Give("acknowledge", CONTEXT, Request.of("acknowledge", subject=seeing.subject))]
        case Answered():
            return [End("seen")]
        case Refused(_, code):
            return [Compensate(code)]
        case Heard():
            return []
        case TimedOut():
            return [Compensate("timed-out")]
        case _:
            assert_never(came)


KINDS: Final = (Saga(SEE, Seeing(), evolve, decide, timedelta(days=1)),)


class _Own(msgspec.Struct):
    subject: UUID


def handler_of(write: WriteSide) -> SagaHandler:
    """The command handler of the sagas of this context."""
    return saga_handler(write.store, catalogue(), write.ring, KINDS)


def own_commands(write: WriteSide) -> LocalPeer:
    """This context, as a peer of its sagas."""

    async def carry_out(request: Request, context: CommandContext) -> Any:
        said = msgspec.json.decode(request.body, type=_Own)
        return await write.handler.handle(said.subject, Acknowledge${Name}(), context)

    return LocalPeer(carry_out)


@asynccontextmanager
async def opened(settings: ${Name}Settings, clock: Clock) -> AsyncIterator[Opened]:
    """Opens what the commands of the sagas are given to."""
    async with write_side(settings, clock) as write, peers_of(settings, CONTEXT, clock) as peers:
        own = {CONTEXT: own_commands(write)}
        yield Opened(Sagas(write.store, handler_of(write), clock, {**peers, **own}), write.store)
''',
        f"{SOURCE}/policies/when_${{name}}_opened_then_start_saga.py": '''"""When a $name is opened, then the saga starts that has it seen."""

from dataclasses import dataclass
from typing import Final

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from chassis.sagas import Sagas
from contracts.topics import EVENTS

from $name.connections import WriteSide
from $name.sagas import SEE, handler_of

NAME: Final = "when_${name}_opened_then_start_saga"
EVENT: Final = "$name.opened"


@dataclass(frozen=True, slots=True)
class StartSaga:
    """The policy, with what it needs. The saga has the id of the event."""

    sagas: Sagas
    clock: Clock

    async def __call__(self, event: Delivered) -> None:
        """Starts the saga. A second call changes nothing."""
        context = command_of(event, NAME, event.id, self.clock)
        await self.sagas.start(SEE, event.id, {"subject": str(event.subject)}, context)


def _reaction(write: WriteSide) -> Reaction:
    return Reaction(StartSaga(Sagas(write.store, handler_of(write), write.clock), write.clock))


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(EVENTS["$name"].name,),
    events=frozenset({EVENT}),
    starts="beginning",
    reaction=_reaction,
)
''',
        f"{SERVICE}/tests/test_sagas.py": '''"""What is opened is acknowledged by the saga, once."""

from uuid import UUID

from chassis.clock import SystemClock
from chassis.sagas import Sagas
from chassis.write.deciding import CommandContext
from $name.catalogue import CONTEXT
from $name.connections import WriteSide
from $name.domain.$name import Open${Name}
from $name.policies.when_${name}_opened_then_start_saga import StartSaga
from $name.sagas import handler_of, own_commands

from tests.support.fixtures import AT, delivered

SUBJECT = UUID(int=7)
CLOCK = SystemClock()


async def test_what_is_opened_is_acknowledged_by_the_saga_once(store, handler, key_ring):
    write = WriteSide(store, key_ring, handler, CLOCK)
    sagas = Sagas(store, handler_of(write), CLOCK, {CONTEXT: own_commands(write)})
    event = delivered("$name.opened", SUBJECT, title="a title")
    for _ in range(2):
        await StartSaga(sagas, CLOCK)(event)
    opened = CommandContext(actor="staff:lin", now=AT, command_id=UUID(int=1))
    await handler.handle(SUBJECT, Open${Name}("a title"), opened)
    for _ in range(2):
        state, _ = await sagas.advance(event.id)
    assert (state.status, (await handler.load(SUBJECT)).state.acknowledged) == ("ended", True)


async def test_a_saga_of_what_was_never_opened_is_compensated(store, handler, key_ring):
    write = WriteSide(store, key_ring, handler, CLOCK)
    sagas = Sagas(store, handler_of(write), CLOCK, {CONTEXT: own_commands(write)})
    event = delivered("$name.opened", SUBJECT, title="a title")
    await StartSaga(sagas, CLOCK)(event)
    state, _ = await sagas.advance(event.id)
    assert (state.status, state.because) == ("ended", "$name-not-opened")
''',
    },
    edits=(
        *stored("SAGAS", "chassis.sagas"),
        *with_policy("when_${name}_opened_then_start_saga", "seeing"),
        role(
            "sagas",
            "SagasRole(SERVICE_NAME, CONTEXT, SCHEMA, partial(open_sagas, settings), settings)",
        ),
        imported(
            "bootstrap.py",
            "from chassis.sagas import SagasRole",
            "from $name.sagas import opened as open_sagas",
        ),
        Edit(f"{SOURCE}/timers.py", "return (UNSEEN,)", "return UNSEEN, TIMEOUT"),
        Edit(
            f"{SOURCE}/timers.py",
            "given_by(write.handler, command))]",
            "given_by(write.handler, command)), saga_timer(handler_of(write))]",
        ),
        imported(
            "timers.py",
            "from chassis.sagas import TIMEOUT, saga_timer",
            "from $name.sagas import handler_of",
        ),
        Edit(
            f"{SOURCE}/application.py",
            '        object.__setattr__(self, "bulk", many)\n',
            """        object.__setattr__(self, "bulk", many)
        handler = saga_handler(self.store, self.catalogue, self.handler.keys, ())
        object.__setattr__(self, "sagas", Sagas(self.store, handler, self.clock))
""",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    bulk: Bulk = field(init=False)\n",
            "    bulk: Bulk = field(init=False)\n    sagas: Sagas = field(init=False)\n",
        ),
        imported("application.py", "from chassis.sagas import Sagas, saga_handler"),
        Edit(
            f"{SOURCE}/api.py",
            "    _add_questions(router, service, dependencies)\n",
            "    _add_questions(router, service, dependencies)\n"
            "    add_sagas(router, lambda: service.sagas, CONTEXT)\n",
        ),
        imported(
            "api.py",
            "from chassis.sagas.routes import EXAMPLES as SAGA_EXAMPLES",
            "from chassis.sagas.routes import add_sagas",
        ),
        examples("SAGA_EXAMPLES"),
        allowed("list_${name}_sagas", "get_${name}_saga"),
    ),
)

NOTICE = Recipe(
    heading="Tell somebody something",
    files={
        f"{SOURCE}/notices.py": '''"""The texts that staff are told. Raise the version of a template with every change of its text."""

from typing import Final

from chassis.notices import Template

OPENED: Final = Template(
    "$name-opened", 1, "inbox", "有一项新事项：$${number}。", {"number": 36}, title="新事项"
)
TEMPLATES: Final = (OPENED,)
''',
        f"{SOURCE}/policies/when_${{name}}_opened_then_tell_it.py": '''"""When a $name is opened, then those who look after it are told in their inbox."""

from dataclasses import dataclass
from typing import Final
from uuid import uuid5

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.notices import Notices, Wanted, of_role
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from contracts.roles import RELATIONSHIP_MANAGER
from contracts.topics import EVENTS

from $name.connections import WriteSide, notices_of
from $name.notices import OPENED

NAME: Final = "when_${name}_opened_then_tell_it"
EVENT: Final = "$name.opened"


@dataclass(frozen=True, slots=True)
class Tell:
    """The policy, with what it needs."""

    notices: Notices
    clock: Clock

    async def __call__(self, event: Delivered) -> None:
        """Requests the notice. A second call changes nothing, because its id follows from the event."""
        id, values = uuid5(event.id, OPENED.name), {"number": str(event.subject)}
        wanted = Wanted(event.subject, of_role(RELATIONSHIP_MANAGER), OPENED.name, values)
        await self.notices.request(id, wanted, command_of(event, NAME, id, self.clock))


def _reaction(write: WriteSide) -> Reaction:
    return Reaction(Tell(notices_of(write), write.clock))


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(EVENTS["$name"].name,),
    events=frozenset({EVENT}),
    starts="now",
    reaction=_reaction,
)
''',
        f"{SERVICE}/tests/test_notices.py": '''"""Who looks after it is told of what was opened, once."""

from uuid import UUID

from chassis.clock import SystemClock
from $name.catalogue import catalogue
from $name.connections import WriteSide, notices_of
from $name.policies.when_${name}_opened_then_tell_it import Tell

from tests.support.fixtures import delivered

SUBJECT = UUID(int=7)
CLOCK = SystemClock()


async def test_what_was_opened_is_told_once(store, handler, key_ring):
    notices = notices_of(WriteSide(store, key_ring, handler, CLOCK))
    event = delivered("$name.opened", SUBJECT, title="a title")
    for _ in range(2):
        await Tell(notices, CLOCK)(event)
    [one] = await store.read_after(0)
    requested = catalogue().decode(one).event
    message = await notices.message(one.stream_id, requested)
    assert (requested.inbox, str(SUBJECT) in message.text) == ("role:relationship-manager", True)
''',
    },
    edits=(
        *stored("NOTICES", "chassis.notices"),
        *with_policy("when_${name}_opened_then_tell_it", "telling"),
        Edit(f"{SOURCE}/settings.py", "FilesSettings):", "FilesSettings, NoticeSettings):"),
        Edit(
            f"{SOURCE}/settings.py",
            "from chassis.calendar.settings",
            "from chassis.notices import NoticeSettings\nfrom chassis.calendar.settings",
        ),
        role(
            "notices",
            "NoticesRole(SERVICE_NAME, CONTEXT, SCHEMA, partial(opened_notices, settings), settings)",
        ),
        imported(
            "bootstrap.py",
            "from chassis.notices import NoticesRole",
            "from $name.connections import opened_notices",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "@asynccontextmanager\nasync def both_sides",
            '''def notices_of(write: WriteSide) -> Notices:
    """The notices of this context."""
    return Notices(write.store, catalogue(), write.ring, TEMPLATES)


@asynccontextmanager
async def opened_notices(settings: ${Name}Settings, clock: Clock) -> AsyncIterator[Opened]:
    """The notices as the role has them that hands them over."""
    async with write_side(settings, clock) as write:
        yield Opened(notices_of(write), write.store, catalogue())


@asynccontextmanager
async def both_sides''',
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "        try:\n            yield BothSides(replace(service, keeper=keeper)",
            """        inbox = InboxTable(settings.postgres_url, SCHEMA)
        inboxes = Inboxes(notices_of(write), inbox, receipt_secrets(settings), clock)
        try:
            yield BothSides(replace(service, keeper=keeper, inboxes=inboxes)""",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "            await storage.close()\n",
            "            await storage.close()\n            await inbox.close()\n",
        ),
        imported(
            "connections.py",
            "from chassis.notices import Inboxes, InboxTable, Notices, Opened, receipt_secrets",
            "from $name.notices import TEMPLATES",
        ),
        Edit(
            f"{SOURCE}/application.py",
            "    keeper: FileKeeper | None = None\n",
            "    keeper: FileKeeper | None = None\n    inboxes: Inboxes | None = None\n",
        ),
        imported("application.py", "from chassis.notices import Inboxes"),
        Edit(
            f"{SOURCE}/api.py",
            "    add_sagas(router",
            "    add_notices(router, lambda: _inboxes_of(service), dependencies, CONTEXT)\n    add_sagas(router",
        ),
        Edit(
            f"{SOURCE}/api.py",
            "\n\ndef _done(",
            """

def _inboxes_of(service: ${Name}Service) -> Inboxes:
    if service.inboxes is None:
        raise TypeError("this process serves no inboxes")
    return service.inboxes


def _done(""",
        ),
        imported(
            "api.py",
            "from chassis.notices import Inboxes",
            "from chassis.notices.routes import EXAMPLES as NOTICE_EXAMPLES",
            "from chassis.notices.routes import add_notices",
        ),
        examples("NOTICE_EXAMPLES"),
        allowed("list_${name}_inbox", "count_${name}_inbox", commands=("read_${name}_notice",)),
        allowed("receive_${name}_receipt", roles="frozenset({SERVICE})"),
        Edit(
            f"{SOURCE}/permissions.py",
            "RELATIONSHIP_MANAGER, TELLER\n",
            "RELATIONSHIP_MANAGER, SERVICE, TELLER\n",
        ),
    ),
)

_SERVICE_OPENED = """
        async def caught_up(position: int) -> bool:
            return await views.wait_for(CONTEXT, position, 0.0)

        queries = Queries(mongo, views, write.ring)
        hub = Hub(WATCHED, views, clock, partial(settings.business_date, clock))
        today = partial(settings.business_date, clock)
        reader = Reader(LISTING, mongo, views, Cursors(write.ring.secret), today)
        service = ${Name}Service(write.handler, write.store, queries, caught_up, catalogue(), clock, hub, reader)
"""
_SERVICE_MADE = '''def service_of(settings: ${Name}Settings, write: WriteSide, mongo: Mongo, views: ViewReader) -> ${Name}Service:
    """The application service, with what every process of it has."""

    async def caught_up(position: int) -> bool:
        return await views.wait_for(CONTEXT, position, 0.0)

    clock = write.clock
    queries = Queries(mongo, views, write.ring)
    today = partial(settings.business_date, clock)
    hub = Hub(WATCHED, views, clock, today)
    reader = Reader(LISTING, mongo, views, Cursors(write.ring.secret), today)
    return ${Name}Service(write.handler, write.store, queries, caught_up, catalogue(), clock, hub, reader)


@asynccontextmanager
async def timers_side(
    settings: ${Name}Settings, clock: Clock
) -> AsyncIterator[tuple[${Name}Service, WriteSide]]:
    """The application service as timers have it: without files and inboxes."""
    async with (
        write_side(settings, clock) as write,
        opened_views(settings, VIEWS, clock, DERIVED) as (mongo, views),
    ):
        yield service_of(settings, write, mongo, views), write


'''

WAITING = Recipe(
    heading="Make a command need two persons",
    files={
        f"{SERVICE}/tests/test_telling.py": '''"""Who may approve a proposal is told of it in the inbox, once, and not where it was decided on."""

from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.proposals.expiring import expiring_timer
from chassis.proposals.telling import waiting_timer
from chassis.timers import Due, SetTimer, WithdrawTimer
from chassis.write.deciding import CommandContext
from chassis.write.events import event_id
from $name.application import ${Name}Service
from $name.catalogue import catalogue
from $name.connections import WriteSide, notices_of
from $name.domain.$name import Open${Name}
from $name.notices import PROPOSED
from $name.permissions import APPROVERS
from $name.settings import ${Name}Settings
from $name.timers import rules

from tests.support.fixtures import AT

SUBJECT = UUID(int=1)
CLOCK = SystemClock()


def by(actor, number):
    return CommandContext(actor=actor, now=AT, command_id=UUID(int=number), reason="it was seen")


@pytest.fixture
async def proposal(store, handler):
    service = ${Name}Service(handler, store, None, None, catalogue(), CLOCK, None, None)
    await handler.handle(SUBJECT, Open${Name}("a title"), by("lin", 1))
    return service, await service.propose(SUBJECT, by("lin", 2))


async def test_who_may_approve_is_told_once(proposal, store, handler, key_ring):
    service, shown = proposal
    notices = notices_of(WriteSide(store, key_ring, handler, CLOCK))
    timer = waiting_timer(service.eyes.kinds, notices, PROPOSED)
    [made] = await store.read_stream(shown.proposal_id)
    [setting] = timer.changes(catalogue().decode(made))
    due = Due(timer.name, shown.proposal_id, "", event_id(shown.proposal_id, 1), 1, AT, setting.data)
    for _ in range(2):
        await timer.give(due, due.context(AT), 1)
    told = [one for one in await store.read_after(0) if one.name == "notice-requested"]
    messages = [await notices.message(one.stream_id, catalogue().decode(one).event) for one in told]
    inboxes = {catalogue().decode(one).event.inbox for one in told}
    assert (len(told), inboxes) == (len(APPROVERS), {f"role:{role}" for role in APPROVERS})
    assert all(str(shown.proposal_id) in one.text for one in messages)


@pytest.mark.parametrize("name", ["proposal-waits", "proposal-expires"])
async def test_the_rule_of_the_service_withdraws_it_where_somebody_decided(proposal, store, name):
    service, shown = proposal
    await service.eyes.reject(shown.proposal_id, by("chen", 3), APPROVERS)
    [rule] = [one for one in rules(${Name}Settings()) if one.name == name]
    found = [rule.changes(catalogue().decode(one)) for one in await store.read_stream(shown.proposal_id)]
    assert [type(each) for [each] in found] == [SetTimer, WithdrawTimer]


async def test_a_proposal_on_which_nobody_decides_expires_once(proposal, store):
    service, shown = proposal
    timer = expiring_timer(service.eyes)
    [made] = await store.read_stream(shown.proposal_id)
    [setting] = timer.changes(catalogue().decode(made))
    assert setting == SetTimer(shown.expires_at)
    due = Due(timer.name, shown.proposal_id, "", event_id(shown.proposal_id, 1), 1, setting.due_at, {})
    for _ in range(2):
        await timer.give(due, due.context(setting.due_at), 1)
    names = [one.name for one in await store.read_stream(shown.proposal_id)]
    assert names == ["proposal-made", "proposal-expired"]
'''
    },
    edits=(
        Edit(
            f"{SOURCE}/notices.py",
            "TEMPLATES: Final = (OPENED,)",
            """PROPOSED: Final = Template(
    "proposal-waits",
    1,
    "inbox",
    "有一项提议等待复核：$${what}。提议编号：$${proposal}。",
    {"what": 20, "proposal": 36},
    title="待复核的提议",
)
TEMPLATES: Final = (OPENED, PROPOSED)""",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            _SERVICE_OPENED,
            "        service = service_of(settings, write, mongo, views)\n",
        ),
        Edit(
            f"{SOURCE}/connections.py",
            "@asynccontextmanager\nasync def both_sides",
            f"{_SERVICE_MADE}@asynccontextmanager\nasync def both_sides",
        ),
        Edit(
            f"{SOURCE}/timers.py",
            "return UNSEEN, TIMEOUT",
            "return UNSEEN, TIMEOUT, PROPOSAL_WAITS, PROPOSAL_EXPIRES",
        ),
        Edit(
            f"{SOURCE}/timers.py",
            "    async with write_side(settings, clock) as write:\n",
            "    async with timers_side(settings, clock) as (service, write):\n"
            "        telling = waiting_timer(service.eyes.kinds, notices_of(write), PROPOSED)\n",
        ),
        Edit(
            f"{SOURCE}/timers.py",
            "saga_timer(handler_of(write))]",
            "saga_timer(handler_of(write)), telling, expiring_timer(service.eyes)]",
        ),
        Edit(
            f"{SOURCE}/timers.py",
            "from $name.connections import write_side",
            "from $name.connections import notices_of, timers_side",
        ),
        imported(
            "timers.py",
            "from chassis.proposals.expiring import PROPOSAL_EXPIRES, expiring_timer",
            "from chassis.proposals.telling import PROPOSAL_WAITS, waiting_timer",
            "from $name.notices import PROPOSED",
        ),
    ),
)
"""Its last step, for a service that has timers and notices."""
