"""The parts of a web process that a service provides."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fastapi import APIRouter

from chassis.observability.metrics import Measure


class Routes(NamedTuple):
    """A router, body limits by path above the default, the reasons for not being ready, and the refreshing of
    gauges."""

    router: APIRouter
    body_limits: Mapping[str, int]
    not_ready: Callable[[], list[str]]
    measures: Sequence[Measure] = ()
