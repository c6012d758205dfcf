"""Bulk jobs, as a client and the command see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result

from sidecar.api.rest.app import build_app
from sidecar.cli.main import main
from tests.conformance.store_play import call, register
from tests.unit.api.conftest import Checked
from tests.unit.engine.overseen import Overseen

ORDERS = {"definition": "order"}


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen
        await overseen.agent.oversight.bulk.stop()


@pytest.fixture
async def api(sidecar: Overseen) -> AsyncIterator[Checked]:
    definition = await register(sidecar.store, call("charge"))
    for _ in range(3):
        await sidecar.player.start(definition)
    async with TestClient(TestServer(build_app(sidecar.face()))) as client:
        yield Checked(client, cast("Any", sidecar))


async def ended(api: Checked, job: str) -> Any:
    while True:
        status, found = await api.get(f"/v1/bulk/{job}")
        assert status == 200
        if found["status"] != "running":
            return found


async def test_a_dry_run_tells_what_would_be_chosen(api: Checked) -> None:
    body = {"verb": "cancel", "filter": ORDERS, "dry_run": True, "limit": 2}
    status, found = await api.post("/v1/workflows/bulk", body)
    assert (status, found["selected"], found["more"], len(found["first"])) == (200, 2, True, 2)
    assert (await api.get("/v1/bulk"))[1]["jobs"] == []


async def test_a_job_is_begun_and_tells_of_each_workflow(api: Checked) -> None:
    wanted = {**ORDERS, "status": ["in_progress"], "created_before": "2999-01-01T00:00:00Z"}
    headers = {"GoConductor-Actor": "ada"}
    body = {"verb": "cancel", "filter": wanted, "reason": "enough"}
    status, job = await api.post("/v1/workflows/bulk", body, headers=headers)
    assert (status, job["selected"], job["actor"]) == (202, 3, "ada")
    assert job["filter"]["status"] == ["in_progress"]
    done = await ended(api, job["id"])
    assert (done["status"], done["done"], done["open"]) == ("done", 3, 0)
    assert [one["result"] for one in done["workflows"]] == ["done"] * 3
    _, first = await api.get(f"/v1/bulk/{job['id']}?limit=2")
    _, rest = await api.get(f"/v1/bulk/{job['id']}?limit=2&cursor={first['next_cursor']}")
    assert len(first["workflows"]) + len(rest["workflows"]) == 3
    assert (await api.get(f"/v1/bulk/{job['id']}?result=failed"))[1]["workflows"] == []
    assert [one["id"] for one in (await api.get("/v1/bulk"))[1]["jobs"]] == [job["id"]]
    status, stopped = await api.post(f"/v1/bulk/{job['id']}/stop")
    assert (status, stopped["status"]) == (202, "done")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"verb": "skip", "filter": ORDERS}, "verb"),
        ({"verb": "cancel"}, "filter"),
        ({"verb": "cancel", "filter": {}}, "filter"),
        ({"verb": "cancel", "filter": {"status": ["lost"]}}, "filter.status[0]"),
        ({"verb": "cancel", "filter": {"created_before": "noon"}}, "filter.created_before"),
        ({"verb": "cancel", "filter": {"name": "x"}}, "filter.name"),
        ({"verb": "terminate", "filter": ORDERS}, "reason"),
        ({"verb": "cancel", "filter": ORDERS, "limit": 100_001}, "limit"),
    ],
)
async def test_what_cannot_be_done_is_refused(api: Checked, body: Any, field: str) -> None:
    status, problem = await api.post("/v1/workflows/bulk", body)
    assert (status, problem["field"]) == (422, field)


async def test_a_job_that_is_not_there_is_not_found(api: Checked) -> None:
    for path in ("00000000-0000-7000-8000-000000000000", "x"):
        assert (await api.get(f"/v1/bulk/{path}"))[0] == 404
        assert (await api.post(f"/v1/bulk/{path}/stop"))[0] == 404


async def test_the_command_begins_a_job_and_waits_for_it(
    api: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.cli.bulk.LOOK_EVERY_S", 0.0)
    environment = {"GOCONDUCTOR_SERVER": str(api.client.make_url(""))}

    async def run(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, ["bulk", *words], env=environment)

    dry = await run("cancel", "--definition", "order", "--dry-run")
    assert dry.stdout.startswith("3 workflows would be chosen\n")
    done = await run("cancel", "--definition", "order", "--wait", "-o", "json")
    assert done.exit_code == 0
    job = json.loads(done.stdout[done.stdout.index("{\n") :])  # behind what the sidecar logs
    assert (job["status"], job["done"], len(job["workflows"])) == ("done", 3, 3)
    refused = await run("pause", "--status", "rolled_back,completed", "--wait")
    assert refused.exit_code == 1
    assert "it is rolled_back" in refused.stdout
    assert "not done to all" in refused.stderr
    assert job["id"] in (await run("list")).stdout
    assert job["id"] in (await run("show", job["id"], "--result", "done")).stdout
    assert (await run("stop", job["id"])).exit_code == 0
    assert (await run("terminate", "--definition", "order")).exit_code == 1
    assert (await run("signal", "--definition", "order")).exit_code == 2
