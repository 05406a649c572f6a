"""The service customer, declared."""

from typing import Final

from chassis.service import Context, Service
from chassis.write.operations import OPERATIONS

from customer.bootstrap import SERVICE_NAME, WITHOUT_POSTGRES, roles, routes
from customer.catalogue import CONTEXT, SCHEMA
from customer.connections import TABLES
from customer.domain.events import STORED_NAMES
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
    views=VIEWS,
    without_postgres=WITHOUT_POSTGRES,
)
