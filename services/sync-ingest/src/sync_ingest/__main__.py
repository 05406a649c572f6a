"""`python -m sync_ingest api|relay|feed`: one role per process in production, any of them together elsewhere;
`migrate` is a step of its own before them."""

import sys

from chassis.connections.settings import from_environment
from chassis.process.roles import main

from sync_ingest.bootstrap import TABLES, roles
from sync_ingest.settings import SyncIngestSettings

if __name__ == "__main__":
    settings = from_environment(SyncIngestSettings)
    sys.exit(main("sync-ingest", roles(settings), settings, TABLES))
