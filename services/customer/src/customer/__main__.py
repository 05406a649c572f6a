"""`python -m customer api|relay|views|policies`: one role per process in production, any of them together elsewhere;
`migrate` is a step of its own before them."""

import sys

from chassis.connections.settings import from_environment
from chassis.process.roles import main

from customer.bootstrap import TABLES, WITHOUT_POSTGRES, roles
from customer.settings import CustomerSettings

if __name__ == "__main__":
    settings = from_environment(CustomerSettings)
    sys.exit(main("customer", roles(settings), settings, TABLES, without_postgres=WITHOUT_POSTGRES))
