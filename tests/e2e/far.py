"""One service, real and far away, that answers as it is told; and clients of sidecars."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.chaos.sidecars import Sidecar

WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in at the service; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Far:
    """A service; `answers` says by path what it answers, 200 with no body otherwise."""

    answers: dict[str, Callable[[Asked], tuple[int, Any]]] = field(default_factory=dict)
    asked: Queue[Asked] = field(default_factory=Queue)

    def __enter__(self) -> Self:
        far = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, json.loads(raw) if raw else None)
                status, body = far.answers.get(self.path, lambda _: (200, {}))(asked)
                far.asked.put(asked)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815 - the name that the server looks for

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def next(self) -> Asked:
        """The next request that came in."""
        return self.asked.get(timeout=WITHIN_S)


def ask(at: Sidecar, path: str, body: Any = None, *, method: str = "POST") -> tuple[int, Any]:
    """Ask a sidecar as a client or as a service does: the status of the answer, and its JSON."""
    headers = {"Content-Type": "application/json", "GoConductor-Actor": "anna"}
    data = None if method == "GET" else json.dumps({} if body is None else body).encode()
    request = Request(f"{at.api}{path}", data=data, headers=headers, method=method)  # noqa: S310
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
