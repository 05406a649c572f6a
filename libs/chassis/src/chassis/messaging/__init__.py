"""Messages over Kafka: how they are published, consumed, described, and set aside as dead letters."""
