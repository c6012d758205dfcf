"""The listener, and what it bears from slow or greedy clients.

A client that opens a connection and does not finish its first request's headers in time is cut
off; between requests a connection lives for a while and no longer; bodies have the deadline of
their request; whoever does not take the answer is cut off by the system.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sidecar.api.rest import problems

HEADERS_WITHIN = 10.0
"""Seconds from the connection to the end of the first request's headers."""

KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle between two requests."""

CLOSE_WITHIN = 5.0
"""Seconds that requests under way get when the listener closes."""

READS_WITHIN = 60.0
"""Seconds after which a client that takes nothing of its answer is cut off."""

BACKLOG = 1024
"""Connections that may wait to be taken."""

_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": KEEP_ALIVE,
    "lingering_time": 1.0,
    "max_line_size": 8190,
    "max_field_size": 8190,
    "max_headers": 64,
    "auto_decompress": False,
}


class _Connection(RequestHandler):
    """One connection, cut off if its first request does not come."""

    __slots__ = ("_headers_due",)

    _headers_due: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._headers_due = self._loop.call_later(HEADERS_WITHIN, self._cut_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        self._headers_due.cancel()
        super().connection_lost(exc)

    def _cut_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer to what is not even a request, without repeating any of it."""
        if status >= web.HTTPInternalServerError.status_code:
            self.log_exception("Error handling request", exc_info=exc)
        answer = problems.of_http(status)
        answer.force_close()
        return answer


class RestServer:
    """One listening address of an application: bound, then served, then closed."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, shutdown_timeout=CLOSE_WITHIN, **_OPTIONS)
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Bind and serve; return the address, for port 0 with the port that was given.

        Raises `OSError` when the address cannot be had.
        """
        await self.bind(host, port)
        return await self.serve()

    async def bind(self, host: str, port: int) -> None:
        """Take the address, without answering anybody yet. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            taken = socket.socket(family, kind, protocol)
            self._sockets.append(taken)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections have it from their listener
                milliseconds = int(READS_WITHIN * 1000)
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind(address)
            taken.listen(BACKLOG)

    @property
    def address(self) -> tuple[str, int]:
        """The first address that was bound and is not served yet."""
        name = self._sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def serve(self) -> tuple[str, int]:
        """Answer from now on; return the first address."""
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None  # noqa: S101 - `setup` has just made it
        loop = asyncio.get_running_loop()
        address = self.address
        while self._sockets:
            self._servers.append(
                await loop.create_server(
                    lambda: _Connection(manager, loop=loop, **_OPTIONS),
                    sock=self._sockets.pop(0),
                    backlog=BACKLOG,
                )
            )
        return address

    async def close(self) -> None:
        """Take no more connections, let requests under way end, and go; harmless when repeated."""
        for taken in self._sockets:
            taken.close()
        for server in self._servers:
            server.close()
        self._sockets.clear()
        self._servers.clear()
        await self._runner.cleanup()
