"""A private MariaDB server: Debian's binaries, a temporary folder, a free loopback port.

It stands for MySQL, which Debian does not have. What it holds is of no worth: no write waits for
the disk.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.servers.processes import (
    ServerError,
    ServerMissingError,
    ServerProcess,
    free_port,
    private_folder,
    run_as,
    server_user,
)

_READY_WITHIN_S = 30.0
_START_TRIES = 3


class MariadbServer:
    """One running server, with a database `test` for whoever comes."""

    def __init__(self) -> None:
        self._server, self._installer = find_binaries()
        # Its package makes no account for it without making a service too; it needs none of its
        # own, only one that is not root.
        self._user = server_user("nobody")
        self._folder = private_folder("mariadb", self._user)
        self._data = self._folder / "data"
        self._process: ServerProcess | None = None
        self.port = 0
        try:
            self._make_data()
            self._start_on_a_free_port()
            self._execute("CREATE DATABASE IF NOT EXISTS test")
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The number of the process."""
        if self._process is None:
            raise ServerError("MariaDB was never started")
        return self._process.pid

    def connect(self, database: str = "test") -> pymysql.connections.Connection[Any]:
        """A new connection; it commits nothing by itself."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, connect_timeout=2
        )

    def stop(self) -> None:
        """Stop it and remove its folder; stopping twice is fine."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """The server itself, running."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    def _make_data(self) -> None:
        run_as(
            [
                self._installer,
                "--no-defaults",
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
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
        self._process = ServerProcess(
            [
                self._server,
                "--no-defaults",  # what else is configured on this machine is not for it
                f"--datadir={self._data}",
                f"--socket={self._folder / 'socket'}",
                f"--pid-file={self._folder / 'pid'}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=32M",
            ],
            log=self._folder / "log",
            user=self._user,
        )
        self._process.wait_until(self._answers, within_s=_READY_WITHIN_S)

    def _answers(self) -> bool:
        try:
            self.connect("mysql").close()
        except pymysql.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with self.connect("mysql") as connection, connection.cursor() as cursor:
            cursor.execute(statement)


def find_binaries() -> tuple[Path, Path]:
    """The server and the program that makes its data."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    server = shutil.which("mariadbd", path=path)
    installer = shutil.which("mariadb-install-db", path=path)
    if server is None or installer is None:
        raise ServerMissingError("no MariaDB server is installed: run tests/servers/install")
    return Path(server), Path(installer)
