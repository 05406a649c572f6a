"""Settings of the commands: from the environment, and for missing values from the running `crm up`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from chassis.connections.settings import Settings, complaint
from pydantic import ValidationError

from crm_cli import run_file
from crm_cli.exits import failed

if TYPE_CHECKING:
    from customer.settings import CustomerSettings
    from sync_ingest.settings import SyncIngestSettings

S = TypeVar("S", bound=Settings)

FIELDS = {"POSTGRES_URL": "postgres_url", "MONGO_URL": "mongo_url", "KAFKA_URL": "kafka_url"}

KEPT_FIELDS = {
    "POSTGRES_OWNER_URL": "postgres_owner_url",
    "CRM_KEYS_URL": "keys_url",
    "CRM_KEYS_OWNER_URL": "keys_owner_url",
    "POSTGRES_AUDITOR_URL": "postgres_auditor_url",
}
"""What not every run is told."""


def data_folder() -> Path:
    """`CRM_DATA`, or `.data` here."""
    return Path(os.environ.get("CRM_DATA") or ".data").absolute()


def running() -> run_file.Run | None:
    """The `crm up` on this data folder, if it is alive."""
    found = run_file.read(data_folder())
    return found if found is not None and found.supervisor.runs else None


def settings_of(kind: type[S], *, reading: bool = False) -> S:
    """Settings of that kind; ends the command with 2 and says why where it cannot know the servers.

    `reading`: the stores are reached as the auditor, where `POSTGRES_AUDITOR_URL` says how.
    """
    auditor = os.environ.get("POSTGRES_AUDITOR_URL") if reading else None
    here = running()
    known: dict[str, Any] = {"data": data_folder()}
    if here is not None:
        if not os.environ.get("POSTGRES_URL"):
            from devservers import forget_other_postgres

            forget_other_postgres()
        known |= {
            FIELDS[variable]: url
            for variable, url in here.urls.items()
            if variable in FIELDS and not os.environ.get(variable)
        }
        for variable, name in KEPT_FIELDS.items():
            if here.urls.get(variable) and not os.environ.get(variable):
                known[name] = here.urls[variable]
        if not os.environ.get("CRM_ENVIRONMENT"):
            known["environment"] = here.environment
    elif not (auditor or os.environ.get("POSTGRES_URL")):
        failed(
            "", f"nothing runs on {data_folder()}: start `make run` (or `crm up`), or set {', '.join(FIELDS)}"
        )
    if auditor:
        known["postgres_url"] = auditor
    try:
        return kind(**known)
    except ValidationError as error:
        failed("", complaint(error))


def ingest_settings() -> "SyncIngestSettings":
    """Settings of sync-ingest."""
    from sync_ingest.settings import SyncIngestSettings

    return settings_of(SyncIngestSettings)


def customer_settings() -> "CustomerSettings":
    """Settings of customer."""
    from customer.settings import CustomerSettings

    return settings_of(CustomerSettings)
