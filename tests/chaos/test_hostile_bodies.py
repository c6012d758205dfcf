"""Bodies at the API that are too deep, too large or not what they say: refused, nothing half done.

They come from many clients at once, while other workflows run; no sidecar may die of one, grow by
it, or keep anything of it.
"""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from tests.chaos.expectations import Expectations
from tests.chaos.looking import workflows
from tests.chaos.sidecars import Sidecar
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

MIB = 1024 * 1024
ENDLESS = 100 * MIB


def start(body: str) -> bytes:
    return b'{"definition": "chain", "input": ' + body.encode("utf-8", "surrogatepass") + b"}"


HOSTILE = {
    "65 levels": start("[" * 65 + "]" * 65),
    "100,000 levels": start("[" * 100_000 + "]" * 100_000),
    "100,000 levels that never end": start('{"a":' * 100_000),
    "2 MiB": start(json.dumps("x" * 2 * MIB)),
    "NUL": start(r'"\u0000"'),
    "half a character": start(r'"\ud800"'),
    "NaN": start("NaN"),
    "a number of 100,000 digits": start("1" * 100_000),
    "not UTF-8": b'{"definition": "chain", "input": "\xff\xfe"}',
    "nothing": b"",
}


def post(sidecar: Sidecar, path: str, body: bytes) -> int:
    connection = HTTPConnection("127.0.0.1", sidecar.http, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def pour(sidecar: Sidecar) -> str:
    """Send 100 MiB in chunks; the status of the answer, or nothing if it was reset meanwhile."""
    head = "POST /v1/workflows HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    piece = b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", sidecar.http), timeout=30) as client:
        try:
            client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(ENDLESS // 0x10000):
                client.sendall(piece)
            return client.recv(100).decode().split()[1]
        except (BrokenPipeError, ConnectionResetError):
            return ""


@pytest.mark.fault(10)
def test_bodies_that_are_deep_large_or_false_are_refused_whole(
    postgres_server: PostgresServer,
) -> None:
    with World(seed=71, postgres=postgres_server) as world:
        world.run_load(20)
        world.quiesce(within_s=60)
        before, memory = workflows(world), {}
        for name, sidecar in world.sidecars.items():
            memory[name] = sidecar.forget_peak()
        with ThreadPoolExecutor(8) as clients:
            answers = {
                (what, name, path): clients.submit(post, sidecar, path, body)
                for what, body in HOSTILE.items()
                for name, sidecar in world.sidecars.items()
                for path in ("/v1/workflows", "/v1/definitions", "/v1/definitions/check")
            }
            poured = [clients.submit(pour, one) for one in world.sidecars.values()]
        wrong = {what: one.result() for what, one in answers.items()}
        wrong = {what: status for what, status in wrong.items() if not 400 <= status < 500}
        assert not wrong, f"seed {world.seed}: {wrong}"
        assert {one.result() for one in poured} <= {"413", ""}, f"seed {world.seed}"
        assert workflows(world) == before, f"seed {world.seed}: something was started"
        grown = {name: one.peak() - memory[name] for name, one in world.sidecars.items()}
        assert all(one < 64 * MIB for one in grown.values()), f"seed {world.seed}: {grown}"
        world.run_load(20)
        world.quiesce(within_s=60)
        world.verify(Expectations(at_least={"started": 40, "completed": 10, "rolled_back": 8}))
