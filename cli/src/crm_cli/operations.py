"""Records an act on the command line in the store of a context."""

from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable, why
from chassis.write.operations import OperatorActed, note_operation
from chassis.write.store import Recorder
from contracts.roles import ADMINISTRATOR, OPERATOR
from customer.catalogue import CONTEXT, SCHEMA, catalogue

from crm_cli.exits import failed
from crm_cli.person import caller_of, commanding

MAY_OPERATE = frozenset({OPERATOR, ADMINISTRATOR})


def noted(
    command: str, settings: Settings, token: str | None, action: str, target: str, reason: str | None
) -> None:
    """Stores the actor before the act.

    Ends the command with 2 where the actor may not act, or the store does not answer.
    """
    caller = caller_of(settings, token, MAY_OPERATE)
    context = commanding(caller, SystemClock().now(), reason)
    recorder = Recorder(settings.postgres_url, SCHEMA)
    try:
        note_operation(recorder, catalogue(), CONTEXT, OperatorActed(action, target), context)
    except StoreUnavailable as error:
        failed(command, f"the actor cannot be stored, so nothing was done: {why(error)}")
    finally:
        recorder.close()
