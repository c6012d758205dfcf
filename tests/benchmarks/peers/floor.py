"""The floor: the bare calls and the fewest rows, in one process of our own environment.

No system that writes down what it does before it goes on can be cheaper on these libraries; it
shows how much of a figure is HTTP, JSON and commits, and how much is the product.
"""

from __future__ import annotations

import sys

from tests.benchmarks.peers import installed
from tests.benchmarks.peers.asked import PeerSystem
from tests.benchmarks.system import READY_WITHIN_S
from tests.servers.processes import accepts_connections, free_port


class Floor(PeerSystem):
    """One process and its PostgreSQL."""

    name = "floor"
    title = "floor: bare aiohttp calls and rows in batches"
    path = "/saga"

    async def start(self) -> None:
        """Start both."""
        dsn = self.postgres().create_database("bench")
        port = free_port()
        script = installed.SERVICES / "floor_service.py"
        service = self.spawn("service", [sys.executable, script, port, self.stub_port, dsn])
        service.wait_until(lambda: accepts_connections(port), within_s=READY_WITHIN_S)
        self.ports.append(port)
