"""Roles as processes of their own, as `python -m <service> <role>` starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import httpx

SECONDS_MAX = 90
Environment = Mapping[str, str]


class Role:
    """A role, or several, as a process of its own."""

    all: ClassVar[list["Role"]] = []

    def __init__(self, environment: Environment, service: str, *roles: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.all.append(self)
        self.log = Path(environment["CRM_DATA"]) / f"{service}-{roles[0]}-{self.port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", service, *roles],
                env=os.environ | environment | {"CRM_PORT": str(self.port)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def reasons(self) -> list[str] | None:
        """Why it is not ready; None where it does not answer."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/health/ready").json()
        except httpx.TransportError:
            return None
        return list(answer.get("reasons", []))

    def ready(self) -> bool:
        return self.reasons() == []

    def end(self) -> int:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def until(what: str, condition: Callable[[], bool], seconds_max: float = SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {[role.reasons() for role in Role.all]}"
        time.sleep(0.2)
