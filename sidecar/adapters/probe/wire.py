"""One request to the probed service, or half of one.

Every request has a connection of its own: what is found must not depend on what an earlier case
did to a connection, and aiohttp must not repeat a PUT or DELETE when a kept one is stale. Nothing
is followed, kept or believed beyond its bounds, as in the sidecar itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Self

import aiohttp
from yarl import URL

from sidecar.adapters.http_contract import answers, requests
from sidecar.adapters.http_contract.bodies import BadBody, TooLarge, decoded, parsed
from sidecar.adapters.probe.record import CutAt, Exchange
from sidecar.errors import ServiceUnreachable
from sidecar.ports.clock import Clock
from sidecar.ports.service import Call
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action

MAX_BODY = 1024 * 1024
"""The largest body of an answer, in bytes: the sidecar's default."""

HANG_UP_S = 0.2
"""How long a client that breaks a connection holds it before: the service has begun by then."""

_PENDING = 202
_LOST = (aiohttp.ClientError, OSError, EOFError)


class Wire:
    """The way to one service. Raises `ConfigError` for an address that is none."""

    def __init__(
        self, url: str, headers: Sequence[tuple[str, str]], clock: Clock, hang_up_s: float
    ) -> None:
        self._target = requests.target(url)
        self._headers = {**requests.STANDING, **dict(headers)}
        self._clock = clock
        self._hang_up_s = hang_up_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Make ready to ask."""
        connector: aiohttp.BaseConnector
        if self._target.socket is not None:
            connector = aiohttp.UnixConnector(self._target.socket, force_close=True)
        else:
            connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go of everything."""
        if self._session is not None:
            await self._session.close()

    async def reach(self, within_s: float) -> None:
        """Connect and go away again. Raises `ServiceUnreachable`."""
        where = self._target.socket or self._target.origin
        try:
            async with asyncio.timeout(within_s):
                _, writer = await self._connect()
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            raise ServiceUnreachable(
                f"{where} did not take a connection within {within_s:g} s"
            ) from None
        except OSError as error:
            raise ServiceUnreachable(f"no service can be reached at {where}: {error}") from None

    async def call(
        self, call: Call, on_status: Mapping[int, str], more: Mapping[str, str]
    ) -> Exchange:
        """Make the call. Whatever happens is an exchange."""
        headers = {**requests.headers(call), **more}
        answer = await self._ask(
            call.method, call.path, headers, call.body.encode(), call.timeout, call.action
        )
        if answer.status is None:
            return answer
        return Exchange(
            call.action,
            _kind(call.action, answer.status, on_status),
            answer.status,
            answer.body,
            bad_body=answer.bad_body,
            retry_after=answer.retry_after,
        )

    async def get(self, path: str, timeout: float, call: Call | None = None) -> Exchange:
        """Ask with GET; with the headers of a call, if it is asked about that."""
        headers = {} if call is None else requests.headers(call)
        return await self._ask("GET", path, headers, None, timeout, Action.EXECUTE)

    async def cut(self, call: Call, at: CutAt) -> Exchange:
        """Send a request, or half of it, and break the connection."""
        body = call.body.encode()
        headers = {"Host": self._target.authority, **self._headers, **requests.headers(call)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{call.method} {self._target.prefix}{call.path} HTTP/1.1\r\n{lines}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode("ascii")
        part = body[: len(body) // 2] if at is CutAt.IN_THE_BODY else body
        fault = "the probe broke the connection"
        try:
            async with asyncio.timeout(call.timeout):
                _, writer = await self._connect()
                writer.write(head + part)
                await writer.drain()
                await asyncio.sleep(self._hang_up_s)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:  # the service was quicker; that is as good
            fault = f"{type(error).__name__}: {error}"
        return Exchange(call.action, OutcomeKind.UNKNOWN, fault=fault)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = self._target
        if target.socket is not None:
            return await asyncio.open_unix_connection(target.socket)
        context = ssl.create_default_context() if target.tls else None
        return await asyncio.open_connection(target.host, target.port, ssl=context)

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
        action: Action,
    ) -> Exchange:
        if self._session is None:
            raise RuntimeError("the wire is not open")
        url = URL(f"{self._target.origin}{self._target.prefix}{path}", encoded=True)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers={**self._headers, **headers},
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                raw = await _read(response)
                return self._exchange(action, response, raw)
        except TimeoutError:
            return Exchange(action, OutcomeKind.UNKNOWN, fault=f"none came within {timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return Exchange(action, OutcomeKind.NOT_SENT, fault=f"no connection: {error}")
        except _LOST as error:
            fault = f"{type(error).__name__}: {error}"
            return Exchange(action, OutcomeKind.UNKNOWN, fault=fault)

    def _exchange(self, action: Action, response: aiohttp.ClientResponse, raw: bytes) -> Exchange:
        encoding = response.headers.get("Content-Encoding", "")
        body, bad = raw, None
        try:
            if len(raw) > MAX_BODY:
                raise TooLarge(MAX_BODY)
            body = decoded(raw, encoding, MAX_BODY)
            parsed(body)
        except BadBody as error:
            bad = str(error)
        after = response.headers.get("Retry-After")
        most = answers.MAX_RETRY_AFTER[action]
        wait = answers.waiting_time(after, self._clock.now(), most) if after else None
        return Exchange(
            action,
            OutcomeKind.UNKNOWN,
            response.status,
            body,
            bad_body=bad,
            retry_after=wait.total_seconds() if wait is not None else None,
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, at most one byte more than it may have."""
    parts: list[bytes] = []
    left = MAX_BODY + 1
    while left > 0 and (part := await response.content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _kind(action: Action, status: int, on_status: Mapping[int, str]) -> OutcomeKind:
    """The class of a status; nobody hears what a 202 promises to say later."""
    if status in on_status:
        return answers.OVERRIDES[on_status[status]]
    if status == _PENDING:
        return OutcomeKind.UNUSABLE if action is Action.EXECUTE else OutcomeKind.UNKNOWN
    return answers.class_of(action, status)
