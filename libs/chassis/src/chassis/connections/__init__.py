"""Servers: where they are, how they are reached, and which of their errors pass."""
