"""What services offer, as a client and the command see it; and definitions that name actions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result

from sidecar.api.rest.app import build_app
from sidecar.cli.main import main
from sidecar.definitions.documents import digest
from sidecar.ports.records import SidecarBeat
from sidecar.saga.definition import JsonText
from tests.unit.api.conftest import Checked
from tests.unit.engine.overseen import Overseen

FIRST = JsonText('{"charge":{"compensate":"none","execute":{"path":"/charges"}}}')
SECOND = JsonText('{"charge":{"execute":{"path":"/charges"}},"look":{"execute":{"path":"/look"}}}')
ORDER = {"name": "order", "steps": [{"name": "pay", "service": "payments", "action": "charge"}]}
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen


@pytest.fixture
async def api(sidecar: Overseen) -> AsyncIterator[Checked]:
    async with TestClient(TestServer(build_app(sidecar.face()))) as client:
        yield Checked(client, cast("Any", sidecar))


@pytest.fixture
def run(api: Checked) -> Run:
    async def run(*words: str) -> Result:
        environment = {"GOCONDUCTOR_SERVER": str(api.client.make_url("/")).rstrip("/")}
        return await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environment)

    return run


async def publish(sidecar: Overseen, document: JsonText, *replicas: str) -> None:
    """Publish a catalogue, as the sidecars of these names do when they start."""
    stored = await sidecar.store.publish_catalogue(
        "default", "payments", document, digest(document)
    )
    for name in replicas:
        await sidecar.store.beat(
            SidecarBeat(name, "default", "payments", "1.0", "here", True, catalogue=stored.version)
        )


async def test_services_are_listed_with_what_they_offer(
    api: Checked, sidecar: Overseen, run: Run
) -> None:
    assert await api.get("/v1/services") == (200, {"services": [], "next_cursor": None})
    await publish(sidecar, FIRST, "one", "two")
    _, page = await api.get("/v1/services?limit=1")
    (payments,) = page["services"]
    assert (payments["service"], payments["catalogue"], payments["differs"]) == (
        "payments",
        1,
        False,
    )
    assert payments["actions"] == json.loads(FIRST)
    seen = [(one["incarnation"], one["catalogue"]) for one in payments["sidecars"]]
    assert seen == [("one", 1), ("two", 1)]
    await publish(sidecar, SECOND, "two")
    (payments,) = (await api.get("/v1/services"))[1]["services"]
    assert (payments["catalogue"], payments["differs"]) == (2, True)
    shown = await run("services")
    assert shown.exit_code == 0
    assert "charge, look" in shown.stdout
    assert "the sidecars of payments do not have the same catalogue" in shown.stderr
    told = json.loads((await run("services", "-o", "json")).stdout)
    assert told["services"][0]["service"] == "payments"


async def test_the_next_page_of_services_is_named(
    api: Checked, sidecar: Overseen, run: Run
) -> None:
    await publish(sidecar, FIRST)
    await sidecar.store.publish_catalogue("default", "shipping", SECOND, digest(SECOND))
    shown = await run("services", "--limit", "1")
    assert "none lives" in shown.stdout
    cursor = shown.stderr.split()[-1]
    rest = json.loads((await run("services", "--cursor", cursor, "-o", "json")).stdout)
    assert [one["service"] for one in rest["services"]] == ["shipping"]
    assert (await api.get("/v1/services?cursor=x"))[0] == 422


async def test_an_action_is_looked_up_when_a_definition_comes(
    api: Checked, sidecar: Overseen
) -> None:
    for path in ("/v1/definitions", "/v1/definitions/check"):
        status, problem = await api.post(path, ORDER)
        assert (status, problem["problems"][0]["field"]) == (422, "steps[0].action")
        assert "no sidecar of payments has published" in problem["problems"][0]["message"]
        status, problem = await api.post(f"{path}?allow_missing=yes", ORDER)
        assert (status, problem["field"]) == (422, "allow_missing")
    status, checked = await api.post("/v1/definitions/check?allow_missing=true", ORDER)
    assert status == 200
    assert "GC151" in {one["code"] for one in checked["findings"]}
    await publish(sidecar, FIRST)
    status, checked = await api.post("/v1/definitions/check", ORDER)
    assert (status, checked["verdict"], checked["findings"]) == (200, "proved", [])
    assert (await api.post("/v1/definitions", ORDER))[0] == 201
    (step,) = (await api.get("/v1/definitions/order"))[1]["document"]["steps"]
    assert step["pinned"] == {"catalogue": 1, "compensate": "none"}


async def test_a_file_is_not_another_for_what_was_pinned(
    api: Checked, sidecar: Overseen, run: Run, tmp_path: Path
) -> None:
    await publish(sidecar, FIRST)
    await api.post("/v1/definitions", ORDER)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(ORDER))
    same = await run("diff", "order", str(file))
    assert (same.exit_code, same.stderr) == (0, "")
    await publish(sidecar, SECOND)
    assert (await run("apply", str(file))).exit_code == 0
    differ = await run("diff", "order", "1", "2")
    assert differ.exit_code == 1
    assert "pinned.catalogue" in differ.stdout


async def test_what_nobody_offers_is_applied_only_on_demand(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text(json.dumps(ORDER))
    refused = await run("apply", str(file))
    assert refused.exit_code == 1
    assert "steps[0].action" in refused.stderr
    taken = await run("apply", str(file), "--allow-missing")
    assert taken.exit_code == 0
    assert "GC151" in taken.stdout + taken.stderr
