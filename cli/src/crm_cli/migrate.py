"""`crm migrate`: brings the databases of all services to the schema that they need; a step of its own before the roles."""

import sys
from collections.abc import Callable
from typing import Final

import psycopg
import typer
from chassis.connections.migrating import MigrationBlocked
from chassis.connections.postgres import connect
from chassis.connections.settings import KEYS_DATABASE, Settings
from chassis.connections.transient import why
from chassis.process.roles import migrate_databases
from chassis.service import services
from psycopg import sql
from psycopg.conninfo import make_conninfo

from crm_cli.answers import Json, answer
from crm_cli.contexts import settings
from crm_cli.exits import failed

TABLES: Final = tuple(tables for service in services() for tables in service.tables)


def migrated(settings: Settings, said: Callable[[str], None] = lambda _: None) -> int:
    """Migrates everything, and makes the key database where it lies beside the events and is missing; returns how many
    steps were run. Raises MigrationBlocked, psycopg.Error."""
    if settings.keys_owner_url == make_conninfo(settings.postgres_owner_url, dbname=KEYS_DATABASE):
        with connect(settings.postgres_owner_url) as connection:
            found = connection.execute(
                "select from pg_database where datname = %s", [KEYS_DATABASE]
            ).fetchone()
            if found is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(KEYS_DATABASE)))
    return migrate_databases(settings, TABLES, said)


def migrate(as_json: Json = False) -> None:
    """Runs the schema changes that are still to come, as the owner.

    The owner's logins are in POSTGRES_OWNER_URL and CRM_KEYS_OWNER_URL.
    """
    try:
        done = migrated(settings(), lambda line: print(line, file=sys.stderr))
    except (MigrationBlocked, psycopg.Error) as error:
        failed("migrate", why(error))
    answer({"steps": done}, f"{done} steps were run" if done else "nothing is to be done", as_json=as_json)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("migrate")(migrate)
