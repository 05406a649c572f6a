"""Servers that freeze: they keep their connections, and answer nothing until they go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg


def family(pid: int) -> list[int]:
    """A process and all that it started, parents first."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            found += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return found


@contextmanager
def frozen_postgres(url: str) -> Iterator[None]:
    """The PostgreSQL of this run, which nothing else uses meanwhile."""
    with psycopg.connect(url) as connection:
        backend = Path(f"/proc/{connection.info.backend_pid}/stat").read_text()
    with frozen(int(backend.rpartition(")")[2].split()[1])):
        yield


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server and all that it started."""
    processes = family(pid)
    try:
        _signalled(processes, signal.SIGSTOP)
        yield
    finally:
        _signalled(processes, signal.SIGCONT)


def _signalled(processes: list[int], number: signal.Signals) -> None:
    for one in processes:
        with suppress(ProcessLookupError):
            os.kill(one, number)
