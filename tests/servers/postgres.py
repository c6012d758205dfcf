"""A private PostgreSQL server: Debian's binaries, a temporary folder, a free loopback port.

Failure behaviour: `kill()` ends the postmaster and all its children with SIGKILL, as a power cut
would, and `end_at_once()` with SIGQUIT; `restart()` brings the same data back on the same port, by
crash recovery if need be. With `fsync=False` (the default, for speed) a killed *server* loses
nothing that it had committed, since the kernel keeps what it wrote; only tests about a dying
machine need `fsync=True`. The setting `synchronous_commit` stays on in both: off, a kill would
lose commits that were acknowledged.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psycopg

from tests.servers.processes import (
    ServerError,
    ServerMissingError,
    ServerProcess,
    free_port,
    private_folder,
    remove_shared_memory,
    run_as,
    server_user,
)

_READY_WITHIN_S = 30.0
_START_TRIES = 3
_SHARED_MEMORY_LINE = 6  # of postmaster.pid: key and number of the segment


class PostgresServer:
    """One running server; every test makes its own database in it.

    `data` is where its data are to be kept, if not in a folder of its own; `options` are more
    words for initdb.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: dict[str, str] | None = None,
        data: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._binaries = find_binaries()
        self._user = server_user("postgres")
        self._folder = private_folder("postgres", self._user)
        self._data = data or self._folder / "data"
        self._options = options
        switch = "on" if fsync else "off"
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": switch,
            "full_page_writes": switch,
            **(settings or {}),
        }
        self._process: ServerProcess | None = None
        self.port = 0
        try:
            self._make_data()
            self._start_on_a_free_port()
        except BaseException:
            self.stop()
            raise

    @property
    def dsn(self) -> str:
        """The address of the maintenance database."""
        return self.dsn_of("postgres")

    @property
    def pid(self) -> int:
        """The number of the postmaster."""
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs."""
        return self._process is not None and self._process.alive

    def said(self, words: str) -> bool:
        """Whether its log has these words."""
        return words in self._running.log.read_text(errors="replace")

    def dsn_of(self, database: str) -> str:
        """The address of one database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template0") -> str:
        """Make a database and answer its DSN."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.dsn_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, cutting whoever is still in it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def kill(self) -> None:
        """Kill the postmaster and its children with SIGKILL."""
        self._running.kill()

    def end_at_once(self) -> None:
        """Stop it as `pg_ctl stop -m immediate` does: no farewell, no checkpoint (SIGQUIT)."""
        os.kill(self.pid, signal.SIGQUIT)
        self._running.wait()

    def restart(self) -> None:
        """Stop it in good order if it still runs, and start it on the same data and port."""
        self._running.stop()
        self._start()

    def stop(self) -> None:
        """Stop it and remove its folder; stopping twice is fine."""
        if self._process is not None:
            self._process.stop()
        self._remove_leftovers_of_a_kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """The server itself, running."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    @property
    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("PostgreSQL was never started")
        return self._process

    def _make_data(self) -> None:
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        run_as(
            [self._binaries / "initdb", "-D", self._data, *options, *self._options],
            user=self._user,
            within_s=60.0,
        )

    def _start_on_a_free_port(self) -> None:
        for last in (False,) * (_START_TRIES - 1) + (True,):
            self.port = free_port()
            try:
                self._start()
            except ServerError:
                if last:
                    raise
            else:
                return

    def _start(self) -> None:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        self._process = ServerProcess(
            [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *settings],
            log=self._folder / "log",
            user=self._user,
            end_signal=signal.SIGINT,  # "fast": roll back, disconnect, write a checkpoint
            orphan_signal=signal.SIGINT,
        )
        self._process.wait_until(self._answers, within_s=_READY_WITHIN_S)

    def _remove_leftovers_of_a_kill(self) -> None:
        lock_file = self._data / "postmaster.pid"
        if not lock_file.exists():  # a server that stopped in good order has removed both
            return
        lines = lock_file.read_text().splitlines()
        if len(lines) > _SHARED_MEMORY_LINE:
            remove_shared_memory(int(lines[_SHARED_MEMORY_LINE].split()[1]))

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.dsn, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())


def find_binaries() -> Path:
    """The folder of the newest PostgreSQL installed here."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(os.path.realpath(on_path)).parent
    raise ServerMissingError("no PostgreSQL server is installed: run tests/servers/install")


def version() -> str:
    """What the server says of itself."""
    answer = subprocess.run(
        [find_binaries() / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()
