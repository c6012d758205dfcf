"""What a measurement runs on: PostgreSQL with fsync on, a stub, three sidecars, maybe Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from tests.benchmarks.client import Client
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerProcess, free_port

SERVICES = ("payments", "inventory", "shipping")
PATHS = ("/charge", "/reserve", "/ship")
READY_WITHIN_S = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")

DEFINITION: dict[str, Any] = {
    "name": "bench_order",
    "steps": [
        {"name": path[1:], "service": service, "execute": path, "compensate": f"/undo{path}"}
        for service, path in zip(SERVICES, PATHS, strict=True)
    ],
}


class Cluster:
    """Processes for one measurement; all end with it."""

    def __init__(
        self, postgres: PostgresServer, database: str, *, kafka: str | None, naive: bool
    ) -> None:
        self._postgres = postgres
        self._dsn = postgres.create_database(database)
        self._queue: dict[str, Any] = {"kind": "postgres"}
        if kafka is not None:
            self._queue = {
                "kind": "kafka",
                "bootstrap_servers": [kafka],
                "topic_prefix": database,
            }
        self._commit = {"max_batch": 1, "writers": 20} if naive else {}
        self._stack = ExitStack()
        self._stub_port = free_port()
        self.ports: list[int] = []
        self._pids: dict[str, list[int]] = {}

    async def __aenter__(self) -> Self:
        """Start everything, and register the definition."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        stub = self._spawn(
            str(Path(__file__).with_name("stub.py")), str(self._stub_port), log=folder / "stub"
        )
        self._pids = {"stub": [stub.pid], "sidecars": []}
        sidecars = [self._sidecar(folder, service) for service in SERVICES]
        self._pids["sidecars"] = [process.pid for process, _, _ in sidecars]
        for process, http, metrics in sidecars:
            self._ready(process, metrics)
            self.ports.append(http)
        client = Client(self.ports[0])
        status, body = await client.request(
            "POST", "/v1/definitions", json.dumps(DEFINITION).encode()
        )
        client.close()
        if status not in (200, 201):
            raise RuntimeError(f"the definition was refused: {status} {body}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self._stack.close()

    async def calls(self) -> dict[str, int]:
        """Return how many calls the stub has answered, by path."""
        client = Client(self._stub_port)
        _, counts = await client.request("GET", "/count")
        client.close()
        return dict(counts)

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time spent so far, by kind of process."""
        used = {name: sum(map(_cpu, pids)) for name, pids in self._pids.items()}
        used["postgres"] = sum(map(_cpu, _tree(self._postgres.pid)))
        used["driver"] = sum(os.times()[:2])
        return used

    def _sidecar(self, folder: Path, service: str) -> tuple[ServerProcess, int, int]:
        http, metrics = free_port(), free_port()
        config = {
            "service": service,
            "service_url": f"http://127.0.0.1:{self._stub_port}",
            "store": {"dsn": self._dsn, "group_commit": self._commit},
            "queue": self._queue,
            "listen": {"http": f"127.0.0.1:{http}", "metrics": f"127.0.0.1:{metrics}"},
            "concurrency": 256,
            "log": {"level": "warning"},
        }
        file = folder / f"{service}.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        if not self._pids["sidecars"] and service == SERVICES[0]:
            migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", self._dsn)
            subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
        process = self._spawn(
            "-m", "sidecar.cli.main", "sidecar", "--config", str(file), log=folder / service
        )
        return process, http, metrics

    def _spawn(self, *arguments: str, log: Path) -> ServerProcess:
        process = ServerProcess([sys.executable, *arguments], log=log.with_suffix(".log"))
        self._stack.callback(process.stop)
        return process

    def _ready(self, process: ServerProcess, port: int) -> None:
        def answers() -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        process.wait_until(answers, within_s=READY_WITHIN_S)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS


def _tree(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return [pid]
    return [pid, *(int(child) for child in text.split())]
