"""Sidecar processes that can be killed, stopped, and brought back at the same addresses."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.servers.processes import ServerProcess, free_port

FAILPOINTS = "GOCONDUCTOR_FAILPOINTS"
SHORT_TIMES: dict[str, Any] = {
    "lease_margin": "500ms",
    "look": {"min": "100ms", "max": "500ms"},
    "heartbeat": "500ms",
    "silent_after": "2s",
    "drain": "5s",
    "concurrency": 32,
}


class Sidecar:
    """One sidecar, alive or not. Only its own `start` begins a process."""

    def __init__(self, name: str, service: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.name = name
        self.service = service
        self.http = free_port()
        self.door = self.http
        """Where clients and services come in: another port if a proxy stands before its API."""
        self.metrics = free_port()
        self.environment: dict[str, str] = {}
        self.wanted = False
        """Whether it should be running; a process that ends while it is wanted has crashed."""
        self.harvested: Counter[str] = Counter()
        """What a world has been told of the counters of its newest process."""
        self._file = folder / f"{name}.yaml"
        self._log = folder / f"{name}.log"
        self._process: ServerProcess | None = None
        listen = {"http": f"127.0.0.1:{self.http}", "metrics": f"127.0.0.1:{self.metrics}"}
        whole = {"service": service, "listen": listen, **SHORT_TIMES, **config}
        self._file.write_text(json.dumps(whole), encoding="utf-8")

    @property
    def process(self) -> ServerProcess:
        """Its newest process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    @property
    def alive(self) -> bool:
        """Whether its process runs (one that is stopped does)."""
        return self._process is not None and self._process.alive

    @property
    def api(self) -> str:
        """Where clients find its REST API."""
        return f"http://127.0.0.1:{self.door}"

    def start(self) -> None:
        """Start a process with the present environment."""
        # `env` becomes the program: the number of the process and its bond to us stay.
        ours = [
            one for name in os.environ if name.startswith("GOCONDUCTOR_") for one in ("-u", name)
        ]
        set_ = [f"{name}={value}" for name, value in self.environment.items()]
        command = [
            "/usr/bin/env",
            *("-u", "PYTHONDONTWRITEBYTECODE"),  # what hundreds of starts compile is kept
            *ours,
            *set_,
            sys.executable,
            "-m",
            "sidecar.cli.main",
            "sidecar",
        ]
        self._process = ServerProcess([*command, "--config", self._file], log=self._log)
        self.harvested = Counter()
        self.wanted = True

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    @property
    def frozen(self) -> bool:
        """Whether its process was stopped in its tracks."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return self._told("/readyz") is not None

    def leads(self) -> bool:
        """Whether it says that it leads."""
        # Its help reads "goconductor_leading 1 while ...": only a line that begins so is the value.
        return "\ngoconductor_leading 1" in (self._told("/metrics") or "")

    def readiness(self) -> dict[str, Any]:
        """All that it says of its readiness, ready or not; nothing if it does not answer."""
        told: dict[str, Any] = json.loads(self._told("/readyz", refused=True) or "{}")
        return told

    def metric(self, name: str) -> float | None:
        """The value of a metric without labels; None if it does not say."""
        lines = (self._told("/metrics") or "").splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)

    @property
    def open_files(self) -> int:
        """How many file descriptors it has: files, sockets, pipes; 0 if it does not run."""
        try:
            return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
        except (OSError, RuntimeError):
            return 0

    def forget_peak(self) -> int:
        """Begin to measure its peak of memory anew; what it has now, in bytes."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most memory that it had since `forget_peak`, in bytes."""
        return self._memory("VmHWM")

    def _memory(self, what: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024

    def _told(self, path: str, *, refused: bool = False) -> str | None:
        """The body of an answer; that of a refusal only on demand."""
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=2) as answer:
                text: str = answer.read().decode()
                return text if answer.status == 200 else None
        except HTTPError as error:
            with error:
                return error.read().decode() if refused else None
        except (OSError, HTTPException):
            return None

    def end(self) -> None:
        """End it in good order, also if it was stopped."""
        self.wanted = False
        if self.alive:
            self.signal(signal.SIGCONT)
            self.process.stop()

    def said(self, event: str) -> list[dict[str, Any]]:
        """Every line that its processes logged under this name; one that was cut short is none."""
        found = [line for line in self._log.read_text().splitlines() if f'"{event}"' in line]
        lines = [json.loads(line) for line in found if line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def count(self, event: str) -> int:
        """How many such lines there are."""
        return len(self.said(event))

    @property
    def incarnation(self) -> str:
        """The name by which its newest process signs its claims and its terms."""
        found: str = self.said("started")[-1]["incarnation"]
        return found

    def tail(self, lines: int) -> str:
        """The last lines that its processes wrote."""
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
