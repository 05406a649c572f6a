"""Checks that the timers of a context are what its events have set and withdrawn (I4), and that a command of each that was
carried out is in the store by its id (I8), for as long as the store remembers commands.

What is not checked: the second and further commands of a timer that gives several.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from chassis.clock import Clock
from chassis.connections.settings import COMMANDS_KEPT_DAYS
from chassis.timers import Due, SetTimer, TimerRule
from chassis.timers.table import DONE, DROPPED, Folded
from chassis.write.catalogue import Catalogue
from chassis.write.events import EventId, StoredEvent

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Rows, Store

POLL_SECONDS: Final = 0.1
_FOLDED: Final = "select generation, position, complete from {timer_folds}"
_BEHIND: Final = "select count(*) from {events} where position > %s and position <= %s and name = any(%s)"
_EVENTS: Final = (
    "select stream_id, version, name, body, identity, position from {events}"
    " where name = any(%s) and position <= %s order by stream_id, version"
)
_ROWS: Final = (
    "select subject, name, slot, position, due_at, run_at, data, outcome, generation, cause,"
    " settled_at > now() - make_interval(days => %s) from {timers} order by subject"
)
_REMEMBERED: Final = "select key, stream_id from {commands} where key = any(%s)"
TIMERS_AT_ONCE: Final = 2_000
DAYS_LESS: Final = 1
"""Commands are forgotten by the clock of the database, and after a pause a command is older than what its timer says."""
_Key = tuple[str, str]


class _Row(NamedTuple):
    subject: UUID
    name: str
    slot: str
    position: int
    due_at: Any
    run_at: Any
    data: str
    outcome: str | None
    generation: str
    cause: EventId
    remembered: bool | None
    """Whether the store still remembers the command, where one was given."""

    @property
    def due(self) -> Due:
        """As its command was given."""
        data = msgspec.json.decode(self.data, type=dict[str, str])
        return Due(self.name, self.subject, self.slot, self.cause, self.position, self.due_at, data)


class _Last(NamedTuple):
    """The last event that changed a timer; `set` is None where it was withdrawn, `failed` where it cannot be folded."""

    position: int
    set: SetTimer | None
    failed: bool = False


async def check_timers(
    context: Context,
    rules: Sequence[TimerRule],
    generation: str,
    store: Store,
    head: int,
    report: Report,
    clock: Clock,
    wait_seconds: float,
    *,
    commands_kept_days: int = COMMANDS_KEPT_DAYS,
) -> None:
    """Waits a bounded time for the role to fold what is stored. Raises psycopg.Error."""
    if not rules or not store.exists("timer_folds"):
        return
    names = sorted({name for rule in rules for name in rule.events})
    until = clock.monotonic() + wait_seconds
    while True:
        folded = _folded(store)
        behind = store.ask(_BEHIND, folded.position, head, names)[0][0]
        if (folded.complete and not behind) or clock.monotonic() >= until:
            break
        await clock.sleep(POLL_SECONDS)
    if behind:
        report.broken("I1", f"{context.name}: {behind} events are not folded to timers")
    if not folded.position:
        return
    if folded.generation != generation:
        report.broken(
            "I4", f"{context.name}: the timers are folded by other code, or with another calendar, than here"
        )
    elif not folded.complete:
        report.broken("I4", f"{context.name}: the timers are being folded anew")
    else:
        figures = await asyncio.to_thread(
            _compared, context, rules, names, store, report, commands_kept_days - DAYS_LESS
        )
        report.figures.setdefault("timers", {})[context.name] = figures


def _folded(store: Store) -> Folded:
    rows = store.ask(_FOLDED)
    return Folded(*rows[0]) if rows else Folded("", 0, complete=True)


def _compared(
    context: Context,
    rules: Sequence[TimerRule],
    names: Sequence[str],
    store: Store,
    report: Report,
    days: int,
) -> dict[str, int]:
    """Compares each subject's timers with its events, as of one moment."""
    figures = {"standing": 0, "settled": 0, "failed": 0}
    catalogue = context.catalogue()
    by_name = {rule.name: rule for rule in rules}
    given: list[_Row] = []
    with store.one_moment() as rows:
        folded = Folded(*next(rows(_FOLDED)))
        expected = _expected(rows, rules, names, folded.position, catalogue)
        standing = groupby(map(_Row._make, rows(_ROWS, days)), key=itemgetter(0))
        for subject, lasts, timers in _side_by_side(expected, standing):
            for row in timers.values():
                failed = (row.outcome or "").startswith("failed:")
                figures["standing" if row.outcome is None else "failed" if failed else "settled"] += 1
            with report.reading("I4", f"{context.name}: the timers of {subject}"):
                for wrong in _wrong(lasts, timers, folded.generation):
                    report.broken("I4", f"{context.name}: the timer {wrong[0][0]} of {subject} {wrong[1]}")
            report.passed("I4", len(lasts))
            given += [
                one
                for one in timers.values()
                if one.outcome == DONE and one.remembered and one.name in by_name
            ]
            if len(given) >= TIMERS_AT_ONCE:
                _check_commands(context, rows, given, by_name, report)
                given.clear()
        _check_commands(context, rows, given, by_name, report)
    return figures


def _check_commands(
    context: Context, rows: Rows, given: Sequence[_Row], rules: Mapping[str, TimerRule], report: Report
) -> None:
    """Checks that the store remembers a command of each timer that was carried out."""
    commands: list[tuple[_Row, list[tuple[str, UUID]]]] = []
    for row in given:
        with report.reading("I8", f"{context.name}: the timer {row.name} of {row.subject}"):
            commands.append((row, [(str(id), stream) for id, stream in rules[row.name].commands(row.due)]))
    keys = [key for _, of_timer in commands for key, _ in of_timer]
    known = {(key, stream) for key, stream in rows(_REMEMBERED, keys)}
    report.passed("I8", len(commands))
    for row, of_timer in commands:
        if known.isdisjoint(of_timer):
            report.broken(
                "I8",
                f"{context.name}: the timer {row.name} of {row.subject} was carried out, and no command of it is in"
                f" the store, as {of_timer[0][0]}",
            )


def _expected(
    rows: Rows, rules: Sequence[TimerRule], names: Sequence[str], position: int, catalogue: Catalogue
) -> Iterator[tuple[UUID, dict[_Key, _Last]]]:
    """What the events of each subject come to, in the order of subjects."""
    for subject, stored in groupby(rows(_EVENTS, list(names), position), key=itemgetter(0)):
        lasts: dict[_Key, _Last] = {}
        for event in (StoredEvent(*row) for row in stored):
            for rule in rules:
                if event.name in rule.events:
                    _change(lasts, rule, event, catalogue)
        yield subject, lasts


def _change(lasts: dict[_Key, _Last], rule: TimerRule, event: StoredEvent, catalogue: Catalogue) -> None:
    position = event.position or 0
    try:
        changes = rule.changes(catalogue.decode(event))
    except Exception:  # noqa: BLE001 (as the role, which keeps it as failed)
        lasts[rule.name, ""] = _Last(position, None, failed=True)
        return
    for change in changes:
        lasts[rule.name, change.slot] = _Last(position, change if isinstance(change, SetTimer) else None)


def _side_by_side(
    expected: Iterator[tuple[UUID, dict[_Key, _Last]]], standing: Iterator[tuple[UUID, Iterator[_Row]]]
) -> Iterator[tuple[UUID, dict[_Key, _Last], dict[_Key, _Row]]]:
    """Both by subject, where either has something. Both are in the order of subjects."""
    here, there = next(expected, None), _taken(standing)
    while here is not None or there is not None:
        subject = min(one[0] for one in (here, there) if one is not None)
        lasts: dict[_Key, _Last] = {}
        timers: dict[_Key, _Row] = {}
        if here is not None and here[0] == subject:
            lasts, here = here[1], next(expected, None)
        if there is not None and there[0] == subject:
            timers, there = there[1], _taken(standing)
        yield subject, lasts, timers


def _taken(standing: Iterator[tuple[UUID, Iterator[_Row]]]) -> tuple[UUID, dict[_Key, _Row]] | None:
    found = next(standing, None)
    return None if found is None else (found[0], {(row.name, row.slot): row for row in found[1]})


def _wrong(lasts: dict[_Key, _Last], timers: dict[_Key, _Row], generation: str) -> Iterator[tuple[_Key, str]]:
    for key, last in lasts.items():
        row = timers.get(key)
        if last.set is None and not last.failed:
            if row is not None:
                yield key, f"stands, and the event at position {last.position} withdrew it"
        elif row is None:
            yield key, f"is missing, and the event at position {last.position} set it"
        elif row.position != last.position:
            yield key, f"is of position {row.position}, and the event at {last.position} set it last"
        elif last.failed:
            if row.outcome != DROPPED and not (row.outcome or "").startswith("failed:"):
                yield key, f"stands, and the event at position {last.position} cannot be folded"
        elif row.outcome is None and not _same(row, last.set):
            yield key, f"is due at {row.due_at}, or has other data than the event at {last.position} says"
    for key, row in timers.items():
        if key not in lasts and (row.outcome is None or row.generation == generation):
            yield key, f"is of position {row.position}, where no event set it"


def _same(row: _Row, set: SetTimer | None) -> bool:
    return (
        set is not None
        and row.run_at is not None
        and row.due_at == set.due_at
        and msgspec.json.decode(row.data) == dict(set.data)
    )
