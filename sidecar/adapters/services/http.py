"""Calls the service beside this sidecar over HTTP, with aiohttp.

Promises, each held by a test:

- One call is at most one request. aiohttp would repeat an idempotent method on a connection
  that turned out to be stale; here the second sending is refused, because whether the first
  one had an effect is not known.
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
from contextvars import ContextVar
from functools import lru_cache
from typing import Final

import aiohttp
import structlog
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import BaseConnector, Connection
from multidict import CIMultiDict, istr
from yarl import URL

from sidecar.adapters.http_contract import answers, requests
from sidecar.adapters.http_contract.bodies import BadBody, TooLarge, decoded
from sidecar.errors import ConfigError
from sidecar.ports.clock import Clock
from sidecar.ports.service import Call
from sidecar.saga.outcomes import Outcome
from sidecar.saga.paths import path_fault

log = structlog.get_logger("sidecar.http")

MAX_BODY: Final = 1024 * 1024
"""The largest body of an answer by default, in bytes, decompressed."""

READY_SECONDS: Final = 2.0
"""How long `ready` may take."""

KEEPALIVE_SECONDS: Final = 1.5
"""How long an idle connection is kept: less than common servers keep theirs (gunicorn 2 s,
Node and uvicorn 5 s), so that it is rarely the server who closes, perhaps just as we send."""

_MAX_LINE: Final = 8190
_MAX_HEADERS: Final = 128
_NO_TIMEOUT: Final = aiohttp.ClientTimeout()
_STANDING = {
    hdrs.ACCEPT: "application/json, application/problem+json",
    hdrs.ACCEPT_ENCODING: "identity",
    hdrs.CONTENT_TYPE: "application/json",
    hdrs.USER_AGENT: "goconductor",
}


class _SentBefore(aiohttp.ClientError):
    """aiohttp was about to send the same request a second time."""


class _Ticket:
    """Good for sending one request; `used` says that its bytes may be on their way."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = False


_ticket: ContextVar[_Ticket] = ContextVar("ticket")


class _Request(ClientRequest):
    """A request that needs an unused ticket to be sent."""

    async def send(self, conn: Connection) -> ClientResponse:
        ticket = _ticket.get()
        if ticket.used:
            raise _SentBefore("the connection was closed before an answer")
        ticket.used = True
        return await super().send(conn)


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
        self._target = requests.target(service_url)
        self._clock = clock
        self._auth = dict([auth_header] if auth_header else [])
        self._max_body = max_body
        self._standing: CIMultiDict[str] = CIMultiDict()
        self._session: aiohttp.ClientSession | None = None
        if ready_path is not None and (fault := path_fault(ready_path)):
            raise ConfigError(f"ready {ready_path!r}: {fault}")
        self._ready_path = ready_path
        base = self._target.origin + self._target.prefix
        # A service has a handful of paths, and checking and parsing one costs as much as a call.
        self._url = lru_cache(maxsize=1024)(lambda path: _checked_url(base, path))

    async def open(self) -> None:
        """Make ready to call."""
        if self._session is not None:
            return
        self._standing = CIMultiDict(_STANDING)
        for name, value in self._auth.items():
            self._standing[istr(name)] = value
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            timeout=_NO_TIMEOUT,
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )

    async def close(self) -> None:
        """Close all connections; calls in flight end as unknown. Harmless when repeated."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, call: Call) -> Outcome:
        """Make the call. Whatever happens is an outcome: only cancellation raises."""
        if (fault := self._fault(call)) is not None:
            return answers.misconfigured(*fault)
        ticket = _Ticket()
        _ticket.set(ticket)
        try:
            async with asyncio.timeout(call.timeout):
                answer = await self._answer(call)
        except TimeoutError:
            if not ticket.used:
                return answers.not_sent("connect_timeout", "the service could not be connected to")
            return answers.unknown("timeout", f"no whole answer within {call.timeout:g} s")
        except aiohttp.ClientConnectorDNSError as error:
            return answers.not_sent("dns_failure", f"the service's name: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 (a call ends as an outcome, whatever broke)
            return _broken(ticket, error)
        return self._outcome(call, answer)

    async def ready(self) -> bool:
        """Whether the service says that it can take calls; answers within 2 seconds."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                if self._ready_path is None:
                    return await self._connects()
                return await self._says_ready(self._ready_path)
        except (aiohttp.ClientError, OSError, ValueError):  # ValueError: a name no DNS can hold
            return False

    def _outcome(self, call: Call, answer: answers.Answer) -> Outcome:
        """Return what the answer means; whatever else it holds, its status has been given."""
        now = self._clock.now()
        try:
            return answers.outcome_of(call.action, answer, now, call.on_status)
        except Exception:
            log.exception("answer_not_understood", status=answer.status, step=str(call.key))
            return answers.outcome_of_status(call.action, answer.status, now, call.on_status)

    def _connector(self) -> BaseConnector:
        if self._target.socket is not None:
            return aiohttp.UnixConnector(
                self._target.socket, limit=0, keepalive_timeout=KEEPALIVE_SECONDS
            )
        return aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=aiohttp.ThreadedResolver(),
        )

    def _fault(self, call: Call) -> tuple[str, str] | None:
        """Return the code and the sentence of what keeps `call` from being made at all."""
        if isinstance(self._url(call.path), str):
            return "bad_path", f"{call.path!r}: {self._url(call.path)}"
        if call.method not in requests.METHODS:
            return "bad_method", f"{call.method!r} is not a method that a service is called with"
        for status, name in (call.on_status or {}).items():
            if name not in answers.OVERRIDES:
                return "bad_on_status", f"on_status {status}: {name!r} is not a class of answers"
        return None

    async def _answer(self, call: Call) -> answers.Answer:
        """Send the request and read the whole answer, its body as far as it is bounded."""
        url = self._url(call.path)
        if self._session is None or isinstance(url, str):
            raise aiohttp.ClientConnectionError("the client is closed")
        headers = self._standing.copy()
        headers.update(requests.headers(call))
        response = await self._session.request(
            call.method, url, data=call.body.encode(), headers=headers, allow_redirects=False
        )
        body, bad = b"", None
        try:
            body = await self._body(response)
        except BadBody as error:
            response.close()
            bad = error
        except BaseException:
            response.close()
            raise
        return answers.Answer(
            response.status,
            body,
            response.reason or "",
            response.headers.get(hdrs.RETRY_AFTER),
            bad,
        )

    async def _body(self, response: ClientResponse) -> bytes:
        """Return the decoded body, holding at no time more than the bound and one chunk."""
        content, limit = response.content, self._max_body
        body = await content.readany()
        if not content.at_eof():
            gathered = bytearray(body)
            while len(gathered) <= limit and (chunk := await content.readany()):
                gathered += chunk
            body = bytes(gathered)
        if len(body) > limit:
            raise TooLarge(limit)
        encoding = response.headers.get(hdrs.CONTENT_ENCODING)
        return body if encoding is None else decoded(body, encoding, limit)

    async def _connects(self) -> bool:
        loop = asyncio.get_running_loop()
        transport: asyncio.BaseTransport
        if self._target.socket is not None:
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, self._target.socket)
        else:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, self._target.host, self._target.port
            )
        transport.close()
        return True

    async def _says_ready(self, path: str) -> bool:
        url = self._url(path)
        if self._session is None or isinstance(url, str):
            return False
        _ticket.set(_Ticket())
        response = await self._session.get(url, headers=self._standing, allow_redirects=False)
        response.close()  # its body, of whatever size, is not wanted
        return 200 <= response.status < 300


def _checked_url(base: str, path: str) -> URL | str:
    """Return the URL of `path`, or the sentence that says what is wrong with it."""
    fault = path_fault(path)
    return URL(base + path, encoded=True) if fault is None else fault


def _broken(ticket: _Ticket, error: Exception) -> Outcome:
    """Return the outcome of a call that ended without an answer, and not by its deadline."""
    what = f"{type(error).__name__}: {error}"
    if not ticket.used:
        return answers.not_sent("not_connected", what)
    if isinstance(error, aiohttp.ClientResponseError):
        return answers.unknown("bad_http", f"the answer is not HTTP: {error.message}")
    return answers.unknown("connection_lost", what)
