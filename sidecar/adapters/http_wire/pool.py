"""Connections to one server, kept for a short while after each answer.

There is no bound on their number here: whoever calls has a bound on the calls in flight.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from dataclasses import dataclass

from sidecar.adapters.http_wire.connection import Answer, ConnectionLost, HttpConnection


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect: a host and port, or the path of a unix socket."""

    host: str
    port: int
    tls: bool = False
    socket: str | None = None


class Sending:
    """One request; `begun` says that its bytes may be on their way."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False


class ConnectionPool:
    """Sends each request once, on a connection kept or a new one.

    A connection that has been idle for `keep_s` seconds is closed.
    """

    def __init__(self, server: Server, *, keep_s: float) -> None:
        self._server = server
        self._keep_s = keep_s
        self._tls = ssl.create_default_context() if server.tls else None
        self._idle: deque[tuple[float, HttpConnection]] = deque()
        self._busy: set[HttpConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, request: bytes, sending: Sending, limit: int) -> Answer:
        """Send a request, once, and return its answer.

        Raises `OSError` and `ConnectionLost` when no connection could be made, `BadAnswer` and
        `ConnectionLost` once the sending had begun. A cancelled call closes its connection.
        """
        connection = self._kept() or await self._connected()
        sending.begun = True
        answer = await self._ask(connection, request, limit)
        if connection.usable:
            self._keep(connection)
        return answer

    async def send_alone(self, request: bytes, limit: int) -> Answer:
        """The same on a connection of its own, which is closed afterwards."""
        connection = await self._connected()
        try:
            return await self._ask(connection, request, limit)
        finally:
            connection.abort()

    async def connect(self) -> None:
        """Connect, and close again. Raises `OSError`, `ConnectionLost`."""
        (await self._connected()).abort()

    def close(self) -> None:
        """Close all connections; who waits for an answer gets `ConnectionLost`."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in (*(one for _, one in self._idle), *self._busy):
            connection.abort()
        self._idle.clear()

    async def _ask(self, connection: HttpConnection, request: bytes, limit: int) -> Answer:
        self._busy.add(connection)
        try:
            return await connection.ask(request, limit)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)

    async def _connected(self) -> HttpConnection:
        loop, server = asyncio.get_running_loop(), self._server
        if server.socket is not None:
            _, connection = await loop.create_unix_connection(HttpConnection, server.socket)
        else:
            _, connection = await loop.create_connection(
                HttpConnection, server.host, server.port, ssl=self._tls
            )
        if not connection.usable:
            raise ConnectionLost("the server closed the connection at once")
        if connection.with_itself:
            connection.reset()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
        return connection

    def _kept(self) -> HttpConnection | None:
        """Return the connection used last, if it is still good."""
        if not self._idle:
            return None
        oldest = asyncio.get_running_loop().time() - self._keep_s
        while self._idle:
            since, connection = self._idle.pop()
            if connection.usable and since >= oldest:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: HttpConnection) -> None:
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._sweep is None:
            self._sweep = loop.call_later(self._keep_s, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_s
        while self._idle and self._idle[0][0] <= oldest:
            self._idle.popleft()[1].abort()
        if self._idle:
            self._sweep = loop.call_at(self._idle[0][0] + self._keep_s, self._close_old)
