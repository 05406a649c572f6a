"""The contexts and views of all services, for commands that read their stores from outside."""

from typing import Final

from chassis.connections.settings import Settings
from chassis.read.projecting import View
from chassis.service import Context, services

from crm_cli.running import settings_of

__all__ = ["CONTEXTS", "SERVICE_OF", "VIEWS", "Context", "reading_settings", "settings"]


def settings() -> Settings:
    """Where the servers are."""
    return settings_of(Settings)


def reading_settings() -> Settings:
    """Where the servers are, for a command that only reads: as the auditor, where the environment says how."""
    return settings_of(Settings, reading=True)


CONTEXTS: Final[dict[str, Context]] = {service.context.name: service.context for service in services()}
VIEWS: Final[tuple[View, ...]] = tuple(view for service in services() for view in service.views)
SERVICE_OF: Final[dict[str, str]] = {view.name: each.name for each in services() for view in each.views}
"""Whose a view is, by its name."""
