"""Calls the service beside this sidecar over HTTP/1.1.

Promises, each held by a test:

- One call is at most one request, also where a connection that was kept turns out to be stale:
  whether the request had an effect is not known then.
- `not_sent` is said only where it is proven: the request was never handed to a connection.
  From then on everything that is not a whole answer is unknown.
- One deadline covers connect to last byte, so that a service which hangs, or sends a byte a
  second, costs its time-out and no more. A call that is cancelled closes its connection.
- Nothing is believed of the answer's size: headers, body and decompressed body are bounded
  before they are held.
- No redirect, proxy, cookie or .netrc is followed or kept.
"""

from __future__ import annotations

import asyncio
import re
import socket
from functools import lru_cache
from typing import Final

import structlog

from sidecar.adapters.http_contract import answers, requests
from sidecar.adapters.http_contract.bodies import BadBody, TooLarge, decoded
from sidecar.adapters.http_wire.connection import Answer, BadAnswer, ConnectionLost
from sidecar.adapters.http_wire.pool import ConnectionPool, Sending, Server
from sidecar.errors import ConfigError
from sidecar.ports.clock import Clock
from sidecar.ports.service import Call
from sidecar.saga.outcomes import Outcome
from sidecar.saga.paths import path_fault
from sidecar.saga.states import Action

log = structlog.get_logger("sidecar.http")

MAX_BODY: Final = 1024 * 1024
"""The largest body of an answer by default, in bytes, decompressed."""

READY_SECONDS: Final = 2.0
"""How long `ready` may take."""

KEEPALIVE_SECONDS: Final = 1.5
"""How long an idle connection is kept: less than common servers keep theirs (gunicorn 2 s,
Node and uvicorn 5 s), so that it is rarely the server who closes, perhaps just as we send."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class HttpService:
    """The service port over HTTP/1.1.

    `ready_path` is asked with GET by `ready`; None: connecting is proof enough. `auth_header` is a
    header's name and its secret value, sent with every call. `max_body` bounds the body of an
    answer, in bytes. Raises `ConfigError`.
    """

    def __init__(
        self,
        service_url: str,
        *,
        clock: Clock,
        ready_path: str | None = None,
        auth_header: tuple[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        target = self._target = requests.target(service_url)
        self._clock = clock
        self._max_body = max_body
        self._standing = _head_lines(target.authority, auth_header)
        self._server = Server(target.host, target.port, target.tls, target.socket)
        self._pool: ConnectionPool | None = None
        if ready_path is not None and (fault := path_fault(ready_path)):
            raise ConfigError(f"ready {ready_path!r}: {fault}")
        self._ready_path = ready_path
        # A service has a handful of paths, and checking one costs as much as sending a request.
        self._path_fault = lru_cache(maxsize=1024)(path_fault)

    async def open(self) -> None:
        """Make ready to call."""
        if self._pool is None:
            self._pool = ConnectionPool(self._server, keep_s=KEEPALIVE_SECONDS)

    async def close(self) -> None:
        """Close all connections; calls in flight end as unknown. Harmless when repeated."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def call(self, call: Call) -> Outcome:
        """Make the call. Whatever happens is an outcome: only cancellation raises."""
        if (fault := self._fault(call)) is not None:
            return answers.misconfigured(*fault)
        sending = Sending()
        try:
            async with asyncio.timeout(call.timeout):
                answer = await self._answer(call, sending)
        except TimeoutError:
            if not sending.begun:
                return answers.not_sent("connect_timeout", "the service could not be connected to")
            return answers.unknown("timeout", f"no whole answer within {call.timeout:g} s")
        except Exception as error:  # noqa: BLE001 (a call ends as an outcome, whatever broke)
            return _broken(sending, error)
        return self._outcome(call, answer)

    async def ready(self) -> bool:
        """Whether the service says that it can take calls; answers within 2 seconds."""
        pool = self._pool
        if pool is None:
            return False
        try:
            async with asyncio.timeout(READY_SECONDS):
                if self._ready_path is None:
                    await pool.connect()
                    return True
                request = self._request("GET", self._ready_path, {}, b"")
                answer = await pool.send_alone(request, self._max_body)
        except (OSError, ConnectionLost, BadAnswer, ValueError):  # ValueError: no such name in DNS
            return False
        return 200 <= answer.status < 300

    def _outcome(self, call: Call, answer: answers.Answer) -> Outcome:
        """Return what the answer means; whatever else it holds, its status has been given."""
        now = self._clock.now()
        try:
            return answers.outcome_of(call.action, answer, now, call.on_status)
        except Exception:
            log.exception("answer_not_understood", status=answer.status, step=str(call.key))
            return answers.outcome_of_status(call.action, answer.status, now, call.on_status)

    def _fault(self, call: Call) -> tuple[str, str] | None:
        """Return the code and the sentence of what keeps `call` from being made at all."""
        if (fault := self._path_fault(call.path)) is not None:
            return "bad_path", f"{call.path!r}: {fault}"
        asks = call.action is Action.STATUS and call.method == "GET"
        if call.method not in requests.METHODS and not asks:
            return "bad_method", f"{call.method!r} is not a method that a service is called with"
        for status, name in (call.on_status or {}).items():
            if name not in answers.OVERRIDES:
                return "bad_on_status", f"on_status {status}: {name!r} is not a class of answers"
        return None

    async def _answer(self, call: Call, sending: Sending) -> answers.Answer:
        """Send the request and read the whole answer, its body as far as it is bounded."""
        if self._pool is None:
            raise ConnectionLost("the client is closed")
        body = b"" if call.action is Action.STATUS else call.body.encode()
        request = self._request(call.method, call.path, requests.headers(call), body)
        answer = await self._pool.send(request, sending, self._max_body)
        text, bad = b"", None
        try:
            text = self._body(answer)
        except BadBody as error:
            bad = error
        retry_after = answer.headers.get("retry-after")
        return answers.Answer(answer.status, text, answer.reason, retry_after, bad)

    def _body(self, answer: Answer) -> bytes:
        """Return the decoded body. Raises `BadBody`."""
        if answer.too_large:
            raise TooLarge(self._max_body)
        encoding = answer.headers.get("content-encoding")
        return answer.body if encoding is None else decoded(answer.body, encoding, self._max_body)

    def _request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = (
            f"{method} {self._target.prefix}{path} HTTP/1.1\r\n{self._standing}{lines}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body


def _head_lines(authority: str, auth_header: tuple[str, str] | None) -> str:
    """Return the lines that stand in every request."""
    headers = {"Host": authority, **requests.STANDING}
    if auth_header is not None:
        name, value = auth_header
        if not (name + value).isascii() or not value.isprintable() or not _TOKEN.fullmatch(name):
            raise ConfigError(
                f"service_auth: the header {name!r} or its value holds a character that no header "
                "can; use printable ASCII"
            )
        headers[name] = value
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _broken(sending: Sending, error: Exception) -> Outcome:
    """Return the outcome of a call that ended without an answer, and not by its deadline."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, socket.gaierror):
        return answers.not_sent("dns_failure", f"the service's name: {error.strerror or error}")
    if not sending.begun:
        return answers.not_sent("not_connected", what)
    if isinstance(error, BadAnswer):
        return answers.unknown("bad_http", f"the answer is not HTTP: {error}")
    return answers.unknown("connection_lost", what)
