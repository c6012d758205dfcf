"""What holds for every operation: errors, namespaces, origins, limits, the description."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from sidecar.api.rest import server
from sidecar.api.rest.app import build_app
from sidecar.api.rest.models import StartRequest
from sidecar.api.rest.openapi import document
from sidecar.api.rest.routes import ROUTES
from sidecar.api.rest.server import RestServer
from tests.unit.api.conftest import DESCRIPTION, Checked
from tests.unit.api.schema import problems
from tests.unit.engine.faces import Faces


async def test_the_process_says_that_it_lives(rest: Checked) -> None:
    assert await rest.get("/healthz") == (200, {"status": "ok"})


async def test_the_description_is_served(rest: Checked) -> None:
    async with rest.client.get("/openapi.json") as answer:
        assert await answer.json() == document()


def test_every_route_is_described_and_nothing_else() -> None:
    app = build_app(None)  # type: ignore[arg-type]
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {
        (method.upper(), path)
        for path, operations in DESCRIPTION["paths"].items()
        for method in operations
    }
    assert served - described == {("GET", "/openapi.json")}
    assert described <= served
    operations = [route.operation for route in ROUTES]
    assert len(operations) == len(set(operations))


def test_every_reference_of_the_description_leads_somewhere() -> None:
    found: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            found.update([part["$ref"]] if "$ref" in part else [])
            for one in part.values():
                look(one)
        elif isinstance(part, list):
            for one in part:
                look(one)

    look(DESCRIPTION)
    names = {ref.removeprefix("#/components/schemas/") for ref in found}
    assert names <= set(DESCRIPTION["components"]["schemas"])


def test_the_examples_are_valid() -> None:
    schema = DESCRIPTION["components"]["schemas"]["StartRequest"]
    for example in schema["examples"]:
        assert problems(example, schema, DESCRIPTION) == []
        StartRequest.model_validate(example)


async def test_an_unknown_path_or_method_is_a_problem_too(rest: Checked) -> None:
    status, problem = await rest.get("/v1/nothing")
    assert (status, problem["code"]) == (404, "no_such_path")
    async with rest.client.delete("/v1/workflows") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,POST"
        assert (await answer.json())["code"] == "method_not_allowed"


async def test_another_namespace_is_refused_clearly(rest: Checked) -> None:
    status, problem = await rest.get("/v1/workflows", headers={"GoConductor-Namespace": "other"})
    assert (status, problem["field"]) == (422, "GoConductor-Namespace")
    status, _ = await rest.get("/v1/workflows", headers={"GoConductor-Namespace": "default"})
    assert status == 200


async def test_a_page_of_another_origin_cannot_use_the_api(rest: Checked) -> None:
    status, problem = await rest.post(
        "/v1/workflows", {"definition": "order"}, headers={"Origin": "http://evil.example"}
    )
    assert (status, problem["code"]) == (403, "forbidden_origin")
    own = str(rest.client.make_url("")).rstrip("/")
    status, _ = await rest.post("/v1/workflows", {"definition": "order"}, headers={"Origin": own})
    assert status == 201


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7400", "localhost", "LOCALHOST.:1", "[::1]:7400", "sagas.example.org"]
)
async def test_it_is_asked_by_a_name_of_its_own(rest: Checked, host: str) -> None:
    assert (await rest.get("/v1/workflows", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example.com", "127.0.0.1.evil.example", "localhost.evil.example:7400", "10.0.0.1", ""],
)
async def test_a_name_that_somebody_else_points_here_is_refused(rest: Checked, host: str) -> None:
    status, problem = await rest.get("/v1/workflows", headers={"Host": host})
    assert (status, problem["code"], problem["field"]) == (421, "unknown_host", "Host")
    assert "listen.allowed_hosts" in problem["detail"]
    # The browser takes it for the page's own origin, so this alone would not be noticed.
    headers = {"Host": host, "Origin": f"http://{host}"}
    status, _ = await rest.post("/v1/workflows", {"definition": "order"}, headers=headers)
    assert status == 421
    assert not rest.faces.store.workflows


async def test_two_hosts_are_none(rest: Checked) -> None:
    address = (str(rest.client.server.host), int(rest.client.server.port or 0))
    twice = b"Host: 127.0.0.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n"
    answer = await speak(address, b"GET /v1/workflows HTTP/1.1\r\n" + twice)
    assert answer.split(b" ")[1] in (b"400", b"421")


@pytest.fixture
async def listening(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """A real listener that gives clients a tenth of a second for their headers."""
    monkeypatch.setattr(server, "HEADERS_WITHIN", 0.1)
    faces = Faces()
    running = RestServer(build_app(faces.face()))
    yield await running.open("127.0.0.1", 0)
    await running.close()
    await running.close()


async def speak(address: tuple[str, int], raw: bytes) -> bytes:
    """Send bytes, and return all that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(raw)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_never_finishes_its_headers_is_cut_off(
    listening: tuple[str, int],
) -> None:
    assert await speak(listening, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "READS_WITHIN", 0.5)
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/", endless)
    running = RestServer(app)
    address = await running.open("127.0.0.1", 0)
    with socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(40):
            await ended.wait()
    await running.close()


async def test_what_is_no_http_gets_a_problem_that_repeats_nothing_of_it(
    listening: tuple[str, int],
) -> None:
    answer = await speak(listening, b"GET /<script> HTTP/9.9 evil\r\n\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"application/problem+json" in answer
    assert b"script" not in answer


async def test_headers_have_a_limit(listening: tuple[str, int]) -> None:
    large = b"X: " + b"x" * 9000 + b"\r\n"
    answer = await speak(listening, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + large + b"\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]


async def test_a_request_closed_by_the_client_is_answered_and_closed(
    listening: tuple[str, int],
) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await speak(listening, request)
    assert answer.endswith(b'{"status":"ok"}')


async def test_a_parameter_that_is_given_twice_is_refused_by_name(rest: Checked) -> None:
    status, problem = await rest.get("/v1/workflows?limit=1&limit=2")
    assert (status, problem["code"], problem["field"]) == (422, "invalid_request", "limit")
    status, _ = await rest.get("/v1/workflows?status=error&status=completed&label=a:b&label=c:d")
    assert status == 200
