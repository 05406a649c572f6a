"""Checks that no notice is lost: each that was requested is settled, waits to be sent, or is in its inbox (I10).

What is not checked: that a provider has what it has accepted. Its receipts say so.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, cast
from uuid import UUID

from chassis.clock import Clock
from chassis.notices.deciding import NOTICES, REQUESTED, SETTLING, NoticeRequested
from chassis.notices.loop import INBOX_KEPT
from chassis.write.events import StoredEvent

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Rows, Store

POLL_SECONDS: Final = 0.1
_FOLDED: Final = "select coalesce(max(position), 0) from {notice_folds}"
_BEHIND: Final = "select count(*) from {events} where position > %s and position <= %s and name = any(%s)"
_EVENTS: Final = (
    "select stream_id, version, name, body, identity, position from {events}"
    " where name = any(%s) and position <= %s order by stream_id, version"
)
_ROWS: Final = "select id from {notices}"


async def check_notices(
    context: Context, store: Store, head: int, report: Report, clock: Clock, wait_seconds: float
) -> None:
    """Waits a bounded time for the role to fold what is stored. Raises psycopg.Error."""
    catalogue = context.catalogue()
    if REQUESTED not in catalogue.names or not store.exists("notice_folds"):
        return
    until = clock.monotonic() + wait_seconds
    while True:
        folded = int(store.ask(_FOLDED)[0][0])
        behind = store.ask(_BEHIND, folded, head, sorted(NOTICES))[0][0]
        if not behind or clock.monotonic() >= until:
            break
        await clock.sleep(POLL_SECONDS)
    if behind:
        report.broken("I1", f"{context.name}: {behind} events are not folded to notices")
    kept_from = clock.now() - INBOX_KEPT
    with store.one_moment() as rows:
        there = {row[0] for row in rows(_ROWS)}
        waiting = 0
        for id, stored in _open(rows, folded):
            with report.reading("I10", f"{context.name}: the notice {id}"):
                requested = cast(NoticeRequested, catalogue.decode(stored).event)
                sent = requested.inbox is None
                waiting += sent
                if id in there or (not sent and requested.requested_at < kept_from):
                    report.passed("I10")
                    continue
                what = "nothing sends it" if sent else "it is in no inbox"
                report.broken("I10", f"{context.name}: the notice {id} is requested, and {what}")
    if waiting:
        report.figures.setdefault("notices", {})[context.name] = {"waiting": waiting}


def _open(rows: Rows, folded: int) -> Iterator[tuple[UUID, StoredEvent]]:
    """The requests up to the folded position that have not been settled since, each with the id of its notice."""
    found = rows(_EVENTS, [REQUESTED, *sorted(SETTLING)], 2**62)
    for id, of_one in groupby(found, itemgetter(0)):
        events: list[Any] = [StoredEvent(*row) for row in of_one]
        first = events[0]
        if first.name == REQUESTED and len(events) == 1 and first.position <= folded:
            yield id, first
