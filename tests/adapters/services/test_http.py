"""The HTTP adapter: the port's suite against a server of bytes, and what only HTTP can do."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from msgspec.structs import replace

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.services import http
from sidecar.adapters.services.http import HttpService
from sidecar.errors import ConfigError
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId
from tests.adapters.services.raw_server import Connected, Peer, RawServer, Request, answer, code
from tests.conformance.service import CALLBACK, Asked, Behaviour, ServiceConformance, a_call

_K = OutcomeKind
_ANSWERS = {
    Behaviour.REFUSED: answer(422, b'{"title":"no"}'),
    Behaviour.BROKEN: answer(500, b"oops"),
    Behaviour.BUSY: answer(409),
    Behaviour.NOT_NOW: answer(429),
    Behaviour.NOT_FOUND: answer(404),
    Behaviour.PENDING: answer(202),
    Behaviour.UNREADABLE: answer(200, b"<html>"),
}


_TOLD = {
    Behaviour.DONE: b'{"outcome":"succeeded","output":{"amount":12}}',
    Behaviour.REFUSED: b'{"outcome":"refused"}',
    Behaviour.PENDING: b'{"outcome":"pending"}',
}


class FarServer:
    """The suite's hand on a service behind HTTP."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.behaviour = Behaviour.DONE
        server.handler = self._handle

    @property
    def asked(self) -> list[Asked]:
        return [_asked(request) for request in self.server.requests]

    async def will(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        if behaviour is Behaviour.AWAY:
            await self.server.stop()
        else:
            await self.server.start()

    async def wait_asked(self) -> None:
        await self.server.asked.wait()

    async def wait_left(self) -> None:
        await self.server.left.wait()

    async def _handle(self, request: Request, peer: Peer) -> None:
        if request.method == "GET" and self.behaviour in _TOLD:
            await peer.write(answer(200, _TOLD[self.behaviour]))
        elif self.behaviour is Behaviour.DONE:
            await peer.write(answer(200, request.body))
        elif self.behaviour is Behaviour.HANGS:
            await peer.wait_closed_by_client()
        elif self.behaviour is Behaviour.CUTS:
            peer.reset()
        elif self.behaviour is Behaviour.TOO_LARGE:
            await peer.write(answer(200, b'"' + b"x" * http.MAX_BODY + b'"'))
        else:
            await peer.write(_ANSWERS[self.behaviour])


def _asked(request: Request) -> Asked:
    headers = request.headers
    return Asked(
        headers["idempotency-key"].strip('"'),
        int(headers["goconductor-attempt"]),
        request.body.decode(),
        int(headers["goconductor-timeout-ms"]),
        datetime.fromisoformat(headers["goconductor-deadline"]),
        headers.get("goconductor-callback"),
    )


@pytest.fixture
def far(server: RawServer) -> FarServer:
    return FarServer(server)


@pytest.fixture
async def service(far: FarServer, connected: Connected) -> HttpService:
    return await connected()


class TestHttpService(ServiceConformance):
    """The port's suite."""


# -- what is sent -------------------------------------------------------------------------------


async def test_the_whole_request(server: RawServer, connected: Connected) -> None:
    service = await connected(auth_header=("X-Api-Key", "s3cret"))
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    call = replace(a_call(timeout=1.5), trace=trace)
    await service.call(call)
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/charges")
    deadline = request.headers.pop("goconductor-deadline")
    assert deadline.endswith("Z")
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json, application/problem+json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "13",
        "user-agent": "goconductor",
        "x-api-key": "s3cret",
        "idempotency-key": f'"{call.workflow}/charge/execute"',
        "goconductor-workflow": call.workflow,
        "goconductor-step": "charge",
        "goconductor-action": "execute",
        "goconductor-attempt": "1",
        "goconductor-definition": "order_processing/3",
        "goconductor-namespace": "default",
        "goconductor-timeout-ms": "1500",
        "goconductor-callback": CALLBACK,
        "traceparent": trace,
    }


async def test_the_configured_method_and_prefix(server: RawServer, connected: Connected) -> None:
    service = await connected(f"{server.url}/api/v2/")
    await service.call(replace(a_call(), method="PUT", path="/charges?mode=a%20b"))
    (request,) = server.requests
    assert (request.method, request.target) == ("PUT", "/api/v2/charges?mode=a%20b")
    assert request.body == b'{"amount":12}'


async def test_no_value_can_begin_a_header(server: RawServer, connected: Connected) -> None:
    evil = 'x"\\\r\nX-Evil: 1\r\n\r\nGET / HTTP/1.1\u2028é\ud800'
    call = replace(
        a_call(),
        workflow=WorkflowId(evil),
        key=StepKey(evil),
        definition=DefinitionRef(evil, evil, 1),
        trace=evil,
    )
    service = await connected()
    assert (await service.call(call)).kind is _K.DONE
    (request,) = server.requests
    assert "x-evil" not in request.headers
    assert "traceparent" not in request.headers
    assert request.raw_head.count(b"\n") == len(request.headers) + 2
    assert request.raw_head.isascii()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "charges",
        "//evil.example/x",
        "http://evil.example/x",
        "/a/../b",
        "/..",
        "/%2e%2e/admin",
        "/%252e%252E/admin",
        "/a/..%2fb",
        "/a\\b",
        "/a b",
        "/a\r\nX-Evil: 1",
        "/a%0",
        "/a#b",
        "/é",
        "/" + "a" * 3000,
    ],
)
async def test_a_path_cannot_leave_the_service(
    server: RawServer, connected: Connected, path: str
) -> None:
    service = await connected()
    outcome = await service.call(replace(a_call(), path=path))
    assert outcome.kind is _K.MISCONFIGURED
    assert code(outcome) == "bad_path"
    assert server.connections == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"method": "CONNECT"}, "bad_method"),
        ({"method": "POST\r\nX: y"}, "bad_method"),
        ({"on_status": {200: "not_sent"}}, "bad_on_status"),
        ({"on_status": {200: "nonsense"}}, "bad_on_status"),
    ],
)
async def test_a_call_that_cannot_be_made_is_not_made(
    server: RawServer, connected: Connected, change: dict[str, object], word: str
) -> None:
    service = await connected()
    outcome = await service.call(replace(a_call(), **change))  # type: ignore[arg-type]
    assert outcome.kind is _K.MISCONFIGURED
    assert code(outcome) == word
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "http://",
        "http://user:pw@host",
        "http://host:99999",
        "http://host/?q",
        "http://host/#f",
        "http://host/../x",
        "http://ho st",
        "unix://run/app.sock",
        "unix://",
    ],
)
def test_a_bad_service_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        HttpService(url, clock=SystemClock())


async def test_a_unix_socket(tmp_path: Path, connected: Connected) -> None:
    async with RawServer(socket=tmp_path / "app.sock") as server:
        service = await connected(server.url)
        assert await service.ready()
        assert (await service.call(a_call())).kind is _K.DONE
        assert server.requests[0].headers["host"] == "localhost"
        await server.stop()
        assert (await service.call(replace(a_call(), key=StepKey("b")))).kind is not _K.DONE
    missing = await connected(f"unix://{tmp_path}/nothing.sock")
    assert not await missing.ready()
    assert (await missing.call(a_call())).kind is _K.NOT_SENT


async def test_proxies_of_the_environment_are_not_used(
    server: RawServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    service = await connected()
    assert (await service.call(a_call())).kind is _K.DONE


async def test_cookies_are_not_kept(server: RawServer, connected: Connected) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(200, headers=("Set-Cookie: a=b",)))

    server.handler = handle
    service = await connected()
    await service.call(a_call())
    await service.call(a_call())
    assert "cookie" not in server.requests[1].headers


# -- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.fault(18)
async def test_a_redirect_is_not_followed(
    server: RawServer, connected: Connected, status: int
) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(status, headers=("Location: /elsewhere",)))

    server.handler = handle
    service = await connected()
    assert (await service.call(a_call())).kind is _K.MISCONFIGURED
    assert len(server.requests) == 1


async def test_against_an_ordinary_server(connected: Connected) -> None:
    async def charge(request: web.Request) -> web.Response:
        return web.json_response({"got": await request.json()}, status=201)

    app = web.Application()
    app.router.add_post("/charges", charge)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        service = await connected(f"http://127.0.0.1:{runner.addresses[0][1]}")
        outcome = await service.call(a_call())
        assert outcome.output == JsonText('{"got": {"amount": 12}}')
        assert (await service.call(replace(a_call(), path="/other"))).kind is _K.MISCONFIGURED
    finally:
        await runner.cleanup()


async def test_an_interim_answer_is_passed_over(server: RawServer, connected: Connected) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(204))

    server.handler = handle
    service = await connected()
    outcome = await service.call(a_call())
    assert (outcome.kind, outcome.output) == (_K.DONE, None)


async def test_on_status_and_retry_after_arrive(server: RawServer, connected: Connected) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(409, b'{"detail":"spent"}', ("Retry-After: 7",)))

    server.handler = handle
    service = await connected()
    busy = await service.call(a_call())
    assert busy.kind is _K.BUSY
    assert busy.retry_after is not None
    assert busy.retry_after.total_seconds() == 7
    refused = await service.call(replace(a_call(), on_status={409: "refused"}))
    assert refused.kind is _K.REFUSED
    assert orjson.loads(refused.error or "") == {
        "code": "http_409",
        "message": "spent",
        "status": 409,
        "detail": {"detail": "spent"},
    }


# -- ready, and the end -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ready"), [(200, True), (204, True), (302, False), (503, False)]
)
async def test_ready_asks_its_path(
    server: RawServer, connected: Connected, status: int, ready: bool
) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        await peer.write(answer(status))

    server.handler = handle
    service = await connected(ready_path="/healthz")
    assert await service.ready() is ready
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/healthz")


async def test_ready_gives_up(
    server: RawServer, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READY_SECONDS", 0.1)

    async def hang(request: Request, peer: Peer) -> None:
        await peer.wait_closed_by_client()

    server.handler = hang
    service = await connected(ready_path="/healthz")
    assert not await service.ready()


async def test_a_closed_client_sends_nothing(server: RawServer, connected: Connected) -> None:
    service = await connected()
    await service.close()
    outcome = await service.call(a_call())
    assert outcome.kind is _K.NOT_SENT
    assert server.connections == 0


async def test_closing_ends_calls_in_flight(server: RawServer, connected: Connected) -> None:
    async def hang(request: Request, peer: Peer) -> None:
        await peer.wait_closed_by_client()

    server.handler = hang
    service = await connected()
    call = asyncio.create_task(service.call(a_call(Action.COMPENSATE, timeout=30)))
    await server.asked.wait()
    await service.close()
    assert (await call).kind is _K.UNKNOWN


async def test_the_secret_is_in_no_outcome(server: RawServer, connected: Connected) -> None:
    async def echo(request: Request, peer: Peer) -> None:
        await peer.write(answer(500, b"went wrong"))

    server.handler = echo
    service = await connected(auth_header=("Authorization", "Bearer s3cret"))
    assert "s3cret" not in repr(await service.call(a_call()))
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
