"""Health and readiness: who is asked, and what it says of why not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from sidecar.api.health import build_health_app
from sidecar.engine import supervision
from tests.unit.engine.faces import until
from tests.unit.engine.whole import Whole

Asking = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture
async def whole() -> AsyncIterator[Whole]:
    made = Whole()
    await made.agent.start()
    await made.agent.gate.wait_open()
    yield made
    await made.agent.stop()


@pytest.fixture
async def asking(whole: Whole) -> AsyncIterator[Asking]:
    server = TestServer(build_health_app(whole.agent, lambda: b"# metrics"))
    async with TestClient(server) as client:

        async def ask() -> tuple[int, dict[str, Any]]:
            async with client.get("/readyz") as answer:
                return answer.status, await answer.json()

        yield ask


async def test_a_sidecar_that_can_work_is_ready(asking: Asking) -> None:
    assert await asking() == (
        200,
        {
            "ready": True,
            "store": True,
            "gate": True,
            "gate_reason": "ready",
            "commits": True,
            "draining": False,
        },
    )


async def test_without_a_store_it_is_not(whole: Whole, asking: Asking) -> None:
    await whole.store.close()
    status, said = await asking()
    assert (status, said["ready"], said["store"]) == (503, False, False)
    await whole.store.open()


async def test_while_the_gate_is_closed_it_is_not(whole: Whole, asking: Asking) -> None:
    whole.service.is_ready = False
    whole.agent.gate._ask_now.set()
    await until(lambda: not whole.agent.gate.is_open)
    status, said = await asking()
    assert (status, said["gate"], said["gate_reason"]) == (503, False, "not_ready")


async def test_when_it_drains_it_is_not(whole: Whole, asking: Asking) -> None:
    await whole.agent.drain()
    status, said = await asking()
    assert (status, said["draining"]) == (503, True)


async def test_while_commits_fail_by_a_bug_it_is_not(
    whole: Whole, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(supervision, "PAUSE_S", 0.001)
    monkeypatch.setattr(whole.agent.committer, "_settle", bug)
    await until(lambda: not whole.agent.committer.sound)
    status, said = await asking()
    assert (status, said["commits"]) == (503, False)
