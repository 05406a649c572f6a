"""Durable timers: "at this time give this command", set and withdrawn by events, given once."""

from chassis.timers.declaring import (
    Change,
    Due,
    NotReady,
    SetTimer,
    Setting,
    Timer,
    TimerRule,
    WithdrawTimer,
    generation_of,
    given_by,
)
from chassis.timers.loop import TimerLoop
from chassis.timers.role import Timers, TimersRole
from chassis.timers.table import PostgresTimers, TimerTable

__all__ = [
    "Change",
    "Due",
    "NotReady",
    "PostgresTimers",
    "SetTimer",
    "Setting",
    "Timer",
    "TimerLoop",
    "TimerRule",
    "TimerTable",
    "Timers",
    "TimersRole",
    "WithdrawTimer",
    "generation_of",
    "given_by",
]
