"""Event-sourcing mechanism without a noun of the bank."""
