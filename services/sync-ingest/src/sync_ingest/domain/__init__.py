"""The rules of ingest: records, events, totals and certificates. Pure."""
