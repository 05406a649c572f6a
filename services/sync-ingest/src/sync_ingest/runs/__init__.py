"""Runs over feeds, and what persons do with what they left."""
