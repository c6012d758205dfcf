"""Starts a server program so that it cannot outlive the test run.

Promise: a program started here gets its `orphan_signal` from the kernel when this process dies,
even by kill -9 (PR_SET_PDEATHSIG). The kernel watches the *thread* that started the child, so
every child is started by one thread that lives as long as the process: a test may restart a
server from any short-lived thread. Folders carry the number of the process that owns them; those
of a dead owner are swept away before a new one is made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

_PR_SET_PDEATHSIG = 1
_IPC_RMID = 0
_POLL_S = 0.02
_LOG_TAIL_LINES = 40
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORT_TRIES = 200
_given: set[int] = set()
"""Ports that this process gave away: nobody may listen on them yet."""

_libc = ctypes.CDLL(None, use_errno=True)
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-starter")


class ServerError(Exception):
    """A server of the tests could not be started, or died."""


class ServerMissingError(ServerError):
    """The program is not installed; tests/servers/install fetches it."""


def runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be buried."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def free_port() -> int:
    """A free loopback port that the kernel gives to no outgoing connection.

    A server that is killed and comes back must find its port free: a client that asks for it
    meanwhile, from an address of the kernel's choice, may otherwise be given that very port, and
    is then connected with itself. Whoever loses the race for a port tries another.
    """
    first = int(_EPHEMERAL.read_text().split()[0])
    for _ in range(_PORT_TRIES):
        port = random.SystemRandom().randrange(10_240, min(first, 32_768))
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise ServerError("no free port was found")


def private_folder(kind: str, owner: pwd.struct_passwd | None = None) -> Path:
    """A new folder for one server, swept by a later run if this process cannot remove it."""
    root = Path(tempfile.gettempdir())
    for stale in root.glob(f"goconductor-{kind}-*"):
        pid = stale.name.split("-")[2]
        if pid.isdigit() and not runs(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"goconductor-{kind}-{os.getpid()}-", dir=root))
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


def server_user(name: str) -> pwd.struct_passwd | None:
    """The account a server must run as when we are root; None keeps our own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError as missing:
        reason = f"there is no user {name!r} on this machine: run tests/servers/install"
        raise ServerMissingError(reason) from missing


class ServerProcess:
    """One program, its log file, and its death."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        user: pwd.struct_passwd | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.log = log
        self._end_signal = end_signal
        self._orphan_signal = orphan_signal
        self._program = Path(command[0]).name
        self._process = _starter.submit(self._spawn, command, user).result()

    def _spawn(
        self, command: Sequence[str | Path], user: pwd.struct_passwd | None
    ) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, self._orphan_signal)
            if os.getppid() != parent:  # it died before the kernel was asked to watch
                os._exit(1)

        with self.log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is for pytest, not for it
                preexec_fn=die_with_parent,  # noqa: PLW1509  (prctl has no other door)
                **_identity(user),
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, within_s: float) -> None:
        """Return when `ready()` is true; raise with the end of the log if it never is."""
        deadline = time.monotonic() + within_s
        while not ready():
            if not self.alive:
                raise ServerError(f"{self._program} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self._program} was not ready within {within_s} s:\n{self.tail()}"
                )
            threading.Event().wait(_POLL_S)

    def wait(self, *, within_s: float = 60.0) -> int:
        """Wait for its end; return its exit status, negative for the signal that ended it."""
        return self._process.wait(within_s)

    def stop(self, *, within_s: float = 20.0) -> None:
        """Ask it to end, and kill it if it does not; stopping twice is fine."""
        if self.alive:
            self._process.send_signal(self._end_signal)
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill it and its children at once, as a power cut would."""
        children = tuple(_children(self.pid)) if self.alive else ()
        self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()
        wait_gone(children)

    def tail(self) -> str:
        """The last lines that it wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def run_as(
    command: Sequence[str | Path], *, user: pwd.struct_passwd | None, within_s: float
) -> None:
    """Run a program to its end, as a server's user; its words are in the error."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=within_s,
        check=False,
        **_identity(user),
    )
    if done.returncode != 0:
        raise ServerError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def freeze(pid: int, *, within_s: float = 10.0) -> None:
    """Stop a process, and return once all its threads stand still; `SIGCONT` wakes it.

    The signal alone says nothing: a thread that runs on another core may still answer.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + within_s
    while not all(_stands_still(stat) for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        if time.monotonic() > deadline:
            raise ServerError(f"process {pid} does not stand still")
        time.sleep(0.001)


def _stands_still(stat: Path) -> bool:
    try:
        return stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] in "TtZX"
    except OSError:  # the thread ended meanwhile
        return True


def wait_gone(pids: Sequence[int], *, within_s: float = 10.0) -> None:
    """Return when none of these processes is left."""
    deadline = time.monotonic() + within_s
    while any(runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise ServerError(f"still running after a kill: {pids}")
        threading.Event().wait(_POLL_S)


def remove_shared_memory(segment: int) -> None:
    """Remove a System V segment that a killed server left behind."""
    _libc.shmctl(segment, _IPC_RMID, None)


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _identity(user: pwd.struct_passwd | None) -> _Identity:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _children(pid: int) -> Iterator[int]:
    """Its children and theirs, from the kernel's own list."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, listed):
        yield child
        yield from _children(child)
