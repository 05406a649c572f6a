"""The keys of a laptop come to compose's roles as files that they can read and nobody else can."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from chassis.privacy.key_encryption import FileKeyEncryption

from tests.deploy.kustomized import DEPLOY

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
ROLES_USER = 10001


def test_the_step_that_copies_the_keys_gives_them_to_the_roles_user_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files are given to another user by root alone")
    keys = SERVICES["keys"]
    assert keys["user"] == "0:0"
    made, given = tmp_path / "secrets", tmp_path / "keys"
    made.mkdir()
    given.mkdir()
    for name in keys["secrets"]:
        (made / name).write_bytes(os.urandom(32))
        (made / name).chmod(0o600)
    script = keys["command"][-1].replace("$$", "$")
    script = script.replace("/run/secrets", str(made)).replace("/run/crm/keys", str(given))
    subprocess.run([*keys["command"][:-1], script], check=True)
    for name in keys["secrets"]:
        status = (given / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (ROLES_USER, 0o400)
        assert (given / name).read_bytes() == (made / name).read_bytes()
    FileKeyEncryption.at(given / "kek")


def test_the_roles_are_told_where_the_copies_are() -> None:
    [folder] = [volume.split(":")[1] for volume in SERVICES["keys"]["volumes"]]
    told = [
        each["environment"] for each in SERVICES.values() if "CRM_KEK_FILE" in each.get("environment", {})
    ]
    assert {each["CRM_KEK_FILE"] for each in told} == {f"{folder}/kek"}
    data = {each["CRM_DATA"] for each in told if "CRM_DATA" in each}
    assert {f"{each}/keys" for each in data} == {folder}
