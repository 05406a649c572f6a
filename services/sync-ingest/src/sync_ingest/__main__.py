"""`python -m sync_ingest api|relay|feed`: one role per process in production, any of them together elsewhere."""

import sys

from chassis.roles import main

from sync_ingest.bootstrap import roles
from sync_ingest.settings import SyncIngestSettings

if __name__ == "__main__":
    settings = SyncIngestSettings()  # type: ignore[call-arg]  # from the environment
    sys.exit(main("sync-ingest", roles(settings), settings))
