"""`crm keys`: what wraps the keys of subjects, and other key-encryption keys."""

from pathlib import Path
from typing import Annotated, Final

import typer
from chassis.connections.transient import TRANSIENT, why
from chassis.privacy.key_encryption import FileKeyEncryption, KeyEncryption
from chassis.privacy.root_key import root_key
from chassis.privacy.rotating import (
    RootKeyWraps,
    RotationDisturbed,
    RotationRuns,
    Wrapping,
    replace_root_key,
    rotate,
    wrappings,
)

from crm_cli.answers import Json, answer, answer_list
from crm_cli.contexts import settings
from crm_cli.exits import failed
from crm_cli.operations import noted
from crm_cli.person import Token

_RUNS: Final = "another rotation of this key database runs"
Why = Annotated[str | None, typer.Option(help="why; it is stored with the event")]

app = typer.Typer(help="The keys that wrap the keys of personal values.", no_args_is_help=True)


@app.command("status")
def show(as_json: Json = False) -> None:
    """Shows how many data keys and secrets each key-encryption key wraps."""
    try:
        found = wrappings(settings().keys_url)
    except TRANSIENT as error:
        failed("keys", why(error))
    answer_list(
        [{"encryption": each.number, "data_keys": each.data_keys, "secrets": each.secrets} for each in found],
        [_line(each) for each in found],
        "nothing",
        as_json=as_json,
    )


@app.command("rotate")
def rotate_keys(as_json: Json = False, reason: Why = None, token: Token = None) -> None:
    """Makes a key-encryption key, wraps all data keys and secrets by it, and destroys the ones before.

    Processes go on meanwhile. Where a rotation was interrupted, it ends that one.
    """
    known = settings()
    noted("keys", known, token, "keys-rotated", "key-encryption keys", reason)
    try:
        done = rotate(known.keys_url, root_key(known))
    except RotationRuns:
        failed("keys", _RUNS)
    except RotationDisturbed:
        failed("keys", "others went on storing under the key before; run it again")
    except TRANSIENT as error:
        failed("keys", why(error))
    answer(
        {
            "encryption": done.number,
            "data_keys": done.data_keys,
            "secrets": done.secrets,
            "resumed": done.resumed,
        },
        f"key-encryption key {done.number} wraps everything; {done.data_keys} data keys and {done.secrets} secrets were"
        f" wrapped again{', to the end of a rotation that was interrupted' if done.resumed else ''}",
        as_json=as_json,
    )


@app.command("replace-root")
def replace_root(
    file: Annotated[Path | None, typer.Option(help="the file of the new root key")] = None,
    kms_key: Annotated[str | None, typer.Option(help="the new root key in the KMS")] = None,
    kms_endpoint: Annotated[str | None, typer.Option(help="the address of that KMS")] = None,
    as_json: Json = False,
    reason: Why = None,
    token: Token = None,
) -> None:
    """Wraps the key-encryption keys by another root key: that of a file or of a KMS.

    The root key before opens nothing from then on. Set CRM_KEK_FILE or CRM_KMS_KEY to the new one for all processes.
    """
    if (file is None) == (kms_key is None):
        failed("keys", "name either --file or --kms-key")
    known = settings()
    try:
        new: KeyEncryption = (
            FileKeyEncryption.at(file)
            if file is not None
            else root_key(known.model_copy(update={"kms_key": kms_key, "kms_endpoint": kms_endpoint}))
        )
        noted("keys", known, token, "root-key-replaced", kms_key or "file", reason)
        count = replace_root_key(known.keys_url, root_key(known), new)
    except RotationRuns:
        failed("keys", _RUNS)
    except RootKeyWraps:
        failed("keys", "the root key itself wraps data keys; run `crm keys rotate` first")
    except TRANSIENT as error:
        failed("keys", why(error))
    answer({"key_encryption_keys": count}, f"{count} key-encryption keys are wrapped anew", as_json=as_json)


def _line(wrapping: Wrapping) -> str:
    name = "the root key" if wrapping.number is None else f"key-encryption key {wrapping.number}"
    return f"{name} wraps {wrapping.data_keys} data keys and {wrapping.secrets} secrets"


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="keys")
