"""Policies: reactions of a service to published events."""
