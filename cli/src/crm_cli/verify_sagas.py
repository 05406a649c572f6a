"""Checks that no saga is lost: each that was started has ended, waits for its timer, is compensated, or is stuck (I10)."""

from typing import Final
from uuid import UUID

from chassis.clock import Clock
from chassis.sagas.reading import OpenSaga, begun_sagas, has_sagas, open_saga
from chassis.sagas.running import TIMEOUT
from chassis.write.store import Recorder

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store

POLL_SECONDS: Final = 0.1
_STANDING: Final = "select subject from {timers} where subject = any(%s) and name = %s and run_at is not null"


async def check_sagas(
    url: str, context: Context, store: Store, report: Report, clock: Clock, wait_seconds: float
) -> None:
    """Waits a bounded time for the timers to know every saga. Raises psycopg.Error, StoreUnavailable."""
    if not has_sagas(context.catalogue()) or not store.exists("timer_folds"):
        return
    until = clock.monotonic() + wait_seconds
    while True:
        unread = Report()
        found = _open(url, context, unread)
        lost = _without_timer(store, found)
        if not lost or clock.monotonic() >= until:
            break
        await clock.sleep(POLL_SECONDS)
    report.plus(unread)
    report.passed("I10", len(found))
    for saga in lost:
        report.broken("I10", f"{context.name}: the saga {saga} has not ended, and no timer ends its time")
    stuck = [str(one.shown.id) for one in found if one.shown.status == "stuck"]
    if found:
        report.figures.setdefault("sagas", {})[context.name] = {"open": len(found), "stuck": stuck}


def _open(url: str, context: Context, report: Report) -> list[OpenSaga]:
    recorder, catalogue = Recorder(url, context.schema, as_login=True), context.catalogue()
    found: list[OpenSaga] = []
    try:
        for id, stored in begun_sagas(recorder):
            with report.reading("I10", f"{context.name}: the saga {id}"):
                if (one := open_saga(id, stored, catalogue)) is not None:
                    found.append(one)
    finally:
        recorder.close()
    return found


def _without_timer(store: Store, found: list[OpenSaga]) -> list[UUID]:
    """The sagas that run and that nothing will end. What compensates is given until it is done; what is stuck is
    listed."""
    running = [one.shown.id for one in found if one.shown.status == "running"]
    standing = {row[0] for row in store.ask(_STANDING, running, TIMEOUT.name)} if running else set()
    return [saga for saga in running if saga not in standing]
