"""Restate: one server with a log of its own, and a service beside it in Python or on Node.

Two partitions instead of 24 are its best on two cores. The service answers over HTTP/2: the
Python SDK under granian with uvloop, the TypeScript SDK on Node's own server. The server's log
is synced to the disk as by default; its reports to its maker are off, and it listens on loopback
alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

from tests.benchmarks.peers import installed
from tests.benchmarks.peers.asked import PeerSystem
from tests.benchmarks.system import READY_WITHIN_S, answers_200
from tests.servers.processes import ServerMissingError, accepts_connections, free_port

_PARTITIONS = 2
_CONFIG = """\
node-name = "bench"
base-dir = {folder}
bind-address = "127.0.0.1:{fabric}"
listen-mode = "tcp"
default-num-partitions = {partitions}
disable-telemetry = true
log-filter = "warn"

[ingress]
bind-address = "127.0.0.1:{ingress}"

[admin]
bind-address = "127.0.0.1:{admin}"
disable-web-ui = true
"""


class Restate(PeerSystem):
    """Restate's server and one service."""

    path = "/Bench/saga"

    def __init__(self, language: str) -> None:
        super().__init__()
        self.name = f"restate-{language}"
        runtime = "Python on granian" if language == "python" else "TypeScript on Node"
        self.title = f"Restate, {runtime}, {_PARTITIONS} partitions"
        self._start_service = self._start_python if language == "python" else self._start_node

    async def start(self) -> None:
        """Start the service and the server, and let them know each other."""
        service_port = free_port()
        self._start_service(service_port)
        ingress, admin = free_port(), free_port()
        config = self.folder / "restate.toml"
        config.write_text(
            _CONFIG.format(
                folder=json.dumps(str(self.folder / "restate")),
                fabric=free_port(),
                ingress=ingress,
                admin=admin,
                partitions=_PARTITIONS,
            ),
            encoding="utf-8",
        )
        command = [installed.restate_server(), "--no-logo", "--config-file", config]
        server = self.spawn("restate-server", command)
        for port, path in ((admin, "/health"), (ingress, "/restate/health")):
            url = f"http://127.0.0.1:{port}{path}"
            server.wait_until(lambda url=url: answers_200(url), within_s=READY_WITHIN_S)
        _register(admin, service_port)
        self.ports.append(ingress)

    def _start_python(self, port: int) -> None:
        granian = installed.program("restate", "granian")
        options = [
            "--interface",
            "asgi",
            "--loop",
            "uvloop",
            "--http",
            "2",
            "--log-level",
            "error",
            "--workers-kill-timeout",
            "1",
        ]
        address = ["--host", "127.0.0.1", "--port", port, "--no-ws", "restate_service:app"]
        where = ["--working-dir", installed.SERVICES]
        environment = ["env", f"STUB_PORT={self.stub_port}"]
        self._await_service([*environment, granian, *options, *where, *address], port)

    def _start_node(self, port: int) -> None:
        node = shutil.which("node")
        if node is None:
            raise ServerMissingError("no node: run tests/benchmarks/peers/install")
        script = installed.SERVICES / "restate_service.mjs"
        self._await_service(
            [node, script, port, self.stub_port, installed.node_modules().parent], port
        )

    def _await_service(self, command: list[str | int | Path], port: int) -> None:
        service = self.spawn("service", command)
        service.wait_until(lambda: accepts_connections(port), within_s=READY_WITHIN_S)


def _register(admin: int, service_port: int) -> None:
    body = json.dumps({"uri": f"http://127.0.0.1:{service_port}"}).encode()
    request = Request(
        f"http://127.0.0.1:{admin}/deployments",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=READY_WITHIN_S):  # noqa: S310  (it raises for what is no 2xx)
        pass
