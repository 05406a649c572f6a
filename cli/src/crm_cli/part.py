"""`python -m crm_cli.part web|views|workers`: a process of `crm up`, which hosts roles of several services.

In production each role is a process of its own (`python -m customer views`); here they share as few as serve.
"""

import sys
from collections.abc import Callable, Mapping

import uvloop
from chassis.process.roles import Role, WebRole, begun, run_roles
from chassis.web import PortTaken
from customer import bootstrap as customer_service
from sync_ingest import bootstrap as ingest_service

from crm_cli.running import customer_settings, ingest_settings
from crm_cli.web import web_app

PARTS = ("web", "views", "workers")
Factories = Mapping[str, Callable[[], Role]]


def web() -> Factories:
    """The routes of all services."""
    return {"web": lambda: WebRole("web", lambda: web_app(ingest_settings(), customer_settings()))}


def views() -> Factories:
    """Everything that writes read models."""
    return {"customer-views": customer_service.roles(customer_settings())["views"]}


def workers() -> Factories:
    """Relays, policies and feeds."""
    ingest, customer = ingest_service.roles(ingest_settings()), customer_service.roles(customer_settings())
    return {
        "sync-ingest-relay": ingest["relay"],
        "sync-ingest-feed": ingest["feed"],
        "customer-relay": customer["relay"],
        "customer-policies": customer["policies"],
    }


def main(part: str) -> int:
    """Runs that part until it is told to stop; the exit code."""
    factories = {"web": web, "views": views, "workers": workers}[part]()
    settings = ingest_settings()
    try:
        with begun(f"crm-{part}", settings):
            return uvloop.run(run_roles(factories, settings))
    except PortTaken as error:
        sys.stderr.write(f"crm {part}: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
