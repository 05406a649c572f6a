"""What a feed means: records, events, totals and certificates. Pure."""
