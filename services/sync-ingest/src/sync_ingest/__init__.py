"""The sync-ingest context: transaction feeds become events."""
