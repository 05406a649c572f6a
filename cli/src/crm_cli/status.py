"""`crm status`: positions and lag by context and by consumer group, read from the servers themselves."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
import psycopg
import typer
from chassis.clock import SystemClock
from chassis.connections.postgres import connect
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable, why
from chassis.messaging.transport import BrokerUnavailable, Partition, group_lag, held_records
from chassis.reactions.policies import CHECKPOINTS_DATABASE
from chassis.read.documents import DocumentsUnavailable
from chassis.read.generations import NotBuilt, live_generation
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import POSITIONS, parked_of, positions_of
from contracts.topics import CONSUMERS, EVENTS, ConsumerGroup
from customer.measuring import queries_without_keys, unlinked_accounts
from psycopg import sql
from sync_ingest.measuring import watched
from sync_ingest.settings import SyncIngestSettings

from crm_cli.answers import Json
from crm_cli.contexts import CONTEXTS, KEPT, SERVICE_OF, Context
from crm_cli.exits import WRONG
from crm_cli.running import ingest_settings
from crm_cli.sagas import sagas_of

OUTBOX_COUNTED_MAX: Final = 1_000_000
TIMERS_COUNTED_MAX: Final = 10_000
NOTICES_COUNTED_MAX: Final = 10_000
UNLINKED_SECONDS_MAX: Final = 10.0
"""After this long no more accounts are counted that wait for their customer."""
TIMERS_LATE_SECONDS: Final = 5.0
"""A timer that is due for so long is shown."""
NOTICES_AGE_SECONDS: Final = 300.0
"""Notices are shown where the oldest waits for so long."""
_FEED_CONTEXT: Final = "ingest"
"""The context of a group that reads no topic of events: of the feed of branch messages."""

Status = dict[str, Any]


class _Metadata(msgspec.Struct):
    recorded_at: datetime


class _Body(msgspec.Struct):
    meta: _Metadata


def context_status(url: str, context: Context, now: datetime) -> Status:
    """Returns the head of the store, the published position, and the waiting events; raises psycopg.Error."""
    names = {
        "events": sql.Identifier(context.schema, "events"),
        "relay": sql.Identifier(context.schema, "relay"),
        "leases": sql.Identifier(context.schema, "leases"),
        "unpublishable": sql.Identifier(context.schema, "unpublishable"),
        "timers": sql.Identifier(context.schema, "timers"),
        "notices": sql.Identifier(context.schema, "notices"),
    }

    def ask(
        connection: "psycopg.Connection[Any]", question: str, *values: object
    ) -> "tuple[Any, ...] | None":
        statement = sql.SQL(question).format(**names)  # type: ignore[arg-type, unused-ignore]
        return connection.execute(statement, values).fetchone()

    with connect(url) as connection:
        there = connection.execute(
            "select to_regclass(%s), to_regclass(%s), to_regclass(%s), to_regclass(%s)",
            tuple(f"{context.schema}.{table}" for table in ("events", "relay", "timers", "notices")),
        ).fetchone() or (None, None, None, None)
        head = ask(connection, "select coalesce(max(position), 0) from {events}") if there[0] else None
        relay = (
            ask(
                connection,
                "select coalesce((select epoch from {leases} where name = 'relay'), 0), position from {relay}"
                " where context = %s",
                context.name,
            )
            if there[1]
            else None
        )
        epoch, published = relay or (0, 0)
        held = (ask(connection, "select count(*) from {unpublishable}") if there[1] else None) or (0,)
        timers = _timers(partial(ask, connection), now) if there[2] else {}
        notices = _notices(partial(ask, connection), now) if there[3] else {}
        waiting = (0,)
        oldest = None
        if head:
            waiting = ask(
                connection,
                "select count(*) from (select from {events} where position > %s limit %s) as w",
                published,
                OUTBOX_COUNTED_MAX,
            ) or (0,)
            oldest = ask(
                connection,
                "select body from {events} where position > %s order by position limit 1",
                published,
            )
    age = 0.0
    if oldest is not None:
        age = (now - msgspec.json.decode(oldest[0], type=_Body).meta.recorded_at).total_seconds()
    return {
        "head": head[0] if head else 0,
        "published": published,
        "epoch": epoch,
        "outbox": waiting[0],
        "unpublishable": held[0],
        "outbox_age_seconds": round(max(0.0, age), 3),
        "timers": timers,
        "notices": notices,
    }


def _timers(ask: Callable[..., "tuple[Any, ...] | None"], now: datetime) -> Status:
    """The timers whose time has come, since when, and those that failed; at most `TIMERS_COUNTED_MAX` of each."""
    due, first = ask(
        "select count(*), min(run_at) from (select run_at from {timers} where run_at <= %s order by run_at limit %s) as d",
        now,
        TIMERS_COUNTED_MAX,
    ) or (0, None)
    failed = ask(
        "select count(*) from (select from {timers} where outcome like 'failed:%%' limit %s) as f",
        TIMERS_COUNTED_MAX,
    ) or (0,)
    late_seconds = 0.0 if first is None else (now - first).total_seconds()
    return {"due": due, "late_seconds": round(late_seconds, 3), "failed": failed[0]}


def _notices(ask: Callable[..., "tuple[Any, ...] | None"], now: datetime) -> Status:
    """The notices that no provider has yet, and how old the oldest is; at most `NOTICES_COUNTED_MAX`."""
    waiting, first = ask(
        "select count(*), min(requested_at) from (select requested_at from {notices} where run_at is not null"
        " order by requested_at limit %s) as w",
        NOTICES_COUNTED_MAX,
    ) or (0, None)
    age_seconds = 0.0 if first is None else (now - first).total_seconds()
    return {"waiting": waiting, "age_seconds": round(max(0.0, age_seconds), 3)}


async def readers(settings: Settings, problems: list[str]) -> list[Status]:
    """Returns the lag, dead letters and parked subjects of views and policies."""
    found: list[Status] = []
    mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
    try:
        for view in KEPT:
            registered = next(
                group for group in CONSUMERS if group.view == f"{SERVICE_OF[view.name]}.{view.name}"
            )
            status: Status = {"group": registered.name, "view": view.name, "parked": None}
            status |= {"topics": view.sources, "letters": registered.dead_letters.name}
            found.append(status | await _remembered(problems, _view(mongo, view.name, registered.name)))
        for policy in _others():
            status = {"group": policy.name, "parked": None}
            status |= {"topics": policy.topics, "letters": policy.dead_letters.name}
            found.append(
                status | await _remembered(problems, _parked(mongo.beside(CHECKPOINTS_DATABASE), policy.name))
            )
    finally:
        await mongo.close()
    return found


async def _remembered(problems: list[str], answer: Awaitable[Status]) -> Status:
    try:
        return await answer
    except DocumentsUnavailable as error:
        problems.append(f"MongoDB: {why(error)}")
        return {}


async def _parked(checkpoints: Mongo, group: str) -> Status:
    return {"parked": Counter(parked.context for parked in await parked_of(checkpoints, group))}


def _others() -> list[ConsumerGroup]:
    views = {f"{SERVICE_OF[view.name]}.{view.name}" for view in KEPT}
    return [group for group in CONSUMERS if group.view not in views]


async def _view(mongo: Mongo, name: str, registered: str) -> Status:
    generation = await live_generation(mongo, name)
    if generation is None:
        parked = await _parked(mongo, registered)
        return {"generation": None, "positions": {}, "as_of": None} | parked
    positions = positions_of(await mongo.find(POSITIONS, {"group": generation.group}))
    by_context: dict[str, int] = {}
    for at in positions.values():
        by_context[at.context] = min(at.position, by_context.get(at.context, at.position))
    seen = [at.at for at in positions.values() if at.at is not None]
    return {
        "group": generation.group,
        "generation": generation.number,
        "positions": by_context,
        "as_of": max(seen).isoformat() if seen else None,
    } | await _parked(mongo, generation.group)


async def read_status(settings: SyncIngestSettings) -> Status:
    """Everything; what does not answer is in `problems`, and the rest is shown all the same."""
    problems: list[str] = []
    now = SystemClock().now()
    contexts: dict[str, Status] = {}
    for name, context in CONTEXTS.items():
        try:
            contexts[name] = await asyncio.to_thread(context_status, settings.postgres_url, context, now)
            sagas = await asyncio.to_thread(sagas_of, settings, context) if contexts[name]["head"] else []
            contexts[name]["sagas"] = dict(Counter(saga.status for saga in sagas))
        except (psycopg.Error, StoreUnavailable) as error:
            problems.append(f"PostgreSQL, {name}: {why(error)}")
            contexts[name] = {}
    sources = await _sources(settings, problems)
    groups = await readers(settings, problems)
    url = settings.kafka_url
    lags = [_asked(group_lag(url, group["group"], group["topics"]), problems) for group in groups]
    letters = [_asked(held_records(url, [group.pop("letters")]), problems) for group in groups]
    answers = await asyncio.gather(*lags, *letters)
    for number, group in enumerate(groups):
        topics = group.pop("topics")
        group["lag"], group["dead_letters"] = answers[number], answers[len(groups) + number]
        read = [name for name, topic in EVENTS.items() if topic.name in topics]
        group["contexts"] = read or [_FEED_CONTEXT]
    for name, status in contexts.items():
        of = [group for group in groups if name in group["contexts"]]
        status["lag"] = _most([group["lag"] for group in of])
        status["dead_letters"] = _sum([group["dead_letters"] for group in of])
        status["parked"] = _sum([_parked_in(group["parked"], name) for group in groups])
    for group in groups:
        group["parked"] = None if group["parked"] is None else sum(group["parked"].values())
    return {
        "at": now.isoformat(),
        "lag": _most([group["lag"] for group in groups]),
        "outbox": _sum([status.get("outbox") for status in contexts.values()]),
        "dead_letters": _sum([group["dead_letters"] for group in groups]),
        "parked": _sum([group["parked"] for group in groups]),
        **await _unlinked(settings, problems),
        "contexts": contexts,
        "sources": sources,
        "groups": {group.pop("group"): group for group in groups},
        "problems": sorted(set(problems)),
    }


async def _sources(settings: SyncIngestSettings, problems: list[str]) -> dict[str, Status]:
    """Returns for each source the counts of its certificates, its waiting entries with reasons, and its last
    status."""
    try:
        found = await asyncio.to_thread(watched, settings)
    except psycopg.errors.UndefinedTable:
        return {}  # nothing was migrated yet, which the contexts show
    except psycopg.Error as error:
        problems.append(f"PostgreSQL, ingest: {why(error)}")
        return {}
    return {
        each.source: {
            "posted": each.posted,
            "duplicates": each.duplicates,
            "quarantined": each.quarantined,
            "waiting": each.waiting,
            "certificate": each.status,
            "certified_at": each.certified_at.isoformat() if each.certified_at else None,
            "reasons": list(each.reasons),
            "silent_seconds": round(each.silent_seconds, 3),
            "expected_every_seconds": each.expected_every_seconds,
        }
        for each in found
    }


async def _unlinked(settings: SyncIngestSettings, problems: list[str]) -> Status:
    """How many accounts wait for their customer, and whether all were counted; None where no view is built yet."""
    clock, mongo = SystemClock(), Mongo.connect(settings.mongo_url, settings.mongo_driver)
    queries = queries_without_keys(mongo, clock, partial(settings.business_date, clock))
    found: int | None = None
    complete = False
    try:
        found, complete = await unlinked_accounts(queries, clock, counting_seconds_max=UNLINKED_SECONDS_MAX)
    except DocumentsUnavailable as error:
        if not isinstance(error.__cause__, NotBuilt):
            problems.append(f"MongoDB: {why(error)}")
    finally:
        await mongo.close()
    return {"unlinked_accounts": found, "unlinked_accounts_complete": complete}


async def _asked(answer: Awaitable[Mapping[Partition, int]], problems: list[str]) -> int | None:
    try:
        return sum((await answer).values())
    except BrokerUnavailable as error:
        problems.append(f"Kafka: {error}")
        return None


def _parked_in(parked: Mapping[str, int] | None, context: str) -> int | None:
    return None if parked is None else parked.get(context, 0)


def _most(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def readable(found: Mapping[str, Any]) -> str:
    """The status as a person reads it."""
    lines = [
        f"{'context':<12}{'head':>10}{'published':>11}{'outbox':>8}{'age s':>8}{'lag':>8}{'dead':>6}{'parked':>8}"
    ]
    for name, status in found["contexts"].items():
        cells = [status.get(each) for each in ("head", "published", "outbox", "outbox_age_seconds", "lag")]
        shown = ["?" if cell is None else str(cell) for cell in cells]
        set_aside = [
            "?" if status.get(each) is None else str(status[each]) for each in ("dead_letters", "parked")
        ]
        widths = (10, 11, 8, 8, 8, 6, 8)
        lines.append(
            f"{name:<12}" + "".join(f"{c:>{w}}" for c, w in zip(shown + set_aside, widths, strict=True))
        )
        if status.get("unpublishable"):
            lines.append(
                f"  {status['unpublishable']} subjects are held: crm unpublishable list --context {name}"
            )
        timers = status.get("timers") or {"late_seconds": 0, "failed": 0}
        if timers["late_seconds"] >= TIMERS_LATE_SECONDS:
            lines.append(f"  {timers['due']} timers are due, for up to {timers['late_seconds']:.0f} s")
        if timers["failed"]:
            lines.append(f"  {timers['failed']} timers failed: docs/runbooks/timers.md")
        notices = status.get("notices") or {"age_seconds": 0}
        if notices["age_seconds"] >= NOTICES_AGE_SECONDS:
            lines.append(
                f"  {notices['waiting']} notices wait, for up to {notices['age_seconds']:.0f} s: docs/runbooks/notices.md"
            )
        if sagas := status.get("sagas"):
            said = ", ".join(f"{count} {what}" for what, count in sorted(sagas.items()))
            lines.append(f"  sagas that have not ended: {said}: crm sagas list")
    lines += ["", *_readable_sources(found["sources"])]
    lines += [_readable_unlinked(found), ""]
    lines.append(f"{'reader':<58}{'lag':>8}{'dead':>6}{'parked':>8}  as of")
    for name, group in found["groups"].items():
        cells = [
            "?" if group[each] is None else str(group[each]) for each in ("lag", "dead_letters", "parked")
        ]
        built = "not built yet" if group.get("generation", 0) is None else group.get("as_of") or ""
        lines.append(f"{name:<58}{cells[0]:>8}{cells[1]:>6}{cells[2]:>8}  {built}")
    lines += [f"problem: {problem}" for problem in found["problems"]]
    return "\n".join(lines)


def _readable_unlinked(found: Mapping[str, Any]) -> str:
    count = found["unlinked_accounts"]
    if count is None:
        return "accounts without a customer: ?"
    if found["unlinked_accounts_complete"]:
        return f"accounts without a customer: {count}"
    return f"accounts without a customer: at least {count}; counting ended after {UNLINKED_SECONDS_MAX:.0f} s"


def _readable_sources(sources: Mapping[str, Status]) -> list[str]:
    lines = [f"{'source':<24}{'posted':>10}{'duplicates':>12}{'waiting':>9}  certificate"]
    for name, source in sources.items():
        waiting = sum(source["waiting"].values())
        certified = " ".join([source["certificate"] or "none yet", ", ".join(source["reasons"])])
        lines.append(
            f"{name:<24}{source['posted']:>10}{source['duplicates']:>12}{waiting:>9}  {certified.rstrip()}"
        )
        lines += [f"  {count} wait: {reason}" for reason, count in source["waiting"].items()]
    return lines


def status(
    as_json: Json = False,
) -> None:
    """Shows lag, outbox, dead letters, parked subjects, each source's counts; 1 where a server does not
    answer."""
    found = asyncio.run(read_status(ingest_settings()))
    print(json.dumps(found) if as_json else readable(found))
    if found["problems"]:
        print("crm status: not every server answered", file=sys.stderr)
        raise typer.Exit(code=WRONG)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("status")(status)
