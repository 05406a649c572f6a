"""The service customer, declared."""

from typing import Final

from chassis.service import Context, Service

from customer.api import create_router
from customer.bootstrap import SERVICE_NAME, roles, routes
from customer.catalogue import CONTEXT, SCHEMA, catalogue
from customer.connections import TABLES
from customer.derived import DERIVED
from customer.lists import ASKED, SCOPE
from customer.permissions import HIGH_PRIVILEGE, ROUTES
from customer.policies import POLICIES
from customer.policies.when_customer_erased_then_destroy_keys import erased_by
from customer.publishing import published
from customer.settings import CustomerSettings
from customer.timers import rules
from customer.views import VIEWS

SERVICE: Final = Service(
    name=SERVICE_NAME,
    settings=CustomerSettings,
    tables=TABLES,
    context=Context(CONTEXT, SCHEMA, published, catalogue, erases=erased_by),
    roles=roles,
    routes=lambda settings, heads: routes(settings, others=heads),
    router=create_router,
    rights=ROUTES,
    high_privilege=HIGH_PRIVILEGE,
    scope=SCOPE,
    views=VIEWS,
    policies=POLICIES,
    derived=DERIVED,
    timers=rules,
    files=True,
    lists=ASKED,
)
