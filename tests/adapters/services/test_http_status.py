"""How an execute went: the question over HTTP."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action
from tests.adapters.services.raw_server import Connected, RawServer, code, once
from tests.adapters.services.raw_server import answer as answering
from tests.conformance.service import a_call

_K = OutcomeKind


async def test_it_is_a_get_without_a_body(server: RawServer, connected: Connected) -> None:
    service = await connected(f"{server.url}/api")
    await service.call(replace(a_call(Action.STATUS), path="/charges/status"))
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/api/charges/status")
    assert request.body == b""
    assert request.headers["content-length"] == "0"
    assert "goconductor-callback" not in request.headers


async def test_only_a_question_is_a_get(server: RawServer, connected: Connected) -> None:
    service = await connected()
    for call in (replace(a_call(), method="GET"), replace(a_call(Action.STATUS), method="HEAD")):
        outcome = await service.call(call)
        assert (outcome.kind, code(outcome)) == (_K.MISCONFIGURED, "bad_method")
    assert not server.requests


@pytest.mark.parametrize(
    ("said", "output"),
    [
        (b'{"outcome":"succeeded"}', "null"),
        (b'{"outcome":"succeeded","output":[1,2],"more":true}', "[1,2]"),
    ],
)
async def test_what_succeeded_has_an_output(
    server: RawServer, connected: Connected, said: bytes, output: str
) -> None:
    server.handler = once(answering(200, said))
    outcome = await (await connected()).call(a_call(Action.STATUS))
    assert (outcome.kind, outcome.output) == (_K.DONE, output)


async def test_an_output_that_is_too_large_proves_nothing(
    server: RawServer, connected: Connected
) -> None:
    large = b'{"outcome":"succeeded","output":"' + b"x" * 64 + b'"}'
    server.handler = once(answering(200, large))
    outcome = await (await connected(max_body=64)).call(a_call(Action.STATUS))
    assert outcome.kind is _K.UNKNOWN
