"""Tables of permissions for routes of tests, which have no rows to narrow."""

from collections.abc import Collection, Mapping

from chassis.privacy.rights import WHOLE, Rights


def over_all(roles: Mapping[str, Collection[str]]) -> dict[str, Rights]:
    """These roles by route, each over all rows."""
    return {name: Rights(those, WHOLE) for name, those in roles.items()}
