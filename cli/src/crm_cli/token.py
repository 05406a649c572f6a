"""`crm token`: a token for a developer's own calls."""

from typing import Annotated

import typer
from chassis.clock import SystemClock
from chassis.connections.settings import TokenSettings
from chassis.privacy.tokens import ADMINISTRATOR, DEVELOPMENT_SECONDS_MAX, DevelopmentOnly, development_token

from crm_cli.answers import Json, answer
from crm_cli.exits import failed
from crm_cli.running import data_folder, running


def token(
    subject: Annotated[str, typer.Option(help="who calls, as a staff number")] = "developer",
    post: Annotated[str | None, typer.Option(help="the post that the caller holds")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="a role; may be given several times; administrator where left out"),
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, max=DEVELOPMENT_SECONDS_MAX, help="how long it is valid")] = 8
    * 3600,
    as_json: Json = False,
) -> None:
    """Prints a token for HTTP; only where CRM_ENVIRONMENT is development."""
    try:
        issued = development_token(
            settings(),
            SystemClock().now(),
            subject=subject,
            post=post,
            roles=role or (ADMINISTRATOR,),
            seconds=seconds,
        )
    except (DevelopmentOnly, ValueError) as error:
        failed("token", str(error))
    answer({"token": issued}, issued, as_json=as_json)


def settings() -> TokenSettings:
    """The environment's settings; where it is silent, those that the running processes have."""
    found, here = TokenSettings(data=data_folder()), running()
    if here is None or "environment" in found.model_fields_set:
        return found
    return found.model_copy(update={"environment": here.environment})


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("token")(token)
