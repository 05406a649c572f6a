"""The service customer, declared."""

from typing import Final

from chassis.service import Context, Service
from chassis.write.operations import OPERATIONS

from customer.api import create_router
from customer.bootstrap import SERVICE_NAME, roles, routes
from customer.catalogue import CONTEXT, SCHEMA
from customer.connections import TABLES
from customer.domain.events import STORED_NAMES
from customer.permissions import ROLES
from customer.policies import READERS
from customer.publishing import published
from customer.settings import CustomerSettings
from customer.views import VIEWS

SERVICE: Final = Service(
    name=SERVICE_NAME,
    settings=CustomerSettings,
    tables=TABLES,
    context=Context(CONTEXT, SCHEMA, published, STORED_NAMES | OPERATIONS),
    roles=roles,
    routes=lambda settings, heads: routes(settings, others=heads),
    router=create_router,
    permissions=ROLES,
    views=VIEWS,
    readers=READERS,
)
