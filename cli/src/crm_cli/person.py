"""The actor on the command line: the caller of the token, or in development the user of the operating system.

A program that acts for a bank acts for a person, so that every event names one.
"""

import getpass
import os
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Final

import typer
from chassis.clock import SystemClock, uuid7
from chassis.connections.settings import TokenSettings
from chassis.privacy.tokens import Caller, KeysUnreadable, TokenInvalid, verifier_of
from chassis.write.deciding import CommandContext
from sync_ingest.permissions import COMMANDS, ROLES
from sync_ingest.runs.ports import Acting

from crm_cli.exits import failed

TOKEN_VARIABLE: Final = "CRM_TOKEN"  # noqa: S105 (a name)
USER_PREFIX: Final = "os:"
"""The prefix of the name of a user of the operating system, so that it cannot be a staff number."""

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar=TOKEN_VARIABLE,
        help="who acts; in development the user of the operating system where left out",
        show_envvar=True,
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="why; it is stored with the event")]


def caller_of(settings: TokenSettings, token: str | None, roles: Collection[str]) -> Caller:
    """The person; ends the command with 2 where there is none, or none of these roles."""
    if token:
        try:
            caller = verifier_of(settings, SystemClock().now).verify(token.strip())
            if caller.roles.isdisjoint(roles):
                failed("", f"this takes one of the roles {', '.join(sorted(roles))}")
            return caller
        except TokenInvalid as error:
            failed("", str(error))
        except (KeysUnreadable, OSError, ValueError):
            failed("", "the keys that tokens are verified with cannot be read (CRM_TOKEN_KEYS_FILE)")
    if not settings.development:
        failed(
            "",
            f"CRM_ENVIRONMENT is {settings.environment}: a person must act, by --token or {TOKEN_VARIABLE}",
        )
    return Caller(USER_PREFIX + _user(), post="development")


def acting_of(settings: TokenSettings, token: str | None, route: str, reason: str | None = None) -> Acting:
    """The person as a run of ingest names it. It may do what the route or command of that name is for."""
    caller = caller_of(settings, token, (ROLES | COMMANDS)[route])
    return Acting(caller.subject, caller.post, caller.on_behalf_of, reason=reason)


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without an entry in the password file
        name = ""
    return name if name.isprintable() and 0 < len(name) <= 80 else f"uid-{os.getuid()}"


def commanding(caller: Caller, now: datetime, reason: str | None) -> CommandContext:
    """The context of a command of this caller: an id of its own, and the right of the command line."""
    return CommandContext(
        actor=caller.subject,
        now=now,
        command_id=uuid7(now),
        post=caller.post,
        on_behalf_of=caller.on_behalf_of,
        reason=reason,
        privilege="high",
    )
