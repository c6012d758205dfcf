"""What is owed, as a client and the command see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from sidecar.api.rest.app import build_app
from sidecar.cli.main import main
from sidecar.ports.store import Claimed
from tests.conformance.store_play import call, refused, register
from tests.unit.api.conftest import Checked
from tests.unit.engine.overseen import Overseen


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen


@pytest.fixture
async def api(sidecar: Overseen) -> AsyncIterator[Checked]:
    async with TestClient(TestServer(build_app(sidecar.face()))) as client:
        yield Checked(client, cast("Any", sidecar))


async def owing(sidecar: Overseen) -> str:
    """A workflow that owes two effects; its first step has nothing to undo."""
    player = sidecar.player
    look = {**call("look"), "compensate": "none"}
    definition = await register(sidecar.store, look, call("one"), call("two"), call("three"))
    workflow = await player.start(definition)
    for step in definition.topological:
        claimed = await player.claim_key(workflow, step)
        assert isinstance(claimed, Claimed)
        await player.answer(claimed, refused() if step == "three" else None)
    return workflow


async def test_what_is_owed_is_counted_and_listed(api: Checked, sidecar: Overseen) -> None:
    assert (await api.get("/v1/debt"))[1]["services"] == []
    workflow = await owing(sidecar)
    sidecar.clock.advance(1800)
    status, debt = await api.get("/v1/debt?older_than=10m")
    (payments,) = debt["services"]
    assert (status, debt["older_than_s"], debt["more"]) == (200, 600.0, False)
    counts = [payments[name] for name in ("service", "owed", "overdue", "failed")]
    assert counts == ["payments", 2, 2, 0]
    assert payments["oldest_age_s"] == 1800
    assert [(one["workflow"], one["step"]) for one in debt["entries"]] == [
        (workflow, "one"),
        (workflow, "two"),
    ]
    assert (await api.get("/v1/debt"))[1]["services"][0]["overdue"] == 0


async def test_entries_come_by_pages_without_what_has_nothing_to_undo(
    api: Checked, sidecar: Overseen
) -> None:
    for _ in range(2):
        await owing(sidecar)
    found = []
    cursor = ""
    while True:
        _, page = await api.get(f"/v1/debt?limit=1&service=payments{cursor}")
        found += [(one["workflow"], one["step"]) for one in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(found) == len(set(found)) == 4
    assert {step for _, step in found} == {"one", "two"}
    assert (await api.get("/v1/debt?service=nobody"))[1]["entries"] == []


@pytest.mark.parametrize("query", ["older_than=x", "cursor=bzE6eA", "limit=0", "age=1h"])
async def test_what_cannot_be_read_is_refused(api: Checked, query: str) -> None:
    assert (await api.get(f"/v1/debt?{query}"))[0] == 422


async def test_the_command_prints_both(api: Checked, sidecar: Overseen) -> None:
    environment = {"GOCONDUCTOR_SERVER": str(api.client.make_url(""))}

    async def run(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environment)
        assert result.exit_code == 0
        return result.stdout

    assert await run("debt") == "nothing is owed\n"
    workflow = await owing(sidecar)
    told = await run("debt", "--older-than", "30m")
    assert workflow in told
    assert "OVERDUE" in told
    assert len(json.loads(await run("debt", "-o", "json"))["entries"]) == 2
