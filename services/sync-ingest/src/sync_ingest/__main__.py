"""`python -m sync_ingest api|relay|feed`: one role per process in production, any of them together elsewhere;
`migrate` is a step of its own before them."""

from sync_ingest.service import SERVICE

if __name__ == "__main__":
    SERVICE.run()
