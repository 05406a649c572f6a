"""The HTTP of every service: callers, problems, versions, pages, reading one's own write, health, metrics."""

from chassis.web.app import command_of, create_app
from chassis.web.callers import Asking, Permitted, caller
from chassis.web.commands import (
    CommandBody,
    Commanding,
    DatedBody,
    DatedExplainedBody,
    ExplainedBody,
    Reason,
    command_context,
    idempotency_key,
)
from chassis.web.conditional import Expected, entity_tag, expected_version, unchanged
from chassis.web.consistency import ReadingOwnWrite, WaitFor, consistency_token
from chassis.web.dependencies import Dependencies, dependencies
from chassis.web.openapi import DescribedRouter, located, tagged
from chassis.web.paging import LIMIT_MAX, CursorInvalid, Page, Paging, cursor, cursor_values, paging
from chassis.web.parameters import OwnParameters
from chassis.web.problems import Problem, refusals
from chassis.web.served import Routes
from chassis.web.serving import PortTaken, listening_socket, serve

__all__ = [
    "LIMIT_MAX",
    "Asking",
    "CommandBody",
    "Commanding",
    "CursorInvalid",
    "DatedBody",
    "DatedExplainedBody",
    "Dependencies",
    "DescribedRouter",
    "Expected",
    "ExplainedBody",
    "OwnParameters",
    "Page",
    "Paging",
    "Permitted",
    "PortTaken",
    "Problem",
    "ReadingOwnWrite",
    "Reason",
    "Routes",
    "WaitFor",
    "caller",
    "command_context",
    "command_of",
    "consistency_token",
    "create_app",
    "cursor",
    "cursor_values",
    "dependencies",
    "entity_tag",
    "expected_version",
    "idempotency_key",
    "listening_socket",
    "located",
    "paging",
    "refusals",
    "serve",
    "tagged",
    "unchanged",
]
