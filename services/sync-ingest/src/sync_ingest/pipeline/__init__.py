"""The way of records into the event store."""
