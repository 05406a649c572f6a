"""Connections to servers: addresses, security, limits on waiting, and which errors are transient."""
