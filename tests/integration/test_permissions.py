"""Every route of every service with every role, and with none (R082): the tables of permissions are what is answered."""

from uuid import UUID

import pytest
from chassis.privacy.tokens import development_token
from chassis.service import services
from contracts.roles import ROLES

from tests.integration.conftest import CLOCK, System

NOBODY = UUID("00000000-0000-5000-8000-000000000000")
TABLES = {name: roles for service in services() for name, roles in service.permissions.items()}


def test_the_tables_name_roles_that_there_are() -> None:
    assert len(TABLES) == sum(len(service.permissions) for service in services())
    assert frozenset().union(*TABLES.values()) <= ROLES
    not_by_administrators = {name for name, may in TABLES.items() if "administrator" not in may}
    of_proposals = {f"{step}_customer_proposal" for step in ("get", "approve", "reject")}
    of_erasure = {"erase_customer", "prepare_erasure", "end_erasure_preparation", "get_erasure"}
    of_erasure |= {"place_legal_hold", "lift_legal_hold"}
    of_services = {"close_releases", "open_releases", "receive_customer_receipt", "change_tags_by_rule"}
    assert not_by_administrators == of_erasure | of_proposals | of_services, (
        "compliance alone destroys what cannot be had again, and services alone close and open, say what became of a message, and tag by rules"
    )


@pytest.mark.requirement("R082", "M05")
@pytest.mark.parametrize("role", [*sorted(ROLES), None])
async def test_a_caller_may_what_the_tables_say(system: System, role: str | None) -> None:
    """What is allowed is answered with anything but 403, what is not with 403 whatever else is wrong with it."""
    token = development_token(system.customer, CLOCK.now(), subject="lin", roles=[role] if role else [])
    asked: set[str] = set()
    for name, method, path in await _routes(system):
        answer = await system.web.request(
            method,
            path,
            headers={
                "Authorization": f"Bearer {token}",
                "Idempotency-Key": f"{name}-{role}",
                "If-Match": '"1"',
            },
            json=None if method == "GET" else {},
        )
        asked.add(name)
        assert (answer.status_code == 403) == (role not in TABLES[name]), (name, role, answer.text)
        assert answer.status_code < 500, (name, answer.text)
    assert asked == TABLES.keys()


async def _routes(system: System) -> list[tuple[str, str, str]]:
    """Name, method and path of every operation that the processes publish, with ids of nobody."""
    paths = (await system.web.get("/openapi.json")).json()["paths"]
    found = []
    for path, operations in paths.items():
        for method, operation in operations.items():
            filled = path
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    filled = filled.replace(f"{{{parameter['name']}}}", str(NOBODY))
            found.append((operation["operationId"], method.upper(), filled))
    return found
