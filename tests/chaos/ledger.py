"""The services' process as a test holds it: started, steered, killed, brought back, read.

Nothing is asked of the process that its file can tell: `entries` reads the file. A service that
is `apart` has a process and a file of its own, so that it can be away while the others are there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.chaos.book import Entry, read_entries
from tests.chaos.faults import Rule
from tests.servers.processes import ServerProcess, accepts_connections, free_port, freeze

_ROOT = Path(__file__).parents[2]
_READY_WITHIN_S = 15.0
_START = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "
_START += "runpy.run_module('tests.chaos.ledger_service', run_name='__main__')"


class Ledger:
    """All services of a run; each that is `apart` is a ledger of its own, found by its name."""

    def __init__(
        self,
        folder: Path,
        *,
        honours_keys: bool = True,
        apart: Sequence[str] = (),
        name: str = "ledger",
    ) -> None:
        self.path = folder / f"{name}.jsonl"
        self.port = free_port()
        self.apart = {
            service: Ledger(folder, honours_keys=honours_keys, name=f"ledger-{service}")
            for service in apart
        }
        self._log = folder / f"{name}.log"
        self._more = () if honours_keys else ("--forgets-keys",)
        self._rules: tuple[Rule, ...] = ()
        self._callbacks: tuple[str, ...] = ()
        self._process = self._start()

    @property
    def url(self) -> str:
        """What a sidecar has as its `service_url`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def fault(self, *rules: Rule) -> None:
        """Put these rules in the place of all others; none heals."""
        self._rules = rules
        self._control({"rules": [rule.json() for rule in rules]})

    def call_back_at(self, *addresses: str) -> None:
        """Tell it, and those apart, which sidecars take callbacks."""
        for one in (*self.apart.values(), self):
            one._callbacks = addresses
            one._control({"callbacks": list(addresses)})

    def fired(self) -> Counter[str]:
        """How often each kind of fault has struck, by the file."""
        return Counter(entry.fault for entry in self.entries() if entry.fault is not None)

    def entries(self) -> list[Entry]:
        """All that is written by all services, in order."""
        found = read_entries(self.path)
        if self.apart:
            found += [entry for one in self.apart.values() for entry in one.entries()]
            found.sort(key=lambda entry: entry.at)
        return found

    def of(self, service: str) -> Ledger:
        """The process that plays this service."""
        return self.apart.get(service, self)

    def kill(self) -> None:
        """Kill its process with SIGKILL: connections to it are refused from now on."""
        self._process.kill()

    def restart(self) -> None:
        """Bring it back on its port with its file, and with the rules that were in force."""
        self._process.stop()
        self._process = self._start()
        self.fault(*self._rules)
        self._control({"callbacks": list(self._callbacks)})

    def stop(self) -> None:
        """End it and those apart, also if one was stopped; stopping twice is fine."""
        for one in (*self.apart.values(), self):
            one.go_on()
            one._process.stop()

    def freeze(self) -> None:
        """Stop its process in its tracks: the kernel accepts connections, nobody answers."""
        freeze(self.pid)

    def go_on(self) -> None:
        """Let a frozen process go on."""
        if self._process.alive:
            os.kill(self.pid, signal.SIGCONT)

    def wait_until(self, fact: Callable[[], bool], *, within_s: float) -> None:
        """Return when a fact holds, as long as its process is alive."""
        self._process.wait_until(fact, within_s=within_s)

    def tail(self) -> str:
        """The last lines of its log."""
        return self._process.tail()

    def _start(self) -> ServerProcess:
        command = [sys.executable, "-c", _START, _ROOT, str(self.port), self.path, *self._more]
        process = ServerProcess(command, log=self._log)
        process.wait_until(lambda: accepts_connections(self.port), within_s=_READY_WITHIN_S)
        return process

    def _control(self, body: dict[str, Any]) -> dict[str, Any]:
        request = Request(f"{self.url}/control", data=json.dumps(body).encode())  # noqa: S310
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
        return told
