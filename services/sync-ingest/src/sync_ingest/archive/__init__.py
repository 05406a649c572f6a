"""Ingest's own tables beside the event store."""
