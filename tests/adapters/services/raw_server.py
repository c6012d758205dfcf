"""An HTTP server of bytes: it answers exactly what a test writes, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from sidecar.adapters.services.http import HttpService
from sidecar.saga.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw_head: bytes


class Peer:
    """The connection that a request came in on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_closed_by_client(self) -> None:
        """Wait until the client has closed the connection."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        self._writer.transport.abort()


Handler = Callable[[Request, Peer], Awaitable[None]]
Connected = Callable[..., Awaitable[HttpService]]


def answer(
    status: int = 200, body: bytes = b"", headers: tuple[str, ...] = (), *, keep: bool = True
) -> bytes:
    """Return a well-formed HTTP answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


class RawServer:
    """Serves until it is left; `handler` may be changed at any time.

    A connection stays open after a handler that returned, and is closed after one that raised
    `ConnectionError`. `connections` counts those made, `open` those that are.
    """

    def __init__(self, handler: Handler | None = None, socket: Path | None = None) -> None:
        self.handler = handler or _ok
        self.socket = socket
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The service_url of this server."""
        return f"unix://{self.socket}" if self.socket else f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._server is not None:
            return
        if self.socket is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.socket)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                self.asked.set()
                await self.handler(request, Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        except asyncio.CancelledError:
            return  # stop() cancels; the streams' own callback would report it as unhandled
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()
            if not self.open:
                self.left.set()


async def _ok(request: Request, peer: Peer) -> None:
    await peer.write(answer(200, request.body))


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, head)


def code(outcome: Outcome) -> str:
    """Return the stable word of an outcome's error."""
    assert outcome.error is not None
    return str(orjson.loads(outcome.error)["code"])


def once(data: bytes) -> Handler:
    """Return a handler that writes `data` and closes."""

    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(data)
        raise ConnectionError

    return handle
