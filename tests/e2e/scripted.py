"""Services that do as they are told, over HTTP, and keep one ledger of all that they were asked.

They keep the contract: the same key has its effect once and is answered alike, a compensation of
what never came succeeds, and an execute that comes after it is refused. Told otherwise, a path
refuses, stumbles after acting, answers 202 and calls back or never does, or waits for a fact.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

WITHIN_S = 30.0
_LOOK_S = 0.05
REFUSED = 422, {"title": "Not possible", "detail": "it was told to refuse this"}

Says = Callable[[Any], Any]


@dataclass
class Call:
    """One call: what it asked for, how it was answered, and from when to when it took."""

    service: str
    path: str
    key: str
    definition: str
    body: Any
    method: str = "POST"
    status: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def workflow(self) -> str:
        return self.key.split("/")[0]

    @property
    def step(self) -> str:
        """The step, or item like `draft[3]`."""
        return self.key.split("/")[1]

    @property
    def action(self) -> str:
        return self.key.split("/")[2]


@dataclass(frozen=True)
class Told:
    """What a path does: `says` changes its output, `when` looks at the body."""

    does: str = "act"
    says: Says | None = None
    when: Callable[[Any], bool] = lambda _: True
    once: Callable[[], bool] | None = None
    """A fact that is waited for before the answer."""


class Services:
    """Some services; `outputs` holds for each definition what its steps answer."""

    def __init__(self, names: Iterable[str], outputs: Mapping[str, Mapping[str, Any]]) -> None:
        self._outputs = outputs
        self._told: dict[str, list[Told]] = {}
        self._answers: dict[str, tuple[int, Any]] = {}
        self._effects: dict[str, list[str]] = {}
        self._undone: dict[str, list[str]] = {}
        self._changed = threading.Condition()
        self.calls: list[Call] = []
        self._servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, name))
                         for name in names}  # fmt: skip

    def __enter__(self) -> Self:
        for server in self._servers.values():
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def url(self, name: str) -> str:
        """Where a service is."""
        return f"http://127.0.0.1:{self._servers[name].server_port}"

    # -- what a test says -----------------------------------------------------------------------

    def tell(self, place: str, does: str = "act", **more: Any) -> None:
        """Tell SERVICE/PATH what to do: act, refuse, stumble, later, never."""
        self._told.setdefault(place, []).insert(0, Told(does, **more))

    def forget(self) -> None:
        """Take back all that was told."""
        self._told = {}

    def wait(self, fact: Callable[[], bool]) -> bool:
        """Wait for something to be true; whether it came to be."""
        deadline = time.monotonic() + WITHIN_S
        with self._changed:
            while not (holds := fact()) and time.monotonic() < deadline:
                self._changed.wait(_LOOK_S)  # it may be a fact that nobody here tells of
            return holds

    # -- what a test asks -----------------------------------------------------------------------

    def of(self, workflow: str, action: str = "execute") -> list[Call]:
        """The calls of a workflow, in the order in which they came."""
        return [one for one in self.calls if (one.workflow, one.action) == (workflow, action)]

    def sent(self, workflow: str, step: str, action: str = "execute") -> Any:
        """The body of the one call that a step made."""
        (one,) = [call for call in self.of(workflow, action) if call.step == step]
        return one.body

    def effects(self, workflow: str) -> list[str]:
        """The steps that had an effect, in order."""
        return list(self._effects.get(workflow, ()))

    def undone(self, workflow: str) -> list[str]:
        """The steps that were undone, in order."""
        return list(self._undone.get(workflow, ()))

    def standing(self, workflow: str) -> set[str]:
        """The steps whose effects are there now."""
        return set(self.effects(workflow)) - set(self.undone(workflow))

    # -- what a service does --------------------------------------------------------------------

    def take(self, call: Call, callback: str) -> tuple[int, Any, Callable[[], None] | None]:
        """Handle a call: its answer, and what comes after that."""
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        if call.method == "GET":
            return 200, self._outcome(call), None
        told = next((one for one in self._told.get(call.service + call.path, ())
                     if one.when(call.body)), Told())  # fmt: skip
        if told.once is not None and not self.wait(told.once):
            return 500, {"title": "What it was to wait for never came"}, None
        with self._changed:
            status, body = (
                self._compensate(call) if call.action != "execute" else self._execute(call, told)
            )
            call.status, call.ended = status, time.monotonic()
            self._changed.notify_all()
        if status != 202 or told.does == "never":
            return status, body, None
        return status, {}, lambda: _call_back(f"{callback}/complete", {"output": body})

    def _outcome(self, call: Call) -> Any:
        did = call.step in self._effects.get(call.workflow, ())
        output = self._output(call, Told())
        return {"outcome": "succeeded", "output": output} if did else {"outcome": "refused"}

    def _execute(self, call: Call, told: Told) -> tuple[int, Any]:
        if call.step in self._undone.get(call.workflow, ()):
            return 410, {"title": "Undone before it came"}
        if call.key in self._answers:
            return self._answers[call.key]
        if told.does == "refuse":
            return self._answers.setdefault(call.key, REFUSED)
        self._effects.setdefault(call.workflow, []).append(call.step)
        if told.does == "stumble":
            return 500, {"title": "Stumbled after acting"}
        status = 202 if told.does in ("later", "never") else 201
        return self._answers.setdefault(call.key, (status, self._output(call, told)))

    def _compensate(self, call: Call) -> tuple[int, Any]:
        undone = self._undone.setdefault(call.workflow, [])
        if call.step not in undone:
            undone.append(call.step)
        return 200, {}

    def _output(self, call: Call, told: Told) -> Any:
        if told.says is not None:
            return told.says(call.body)
        return self._outputs[call.definition][call.step.partition("[")[0]]


def _call_back(url: str, body: Any) -> None:
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = Request(url, data=data, headers=headers)  # noqa: S310 - a sidecar's own address
    try:
        with urlopen(request, timeout=WITHIN_S):  # noqa: S310
            pass
    except HTTPError as error:
        print(f"{url}: {error.code} {error.read().decode()}")


def _handler(services: Services, name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            key = self.headers["Idempotency-Key"].strip('"')
            definition = self.headers["GoConductor-Definition"].partition("/")[0]
            body = json.loads(raw) if raw else None
            call = Call(name, self.path, key, definition, body, self.command)
            status, answer, then = services.take(call, self.headers["GoConductor-Callback"] or "")
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            if then is not None:
                then()

        do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: object) -> None: ...

    return Handler
