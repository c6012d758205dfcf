"""A service that answers at once: `python -m tests.benchmarks.stub PORT`.

It speaks just enough HTTP/1.1 to cost next to nothing. It says yes to everything but `/refuse`.
`GET /count` tells how many calls of each path it has answered, so that no run can pretend to
have made its calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import ClassVar, cast

import uvloop

BACKLOG = 4096
"""Two hundred callers may come at once: one that finds the line full asks again after a second."""
_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_DONE = _HEAD % (b"200 OK", 11, b'{"ok":true}')
_REFUSED = _HEAD % (b"422 Unprocessable Content", 12, b'{"ok":false}')


class Stub(asyncio.Protocol):
    """One connection."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request in the buffer."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        if path == "/count":
            body = json.dumps(self.counts).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            self._transport.write(head + body)
            return
        self.counts[path] += 1
        self._transport.write(_REFUSED if path == "/refuse" else _DONE)


async def serve(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(
        Stub, "127.0.0.1", port, backlog=BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
