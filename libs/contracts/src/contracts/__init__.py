"""The published language: envelope, topics, and public events."""
