"""Settings of customer: nothing yet beside what every process has."""

from chassis.settings import Settings


class CustomerSettings(Settings):
    """Where the servers are, who may call, and what the process listens on."""
