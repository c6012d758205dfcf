"""Sidecars as processes: how they start, share and lose an embedded PostgreSQL, and refuse."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from sidecar.adapters.postgres.embedded import EmbeddedServer
from sidecar.adapters.postgres.embedded_process import processes_in
from tests.servers.processes import ServerProcess, free_port, wait_gone

ROOT = Path(__file__).parents[2]
ORDER = b"""
name: order
steps: [{ name: charge, service: payments, execute: /charges, compensate: none }]
"""
WITHIN_S = 60.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@dataclass
class Sidecar:
    """One sidecar, and where its faces are."""

    folder: Path
    store: dict[str, Any]
    name: str
    more: dict[str, Any] = field(default_factory=dict)
    http: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)

    def start(self) -> ServerProcess:
        listen = {"http": f"127.0.0.1:{self.http}", "metrics": f"127.0.0.1:{self.metrics}"}
        config = {
            "service": "payments",
            "service_url": f"http://127.0.0.1:{self.metrics}",  # something that can be connected to
            "store": self.store,
            "listen": listen,
            **self.more,
        }
        file = self.folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "sidecar.cli.main", "sidecar", "--config", file]
        return ServerProcess(command, log=self.folder / f"{self.name}.log")

    def ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        request = Request(
            f"http://127.0.0.1:{self.http}{path}", data=body, headers={"Content-Type": kind}
        )
        with urlopen(request, timeout=40) as answer:  # noqa: S310
            return json.load(answer)

    def starts_a_workflow(self) -> bool:
        """Whether a start is accepted, as it is once the store is back."""
        try:
            return bool(self.ask("/v1/workflows", b'{"definition": "order"}')["id"])
        except OSError:
            return False


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the database's own user can pass through."""
    made = Path(tempfile.mkdtemp(prefix="goconductor-sidecars-"))
    made.chmod(0o711)
    yield made
    for pid in processes_in(made / "data" / "pgdata"):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(made)


@pytest.fixture
def started() -> Iterator[Callable[[Sidecar], ServerProcess]]:
    """Starts sidecars that end with the test."""
    running: list[ServerProcess] = []

    def start(one: Sidecar) -> ServerProcess:
        running.append(one.start())
        return running[-1]

    yield start
    for process in running:
        process.kill()


Start = Callable[[Sidecar], ServerProcess]


def test_the_next_sidecar_takes_over_the_embedded_server(folder: Path, started: Start) -> None:
    store = {"embedded": str(folder / "data")}
    first, second = Sidecar(folder, store, "first"), Sidecar(folder, store, "second")
    holder = started(first)
    holder.wait_until(first.ready, within_s=WITHIN_S)
    other = started(second)
    other.wait_until(second.ready, within_s=WITHIN_S)
    first.ask("/v1/definitions", ORDER, "application/yaml")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    other.wait_until(second.starts_a_workflow, within_s=WITHIN_S)
    assert second.ask("/v1/definitions/order")["version"] == 1
    other.wait_until(lambda: "embedded_server_started" in other.tail(), within_s=WITHIN_S)
    other.stop()
    assert not processes_in(folder / "data" / "pgdata")


async def test_a_sidecar_follows_its_database_to_another_port(folder: Path, started: Start) -> None:
    one = Sidecar(folder, {"embedded": str(folder / "data")}, "one", {"drain": "1s"})
    holder = EmbeddedServer(folder / "data")
    await holder.open()
    process = started(one)
    await asyncio.to_thread(process.wait_until, one.ready, within_s=WITHIN_S)
    await asyncio.to_thread(one.ask, "/v1/definitions", ORDER, "application/yaml")
    # The holder goes as if killed, and a stranger is quicker than the sidecar to have the port.
    assert holder._watch is not None
    assert holder._program is not None
    holder._watch.cancel()
    port = json.loads((folder / "data" / "address.json").read_text())["port"]
    holder._program.kill()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        await holder.close()
        await asyncio.to_thread(process.wait_until, one.starts_a_workflow, within_s=WITHIN_S)
    assert "database_moved" in (folder / "one.log").read_text()
    await asyncio.to_thread(process.stop, within_s=30)
    assert await asyncio.to_thread(process.wait) == 0


def test_a_sidecar_waits_for_its_database_and_can_be_told_to_stop(
    folder: Path, started: Start
) -> None:
    nowhere = {"dsn": f"postgresql://app:hunter2@127.0.0.1:{free_port()}/sagas"}
    process = started(Sidecar(folder, nowhere, "one"))
    process.wait_until(lambda: "waiting_for_the_store" in process.tail(), within_s=WITHIN_S)
    process.stop()
    assert process.wait() == 0
    assert "hunter2" not in process.log.read_text()


def test_a_backend_whose_package_is_missing_names_the_extra(folder: Path) -> None:
    script = (
        "import sys; sys.modules['aiokafka'] = None\n"
        "from sidecar.cli.main import main\n"
        "main(['sidecar', *sys.argv[1:]])"
    )
    settings = {
        "service": "payments",
        "service_url": "http://127.0.0.1:1",
        "store.dsn": "postgresql://127.0.0.1:1/sagas",
        "queue.kind": "kafka",
        "queue.bootstrap_servers": "127.0.0.1:1",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = ServerProcess([sys.executable, "-c", script, *given], log=folder / "log")
    assert process.wait() == 1
    assert "pip install 'goconductor[kafka]'" in process.tail()


def test_told_to_stop_while_the_embedded_server_is_made(folder: Path, started: Start) -> None:
    process = started(Sidecar(folder, {"embedded": str(folder / "data")}, "one"))
    process.wait_until(
        lambda: bool(list((folder / "data").glob("pgdata.new-*"))), within_s=WITHIN_S
    )
    process.stop()
    assert process.wait() == 0
    left = [pid for one in (folder / "data").glob("pgdata*") for pid in processes_in(one)]
    wait_gone(left)
    again = Sidecar(folder, {"embedded": str(folder / "data")}, "again")
    started(again).wait_until(again.ready, within_s=WITHIN_S)


def test_a_second_sidecar_on_the_same_ports_is_told_and_harms_nobody(
    folder: Path, started: Start
) -> None:
    store = {"embedded": str(folder / "data")}
    first = Sidecar(folder, store, "first")
    started(first).wait_until(first.ready, within_s=WITHIN_S)
    for key, taken in (("http", {"http": first.http}), ("metrics", {"metrics": first.metrics})):
        process = started(Sidecar(folder, store, key, **taken))
        assert process.wait() == 1
        address = f"127.0.0.1:{taken[key]}"
        assert f"listen.{key}: cannot listen on {address}: Address already in" in process.tail()
    assert first.ready()
