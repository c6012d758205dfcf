"""A client that costs little: one keep-alive connection, one request at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Client:
    """Talks JSON with one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """Return the status and the JSON of the answer."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        at = answer.lower().find(b"content-length:")
        length = int(answer[at + 15 :].split(b"\r\n", 1)[0])
        text = await self._reader.readexactly(length)
        return status, json.loads(text) if text else None

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
