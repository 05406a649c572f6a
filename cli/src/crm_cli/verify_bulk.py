"""Checks that the results of bulk runs are what the streams of their items say (I12), and that a run for which it takes two
persons was started by two (I13).

What is not checked: why an item was refused.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, cast
from uuid import UUID, uuid5

from chassis.bulk.deciding import (
    UNCHANGED,
    BulkAdvanced,
    BulkEvent,
    BulkFinished,
    BulkListed,
    BulkReady,
    BulkStarted,
    Run,
    evolve,
)
from chassis.proposals.deciding import PROPOSAL, ProposalEvent
from chassis.proposals.persons import persons
from chassis.write.catalogue import Catalogue
from chassis.write.events import Metadata, StoredEvent
from chassis.write.store import Recorder
from chassis.write.store.items import NIL

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store

OPENED: Final = "bulk-opened"
EVENTS_PER_PAGE: Final = 10
"""An event of a list has 2,000 ids."""
_GIVEN: Final = (
    "select e.stream_id, e.version, e.body from unnest(%s::uuid[], %s::text[]) as i(subject, command)"
    " join {events} as e on e.stream_id = i.subject and position(convert_to(i.command, 'UTF8') in e.body) > 0"
)
"""Events that name the command of an item. Some name it as their cause."""


def check_bulk(url: str, context: Context, store: Store, report: Report) -> None:
    """Checks every run of a context, also one that is under way. Raises psycopg.Error, StoreUnavailable."""
    catalogue = context.catalogue()
    if OPENED not in catalogue.names:
        return
    recorder = Recorder(url, context.schema, as_login=True)
    try:
        checking = _Checking(context.name, catalogue, recorder, store, report)
        after = NIL
        while page := store.streams_with(OPENED, after):
            for run in page:
                with report.reading("I12", f"{context.name}: the bulk run {run}"):
                    checking.check(run)
            after = page[-1]
    finally:
        recorder.close()


class _Checking:
    """Checks the runs of one context, one after the other, with a part of a run in memory."""

    def __init__(
        self, name: str, catalogue: Catalogue, recorder: Recorder, store: Store, report: Report
    ) -> None:
        self._name = name
        self._catalogue = catalogue
        self._recorder = recorder
        self._store = store
        self._report = report

    def check(self, run: UUID) -> None:
        """Folds the run, and compares what its events say of its items."""
        state, prepared = Run(), None
        subjects: Iterator[UUID] = iter(())
        for stored in self._events(run, 0):
            event = self._catalogue.decode(stored).event
            prepared = prepared or self._catalogue.metadata_of(stored)
            match event:
                case BulkReady(items):
                    self._report.compare("I12", self._said(run, "items of its list"), state.items, items)
                    subjects = self._listed(run, state)
                case BulkStarted() if state.status == "ready" and state.needs_approval:
                    self._check_start(run, prepared, self._catalogue.metadata_of(stored))
                case BulkAdvanced(first, results):
                    self._report.compare("I12", self._said(run, "next item"), state.next, first)
                    self._check_results(run, first, list(islice(subjects, len(results))), results)
                case BulkFinished(done, unchanged, refused):
                    expected = (state.items, state.done, state.unchanged, state.refused)
                    found = (done + unchanged + refused, done, unchanged, refused)
                    self._report.compare(
                        "I12", self._said(run, "items, done, unchanged, refused"), expected, found
                    )
                case _:
                    pass
            state = evolve(state, cast(BulkEvent, event))

    def _check_start(self, run: UUID, prepared: Metadata, started: Metadata) -> None:
        self._report.passed("I13")
        if started.proposal_id is None:
            self._report.broken("I13", self._said(run, "it was started without the approval that it needs"))
            return
        stored = self._recorder.read_stream(started.proposal_id)
        events = [cast(ProposalEvent, self._catalogue.decode(one).event) for one in stored]
        proposal = PROPOSAL.fold(events)
        if proposal.status != "approved" or proposal.made is None or proposal.made.subject != run:
            detail = f"it was started by {started.proposal_id}, which is no approved proposal of it"
            self._report.broken("I13", self._said(run, detail))
        if persons(prepared.actor, prepared.on_behalf_of) & persons(started.actor, started.on_behalf_of):
            self._report.broken("I13", self._said(run, "who prepared it has approved its start"))

    def _check_results(self, run: UUID, first: int, subjects: Sequence[UUID], results: Sequence[int]) -> None:
        self._report.passed("I12", len(results))
        if len(subjects) < len(results):
            self._report.broken(
                "I12", self._said(run, f"it has results behind its {first + len(subjects)} items")
            )
        given = self._given(run, subjects)
        for number, (subject, result) in enumerate(zip(subjects, results, strict=False), first):
            said, found = max(result, UNCHANGED), given.get(subject, UNCHANGED)
            if said != found:
                detail = f"item {number}, {subject}: it says version {said}, its stream version {found}; 0 is no event"
                self._report.broken("I12", self._said(run, detail))

    def _given(self, run: UUID, subjects: Sequence[UUID]) -> dict[UUID, int]:
        """The version of each subject after its command, where that command has events."""
        commands = {subject: uuid5(run, str(subject)) for subject in subjects}
        found: dict[UUID, int] = {}
        for subject, version, body in self._store.ask(
            _GIVEN, list(commands), [str(id) for id in commands.values()]
        ):
            named = self._catalogue.metadata_of(StoredEvent(subject, version, "", bytes(body)))
            if named.command_id == commands[subject]:
                found[subject] = max(version, found.get(subject, 0))
        return found

    def _listed(self, run: UUID, state: Run) -> Iterator[UUID]:
        """The items of a complete list, in order."""
        for stored in self._events(run, state.listed_from - 1):
            event = self._catalogue.decode(stored).event
            if not isinstance(event, BulkListed):
                return
            yield from event.subjects

    def _events(self, run: UUID, after: int) -> Iterator[StoredEvent]:
        while page := self._recorder.read_stream(run, after, EVENTS_PER_PAGE):
            yield from page
            after = page[-1].version

    def _said(self, run: UUID, what: str) -> str:
        return f"{self._name}: the bulk run {run}: {what}"
