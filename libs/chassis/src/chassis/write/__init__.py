"""The write side: events, deciding, handling, snapshots, and the event store."""
