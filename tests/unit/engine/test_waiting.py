"""What waiting promises: no end is missed, and nothing is asked while nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.engine import waiting as waits
from sidecar.errors import Overloaded, StoreUnavailable
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.unit.engine.faces import Faces, until

LONG = 30.0


@pytest.fixture
async def faces() -> AsyncIterator[Faces]:
    made = Faces()
    await made.register()
    await made.hub.open()
    yield made
    await made.hub.close()


@pytest.fixture
async def deaf() -> AsyncIterator[Faces]:
    """Every notice is lost; the hub looks often."""
    made = Faces(look_every=0.01)
    made.notices.deaf = True
    await made.register()
    await made.hub.open()
    yield made
    await made.hub.close()


async def test_a_notice_wakes_everybody_who_waits_for_it(faces: Faces) -> None:
    workflow = await faces.start()
    other = await faces.start()
    with faces.hub.watch(other.id) as asleep:
        waits = [asyncio.create_task(faces.hub.wait(workflow.id, LONG)) for _ in range(3)]
        await until(lambda: faces.hub.waiters == 4)
        faces.store.put(workflow, status=WorkflowStatus.COMPLETED)
        assert await asyncio.gather(*waits) == [True] * 3
        assert not await asleep.until_ended(0)
    assert faces.hub.waiters == 0


@pytest.mark.parametrize(
    "status", [WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK, WorkflowStatus.ERROR]
)
async def test_what_has_ended_is_not_waited_for(faces: Faces, status: WorkflowStatus) -> None:
    workflow = await faces.start()
    faces.store.put(workflow, status=status)
    assert await faces.hub.wait(workflow.id, LONG)


async def test_an_end_between_watching_and_waiting_is_not_missed(faces: Faces) -> None:
    workflow = await faces.start()
    with faces.hub.watch(workflow.id) as watch:
        faces.store.put(workflow, status=WorkflowStatus.COMPLETED)
        assert await watch.until_ended(LONG)


async def test_time_may_run_out(faces: Faces) -> None:
    workflow = await faces.start()
    assert not await faces.hub.wait(workflow.id, 0.001)
    assert faces.hub.waiters == 0


@pytest.mark.fault(40)
async def test_an_end_whose_notice_was_lost_is_found_with_one_query_for_all(deaf: Faces) -> None:
    workflows = [await deaf.start() for _ in range(20)]
    with deaf.hub.watch(workflows[0].id) as first:
        waits = [asyncio.create_task(deaf.hub.wait(one.id, LONG)) for one in workflows]
        await until(lambda: deaf.hub.waiters == 21)
        for one in workflows:
            deaf.store.put(one, status=WorkflowStatus.COMPLETED)
        deaf.store.asked.clear()
        assert await asyncio.gather(*waits) == [True] * 20
        assert await first.until_ended(LONG)
    assert deaf.store.asked == ["statuses"]


async def test_looking_survives_a_store_that_is_away(deaf: Faces) -> None:
    workflow = await deaf.start()
    with deaf.hub.watch(workflow.id) as watch:
        deaf.store.broken = StoreUnavailable()
        await deaf.facts.one_told.wait()
        deaf.store.broken = None
        deaf.store.put(workflow, status=WorkflowStatus.COMPLETED)
        assert await watch.until_ended(LONG)
    assert "waiting.look_failed" in deaf.facts.told


async def test_nothing_is_asked_while_nobody_waits(deaf: Faces) -> None:
    workflow = await deaf.start()
    with deaf.hub.watch(workflow.id):
        looker = deaf.hub._looker
    assert looker is not None
    await looker
    deaf.store.asked.clear()
    assert deaf.hub._looker is looker
    assert deaf.store.asked == []


async def test_too_many_waiters_are_refused() -> None:
    faces = Faces(max_waiters=1)
    with (
        faces.hub.watch(WorkflowId("a")),
        pytest.raises(Overloaded),
        faces.hub.watch(WorkflowId("b")),
    ):
        pytest.fail("the second was let in")
    with faces.hub.watch(WorkflowId("b")):
        assert faces.hub.waiters == 1
    await faces.hub.close()


async def test_closing_sends_everybody_back(faces: Faces) -> None:
    workflow = await faces.start()
    wait = asyncio.create_task(faces.hub.wait(workflow.id, LONG))
    await until(lambda: faces.hub.waiters)
    await faces.hub.close()
    await faces.hub.close()
    await wait
    with faces.hub.watch(workflow.id) as late:
        assert await late.until_ended(LONG)
    assert faces.notices.hearers == []


async def test_closing_waits_for_those_who_read_once_more(faces: Faces) -> None:
    """What comes after it closes the store, and they would be told that it is away."""
    workflow = await faces.start()
    read = []

    async def reads_at_its_end() -> None:
        with faces.hub.watch(workflow.id) as watch:
            await watch.until_ended(LONG)
            for _ in range(5):
                await asyncio.sleep(0)
            read.append(workflow.id)

    waiting = asyncio.create_task(reads_at_its_end())
    await until(lambda: faces.hub.waiters)
    await faces.hub.close()
    assert read == [workflow.id]
    await waiting


async def test_who_never_goes_does_not_keep_it_from_closing(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "LEAVE_WITHIN_S", 0.01)
    workflow = await faces.start()
    with faces.hub.watch(workflow.id):
        await faces.hub.close()
        assert faces.hub.waiters == 1
