"""How properties are tried: an example may take its time, and every run of the suite tries the same examples.

How long an example takes says more about who else uses the machine than about the code. The seed stands in `pyproject.toml`. `make chaos` tries other examples each time.
"""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
