"""The event-sourcing mechanism. It uses no term of banking."""
