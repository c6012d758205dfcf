"""One connection: a request is written once, and its answer read within bounds.

idle ── ask ──▶ asked ── whole answer ──▶ idle, or closed
                  └──── anything else ───▶ closed, and whoever asked is told
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, NamedTuple, cast

import httptools

MAX_HEAD: Final = 32 * 1024
"""Names and values of all headers of an answer, in bytes."""

MAX_HEADERS: Final = 128

_SWITCHING = 101
_FIRST_FINAL = 200
_WITHOUT_BODY = frozenset({204, 304})


class BadAnswer(Exception):
    """What came is not an answer in HTTP/1.1, or its head is too large."""


class ConnectionLost(Exception):
    """The connection ended before a whole answer had come."""


class Answer(NamedTuple):
    """A whole answer; `headers` by their lower-case names.

    `too_large` says that the body is longer than was asked for, and was not read to its end.
    """

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    too_large: bool = False


class HttpConnection(asyncio.Protocol):
    """A connection to one server. Not for two requests at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._asked: asyncio.Future[Answer] | None = None
        self._limit = 0
        self._keep = False
        self._too_large = False
        self._reset()

    # -- for whoever asks -------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._keep and self._transport is not None and not self._transport.is_closing()

    @property
    def with_itself(self) -> bool:
        """Whether both ends are one socket.

        TCP connects a port with itself when a client asks for a port that nobody listens on and
        is given just that one to ask from (RFC 9293, 3.5, simultaneous open). It would be held
        from the server whose port it is.
        """
        if self._transport is None:
            return False
        peer = self._transport.get_extra_info("peername")
        return bool(peer) and peer == self._transport.get_extra_info("sockname")

    async def ask(self, request: bytes, limit: int) -> Answer:
        """Send a request and return its answer, with a body of at most `limit` bytes.

        Raises `BadAnswer` and `ConnectionLost`. Whoever gives up must `abort`.
        """
        if self._transport is None or self._asked is not None:
            raise ConnectionLost("the connection is not free")
        asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._limit = limit
        self._keep = False
        self._transport.write(request)
        return await asked

    def abort(self) -> None:
        """Close at once; whoever asks gets `ConnectionLost`."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close at once and leave nothing behind: no port waits for late packets (TIME_WAIT)."""
        line = self._transport.get_extra_info("socket") if self._transport is not None else None
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    # -- for the loop -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._keep = True

    def data_received(self, data: bytes) -> None:
        """Read on; what nobody asked for ends the connection."""
        if self._asked is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
            if not self._head_done:
                self._count_head(len(data))
        except BadAnswer as error:
            self._fail(error)
        except httptools.HttpParserUpgrade:
            self._fail(BadAnswer("the server switches to another protocol"))
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, BadAnswer) else BadAnswer(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; it may also be the end of a body."""
        self._keep = False
        if exc is None and self._head_done and not self._sized:
            self._finish()
        self._fail(ConnectionLost(str(exc) if exc else "the server closed the connection"))
        self._transport = None

    # -- for the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin an answer; a second one was not asked for."""
        if self._asked is None or self._asked.done():
            raise BadAnswer("more came than was asked for")
        self._reset()

    def on_status(self, status: bytes) -> None:
        """Take the reason phrase, or a part of it."""
        self._count_head(len(status))
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of several with one name the last."""
        self._count_head(len(name) + len(value))
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            raise BadAnswer(f"the answer has more than {MAX_HEADERS} headers")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Know now how the body will end."""
        self._status = self._parser.get_status_code()
        self._head_done = True
        headers = self._headers
        self._sized = (
            "content-length" in headers
            or "transfer-encoding" in headers
            or self._status in _WITHOUT_BODY
            or self._status < _FIRST_FINAL
        )

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; beyond the bound, stop."""
        self._size += len(body)
        if self._size <= self._limit:
            self._body.append(body)
        elif not self._too_large:
            self._too_large = True
            self._finish()
            self.abort()

    def on_message_complete(self) -> None:
        """Answer whoever asked; an interim answer is passed over."""
        if self._status < _FIRST_FINAL and self._status != _SWITCHING:
            self._reset()
        elif not self._too_large:
            self._keep = self._parser.should_keep_alive()
            self._finish()

    # -- inside -----------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._body: list[bytes] = []
        self._size = 0
        self._head = 0
        self._head_done = False
        self._sized = False
        self._too_large = False

    def _count_head(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise BadAnswer(f"the head of the answer is larger than {MAX_HEAD} bytes")

    def _finish(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            reason = self._reason.decode("latin-1")
            asked.set_result(Answer(self._status, reason, self._headers, body, self._too_large))
        if not self._keep and self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_exception(error)
        self.abort()
