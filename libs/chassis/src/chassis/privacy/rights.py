"""What a service declares of each of its routes: who may call it, over which rows, and why a command takes no effective time.

The tables are in the `permissions.py` of the services, and `docs/routes.md` shows them. `create_app` refuses a route that
is in none, and a command that neither takes an effective time nor says why not.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class RowScope:
    """Which rows a route reads or changes, in a word. `reason`: why no rows are, where none are.

    Raises ValueError where a reason is missing, or one is given for rows that are.
    """

    name: str
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.name == _NONE) != bool(self.reason.strip()):
            raise ValueError("no rows need a reason, and others need none")

    @property
    def text(self) -> str:
        """As the table of routes shows it."""
        return f"{self.name}: {self.reason}" if self.reason else self.name


WHOLE: Final = RowScope("whole bank")
"""All rows: every role that may call the route sees all of them."""
OWN: Final = RowScope("own")
"""What the caller has made itself, or what is addressed to it or to its roles."""


def no_rows(reason: str) -> RowScope:
    """The route reads and changes no rows that a scope could narrow, for this reason."""
    return RowScope(_NONE, reason)


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may call a route, and over which rows.

    `undated`: why its command takes no effective time. A command whose effect has a day in the bank's sense takes one
    (`DatedBody`), and says nothing here.
    """

    roles: Collection[str]
    scope: RowScope
    undated: str = ""


def roles_of(routes: Mapping[str, Rights]) -> dict[str, frozenset[str]]:
    """The roles alone, by the name of the route."""
    return {name: frozenset(rights.roles) for name, rights in routes.items()}
