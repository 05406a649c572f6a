"""The contexts and views of all services, for commands that read their stores from outside."""

from collections.abc import Sequence
from typing import Any, Final

from chassis.calendar.settings import CalendarSettings
from chassis.connections.settings import Settings
from chassis.read.deriving import DerivedView
from chassis.read.generations import Kept
from chassis.read.projecting import View
from chassis.service import Context, Service, services
from chassis.timers import TimerRule, generation_of

from crm_cli.running import settings_of

__all__ = [
    "CONTEXTS",
    "DERIVED",
    "KEPT",
    "SERVICE_OF",
    "VIEWS",
    "Context",
    "reading_settings",
    "settings",
    "settings_of_service",
    "timers_of",
]


def settings() -> Settings:
    """Where the servers are."""
    return settings_of(Settings)


def reading_settings() -> Settings:
    """Where the servers are, for a command that only reads: as the auditor, where the environment says how."""
    return settings_of(Settings, reading=True)


def timers_of(context: Context, settings: Settings) -> tuple[Sequence[TimerRule], str]:
    """When the timers of a context are due, and the generation of these rules; none where its service has no timers."""
    of_service = settings_of_service(context, settings)
    if not isinstance(of_service, CalendarSettings):
        return (), ""
    rules = _service_of(context).timers(of_service)
    return rules, generation_of(rules, of_service.calendar.digest())


def settings_of_service(context: Context, settings: Settings) -> Settings:
    """The settings of the service of a context, with what is known of them already."""
    kind: type[Settings] = _service_of(context).settings
    known = {name: getattr(settings, name) for name in kind.model_fields if hasattr(settings, name)}
    return kind(**known)


def _service_of(context: Context) -> Service[Any]:
    [service] = [each for each in services() if each.context.name == context.name]
    return service


CONTEXTS: Final[dict[str, Context]] = {service.context.name: service.context for service in services()}
VIEWS: Final[tuple[View, ...]] = tuple(view for service in services() for view in service.views)
DERIVED: Final[tuple[DerivedView, ...]] = tuple(view for service in services() for view in service.derived)
KEPT: Final[tuple[Kept, ...]] = (*VIEWS, *DERIVED)
"""All of which there are generations."""
SERVICE_OF: Final[dict[str, str]] = {view.name: each.name for each in services() for view in each.kept}
"""Whose a view is, by its name."""
