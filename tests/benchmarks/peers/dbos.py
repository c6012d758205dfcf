"""DBOS: a library in two service processes, with PostgreSQL as its system database.

Two, because one is bound by Python's lock; each is asked for half of the sagas. Its log level is
raised to warnings, uvloop runs its loop, and everything else is its default.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.peers import installed
from tests.benchmarks.peers.asked import PeerSystem
from tests.benchmarks.system import READY_WITHIN_S
from tests.servers.processes import accepts_connections, free_port

_PROCESSES = 2


class Dbos(PeerSystem):
    """DBOS and its PostgreSQL."""

    name = "dbos"
    title = "DBOS, Python, 2 processes"
    path = "/saga"

    async def start(self) -> None:
        """Start one process after the other: the first one makes the tables."""
        dsn = self.postgres().create_database("bench")
        script = installed.SERVICES / "dbos_service.py"
        for number in range(_PROCESSES):
            port = free_port()
            words: list[Any] = [installed.program("dbos", "python"), script, port, self.stub_port]
            service = self.spawn("service", [*words, dsn, number])
            service.wait_until(lambda port=port: accepts_connections(port), within_s=READY_WITHIN_S)
            self.ports.append(port)
