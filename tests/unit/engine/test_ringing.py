"""The ringer: what a commit is followed by, and that none of it is owed to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from sidecar.engine import ringing
from sidecar.errors import QueueUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.notices import Notice
from sidecar.ports.queue import Doorbell
from sidecar.saga.bodies import NOT_OFFERED, error_body
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId
from tests.conformance.store_play import call, start_of
from tests.unit.engine.faces import until
from tests.unit.engine.parts import Parts, turns
from tests.unit.engine.stand_ins import NOON

AT_ONCE = timedelta(milliseconds=1)
LATER = timedelta(seconds=60)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    await made.open()
    yield made
    await made.close()


def queued(
    *, service: str = "payments", due_in: timedelta | None = None, number: int = 1
) -> Changes:
    """A step became claimable, at once or later."""
    key = StepKey(f"step-{number}")
    due_at = None if due_in is None else NOON + due_in
    step = Step(key, service, StepStatus.QUEUED, due_at=due_at)
    return Changes(workflow_of(number, step), queued=(step,))


def workflow_of(
    number: int, *steps: Step, status: WorkflowStatus = WorkflowStatus.IN_PROGRESS
) -> Workflow:
    return Workflow(
        WorkflowId(f"w{number}"),
        DefinitionRef("default", "order", 1),
        status,
        NOON,
        steps={one.key: one for one in steps},
        trace="00-trace",
    )


def ended(status: WorkflowStatus, number: int = 1, *steps: Step) -> Changes:
    """A workflow reached its end."""
    return Changes(workflow_of(number, *steps, status=status), ended=True)


def doorbells(count: int) -> list[Doorbell]:
    return [Doorbell(WorkflowId(f"w{one}"), StepKey("a"), "payments") for one in range(count)]


# -- doorbells ------------------------------------------------------------------------------------


async def test_it_rings_for_what_became_claimable(parts: Parts) -> None:
    await parts.ringer.start()
    parts.ringer.conclude([queued(), queued(service="inventory", number=2)], NOON)
    await until(lambda: len(parts.queue.published) == 2)
    assert parts.queue.published == [
        Doorbell(WorkflowId("w1"), StepKey("step-1"), "payments", "00-trace"),
        Doorbell(WorkflowId("w2"), StepKey("step-2"), "inventory", "00-trace"),
    ]
    assert parts.telemetry.total(metrics.DOORBELLS_RUNG) == 2


async def test_it_does_not_ring_for_what_the_same_commit_claimed(parts: Parts) -> None:
    definition = await parts.define(call("a"), call("b", "inventory", after=[]))
    start = start_of(definition)
    batch = parts.player.batch(starts=[start], due=5)
    result = await parts.store.commit(batch)
    assert [one.key for one in result.claimed] == [StepKey("a")]
    await parts.ringer.start()
    parts.ringer.after(batch, result)
    await until(lambda: parts.queue.published)
    assert [one.key for one in parts.queue.published] == [StepKey("b")]
    assert parts.count(metrics.WORKFLOWS_STARTED, "order") == 1


@pytest.mark.parametrize("fault", [QueueUnavailable("away"), LookupError("a fault in an adapter")])
async def test_doorbells_that_are_lost_are_counted_and_forgotten(
    parts: Parts, fault: Exception
) -> None:
    parts.queue.faults.next["publish"] = [fault]
    await parts.ringer.start()
    parts.ringer.ring(doorbells(3))
    await until(lambda: parts.telemetry.total(metrics.DOORBELLS_LOST))
    parts.ringer.ring(doorbells(1))
    await until(lambda: parts.queue.published)
    assert parts.queue.published == doorbells(1)
    assert parts.telemetry.total(metrics.DOORBELLS_LOST) == 3
    assert parts.telemetry.total(metrics.DOORBELLS_RUNG) == 1


@pytest.mark.fault(56)
async def test_what_gathers_beyond_the_bound_costs_the_oldest(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "DOORBELLS_WAITING_MAX", 3)
    parts.ringer.ring(doorbells(5))
    assert parts.telemetry.total(metrics.DOORBELLS_LOST) == 2
    await parts.ringer.start()
    await until(lambda: parts.queue.published)
    assert parts.queue.published == doorbells(5)[2:]


async def test_what_gathers_during_a_publication_goes_with_the_next(parts: Parts) -> None:
    parts.queue.faults.hold("publish")
    await parts.ringer.start()
    parts.ringer.ring(doorbells(1))
    await parts.queue.faults.until_asked("publish")
    for one in doorbells(4)[1:]:
        parts.ringer.ring([one])
    parts.queue.faults.let_go("publish")
    await until(lambda: len(parts.queue.published) == 4)
    assert parts.queue.faults.asked.count("publish") == 2


# -- stopping -------------------------------------------------------------------------------------


@pytest.mark.fault(66)
async def test_stopping_publishes_what_has_gathered(parts: Parts) -> None:
    await parts.ringer.start()
    parts.ringer.ring(doorbells(2))
    await parts.ringer.stop()
    assert parts.queue.published == doorbells(2)
    assert parts.telemetry.total(metrics.DOORBELLS_RUNG) == 2


async def test_stopping_in_the_middle_of_a_publication_loses_none_unseen(parts: Parts) -> None:
    parts.queue.faults.hold("publish")
    await parts.ringer.start()
    parts.ringer.ring(doorbells(2))
    await parts.queue.faults.until_asked("publish")
    stopping = asyncio.create_task(parts.ringer.stop())
    await parts.queue.faults.until_asked("publish", 2)
    parts.queue.faults.let_go("publish")
    await stopping
    assert parts.queue.published == doorbells(2)


async def test_stopping_waits_for_no_queue_for_long(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "LAST_RING_WITHIN_S", 0.001)
    parts.queue.faults.hold("publish")
    await parts.ringer.start()
    parts.ringer.ring(doorbells(2))
    await parts.ringer.stop()
    assert parts.telemetry.total(metrics.DOORBELLS_LOST) == 2


async def test_stopping_counts_what_the_queue_refused(parts: Parts) -> None:
    parts.queue.faults.next["publish"] = [QueueUnavailable("away")]
    await parts.ringer.start()
    parts.ringer.ring(doorbells(2))
    await parts.ringer.stop()
    assert parts.telemetry.total(metrics.DOORBELLS_LOST) == 2


# -- timers ---------------------------------------------------------------------------------------


async def test_a_retry_of_the_own_service_gets_a_timer_and_no_doorbell(parts: Parts) -> None:
    await parts.ringer.start()
    parts.ringer.conclude([queued(due_in=AT_ONCE)], NOON)
    assert parts.rung_for == []
    await until(lambda: parts.rung_for)
    assert parts.rung_for == [(WorkflowId("w1"), StepKey("step-1"))]
    assert parts.queue.published == []


async def test_what_was_not_offered_here_is_rung_for_others(parts: Parts) -> None:
    """So that this sidecar, which has nothing to do, is not the first to claim it again."""
    await parts.ringer.start()
    error = error_body(NOT_OFFERED, "deploy it")
    key, due_at = StepKey("charge"), NOON + AT_ONCE
    step = Step(key, "payments", StepStatus.RETRYING, due_at=due_at, error=error)
    parts.ringer.conclude([Changes(workflow_of(1, step), queued=(step,))], NOON)
    assert parts.queue.published == []
    await until(lambda: parts.queue.published)
    assert [one.key for one in parts.queue.published] == [key]
    assert parts.rung_for == []


async def test_a_retry_of_another_service_is_its_own_business(parts: Parts) -> None:
    await parts.ringer.start()
    parts.ringer.conclude([queued(service="inventory", due_in=AT_ONCE)], NOON)
    parts.ringer.conclude([queued(due_in=AT_ONCE, number=2)], NOON)
    await until(lambda: parts.rung_for)
    assert parts.rung_for == [(WorkflowId("w2"), StepKey("step-2"))]
    assert parts.queue.published == []


async def test_a_time_that_has_come_is_rung_for_at_once(parts: Parts) -> None:
    await parts.ringer.start()
    parts.ringer.conclude([queued(due_in=-LATER)], NOON)
    await until(lambda: parts.queue.published)
    assert parts.rung_for == []


async def test_the_number_of_timers_is_bounded(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "TIMERS_MAX", 2)
    await parts.ringer.start()
    parts.ringer.conclude([queued(due_in=AT_ONCE, number=one) for one in range(5)], NOON)
    await until(lambda: len(parts.rung_for) == 2)
    parts.ringer.conclude([queued(due_in=AT_ONCE, number=9)], NOON)
    await until(lambda: len(parts.rung_for) == 3)
    assert [workflow for workflow, _ in parts.rung_for] == ["w0", "w1", "w9"]


async def test_stopping_cancels_the_timers_and_sets_no_more(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "TIMERS_MAX", 1)
    await parts.ringer.start()
    parts.ringer.conclude([queued(due_in=AT_ONCE)], NOON)
    await parts.ringer.stop()
    parts.ringer.conclude([queued(due_in=AT_ONCE, number=2)], NOON)
    await parts.ringer.start()
    parts.ringer.conclude([queued(due_in=3 * AT_ONCE, number=3)], NOON)
    await until(lambda: parts.rung_for)
    assert parts.rung_for == [(WorkflowId("w3"), StepKey("step-3"))]


# -- ends -----------------------------------------------------------------------------------------


async def test_one_notice_tells_of_all_that_ended(parts: Parts) -> None:
    heard: list[Notice] = []
    parts.notices.subscribe(heard.append)
    completed, undone = WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK
    changes = [ended(completed, 1), queued(number=2), ended(undone, 3)]
    parts.ringer.conclude(changes, NOON + timedelta(seconds=3))
    await until(lambda: heard)
    await turns()
    assert heard == [Notice(ended=(WorkflowId("w1"), WorkflowId("w3")))]
    assert parts.count(metrics.WORKFLOWS_ENDED, "order", "completed") == 1
    assert parts.count(metrics.WORKFLOWS_ENDED, "order", "rolled_back") == 1
    assert parts.telemetry.observations[metrics.WORKFLOW_SECONDS.name] == [3.0, 3.0]


async def test_an_end_in_error_is_told_to_the_log_with_its_steps(parts: Parts) -> None:
    stuck = Step(StepKey("charge"), "payments", StepStatus.COMPENSATION_FAILED)
    with capture_logs() as logs:
        parts.ringer.conclude([ended(WorkflowStatus.ERROR, 1, stuck)], NOON)
    assert [(one["event"], one["steps"]) for one in logs] == [("compensation_failed", ["charge"])]


async def test_late_answers_are_counted(parts: Parts) -> None:
    parts.ringer.conclude([Changes(workflow_of(1), Verdict.LATE), Changes(workflow_of(2))], NOON)
    assert parts.telemetry.total(metrics.LATE_ANSWERS) == 1
