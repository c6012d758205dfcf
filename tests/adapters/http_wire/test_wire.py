"""One connection and the pool of them, against a server of bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.adapters.http_wire import connection as wire
from sidecar.adapters.http_wire.connection import Answer, BadAnswer, ConnectionLost
from sidecar.adapters.http_wire.pool import ConnectionPool, Sending, Server
from tests.adapters.services.raw_server import Handler, Peer, RawServer, Request, answer, once
from tests.servers.facts import until
from tests.servers.processes import free_port

REQUEST = b"POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"
LIMIT = 1000


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer() as running:
        yield running


@pytest.fixture
async def pool(server: RawServer) -> AsyncIterator[ConnectionPool]:
    made = ConnectionPool(Server("127.0.0.1", server.port), keep_s=60)
    yield made
    made.close()


async def send(pool: ConnectionPool, limit: int = LIMIT) -> Answer:
    async with asyncio.timeout(5):
        return await pool.send(REQUEST, Sending(), limit)


def writes(*parts: bytes) -> Handler:
    """A handler that writes each part by itself."""

    async def handle(request: Request, peer: Peer) -> None:
        for part in parts:
            await peer.write(part)
            await asyncio.sleep(0)

    return handle


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\nbody",
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
            b"1\r\nb\r\n3;x=y\r\nody\r\n0\r\nTrailer: z\r\n\r\n"
        ),
        b"HTTP/1.1 200 OK\r\nx-a:b\r\ncontent-length:4\r\n\r\nbody",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\nbody",
    ],
    ids=["sized", "chunked", "without spaces", "after an interim answer"],
)
async def test_an_answer_is_the_same_however_it_is_cut(
    server: RawServer, pool: ConnectionPool, text: bytes
) -> None:
    for pieces in ([text], [text[at : at + 1] for at in range(len(text))]):
        server.handler = writes(*pieces)
        got = await send(pool)
        assert (got.status, got.reason, got.body) == (200, "OK", b"body")
        assert got.headers["x-a"] == "b"
        assert not got.too_large
    assert server.connections == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_may_end_with_the_connection(
    server: RawServer, pool: ConnectionPool, version: str
) -> None:
    server.handler = once(f"HTTP/{version} 200 OK\r\n\r\nbody".encode())
    assert (await send(pool)).body == b"body"
    assert (await send(pool)).body == b"body"
    assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body(
    server: RawServer, pool: ConnectionPool, status: int
) -> None:
    server.handler = writes(f"HTTP/1.1 {status} x\r\n\r\n".encode())
    for _ in range(2):
        assert (await send(pool)).status == status
    assert server.connections == 1


async def test_a_server_that_closes_is_believed(server: RawServer, pool: ConnectionPool) -> None:
    server.handler = writes(answer(200, b"{}", keep=False))
    for _ in range(2):
        assert (await send(pool)).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"noise"])
async def test_what_nobody_asked_for_ends_the_connection(
    server: RawServer, pool: ConnectionPool, more: bytes
) -> None:
    server.handler = writes(answer(200, b"{}") + more)
    assert (await send(pool)).body == b"{}"
    server.handler = writes(answer(201, b"{}"))
    assert (await send(pool)).status == 201
    assert server.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"a" * (wire.MAX_HEAD + 1),
        b"X: y\r\n" * (wire.MAX_HEADERS + 2),
        b"a" * (wire.MAX_HEAD + 1) + b": y",
    ],
    ids=["a long value", "many headers", "a long name"],
)
async def test_the_head_is_bounded(server: RawServer, pool: ConnectionPool, head: bytes) -> None:
    server.handler = writes(b"HTTP/1.1 200 OK\r\n" + head)
    with pytest.raises(BadAnswer, match=r"head"):
        await send(pool)


async def test_a_body_beyond_the_bound_is_told_and_not_read(
    server: RawServer, pool: ConnectionPool
) -> None:
    server.handler = writes(answer(200, b"x" * 1001))
    assert (await send(pool)).too_large
    server.handler = writes(answer(200, b"x" * 1000))
    assert not (await send(pool)).too_large
    assert server.connections == 2


async def test_sending_begins_only_with_a_connection(server: RawServer) -> None:
    await server.stop()
    pool, sending = ConnectionPool(Server("127.0.0.1", server.port), keep_s=60), Sending()
    with pytest.raises(OSError, match=r".+"):
        await pool.send(REQUEST, sending, LIMIT)
    assert not sending.begun


async def test_a_kept_connection_that_the_server_closed_is_not_used(
    server: RawServer, pool: ConnectionPool
) -> None:
    await send(pool)
    await server.stop()
    await server.start()
    await server_forgot(pool)
    assert (await send(pool)).status == 200


async def server_forgot(pool: ConnectionPool) -> None:
    """Wait until the pool has heard that its connection was closed."""
    ((_, kept),) = pool._idle
    while kept.usable:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0)


async def test_idle_connections_are_closed_in_time(server: RawServer) -> None:
    pool = ConnectionPool(Server("127.0.0.1", server.port), keep_s=0.05)
    await pool.send(REQUEST, Sending(), LIMIT)
    async with asyncio.timeout(5):
        await server.left.wait()
    assert not pool._idle


async def test_cancelling_closes_the_connection(server: RawServer, pool: ConnectionPool) -> None:
    async def hang(request: Request, peer: Peer) -> None:
        await peer.wait_closed_by_client()
        raise ConnectionError

    server.handler = hang
    asking = asyncio.create_task(pool.send(REQUEST, Sending(), LIMIT))
    await server.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        await server.left.wait()
    assert not pool._busy
    assert not pool._idle


async def test_closing_the_pool_tells_whoever_waits(
    server: RawServer, pool: ConnectionPool
) -> None:
    async def hang(request: Request, peer: Peer) -> None:
        await peer.wait_closed_by_client()

    server.handler = hang
    asking = asyncio.create_task(pool.send(REQUEST, Sending(), LIMIT))
    await server.asked.wait()
    pool.close()
    with pytest.raises(ConnectionLost):
        await asking


async def test_many_calls_at_once_have_a_connection_each(
    server: RawServer, pool: ConnectionPool
) -> None:
    answers = await asyncio.gather(*(send(pool) for _ in range(20)))
    assert {one.status for one in answers} == {200}
    assert server.connections <= 20
    before = server.connections
    await asyncio.gather(*(send(pool) for _ in range(before)))
    assert server.connections == before


async def test_a_connection_with_itself_is_nobody_who_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel gives this to one in some ten thousand that ask for a port that is closed."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def from_that_port(make: Any, host: str, port: int, **rest: Any) -> Any:
        return await connect(make, host, port, local_addr=(host, port), **rest)

    monkeypatch.setattr(loop, "create_connection", from_that_port)
    port = free_port()
    pool = ConnectionPool(Server("127.0.0.1", port), keep_s=60)
    sending = Sending()
    with pytest.raises(ConnectionRefusedError):
        await pool.send(REQUEST, sending, LIMIT)
    assert not sending.begun
    # An aborted transport closes its socket in the next turn of the loop.
    await until(lambda: _is_free(port), within_s=5.0)


def _is_free(port: int) -> bool:
    """Whether a server could take the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
