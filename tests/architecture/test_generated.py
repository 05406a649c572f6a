"""What is committed is what the declarations of the services give: manifests, compose, alerts, boundaries, groups."""

import pytest
from chassis.service import Service, services

from tests.deploy.kustomized import BASE
from tools.generate import ROOT, deployment, generated, roles_of

GENERATED = generated()


@pytest.mark.parametrize("path", GENERATED)
def test_what_is_committed_is_what_is_generated(path: str) -> None:
    assert (ROOT / path).read_text() == GENERATED[path], "run `make generate`"


def test_no_manifest_is_left_of_a_role_that_is_gone() -> None:
    left = {path.name for path in BASE.glob("*.yaml")} - {path.rpartition("/")[2] for path in GENERATED}
    assert left == {"common.yaml", "network.yaml"}


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_a_service_names_the_needs_of_its_own_roles_and_no_others(service: Service) -> None:
    assert service.own_roles.keys() <= set(roles_of(service))
    for role in roles_of(service):
        assert service.needs(role)
        assert f"command: [python, -m, {service.package}, {role}]" in deployment(service, role)
