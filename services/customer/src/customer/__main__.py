"""`python -m customer api|relay|views|policies`: one role per process in production, any of them together elsewhere."""

import sys

from chassis.roles import main

from customer.bootstrap import roles
from customer.settings import CustomerSettings

if __name__ == "__main__":
    settings = CustomerSettings()  # type: ignore[call-arg]  # from the environment
    sys.exit(main("customer", roles(settings), settings))
