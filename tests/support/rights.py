"""Tables of permissions for routes of tests, which have no rows to narrow."""

from collections.abc import Collection, Mapping

from chassis.privacy.rights import WHOLE, Rights


def over_all(roles: Mapping[str, Collection[str]], undated: Collection[str] = ()) -> dict[str, Rights]:
    """These roles by route, each over all rows; `undated` are commands without an effective time."""
    return {
        name: Rights(those, WHOLE, "it is a test" if name in undated else "") for name, those in roles.items()
    }
