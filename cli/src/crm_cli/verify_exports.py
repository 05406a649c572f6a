"""Checks that every export that was made has the file that its events name, and counts those that have not ended (I11)."""

from typing import Any, Final
from uuid import UUID

from chassis.exports.deciding import ENDED, EXPORT, RELEASED, Export
from chassis.files.contents import stream_of
from chassis.files.deciding import FILES_OF_SUBJECT, Files
from chassis.write.store import Recorder
from chassis.write.store.items import NIL

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import STREAMS_PER_PAGE, Store

MADE: Final = "export-made"


def check_exports(url: str, context: Context, store: Store, report: Report) -> None:
    """The file of an export is kept, or was removed when it expired. That its content is whole is checked with all files.

    Raises psycopg.Error, StoreUnavailable."""
    catalogue = context.catalogue()
    if MADE not in catalogue.names:
        return
    recorder = Recorder(url, context.schema, as_login=True)

    def folded(decider: Any, stream: UUID) -> Any:
        stored = recorder.read_streams({stream: 0})[stream]
        return decider.fold([catalogue.decode(one).event for one in stored])

    try:
        made, after = 0, NIL
        while page := store.streams_with(MADE, after):
            for export in page:
                made += 1
                with report.reading("I11", f"{context.name}: the export {export}"):
                    state: Export = folded(EXPORT, export)
                    files: Files = folded(FILES_OF_SUBJECT, stream_of(catalogue.store, export))
                    report.passed("I11")
                    if state.made is None or state.made.file not in {*files.kept, *files.removed}:
                        report.broken("I11", f"{context.name}: the export {export} is made, and has no file")
            after = page[-1]
        waiting = sum(1 for _ in recorder.open_streams(RELEASED, ENDED, STREAMS_PER_PAGE))
    finally:
        recorder.close()
    if made or waiting:
        report.figures.setdefault("exports", {})[context.name] = {"made": made, "under_way": waiting}
