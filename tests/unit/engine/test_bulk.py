"""Bulk jobs at work: in batches, across crashes, until they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sidecar.engine.bulk import AT_ONCE, Bulk, BulkRequest
from sidecar.engine.duties import Duties, DutyTimes
from sidecar.errors import InvalidRequest, NotFound, StoreUnavailable
from sidecar.ports.bulk import BulkFilter, BulkJob, BulkResult, BulkStatus
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import call, new_id, register, start_of
from tests.unit.engine.faces import until
from tests.unit.engine.overseen import Overseen
from tests.unit.engine.parts import ME

ORDERS = BulkFilter(definition="order")
CANCEL = BulkRequest("cancel", ORDERS, reason="enough", actor="ada")


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen
        await overseen.agent.oversight.bulk.stop()


def bulk_of(sidecar: Overseen) -> Bulk:
    return sidecar.agent.oversight.bulk


def another(sidecar: Overseen) -> Bulk:
    """The part of another sidecar at the same store."""
    return Bulk(sidecar.store, sidecar.agent.verbs, "another", sidecar.entropy, sidecar.telemetry)


async def orders(sidecar: Overseen, number: int, **more: Any) -> list[WorkflowId]:
    definition = await register(sidecar.store, call("charge"), **more)
    starts = [start_of(definition) for _ in range(number)]
    await sidecar.store.commit(sidecar.player.batch(starts=starts))
    return [one.id for one in starts]


async def ended(sidecar: Overseen, job: BulkJob) -> BulkJob:
    jobs = sidecar.store.tables.bulk.jobs
    await until(lambda: jobs[job.id].status is not BulkStatus.RUNNING)
    return jobs[job.id]


async def test_a_job_does_its_verb_to_all_in_batches(sidecar: Overseen) -> None:
    workflows = await orders(sidecar, AT_ONCE + 5)
    await sidecar.player.cancel(workflows[3])
    job = await bulk_of(sidecar).begin("default", CANCEL)
    done = await ended(sidecar, job)
    assert (done.status, done.done, done.refused) == (BulkStatus.DONE, AT_ONCE + 5, 0)
    statuses = set((await sidecar.store.statuses(workflows)).values())
    assert statuses == {WorkflowStatus.ROLLED_BACK}
    told = await sidecar.player.events(workflows[0])
    assert any(one.actor == "ada" and "enough" in (one.details or "") for one in told)


async def test_what_is_not_legal_is_refused_with_the_reason(sidecar: Overseen) -> None:
    done, waiting = await orders(sidecar, 2)
    await sidecar.player.answer((await sidecar.player.claim(1))[0])
    job = await bulk_of(sidecar).begin("default", CANCEL)
    ended_job = await ended(sidecar, job)
    assert (ended_job.done, ended_job.refused) == (1, 1)
    page = await bulk_of(sidecar).members(ended_job, result=BulkResult.REFUSED)
    (refused,) = page.items
    assert refused.workflow == done
    assert refused.detail == "The workflow cannot be cancelled: it is completed."
    assert (await sidecar.see(waiting)).status is WorkflowStatus.ROLLED_BACK


async def test_a_dry_run_changes_nothing(sidecar: Overseen) -> None:
    workflows = await orders(sidecar, 3)
    found = await bulk_of(sidecar).dry_run("default", replace(CANCEL, limit=2))
    assert (found.count, found.more, list(found.first)) == (2, True, workflows[:2])
    assert sidecar.store.tables.bulk.jobs == {}
    statuses = set((await sidecar.store.statuses(workflows)).values())
    assert statuses == {WorkflowStatus.IN_PROGRESS}


async def test_a_signal_is_taken_once_however_often_its_job_is_worked_on(
    sidecar: Overseen,
) -> None:
    wait = {"name": "approve", "wait": {"signal": "go"}}
    again = {"name": "again", "wait": {"signal": "go"}}
    definition = await register(sidecar.store, wait, again)
    start = start_of(definition)
    await sidecar.store.commit(sidecar.player.batch(starts=[start]))
    asked = BulkRequest("signal", ORDERS, signal="go", payload={"by": 1})
    job = await bulk_of(sidecar).begin("default", asked)
    await ended(sidecar, job)
    await until(lambda: not bulk_of(sidecar)._running)
    kept = sidecar.store.tables.bulk
    kept.jobs[job.id] = replace(job, done=0)
    kept.members[job.id] = [replace(one, result=None) for one in kept.members[job.id]]
    bulk_of(sidecar).work_on(job.id)
    assert (await ended(sidecar, job)).done == 1
    view = await sidecar.agent.queries.get("default", start.id)
    assert [step.status for step in view.steps] == ["succeeded", "waiting"]


async def test_a_job_whose_sidecar_died_is_finished_by_the_leader(sidecar: Overseen) -> None:
    workflows = await orders(sidecar, 3)
    dead = another(sidecar)
    job = await dead.begin("default", CANCEL)
    await dead.stop()
    # It had cancelled one, and died before it could say so.
    await sidecar.player.cancel(workflows[0])
    duties = Duties(
        sidecar.store,
        sidecar.agent.ringer,
        ME,
        DutyTimes(),
        spread=lambda changes: None,
        look=lambda key: None,
        take_bulk=bulk_of(sidecar).work_on,
        clock=sidecar.clock,
        entropy=sidecar.entropy,
        telemetry=sidecar.telemetry,
    )
    epoch = await sidecar.store.mint_epoch("default", "me")
    await duties.round(epoch, may_end_leases=False)
    assert sidecar.store.tables.bulk.jobs[job.id].holder == "another"
    sidecar.clock.advance(21)
    await duties.round(epoch, may_end_leases=False)
    done = await ended(sidecar, job)
    assert (done.status, done.done, done.holder) == (BulkStatus.DONE, 3, "me")


async def test_a_job_outlives_a_store_that_goes_away(
    sidecar: Overseen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.engine.bulk.PAUSE_S", 0)
    await orders(sidecar, 3)
    sidecar.store.faults.next["commit"] = [StoreUnavailable("away")] * 2
    broken = [StoreUnavailable("away")]
    record = sidecar.store.record_bulk

    async def record_later(*arguments: Any) -> BulkStatus | None:
        if broken:
            raise broken.pop()
        return await record(*arguments)

    monkeypatch.setattr(sidecar.store, "record_bulk", record_later)
    done = await ended(sidecar, await bulk_of(sidecar).begin("default", CANCEL))
    assert (done.status, done.done) == (BulkStatus.DONE, 3)
    assert not broken


async def test_a_stopped_job_gives_nobody_a_turn_any_more(sidecar: Overseen) -> None:
    workflows = await orders(sidecar, 2)
    sidecar.store.faults.hold("commit")
    bulk = bulk_of(sidecar)
    job = await bulk.begin("default", CANCEL)
    for _ in range(2):
        stopped = await bulk.stop_job("default", job.id)
        assert stopped.status is BulkStatus.STOPPED
    other = await bulk.begin("default", CANCEL)
    await bulk.stop_job("default", other.id)
    sidecar.store.faults.let_go("commit")
    await until(lambda: not bulk._running)
    # The batch that was under way when the first was stopped is told.
    assert {await sidecar.player.status(one) for one in workflows} <= {
        WorkflowStatus.ROLLED_BACK,
        WorkflowStatus.IN_PROGRESS,
    }
    assert (await bulk.get("default", job.id)).status is BulkStatus.STOPPED


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (BulkRequest("skip", ORDERS), "verb"),
        (BulkRequest("cancel", BulkFilter()), "filter"),
        (BulkRequest("terminate", ORDERS), "reason"),
        (BulkRequest("cancel", ORDERS, reason="x" * 1001), "reason"),
        (BulkRequest("signal", ORDERS), "signal"),
        (BulkRequest("cancel", ORDERS, signal="go"), "signal"),
        (BulkRequest("signal", ORDERS, signal="go", payload=float("nan")), "payload"),
        (BulkRequest("cancel", ORDERS, limit=100_001), "limit"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_its_field(
    sidecar: Overseen, asked: BulkRequest, field: str
) -> None:
    for ask in (bulk_of(sidecar).begin, bulk_of(sidecar).dry_run):
        with pytest.raises(InvalidRequest) as raised:
            await ask("default", asked)
        assert (raised.value.field or "").partition(".")[0] == field
    assert sidecar.store.tables.bulk.jobs == {}


async def test_a_job_that_is_not_there_is_not_found(sidecar: Overseen) -> None:
    bulk = bulk_of(sidecar)
    for job in (new_id(), "x"):
        with pytest.raises(NotFound):
            await bulk.get("default", job)
        with pytest.raises(NotFound):
            await bulk.stop_job("default", job)


async def test_a_sidecar_that_stops_leaves_its_jobs(sidecar: Overseen) -> None:
    await orders(sidecar, 2)
    sidecar.store.faults.hold("commit")
    bulk = bulk_of(sidecar)
    job = await bulk.begin("default", CANCEL)
    await asyncio.sleep(0)
    await bulk.stop()
    assert bulk._running == {}
    assert sidecar.store.tables.bulk.jobs[job.id].status is BulkStatus.RUNNING
    sidecar.store.faults.let_go("commit")
