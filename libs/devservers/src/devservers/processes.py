"""A server as a child process: started, waited for, found again after a crash, stopped. Every wait has a limit."""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
KILL_SECONDS_MAX = 5.0
POLL_SECONDS = 0.03
LOG_LINES_SHOWN = 12
LOG_BYTES_MAX = 16 << 20
PORT_FIRST, PORT_LAST = 20_000, 32_000
"""Below the range from which systems take the ports of outgoing connections."""
PORT_TRIES_MAX = 200

Log = Callable[[str], None]


class ServerFailed(Exception):
    """A server cannot be started or kept; the text says which, why, and how its log ends."""


class ServerUnavailable(ServerFailed):
    """What a server is made of cannot be had on this machine: a package, a library, a download, an engine."""


class DataFolderUnusable(ServerFailed):
    """The data folder cannot be written, or another run holds it."""


class NotReady(Exception):
    """The server runs and does not answer yet."""


def free_port(taken: Sequence[int] = ()) -> int:
    """A port of loopback on which nobody listens now."""
    for _ in range(PORT_TRIES_MAX):
        port = PORT_FIRST + secrets.randbelow(PORT_LAST - PORT_FIRST)
        if port not in taken and port_is_free(port):
            return port
    raise ServerFailed(f"no free port of loopback between {PORT_FIRST} and {PORT_LAST}")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def made_folder(folder: Path) -> Path:
    """The folder, made where missing and tried for writing; raises `DataFolderUnusable`."""
    path = str(folder.absolute())
    if "," in path or not path.isprintable():
        # Kafka and PostgreSQL take lists of folders, with commas between them.
        raise DataFolderUnusable(f"the path {path!r} has a comma, or a character that cannot be printed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".trial-{os.getpid()}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise DataFolderUnusable(f"the folder {folder} cannot be written: {error.strerror}") from error
    return folder


class FolderLock:
    """Holds a folder for one run; the system lets go of it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._descriptor = -1

    def take(self) -> None:
        """Raises `DataFolderUnusable` where another run has it."""
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise DataFolderUnusable(f"another run uses the data in {self._path.parent}") from error
        except OSError as error:
            raise DataFolderUnusable(f"{self._path} cannot be opened: {error.strerror}") from error

    def release(self) -> None:
        """Lets go; once more is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Server(ABC):
    """One server with a folder of its own, in which its data, its log and its process id are.

    `prepare` may run in any thread. `spawn` must be called by a thread that lives as long as the server shall,
    because where the system allows it the server is told to stop when that thread is gone: so a killed run
    leaves nothing behind. Where it does not, the next run finds the process id and stops it.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    """The environment variable that says where such a server is."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, log: Log, *, durable: bool = True) -> None:
        self.folder = folder
        self.log = log
        self.durable = durable
        self.child: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the server is once it is prepared."""

    @abstractmethod
    def prepare(self) -> None:
        """Fetches what is missing and makes the data where there is none; raises `ServerFailed`."""

    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    @abstractmethod
    def ask(self) -> None:
        """Raises `NotReady` until the server does its work."""

    def environment(self) -> dict[str, str]:
        """What the process sees of ours."""
        return dict(os.environ)

    def owner(self) -> int | None:
        """The user that the process must run as, where it is not ours."""
        return None

    @property
    def data(self) -> Path:
        """The server's own files."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    @property
    def pid_file(self) -> Path:
        """Which process it is, for a run that finds it left over."""
        return self.folder / "process.json"

    def last_lines(self) -> str:
        """How the log ends, indented."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        except OSError:
            lines = []
        return "\n".join(f"    {line[:300]}" for line in lines) or "    (its log is empty)"

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child is not None and self.child.poll() is None

    def spawn(self) -> None:
        """Starts the process; raises `ServerFailed` where it cannot even begin."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        command = [*wrapped(self.owner(), self.stop_signal), *self.command()]
        with self.log_file.open("ab") as output:
            try:
                self.child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.environment(),
                    start_new_session=True,
                    cwd=self.folder,
                )
            except OSError as error:
                raise ServerUnavailable(f"{self.name}: {error}") from error
        self.pid_file.write_text(json.dumps({"pid": self.child.pid, "began": process_began(self.child.pid)}))

    def wait_ready(self) -> None:
        """Returns when the server answers; raises `ServerFailed` when it died or took too long."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        reason = "no answer"
        while time.monotonic() < deadline:
            if not self.alive():
                self._died()
            try:
                self.ask()
            except NotReady as error:
                reason = str(error) or reason
            else:
                return
            time.sleep(POLL_SECONDS)
        raise ServerFailed(
            f"{self.name} did not answer within {READY_SECONDS_MAX:.0f} s ({reason}); its log ends:\n{self.last_lines()}"
        )

    def _died(self) -> None:
        code = self.child.returncode if self.child else None
        raise ServerFailed(
            f"{self.name} ended with {code}; its log {self.log_file} ends:\n{self.last_lines()}"
        )

    def ask_to_stop(self) -> None:
        """Sends the signal of a clean stop and does not wait."""
        if self.child is not None and self.alive():
            self.child.send_signal(self.stop_signal)

    def stop(self) -> None:
        """Stops the process cleanly, or by force when it takes too long; once more is harmless."""
        if self.child is None:
            return
        self.ask_to_stop()
        try:
            self.child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.log(f"{self.name} does not stop; it is killed")
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(KILL_SECONDS_MAX)
        self.child = None
        self.pid_file.unlink(missing_ok=True)

    def stop_left_over(self) -> None:
        """Stops the process of a run that ended without doing so, if it is still ours and still there."""
        try:
            noted = json.loads(self.pid_file.read_text())
            pid, began = int(noted["pid"]), noted["began"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if began is not None and process_began(pid) == began:
            self.log(f"{self.name}: process {pid} is left over from a run before; it is stopped")
            stop_stranger(pid, self.stop_signal)
        self.pid_file.unlink(missing_ok=True)


class PortServer(Server):
    """A server that listens on ports of loopback; they stay the same from run to run where nobody takes them."""

    port_count: ClassVar[int] = 1

    def __init__(self, folder: Path, log: Log, *, durable: bool = True) -> None:
        super().__init__(folder, log, durable=durable)
        self.ports: tuple[int, ...] = ()

    def choose_ports(self) -> bool:
        """Takes the ports of last time, or new ones where they are taken; tells whether they changed."""
        note = self.folder / "ports.json"
        try:
            before = tuple(int(port) for port in json.loads(note.read_text()))
        except (OSError, ValueError, TypeError):
            before = ()
        if len(before) == self.port_count and all(port_is_free(port) for port in before):
            self.ports = before
            return False
        chosen: list[int] = []
        while len(chosen) < self.port_count:
            chosen.append(free_port(chosen))
        self.ports = tuple(chosen)
        note.write_text(json.dumps(chosen))
        return bool(before)

    @override
    def wait_ready(self) -> None:
        """As of any server; a port that was taken in the moment between choosing and listening is chosen anew once."""
        try:
            super().wait_ready()
        except ServerFailed:
            if self.alive() or all(port_is_free(port) for port in self.ports):
                raise
            self.prepare()
            self.spawn()
            super().wait_ready()


def run_briefly(
    name: str,
    command: Sequence[str],
    *,
    seconds: float,
    owner: int | None = None,
    environment: Mapping[str, str],
) -> str:
    """Runs a command that sets something up and gives what it printed; raises `ServerFailed` with what it said."""
    try:
        done = subprocess.run(
            [*wrapped(owner, signal.SIGKILL), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env=dict(environment),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerFailed(f"{name}: {Path(command[0]).name} took longer than {seconds:.0f} s") from error
    except OSError as error:
        raise ServerUnavailable(f"{name}: {error}") from error
    if done.returncode != 0:
        said = "\n".join(f"    {line[:300]}" for line in done.stdout.splitlines()[-LOG_LINES_SHOWN:])
        raise ServerFailed(f"{name}: {Path(command[0]).name} ended with {done.returncode}:\n{said}")
    return done.stdout


def wrapped(owner: int | None, last_signal: signal.Signals) -> list[str]:
    """What to put before a command so that it ends with us, and runs as `owner`.

    Another user than ours cannot pass a home of mode 700. Opening the folders would last longer than the run, so
    the process gets the one capability to look into folders instead, and the permissions stay as they are.
    """
    setpriv = shutil.which("setpriv") or shutil.which("setpriv", path="/usr/bin:/bin")
    if setpriv is None:
        if owner is not None:
            raise ServerUnavailable("as root, PostgreSQL needs setpriv (Debian package util-linux)")
        return []
    wrapped = [setpriv, "--pdeathsig", last_signal.name.removeprefix("SIG")]
    if owner is not None:
        capability = _capability_to_look()
        wrapped += ["--reuid", str(owner), "--regid", str(owner), "--clear-groups"]
        if capability is not None:
            wrapped += ["--inh-caps", f"+{capability}", "--ambient-caps", f"+{capability}"]
    return [*wrapped, "--"]


def _capability_to_look() -> str | None:
    """The least capability at hand with which a process passes folders that are closed to it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    allowed = next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)
    numbers = {"dac_read_search": 2, "dac_override": 1}
    return next((name for name, number in numbers.items() if allowed >> number & 1), None)


def process_began(pid: int) -> str | None:
    """When a process began, as the system counts it, with the boot that it counts from; None without a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown boot"
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}/{ticks}"


def stop_stranger(pid: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    """Stops a process that is not our child, by force when it takes too long; raises `ServerFailed`."""
    began = process_began(pid)
    for each, seconds in ((stop_signal, STOP_SECONDS_MAX), (signal.SIGKILL, KILL_SECONDS_MAX)):
        try:
            os.kill(pid, each)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process_began(pid) != began:
                return
            time.sleep(POLL_SECONDS)
    raise ServerFailed(f"process {pid}, left over from a run before, cannot be stopped")
