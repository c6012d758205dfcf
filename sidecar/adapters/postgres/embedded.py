"""The embedded PostgreSQL: one folder, one server, shared by every process that names the folder.

    server = EmbeddedServer(Path("data"))
    dsn = await server.open()       # initdb, start, or find the one that runs
    dsn = await server.ensure()     # after a connection failed: wait until it is back
    await server.close()

Promise: whoever holds the folder's lock runs a real PostgreSQL as its child, with fsync on, on a
loopback port, behind a password that only the folder's owner can read. All others use that
server. It listens on the same port for the folder's whole life, unless a stranger took the port.

Failure behaviour: when the holder dies, even by kill -9, the kernel ends its server and drops the
lock; another process that has the folder open takes both over within about a second, after the
old server has fully gone. When the server alone dies, its holder starts it again. No data is ever
removed but what an unfinished initdb left, in which no server ever ran.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import psycopg
import structlog

from sidecar.adapters.postgres.embedded_binaries import find_binaries, usable_binaries
from sidecar.adapters.postgres.embedded_folder import DATABASE, ROLE, Address, Folder
from sidecar.adapters.postgres.embedded_process import Program, processes_in, run_to_end, tail
from sidecar.errors import EmbeddedServerError, GoConductorError
from sidecar.ports.telemetry import Telemetry

log = structlog.get_logger("sidecar.embedded")

T = TypeVar("T")

_HOST = "127.0.0.1"
_POLL_S = 0.05
_WATCH_S = 0.5
_LONGEST_PAUSE_S = 10.0
_START_TRIES = 3
_INITDB_WITHIN_S = 60.0
_CONNECT_WITHIN_S = 5.0
_PREDECESSOR_WITHIN_S = 20.0
# Fast (disconnect all, write a checkpoint), then immediate (leave recovery to the next start).
_STOP = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))

# The first values of postgresql.conf: the folder's owner may change these there.
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "log_min_duration_statement": "2s",
    "log_line_prefix": "%m [%p] ",
}
# These hold whatever the file says, since what we promise rests on them.
_FIXED = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "fsync": "on",
    "logging_collector": "on",
    "log_directory": "../log",
    "log_filename": "postgresql-%Y%m%d-%H%M%S.log",
    "log_rotation_size": "10MB",
    "log_rotation_age": "0",
}


class EmbeddedServer:
    """The PostgreSQL server of one folder, run by us or by another process."""

    def __init__(
        self, folder: Path, *, telemetry: Telemetry | None = None, ready_within_s: float = 60.0
    ) -> None:
        """Nothing is touched before `open`.

        `ready_within_s` bounds each wait for the server, recovery after a crash included.
        """
        self._folder = Folder(folder)
        self._telemetry = telemetry
        self._ready_within_s = ready_within_s
        self._program: Program | None = None
        self._watch: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def holding(self) -> bool:
        """Whether it is we who run the server."""
        return self._folder.locked

    async def open(self) -> str:
        """Start the server or find the one that runs, keep watch from now on, return its DSN.

        Raises:
            MissingExtra: the wheel with PostgreSQL is not installed.
            EmbeddedServerError: there is no server, and none could be started; says why.
        """
        if sys.platform != "linux":
            raise EmbeddedServerError("the embedded PostgreSQL runs on Linux only; set store.dsn")
        find_binaries()  # say what is missing even if another process could run the server
        with _reporting(self._folder.path):
            await _to_its_end(self._folder.prepare)
        try:
            dsn = await self.ensure()
        except BaseException:
            await self.close()
            raise
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep(), name="embedded-server")
        return dsn

    async def ensure(self) -> str:
        """Return the DSN of a server that answers now, waiting for one or starting it if need be.

        Raises:
            EmbeddedServerError: none answers in time, or none can be started; says why.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._ready_within_s + _PREDECESSOR_WITHIN_S
        while (dsn := await self._answering()) is None:
            if loop.time() > give_up:
                raise EmbeddedServerError(
                    f"another process holds {self._folder.path / 'lock'}, but its server does "
                    f"not answer:\n{self._words()}"
                )
            await asyncio.sleep(_POLL_S)
        return dsn

    async def close(self) -> None:
        """Stop watching, and stop the server if it is ours; to close twice is fine."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        if self._program is not None:
            await self._program.stop(*_STOP)
            self._program = None
        self._folder.unlock()

    async def __aenter__(self) -> Self:
        """The server, open."""
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close, whatever happened."""
        await self.close()

    async def _keep(self) -> None:
        pause_s = _WATCH_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._run_if_holder()
            except GoConductorError as error:
                self._tell("embedded_server_failed", error=error.message)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                pause_s = _WATCH_S

    async def _answering(self) -> str | None:
        await self._run_if_holder()
        with _reporting(self._folder.path):
            address, password = self._folder.address(), self._folder.password()
        if address is None or password is None:
            return None
        dsn = address.dsn(password)
        return dsn if await _refusal(dsn) is None else None

    async def _run_if_holder(self) -> None:
        """If the folder is ours, or free, see to it that the server runs."""
        async with self._one_at_a_time:
            with _reporting(self._folder.path):
                if not self._folder.try_lock():
                    return
                if self._program is None or not self._program.alive:
                    await self._start_or_unlock()
                self._folder.prune_logs()

    async def _start_or_unlock(self) -> None:
        try:
            await self._start()
        except BaseException:
            self._program = None
            self._folder.unlock()  # perhaps another process can
            raise

    async def _start(self) -> None:
        await self._await_predecessor()
        folder, installed = self._folder, find_binaries()
        programs = await _to_its_end(
            lambda: usable_binaries(installed, identity=folder.identity, copies=folder.programs)
        )
        if self._folder.needs_data():
            await self._make_data(programs)
        self._folder.clear_stale_lock_file()
        self._folder.open_log()
        known = self._folder.address()
        ports = [known.port] if known else []
        for number in range(_START_TRIES):
            port = ports[number] if number < len(ports) else _free_port()
            if await self._start_on(port, programs, last=number == _START_TRIES - 1):
                return

    async def _await_predecessor(self) -> None:
        """Wait until the server of a holder that died has gone; it was told to end already."""
        for number in (None, signal.SIGINT, signal.SIGQUIT):
            if number is not None:
                self._tell_predecessor(number)
            try:
                async with asyncio.timeout(_PREDECESSOR_WITHIN_S / 3):
                    while processes_in(self._folder.data):  # noqa: ASYNC110  (not our children)
                        await asyncio.sleep(_POLL_S)
                    return
            except TimeoutError:
                continue
        raise EmbeddedServerError(
            f"an earlier server in {self._folder.data} does not end: "
            f"processes {processes_in(self._folder.data)}"
        )

    def _tell_predecessor(self, number: signal.Signals) -> None:
        for pid in processes_in(self._folder.data):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    async def _make_data(self, programs: Path) -> None:
        new, hint = self._folder.new_data()
        settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
        options = [f"--username={ROLE}", f"--pwfile={hint}", "--auth=scram-sha-256"]
        locale = ["--encoding=UTF8", "--locale=C"]
        await run_to_end(
            [programs / "initdb", "--pgdata", new, *options, *locale, *settings],
            identity=self._folder.identity,
            output=self._folder.output,
            within_s=_INITDB_WITHIN_S,
        )
        self._folder.keep_data(new, hint)

    async def _start_on(self, port: int, programs: Path, *, last: bool) -> bool:
        """Start it and wait until it answers; False if the port is taken and not the `last`."""
        settings = [f"--{name}={value}" for name, value in _FIXED.items()]
        program = Program(
            [programs / "postgres", "-D", self._folder.data, "-p", str(port), *settings],
            identity=self._folder.identity,
            output=self._folder.output,
            orphan_signal=signal.SIGINT,
        )
        password = self._folder.password() or ""
        address = Address(_HOST, port, ROLE, DATABASE, pid=program.pid, holder=os.getpid())
        try:
            await self._await_answer(program, address.dsn(password))
        except EmbeddedServerError as error:
            await program.stop(*_STOP)
            if last or "could not bind" not in error.message:
                raise
            return False
        except BaseException:
            await program.stop(*_STOP)
            raise
        self._program = program
        self._folder.write_address(address)
        self._tell("embedded_server_started", folder=str(self._folder.path), port=port)
        return True

    async def _await_answer(self, program: Program, dsn: str) -> None:
        try:
            async with asyncio.timeout(self._ready_within_s):
                while program.alive:
                    # Asking before it says so might reach a stranger on the same port.
                    ready = self._folder.ready(program.pid)
                    refusal = await _refusal(dsn) if ready else "not ready"
                    if refusal is None:
                        return
                    if "password authentication failed" in refusal:
                        raise EmbeddedServerError(
                            f"{self._folder.path / 'password'} is not the password of the data "
                            f"in {self._folder.data}; restore that file"
                        )
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise EmbeddedServerError(
                f"PostgreSQL in {self._folder.data} did not answer within "
                f"{self._ready_within_s:g} s:\n{self._words()}"
            ) from None
        raise EmbeddedServerError(
            f"PostgreSQL in {self._folder.data} ended while starting:\n{self._words()}"
        )

    def _words(self) -> str:
        """The last lines that the server wrote, to its output and to its log."""
        newest = self._folder.newest_log()
        parts = [tail(path) for path in (self._folder.output, newest) if path is not None]
        return "\n".join(part for part in parts if part)

    def _tell(self, fact: str, **fields: object) -> None:
        (log.warning if fact.endswith("failed") else log.info)(fact, **fields)
        if self._telemetry is not None:
            self._telemetry.fact(fact, **fields)


async def _refusal(dsn: str) -> str | None:
    """Why the server does not take a connection now; None if it does."""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            connection = await psycopg.AsyncConnection.connect(dsn, connect_timeout=5)
    except (psycopg.OperationalError, TimeoutError) as error:
        return str(error) or type(error).__name__
    await connection.close()
    return None


async def _to_its_end(work: Callable[[], T]) -> T:
    """Work in a thread. Who cancels us waits for its end: it writes into the folder until then."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.gather(doing, return_exceptions=True)
        raise


def _free_port() -> int:
    """A loopback port that nobody holds now; whoever loses the race for it tries another."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Translate what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(f"cannot use the folder {folder}: {error}") from error
