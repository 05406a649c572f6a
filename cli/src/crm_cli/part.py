"""`python -m crm_cli.part web|views|workers`: a process of `crm up`, which hosts roles of several services.

In production each role is a process of its own (`python -m customer views`); here they share as few as serve.
"""

import sys
from collections.abc import Callable, Mapping

from chassis.connections.settings import Settings
from chassis.process.roles import Role, WebRole, begun, run_to_the_end
from chassis.service import services
from chassis.web import PortTaken

from crm_cli.running import settings_of
from crm_cli.web import web_app

Factories = Mapping[str, Callable[[], Role]]


def web() -> Factories:
    """The routes of all services."""
    return {"web": lambda: WebRole("web", web_app)}


def views() -> Factories:
    """Everything that writes read models."""
    return _roles(lambda role: role == "views")


def workers() -> Factories:
    """Relays, policies, feeds, and what is derived of views."""
    return _roles(lambda role: role not in {"views", "api"})


def _roles(wanted: Callable[[str], bool]) -> Factories:
    """The wanted roles of all services."""
    return {
        f"{service.name}-{name}": factory
        for service in services()
        for name, factory in service.roles(settings_of(service.settings)).items()
        if wanted(name)
    }


def main(part: str) -> int:
    """Runs that part until it is told to stop; the exit code."""
    factories = {"web": web, "views": views, "workers": workers}[part]()
    settings = settings_of(Settings)
    try:
        with begun(f"crm-{part}", settings):
            return run_to_the_end(factories, settings, serving=part == "web")
    except PortTaken as error:
        sys.stderr.write(f"crm {part}: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
