"""The service of ingest as commands use it that are given for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.connections.transient import LOST, Transient, why
from chassis.write.deciding import Refusal
from sync_ingest.opening import opened
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.ports import ITSELF

from crm_cli.exits import failed
from crm_cli.person import acting_of
from crm_cli.running import ingest_settings


@contextmanager
def ingesting(
    command: str, token: str | None = None, route: str | None = None, reason: str | None = None
) -> Iterator[Ingest]:
    """Opens it for a person who may call that route; without a route, for reading.

    Ends `command` with a message where it is refused, or the database does not answer.
    """
    try:
        settings = ingest_settings()
        acting = acting_of(settings, token, route, reason) if route is not None else ITSELF
        with opened(settings, acting=acting) as running:
            yield running
    except Refusal as refusal:
        failed(command, f"{refusal.title}: {refusal}")
    except LOST as lost:
        failed(command, f"the database does not answer: {why(lost)}")
    except Transient as error:
        failed(command, str(error))
