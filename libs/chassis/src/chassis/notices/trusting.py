"""By whose word a provider is who it says it is."""

import ssl
from pathlib import Path


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the system's authorities, and those in `ca_file`: a provider in the house has a certificate of the house.

    Raises OSError where the file cannot be read.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
