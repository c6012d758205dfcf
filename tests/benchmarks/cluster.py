"""GoConductor as it is measured: sidecars before one stub, PostgreSQL, maybe Kafka.

There are three of them, each for a service of its own; or two replicas, for one service that does
all three steps. The naive mode is the same engine without group commit: every member its own
transaction, over twenty connections.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from tests.benchmarks.client import Client
from tests.benchmarks.saga import ONE_SERVICE, SERVICES, VARIANTS, Variant
from tests.benchmarks.system import READY_WITHIN_S, System, answers_200
from tests.servers.kafka import KafkaServer
from tests.servers.processes import ServerProcess, free_port

_DATABASE = "bench"
_REPLICAS = 2
"""Of one service: a saga keeps to the sidecar that it came to, so it takes two for two cores."""


class Cluster(System):
    """One cluster.

    With `apart` each sidecar is a kind of its own, `sidecar-N`, and a role of that name in
    PostgreSQL.
    """

    def __init__(
        self,
        queue: str,
        *,
        naive: bool,
        one_service: bool = False,
        apart: bool = False,
        postgres_settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.dsn = ""
        self._postgres_settings = postgres_settings or {}
        mode = "naive writes" if naive else "group commit"
        self.name = queue + "-one-service" * one_service + "-naive" * naive
        self.title = f"GoConductor, {queue} queue, {mode}" + ", one service" * one_service
        self._services = ONE_SERVICE if one_service else SERVICES
        self._sidecars = ONE_SERVICE[:_REPLICAS] if one_service else SERVICES
        self._queue: dict[str, Any] = {"kind": queue}
        self._apart = apart
        self._commit = {"max_batch": 1, "writers": 20} if naive else {}

    async def start(self) -> None:
        """Start everything, and register the definitions."""
        self.dsn = dsn = self.postgres(**self._postgres_settings).create_database(_DATABASE)
        _migrate(dsn)
        if self._queue["kind"] == "kafka":
            broker = KafkaServer()
            self.stack.callback(broker.stop)
            self.account("kafka", broker.pid)
            self._queue |= {
                "bootstrap_servers": [broker.bootstrap_servers],
                "topic_prefix": _DATABASE,
            }
        sidecars = [self._sidecar(at, service) for at, service in enumerate(self._sidecars)]
        for process, http, url in sidecars:
            process.wait_until(lambda url=url: answers_200(url), within_s=READY_WITHIN_S)
            self.ports.append(http)
        for variant in VARIANTS:
            await self._register(variant)

    def question(self, variant: Variant, order: int) -> tuple[str, bytes]:
        """Start a workflow and wait for its end."""
        body = {"definition": _definition_name(variant), "input": {"order": order}}
        return "/v1/workflows?wait=30s", json.dumps(body).encode()

    def ended_well(self, variant: Variant, status: int, answer: Any) -> bool:
        """The workflow's own status says how it ended."""
        wanted = "rolled_back" if variant.undone else "completed"
        return status in (200, 201) and bool(answer["status"] == wanted)

    async def _register(self, variant: Variant) -> None:
        client = Client(self.ports[0])
        try:
            body = json.dumps(_definition(variant, self._services)).encode()
            status, answer = await client.request("POST", "/v1/definitions", body)
        finally:
            client.close()
        if status not in (200, 201):
            raise RuntimeError(f"the definition was refused: {status} {answer}")

    def _sidecar(self, number: int, service: str) -> tuple[ServerProcess, int, str]:
        kind, dsn = "sidecars", self.dsn
        if self._apart:
            kind = f"sidecar-{number}"
            dsn = _as_a_role(self.dsn, kind)
        http, metrics = free_port(), free_port()
        config = {
            "service": service,
            "service_url": f"http://127.0.0.1:{self.stub_port}",
            "store": {"dsn": dsn, "group_commit": self._commit},
            "queue": self._queue,
            "listen": {"http": f"127.0.0.1:{http}", "metrics": f"127.0.0.1:{metrics}"},
            "concurrency": 256,
            "log": {"level": "warning"},
        }
        file = self.folder / f"{service}-{http}.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "sidecar.cli.main", "sidecar", "--config", file]
        return self.spawn(kind, command), http, f"http://127.0.0.1:{metrics}/readyz"


def _as_a_role(dsn: str, name: str) -> str:
    """Make a role that may do everything; return where it connects."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN SUPERUSER").format(Identifier(name)))
    return make_conninfo(dsn, user=name)


def _migrate(dsn: str) -> None:
    command = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", dsn)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _definition_name(variant: Variant) -> str:
    return f"bench_{variant.name.replace(' ', '_')}"


def _definition(variant: Variant, services: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": _definition_name(variant),
        "steps": [
            {"name": path[1:], "service": service, "execute": path, "compensate": f"/undo{path}"}
            for service, path in zip(services, variant.steps, strict=True)
        ],
    }
