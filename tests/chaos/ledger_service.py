"""The services of a chaos run: `python -m tests.chaos.ledger_service PORT FILE [--forgets-keys]`.

One process plays every path. `POST /control` takes `{"rules": [...]}` in place of the rules in
force, and `{"callbacks": [...]}`, the addresses of the sidecars that take callbacks; `GET /control`
tells how often each fault has struck; `GET /healthz` says that it is there. Any other POST is a
step's. It speaks plain HTTP/1.1 by itself, since a fault may have to break off in the middle of an
answer, and since a thousand requests a second should cost little.

Failure behaviour: what is not a request resets its connection. What stands in the file survives
a kill, and is read again at the next start: keys are honoured across it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

from tests.chaos.book import Asked, Book, Entry, Fact, answer, behaviour
from tests.chaos.calling_back import Jobs, pause
from tests.chaos.faults import ACTS_FIRST, Kind, Rule, Rules, Subject

_PIECE = 64 * 1024
_HUGE_BYTES = 8 * 1024 * 1024
_BOMB_BYTES = 64 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)
_REASONS = {
    200: "OK",
    202: "Accepted",
    404: "Not Found",
    409: "Conflict",
    422: "Unprocessable Content",
}
_PLAIN_FAULTS = {
    Kind.FAIL_BEFORE: 500,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_MANY: 429,
    Kind.BUSY: 409,
}


class Connection(asyncio.Protocol):
    """One client. Its requests come one after the other, as all of ours do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._headers: dict[str, str] = {}
        self._body = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._lost = asyncio.Event()

    # -- what asyncio and the parser call -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()
        self._may_write.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.reset()

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = "", {}, b""

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("ascii", "replace")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        self._desk.take(self, method, self._path, self._headers, self._body)

    # -- what a handler says --------------------------------------------------------------------

    def tell(self, status: int, body: bytes, more: str = "") -> None:
        """Answer."""
        self.write(head(status, f"Content-Length: {len(body)}\r\n{more}") + body)

    def write(self, data: bytes) -> None:
        """Send bytes as they are, if somebody is still there."""
        if not self._lost.is_set():
            self._transport.write(data)

    async def writable(self) -> bool:
        """Wait until more can be sent; False when nobody is there any more."""
        await self._may_write.wait()
        return not self._lost.is_set()

    async def gone(self, within_s: float | None) -> bool:
        """Wait for the client to go, at most so long; whether it did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._lost.wait()
        return self._lost.is_set()

    def reset(self) -> None:
        """Break the connection as a crash would."""
        if not self._lost.is_set():
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()


class Desk:
    """Takes requests, asks the rules, and writes the book."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._rules = Rules()
        self._jobs = Jobs(book)
        self._requests = 0
        self._under_way: set[asyncio.Task[None]] = set()

    def take(
        self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        """Handle one request; what needs no waiting is answered before this returns."""
        if path == "/healthz":
            connection.tell(200, b'{"ok": true}')
        elif path == "/control":
            connection.tell(200, json.dumps(self._control(method, body)).encode())
        elif "idempotency-key" not in headers:
            connection.tell(404, b'{"detail": "no Idempotency-Key"}')
        else:
            self._requests += 1
            self._step(connection, _asked(path, headers, body))

    def _control(self, method: str, body: bytes) -> dict[str, Any]:
        told = json.loads(body) if method == "POST" else {}
        if "rules" in told:
            self._rules.set(Rule.read(one) for one in told["rules"])
        if "callbacks" in told:
            self._jobs.addresses = tuple(told["callbacks"])
        return {"requests": self._requests, "fired": dict(self._rules.fired)}

    def _step(self, connection: Connection, asked: Asked) -> None:
        subject = Subject(asked.path, asked.key, asked.workflow, asked.step, asked.action)
        rule = self._rules.strike(subject)
        if rule is None:
            self._answer(connection, asked, self._book.act(asked))
        elif rule.kind in _PLAIN_FAULTS:
            self._refuse(connection, asked, rule)
        elif rule.kind is Kind.RESET_BEFORE:
            self._book.fail(asked, None, rule.kind)
            connection.reset()
        elif rule.kind is Kind.RESET_AFTER:
            self._book.act_badly(asked, None, rule.kind)
            connection.reset()
        elif rule.kind is Kind.FAIL_AFTER:
            self._book.act_badly(asked, 500, rule.kind)
            connection.tell(500, b'{"detail": "stumbled after acting"}')
        else:
            self._wait(connection, asked, rule)

    def _answer(self, connection: Connection, asked: Asked, entry: Entry) -> None:
        connection.tell(entry.own or 500, json.dumps(answer(entry)).encode())
        if entry.fact is Fact.TAKEN_ON and behaviour(asked) != "promise":
            self._jobs.take_on(asked)

    def _refuse(self, connection: Connection, asked: Asked, rule: Rule) -> None:
        status = _PLAIN_FAULTS[rule.kind]
        self._book.fail(asked, status, rule.kind)
        later = rule.kind in (Kind.UNAVAILABLE, Kind.TOO_MANY)
        more = f"Retry-After: {rule.retry_after_s}\r\n" if later else ""
        connection.tell(status, b'{"detail": "not now"}', more)

    def _wait(self, connection: Connection, asked: Asked, rule: Rule) -> None:
        entry: Entry | None = None
        if rule.kind is Kind.DRIP:
            entry = self._book.act_late(asked, rule.kind)
        elif rule.kind in ACTS_FIRST:
            told = None if rule.kind is Kind.ACT_THEN_HANG else 200
            entry = self._book.act_badly(asked, told, rule.kind)
        elif rule.kind is Kind.HANG:
            self._book.fail(asked, None, rule.kind)
        task = asyncio.get_running_loop().create_task(
            self._misbehave(connection, asked, rule, entry)
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _misbehave(
        self, connection: Connection, asked: Asked, rule: Rule, entry: Entry | None
    ) -> None:
        match rule.kind:
            case Kind.SLOW:
                await pause(rule.ms / 1000)  # whether anybody still listens does not matter
                self._answer(connection, asked, self._book.act_late(asked, rule.kind))
            case Kind.DRIP if entry is not None:
                await _drip(connection, entry, rule.ms / 1000)
            case Kind.GARBAGE:
                connection.tell(200, b'{"mark": "cut sho')
            case Kind.HUGE:
                await _stream(connection, _huge(rule.bytes or _HUGE_BYTES))
            case Kind.GZIP_BOMB:
                bomb = _bomb(rule.bytes or _BOMB_BYTES)
                connection.tell(200, bomb, "Content-Encoding: gzip\r\n")
            case _:
                await connection.gone(None)


def head(status: int, more: str) -> bytes:
    """The head of an answer."""
    reason = _REASONS.get(status, "Status")
    return f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{more}\r\n".encode()


def _asked(path: str, headers: dict[str, str], body: bytes) -> Asked:
    return Asked(
        key=headers["idempotency-key"].strip('"'),
        path=path,
        workflow=headers.get("goconductor-workflow", ""),
        step=headers.get("goconductor-step", ""),
        action=headers.get("goconductor-action", ""),
        attempt=int(headers.get("goconductor-attempt", "0")),
        body=body,
        callback=headers.get("goconductor-callback", ""),
    )


async def _drip(connection: Connection, entry: Entry, every_s: float) -> None:
    body = json.dumps(answer(entry)).encode()
    connection.write(head(entry.own or 500, f"Content-Length: {len(body)}\r\n"))
    for byte in body:
        if await connection.gone(every_s):
            return
        connection.write(bytes((byte,)))


async def _stream(connection: Connection, pieces: Iterator[bytes]) -> None:
    connection.write(head(200, "Transfer-Encoding: chunked\r\n"))
    for piece in pieces:
        if not await connection.writable():
            return
        connection.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.write(b"0\r\n\r\n")


def _huge(size: int) -> Iterator[bytes]:
    yield b'{"mark": "'
    for _ in range(size // _PIECE):
        yield b"x" * _PIECE
    yield b'"}'


@functools.cache  # packing takes long, and meanwhile nobody else is answered
def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b" " * _PIECE) for _ in range(size // _PIECE))
    return packed + packer.flush()


async def serve(port: int, book: Book) -> None:
    """Serve until killed."""
    desk = Desk(book)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(desk), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="The services of a chaos run.")
    parser.add_argument("port", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--forgets-keys", action="store_true")
    given = parser.parse_args()
    uvloop.run(serve(given.port, Book(given.file, honours_keys=not given.forgets_keys)))


if __name__ == "__main__":
    main()
