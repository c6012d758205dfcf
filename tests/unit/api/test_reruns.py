"""Running a workflow again, as a client and the command see it."""

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

BODY = {"definition": "order", "input": {"amount": 7}, "labels": {"shop": "north"}}


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen


@pytest.fixture
async def api(sidecar: Overseen) -> AsyncIterator[Checked]:
    await register(sidecar.store, call("charge"), call("ship", service="shipping"))
    async with TestClient(TestServer(build_app(sidecar.face()))) as client:
        yield Checked(client, cast("Any", sidecar))


async def ended(api: Checked) -> str:
    """A workflow that was rolled back."""
    _, started = await api.post("/v1/workflows", BODY)
    await api.post(f"/v1/workflows/{started['id']}/cancel")
    return str(started["id"])


async def test_a_rerun_is_a_new_workflow_with_the_same_input(api: Checked) -> None:
    old = await ended(api)
    status, started = await api.post(f"/v1/workflows/{old}/rerun")
    assert status == 201
    assert started["id"] != old
    _, view = await api.get(f"/v1/workflows/{started['id']}")
    assert (view["input"], view["version"]) == ({"amount": 7}, 1)
    assert view["labels"] == {"shop": "north", "rerun_of": old}
    _, history = await api.get(f"/v1/workflows/{old}/events")
    assert history["events"][-1]["details"] == {"rerun": started["id"]}
    _, history = await api.get(f"/v1/workflows/{started['id']}/events")
    assert history["events"][0]["details"] == {"rerun_of": old}


async def test_a_rerun_with_a_start_key_is_one(api: Checked) -> None:
    old, other = await ended(api), await ended(api)
    body = {"start_key": "again", "reason": "the limit was raised"}
    first, one = await api.post(f"/v1/workflows/{old}/rerun", body)
    second, same = await api.post(f"/v1/workflows/{old}/rerun", body)
    assert (first, second, one["id"]) == (201, 200, same["id"])
    status, problem = await api.post(f"/v1/workflows/{other}/rerun", body)
    assert (status, problem["code"]) == (422, "start_key_reused")


async def test_a_rerun_may_take_another_version(api: Checked, sidecar: Overseen) -> None:
    old = await ended(api)
    await register(sidecar.store, call("pay"))
    versions = []
    for body in ({}, {"version": "latest"}, {"version": 2}):
        _, started = await api.post(f"/v1/workflows/{old}/rerun", body)
        versions.append((await api.get(f"/v1/workflows/{started['id']}"))[1]["version"])
    assert versions == [1, 2, 2]
    await api.post("/v1/definitions/order/versions/1/retire")
    assert (await api.post(f"/v1/workflows/{old}/rerun"))[0] == 409
    assert (await api.post(f"/v1/workflows/{old}/rerun", {"version": 9}))[0] == 404
    assert (await api.post(f"/v1/workflows/{old}/rerun", {"version": "newest"}))[0] == 422


async def test_what_goes_on_or_still_owes_is_refused(api: Checked, sidecar: Overseen) -> None:
    _, started = await api.post("/v1/workflows", BODY)
    path = f"/v1/workflows/{started['id']}"
    status, problem = await api.post(f"{path}/rerun")
    assert (status, problem["detail"]) == (
        409,
        "The workflow cannot be run again: it is in_progress.",
    )
    await sidecar.player.answer(await sidecar.player.claim_one())
    await api.post(f"{path}/terminate", {"reason": "enough"})
    await register(sidecar.store, call("pay"))
    status, problem = await api.post(f"{path}/rerun", {"version": 2})
    assert (status, "only a rerun of the same version" in problem["detail"]) == (409, True)
    assert (await api.post(f"/v1/workflows/{'0' * 8}/rerun"))[0] == 404


async def test_what_a_terminated_one_owes_is_taken_over_or_undone_by_hand(
    api: Checked, sidecar: Overseen
) -> None:
    paths = []
    for _ in range(2):
        _, started = await api.post("/v1/workflows", BODY)
        await sidecar.player.answer(await sidecar.player.claim_one())
        paths.append(f"/v1/workflows/{started['id']}")
        await api.post(f"{paths[-1]}/terminate", {"reason": "enough"})
    status, again = await api.post(f"{paths[0]}/rerun")
    assert status == 201
    _, view = await api.get(f"/v1/workflows/{again['id']}")
    assert [(one["name"], one["status"]) for one in view["steps"]] == [
        ("charge", "succeeded"),
        ("ship", "queued"),
    ]
    status, problem = await api.post(f"{paths[0]}/rerun")
    assert (status, f"{again['id']} took over" in problem["detail"]) == (409, True)
    told = {"resolution": "compensated", "reason": "undone by hand", "evidence": "ticket 7"}
    status, _ = await api.post(f"{paths[1]}/steps/charge/resolve", told)
    assert status == 202
    _, view = await api.get(paths[1])
    assert (view["status"], view["steps"][0]["status"]) == ("terminated", "compensated")
    status, problem = await api.post(f"{paths[0]}/steps/charge/resolve", told)
    assert (status, "was taken over" in problem["detail"]) == (409, True)
    assert (await api.get("/v1/debt"))[1]["services"] == []


async def test_the_command_runs_again(api: Checked) -> None:
    old = await ended(api)
    environment = {"GOCONDUCTOR_SERVER": str(api.client.make_url(""))}

    async def run(*words: str) -> Result:
        words = ("rerun", old, *words)
        return await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environment)

    first = await run("--key", "k", "--latest", "--reason", "mended", "-o", "json")
    assert first.exit_code == 0
    assert "had been started before" in (await run("--key", "k", "--latest")).stdout
    assert json.loads(first.stdout)["id"] in (await run("--key", "k", "--version", "1")).stdout
    assert (await run("--latest", "--version", "1")).exit_code == 2
