"""Real PostgreSQL, MongoDB and Kafka as child processes, from packages."""
