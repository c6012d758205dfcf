"""The HTTP adapter against servers that are away, slow, broken, too large or hostile."""

from __future__ import annotations

import asyncio
import gzip
import socket

import orjson
import pytest
from msgspec.structs import replace

from sidecar.saga.outcomes import OutcomeKind
from tests.adapters.services.raw_server import (
    Connected,
    Peer,
    RawServer,
    Request,
    answer,
    code,
    once,
)
from tests.conformance.service import a_call

_K = OutcomeKind


# -- not sent, or perhaps -----------------------------------------------------------------------


@pytest.mark.fault(19)
async def test_a_name_that_does_not_resolve_is_not_sent(connected: Connected) -> None:
    service = await connected("http://does-not-exist.invalid:80")
    outcome = await service.call(a_call())
    assert outcome.kind is _K.NOT_SENT
    assert code(outcome) == "dns_failure"


@pytest.mark.fault(19)
async def test_a_connect_that_hangs_is_not_sent(connected: Connected) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        full = [socket.socket() for _ in range(4)]  # a backlog that is full drops further SYNs
        try:
            for each in full:
                each.setblocking(False)
                each.connect_ex(listening.getsockname())
            service = await connected(f"http://127.0.0.1:{listening.getsockname()[1]}")
            outcome = await service.call(a_call(timeout=0.3))
        finally:
            for each in full:
                each.close()
    assert outcome.kind is _K.NOT_SENT
    assert code(outcome) == "connect_timeout"


async def test_a_tls_handshake_that_fails_is_not_sent(
    server: RawServer, connected: Connected
) -> None:
    service = await connected(f"https://127.0.0.1:{server.port}")

    async def serve_plain(request: Request, peer: Peer) -> None:
        raise ConnectionError

    server.handler = serve_plain
    outcome = await service.call(a_call(timeout=0.5))
    assert outcome.kind is _K.NOT_SENT
    assert server.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.fault(11)
async def test_a_stale_connection_is_unknown_and_nothing_is_sent_twice(
    server: RawServer, connected: Connected, method: str
) -> None:
    """Left to itself, aiohttp would send a PUT or DELETE again, though its effect is not known."""
    service = await connected()
    assert (await service.call(a_call())).kind is _K.DONE

    async def close_without_answer(request: Request, peer: Peer) -> None:
        raise ConnectionError

    server.handler = close_without_answer
    outcome = await service.call(replace(a_call(), method=method))
    assert outcome.kind is _K.UNKNOWN
    assert code(outcome) == "connection_lost"
    assert [request.method for request in server.requests] == ["POST", method]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
        b"HTTP/1.1 422 No\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 " + b"a" * 100_000,
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"\x00" * 1000,
    ],
)
async def test_no_whole_answer_is_unknown(
    server: RawServer, connected: Connected, data: bytes
) -> None:
    server.handler = once(data)
    service = await connected()
    outcome = await service.call(a_call(timeout=5))
    assert outcome.kind is _K.UNKNOWN
    assert outcome.may_have_effect
    assert len(server.requests) == 1
    assert len(outcome.error or "") < 1000


async def test_a_reset_in_the_body_is_unknown(server: RawServer, connected: Connected) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        peer.reset()

    server.handler = handle
    service = await connected()
    assert (await service.call(a_call())).kind is _K.UNKNOWN


# -- slow ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n"],
    ids=["in the head", "in the body"],
)
@pytest.mark.fault(15)
async def test_a_drip_of_bytes_does_not_outlive_the_deadline(
    server: RawServer, connected: Connected, first: bytes
) -> None:
    async def drip(request: Request, peer: Peer) -> None:
        await peer.write(first)
        while True:
            await peer.write(b" ")
            await asyncio.sleep(0)

    server.handler = drip
    service = await connected(max_body=1 << 40)
    async with asyncio.timeout(5):
        outcome = await service.call(a_call(timeout=0.2))
    assert outcome.kind is _K.UNKNOWN
    await server.left.wait()


@pytest.mark.fault(14)
async def test_a_time_out_closes_its_connection(server: RawServer, connected: Connected) -> None:
    async def hang(request: Request, peer: Peer) -> None:
        await peer.wait_closed_by_client()
        raise ConnectionError

    server.handler = hang
    service = await connected()
    outcome = await service.call(a_call(timeout=0.1))
    assert code(outcome) == "timeout"
    await server.left.wait()


async def test_connections_are_used_again(server: RawServer, connected: Connected) -> None:
    service = await connected()
    for _ in range(20):
        await service.call(a_call())
    assert server.connections == 1


# -- large --------------------------------------------------------------------------------------


@pytest.mark.fault(16)
async def test_a_body_without_end_is_stopped(server: RawServer, connected: Connected) -> None:
    sent = 0

    async def flood(request: Request, peer: Peer) -> None:
        nonlocal sent
        await peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.write(b"10000\r\n" + b"1" * 65536 + b"\r\n")
            sent += 65536

    server.handler = flood
    service = await connected(max_body=100_000)
    outcome = await service.call(a_call())
    assert outcome.kind is _K.UNUSABLE
    assert code(outcome) == "body_too_large"
    await server.left.wait()
    assert sent < 32 * 1024 * 1024  # what fits into the sockets' buffers, and no more


@pytest.mark.parametrize("size", [0, 1])
async def test_the_bound_of_a_body_is_exact(
    server: RawServer, connected: Connected, size: int
) -> None:
    body = b'"' + b"x" * (998 + size) + b'"'

    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(200, body))

    server.handler = handle
    service = await connected(max_body=1000)
    outcome = await service.call(a_call())
    assert outcome.kind is (_K.UNUSABLE if size else _K.DONE)


@pytest.mark.fault(16)
async def test_a_compressed_answer_is_read_within_the_bound(
    server: RawServer, connected: Connected
) -> None:
    bodies = [gzip.compress(b'{"ok":1}'), gzip.compress(b"1" * (1 << 28), 9)]

    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(200, bodies.pop(0), ("Content-Encoding: gzip",)))

    server.handler = handle
    service = await connected()
    assert (await service.call(a_call())).output == '{"ok":1}'
    bomb = await service.call(a_call())
    assert bomb.kind is _K.UNUSABLE
    assert code(bomb) == "body_too_large"


# -- answers that nobody understands --------------------------------------------------------------


@pytest.mark.parametrize(("status", "kind"), [(400, _K.REFUSED), (429, _K.NOT_NOW)])
async def test_an_answer_is_an_outcome_whatever_its_headers_say(
    server: RawServer, connected: Connected, status: int, kind: OutcomeKind
) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        when = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
        await peer.write(answer(status, b"", (f"Retry-After: {when}",)))

    server.handler = handle
    outcome = await (await connected()).call(a_call())
    assert (outcome.kind, outcome.retry_after) == (kind, None)


async def test_an_answer_that_cannot_be_understood_still_has_its_status(
    server: RawServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(400, b'{"detail":"spent"}'))

    monkeypatch.setattr("sidecar.adapters.http_contract.answers.detail", fail)
    server.handler = handle
    outcome = await (await connected()).call(a_call())
    assert outcome.kind is _K.REFUSED
    assert orjson.loads(outcome.error or "")["code"] == "http_400"
