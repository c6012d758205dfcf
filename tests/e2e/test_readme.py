"""The README's first workflow, run as it stands there, on each queue.

The service, the sidecar's file and the definition are cut out of the README; only ports, the
store's address and the queue are put in.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.servers.kafka import KafkaServer
from tests.servers.processes import ServerProcess, accepts_connections, free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
READY_WITHIN_S = 40.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]


def block(language: str, containing: str) -> str:
    """Return the README's code block in `language` that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    found = [text for text in blocks if containing in text]
    assert len(found) == 1, f"{len(found)} blocks hold {containing!r}"
    return str(found[0])


@dataclass(frozen=True, slots=True)
class Running:
    """A sidecar and its service."""

    api: str
    health: str
    folder: Path
    sidecar: ServerProcess
    service: ServerProcess

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """Make one request; return the answer's JSON."""
        request = Request(  # noqa: S310 - our own loopback address
            self.api + path, data=body or None, method=method, headers={"Content-Type": kind}
        )
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)


def _run(folder: Path, database: str, queue: dict[str, Any] | None) -> Running:
    ports = {name: free_port() for name in ("service", "http", "metrics")}
    program = folder / "yes.py"
    program.write_text(
        block("python", "ThreadingHTTPServer").replace("8080", str(ports["service"])),
        encoding="utf-8",
    )
    service = ServerProcess([sys.executable, "-u", program], log=folder / "service.log")
    service.wait_until(lambda: accepts_connections(ports["service"]), within_s=READY_WITHIN_S)
    config = yaml.safe_load(block("yaml", "service_url:").replace("8080", str(ports["service"])))
    config["store"] = {"dsn": database}
    config["listen"] = {
        "http": f"127.0.0.1:{ports['http']}",
        "metrics": f"127.0.0.1:{ports['metrics']}",
    }
    if queue:
        config["queue"] = queue
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "sidecar.cli.main"]
    migrate = ServerProcess([*command, "migrate", "--config", file], log=folder / "migrate.log")
    migrate.wait()
    sidecar = ServerProcess([*command, "sidecar", "--config", file], log=folder / "sidecar.log")
    health = f"http://127.0.0.1:{ports['metrics']}"
    sidecar.wait_until(lambda: _ready(health), within_s=READY_WITHIN_S)
    api = f"http://127.0.0.1:{ports['http']}"
    return Running(api, health, folder, sidecar, service)


def _ready(health: str) -> bool:
    try:
        with urlopen(f"{health}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("kafka", marks=[pytest.mark.postgres, pytest.mark.kafka]),
    ]
)
def running(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Iterator[Running]:
    """The README's processes, on one queue."""
    queue = None
    if request.param == "kafka":
        broker: KafkaServer = request.getfixturevalue("kafka_server")
        queue = yaml.safe_load(block("yaml", "kind: kafka"))["queue"]
        queue["bootstrap_servers"] = [broker.bootstrap_servers]
        queue["topic_prefix"] = f"readme-{free_port()}"
    found = _run(tmp_path, database, queue)
    yield found
    found.sidecar.stop()
    found.service.stop()


def _register(running: Running) -> None:
    document = block("yaml", "name: order\n").encode()
    registered = running.ask("POST", "/v1/definitions", document, "application/yaml")
    assert (registered["name"], registered["version"]) == ("order", 1)


def _start(running: Running, note: str) -> Any:
    shown = re.search(r"-d '(.*)'", block("console", "-d '"))
    assert shown is not None
    body = shown[1].replace("hello", note).encode()
    return running.ask("POST", "/v1/workflows?wait=10s", body)


def test_the_first_workflow_ends_as_the_readme_says(running: Running) -> None:
    _register(running)
    completed = _start(running, "hello")
    assert completed["status"] == "completed"
    refused = _start(running, "refuse")
    assert (refused["status"], refused["reason"]) == ("rolled_back", "failed")
    log = (running.folder / "service.log").read_text(encoding="utf-8").splitlines()
    asked = [line for line in log if line.startswith("/")]
    calls = [line.split(" ", 1)[0] for line in asked]
    assert calls == ["/charges", "/notices", "/charges", "/notices", "/undo/charges"]
    assert f'"{refused["id"]}/charge/compensate"' in asked[-1]


def test_the_command_does_the_same(running: Running) -> None:
    file = running.folder / "order.yaml"
    file.write_text(block("yaml", "name: order\n"), encoding="utf-8")
    command = [sys.executable, "-m", "sidecar.cli.main"]
    server = ["--server", running.api]

    def goconductor(*arguments: str | Path) -> tuple[int, str]:
        log = running.folder / f"command-{free_port()}.log"
        process = ServerProcess([*command, *arguments, *server], log=log)
        return process.wait(), log.read_text(encoding="utf-8")

    assert goconductor("apply", file)[0] == 0
    given = json.dumps({"amount": 25, "note": "refuse"})
    code, text = goconductor("start", "order", "--input", given, "--wait")
    assert code == 4, text
    code, text = goconductor("list", "-o", "json")
    assert code == 0
    assert "rolled_back" in text


@pytest.mark.fault(66)
def test_a_sidecar_told_to_stop_ends_well(running: Running) -> None:
    running.sidecar.stop(within_s=35)
    assert running.sidecar.wait() == 0
    assert "stopped" in running.sidecar.tail()


def test_an_unknown_workflow_is_a_problem_that_says_so(running: Running) -> None:
    with pytest.raises(HTTPError) as caught:
        running.ask("GET", "/v1/workflows/00000000-0000-0000-0000-000000000000")
    with caught.value as answer:
        problem = json.load(answer)
    assert (answer.status, problem["code"]) == (404, "not_found")
