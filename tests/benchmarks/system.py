"""What is measured: a system that runs the saga, its servers, and the stub that it calls.

Everything a system starts is its own and ends with it, also when starting fails half way, so
that each measurement begins on fresh servers and an empty disk.
"""

from __future__ import annotations

import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from tests.benchmarks import costs
from tests.benchmarks.client import Client
from tests.benchmarks.saga import Variant
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerProcess, accepts_connections, free_port, private_folder

READY_WITHIN_S = 60.0
_STUB = Path(__file__).with_name("stub.py")


class System(ABC):
    """One system, running between `async with` and its end."""

    name: str
    """How the command line calls it."""
    title: str
    """How the table calls it."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.stack = ExitStack()
        self.folder = Path()
        self.stub_port = free_port()
        self._roots: dict[str, list[int]] = {}

    @abstractmethod
    async def start(self) -> None:
        """Start what the system consists of, and fill `ports`; the stub runs already."""

    @abstractmethod
    def question(self, variant: Variant, order: int) -> tuple[str, bytes]:
        """The path and the body that run one saga to its end."""

    @abstractmethod
    def ended_well(self, variant: Variant, status: int, answer: Any) -> bool:
        """Whether this answer says that the saga ended as its variant must."""

    async def __aenter__(self) -> Self:
        """Start everything."""
        try:
            self.folder = private_folder("bench")
            self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stub = self.spawn("stub", [sys.executable, _STUB, self.stub_port])
            stub.wait_until(lambda: accepts_connections(self.stub_port), within_s=READY_WITHIN_S)
            await self.start()
        except BaseException:
            self.stack.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End everything."""
        self.stack.close()

    def spawn(self, kind: str, command: Sequence[str | int | Path]) -> ServerProcess:
        """Start one process that is accounted for under its kind, and ends with us."""
        log = self.folder / f"{kind}-{len(self._roots.get(kind, ()))}.log"
        process = ServerProcess([str(word) for word in command], log=log)
        self.stack.callback(process.stop)
        self.account(kind, process.pid)
        return process

    def postgres(self, **more: str) -> PostgresServer:
        """A PostgreSQL of its own, the same for every system: fsync on, 512 MB of buffers."""
        server = PostgresServer(fsync=True, settings={"shared_buffers": "512MB", **more})
        self.stack.callback(server.stop)
        self.account("postgres", server.pid)
        return server

    def account(self, kind: str, pid: int) -> None:
        """Count a process, and all below it, as one of this kind."""
        self._roots.setdefault(kind, []).append(pid)

    def pids(self, kind: str) -> tuple[int, ...]:
        """The processes that were started as one of this kind."""
        return tuple(self._roots[kind])

    def spent(self) -> costs.Spent:
        """The CPU time spent so far."""
        return costs.spent(self._roots)

    def memory(self) -> dict[str, float]:
        """The memory held now, in MiB, without the stub's."""
        roots = {kind: pids for kind, pids in self._roots.items() if kind != "stub"}
        return costs.memory(roots)

    async def calls(self) -> dict[str, int]:
        """How many calls the stub has answered, by path."""
        client = Client(self.stub_port)
        try:
            _, counts = await client.request("GET", "/count")
        finally:
            client.close()
        return dict(counts)


def answers_200(url: str) -> bool:
    """Whether somebody says 200 there."""
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310  (loopback, chosen by us)
            return bool(answer.status == 200)
    except OSError:
        return False
