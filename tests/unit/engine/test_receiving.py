"""The receiver: what it takes, when it looks for itself, and when it acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sidecar.adapters.services.memory import outcome
from sidecar.engine import receiving
from sidecar.engine.gate import GateState
from sidecar.engine.receiving import LookInterval
from sidecar.errors import QueueUnavailable, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.parts import SOON, Parts, turns

NOBODY = WorkflowId("00000000-0000-7000-8000-000000000000")
A_FAULT = LookupError("a fault in an adapter")

Making = Callable[..., Awaitable[Parts]]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "QUEUE_PAUSE_S", 0.0)
    monkeypatch.setattr(receiving, "ASK_AGAIN_S", 0.0)


@pytest.fixture
async def making() -> AsyncIterator[Making]:
    made: list[Parts] = []

    async def make(*, opened: bool = True, **more: Any) -> Parts:
        parts = Parts(**more)
        made.append(parts)
        await parts.open()
        if opened:
            await parts.open_gate()
        return parts

    yield make
    for parts in made:
        for held in list(parts.store.faults.held):
            parts.store.faults.let_go(held)
        await parts.close()


async def started(parts: Parts, count: int = 1, *, ring: bool = True) -> list[WorkflowId]:
    """Workflows whose first step waits for this sidecar; rung for or not."""
    definition = await parts.define(call("a"))
    workflows = [await parts.start(definition) for _ in range(count)]
    for one in workflows if ring else ():
        parts.put(one, "a")
    return workflows


def depth(parts: Parts) -> int:
    """How many doorbells are not acknowledged."""
    return parts.broker.depth("default", "payments")


async def break_in_trial(parts: Parts) -> None:
    """Let the breaker close the gate, and the service have its trial."""
    for number in range(10):
        parts.gate.record(WorkflowId(f"w{number}"), outcome(OutcomeKind.NOT_NOW))
    assert not parts.gate.is_open
    await parts.gate.wait_open()
    assert parts.gate.state is GateState.TRIAL


# -- acknowledging --------------------------------------------------------------------------------


@pytest.mark.fault(4, 53)
async def test_a_doorbell_is_acknowledged_once_its_claim_is_durable(making: Making) -> None:
    parts = await making()
    (workflow,) = await started(parts)
    parts.store.faults.hold("commit")
    await parts.receiver.start()
    await parts.store.faults.until_asked("commit", 2)
    await turns()
    assert (parts.queue.acked, depth(parts)) == ([], 1)
    parts.store.faults.let_go("commit")
    await until(lambda: parts.queue.acked)
    assert [one.workflow for one in parts.claimed] == [workflow]
    assert depth(parts) == 0
    assert parts.count(metrics.DOORBELLS_RECEIVED, "claimed") == 1
    assert parts.slots.used == 1


@pytest.mark.fault(3, 50)
async def test_a_doorbell_with_nothing_to_do_is_acknowledged(making: Making) -> None:
    parts = await making()
    (workflow,) = await started(parts)
    await parts.player.claim_one()
    await parts.receiver.start()
    await until(lambda: parts.queue.acked)
    assert parts.count(metrics.DOORBELLS_RECEIVED, "not_claimable") == 1
    await until(lambda: parts.slots.used == 0)
    assert (await parts.step(workflow, "a")).status is StepStatus.RUNNING


async def test_a_locked_step_is_asked_for_again_and_not_acknowledged_before(
    making: Making,
) -> None:
    parts = await making()
    locked, free = await started(parts, 2)
    held = {locked}
    parts.store.locked = held.__contains__
    await parts.receiver.start()
    await parts.store.faults.until_asked("commit", 6)
    assert [one.doorbell.workflow for one in parts.queue.acked] == [free]
    held.clear()
    await until(lambda: len(parts.queue.acked) == 2)
    assert [one.workflow for one in parts.claimed] == [free, locked]
    assert parts.count(metrics.DOORBELLS_RECEIVED, "claimed") == 2


@pytest.mark.fault(71)
async def test_a_doorbell_that_names_nothing_is_given_up_after_some_tries(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "ASK_AGAIN_TIMES", 3)
    parts = await making()
    parts.put(NOBODY, "a")
    await parts.receiver.start()
    await until(lambda: parts.queue.acked)
    assert len(parts.store.batches) == 3
    assert parts.count(metrics.DOORBELLS_RECEIVED, "given_up") == 1
    await until(lambda: parts.slots.used == 0)


async def test_messages_that_are_no_doorbells_are_acknowledged_and_counted(making: Making) -> None:
    parts = await making()
    parts.broker.put("default", "payments", b"\xff no doorbell")
    await parts.receiver.start()
    await until(lambda: depth(parts) == 0)
    parts.broker.put("default", "payments", b"{}")
    await started(parts)
    await until(lambda: depth(parts) == 0)
    assert parts.count(metrics.DOORBELLS_RECEIVED, "undecodable") == 2
    assert len(parts.claimed) == 1


async def test_a_claim_that_failed_is_asked_for_again(making: Making) -> None:
    parts = await making()
    await started(parts)
    parts.store.faults.next["commit"] = [A_FAULT, A_FAULT]
    await parts.receiver.start()
    await until(lambda: parts.queue.acked)
    assert len(parts.claimed) == 1
    await until(lambda: parts.slots.used == 1)


async def test_an_acknowledgement_that_fails_costs_nothing_but_itself(making: Making) -> None:
    parts = await making()
    parts.queue.faults.next["ack"] = [QueueUnavailable("away")]
    free, locked = await started(parts, 2)
    held = {locked}
    parts.store.locked = held.__contains__
    await parts.receiver.start()
    await until(lambda: parts.claimed)
    held.clear()
    await until(lambda: parts.queue.acked)
    assert [one.workflow for one in parts.claimed] == [free, locked]
    assert depth(parts) == 1


# -- back-pressure --------------------------------------------------------------------------------


async def test_it_takes_no_more_than_it_has_free_slots_for(making: Making) -> None:
    parts = await making(concurrency=2)
    await started(parts, 5)
    await parts.receiver.start()
    await until(lambda: len(parts.claimed) == 2)
    await turns()
    assert len(parts.claimed) == 2
    assert len(parts.broker.line("default", "payments").ready) == 3
    parts.settle_all()
    await until(lambda: len(parts.claimed) == 4)


@pytest.mark.fault(20)
async def test_it_takes_nothing_while_the_gate_is_closed(making: Making) -> None:
    parts = await making(opened=False)
    await started(parts)
    await parts.receiver.start()
    await turns()
    assert (parts.queue.faults.asked, parts.claimed) == (["open"], [])
    await parts.open_gate()
    await until(lambda: parts.claimed)


async def test_in_a_trial_it_takes_one_and_no_other_before_that_is_settled(making: Making) -> None:
    parts = await making()
    await break_in_trial(parts)
    await started(parts, 3)
    await parts.receiver.start()
    await until(lambda: parts.claimed)
    await turns()
    assert len(parts.claimed) == 1
    parts.settle_all()
    await until(lambda: len(parts.claimed) == 2)
    parts.gate.record(parts.claimed[0].workflow, outcome(OutcomeKind.DONE))
    parts.settle_all()
    await until(lambda: len(parts.claimed) == 3)


async def test_in_a_trial_a_look_finds_one(making: Making) -> None:
    parts = await making(look=SOON)
    await break_in_trial(parts)
    await started(parts, 3, ring=False)
    await parts.receiver.start()
    await until(lambda: parts.claimed)
    await turns()
    assert len(parts.claimed) == 1


async def test_a_gate_that_closes_while_it_listens_lets_no_look_through(making: Making) -> None:
    parts = await making()
    await started(parts, 1, ring=False)
    commits = len(parts.store.batches)
    parts.queue.faults.hold("receive")
    parts.queue.faults.next["receive"] = [QueueUnavailable("away")]
    await parts.receiver.start()
    await parts.queue.faults.until_asked("receive")
    parts.service.is_ready = False
    parts.gate.record(NOBODY, outcome(OutcomeKind.NOT_SENT))
    await parts.telemetry.wait_for_fact("gate.closed")
    parts.queue.faults.let_go("receive")
    await turns()
    assert (parts.claimed, len(parts.store.batches)) == ([], commits)


async def test_a_gate_that_closes_while_it_waits_for_a_slot_is_waited_for(making: Making) -> None:
    parts = await making(concurrency=1)
    await started(parts)
    parts.slots.take()
    await parts.receiver.start()
    await turns()
    parts.service.is_ready = False
    parts.gate.record(NOBODY, outcome(OutcomeKind.NOT_SENT))
    await parts.telemetry.wait_for_fact("gate.closed")
    parts.settle_all()
    await turns()
    assert parts.claimed == []
    parts.service.is_ready = True
    await until(lambda: parts.claimed)


# -- looking for itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("same_store", [False, True])
@pytest.mark.fault(2, 57)
async def test_an_idle_sidecar_finds_what_nobody_rang_for(
    making: Making, *, same_store: bool
) -> None:
    parts = await making(look=SOON, same_store=same_store)
    await parts.receiver.start()
    await until(lambda: parts.count(metrics.LOOKS, "none"))
    (workflow,) = await started(parts, ring=False)
    await until(lambda: parts.claimed)
    assert parts.claimed[0].workflow == workflow
    await until(lambda: parts.count(metrics.LOOKS, "some") == 1)
    assert parts.queue.acked == []


async def test_it_looks_ever_more_rarely_until_it_finds_something(making: Making) -> None:
    parts = await making(look=LookInterval(first_s=0.002, last_s=0.008))
    parts.entropy.chance = lambda: 0.5
    await parts.receiver.start()
    await until(lambda: len(parts.queue.waits) >= 6)
    assert parts.queue.waits[:6] == pytest.approx([0.002, 0.003, 0.0045, 0.00675, 0.008, 0.008])
    before = len(parts.queue.waits)
    await started(parts, ring=False)
    await until(lambda: parts.claimed)
    await until(lambda: 0.002 in parts.queue.waits[before:])


async def test_a_doorbell_makes_the_next_look_soon_again(making: Making) -> None:
    parts = await making(look=LookInterval(first_s=0.002, last_s=3600))
    parts.entropy.chance = lambda: 0.5
    await parts.receiver.start()
    await until(lambda: len(parts.queue.waits) >= 4)
    before = len(parts.queue.waits)
    await started(parts)
    await until(lambda: len(parts.queue.waits) > before + 1)
    assert 0.002 in parts.queue.waits[before:]


async def test_where_the_rows_are_the_queue_a_full_look_is_followed_by_another(
    making: Making,
) -> None:
    parts = await making(same_store=True, concurrency=2)
    await started(parts, 4, ring=False)
    await parts.receiver.start()
    await until(lambda: len(parts.claimed) == 2)
    parts.settle_all()
    await until(lambda: len(parts.claimed) == 4)
    assert parts.queue.waits == []


@pytest.mark.parametrize("fault", [QueueUnavailable("away"), A_FAULT])
async def test_a_queue_in_trouble_costs_neither_the_looks_nor_the_receiver(
    making: Making, fault: Exception
) -> None:
    parts = await making()
    (unrung,) = await started(parts, ring=False)
    parts.queue.faults.next["receive"] = [fault, fault]
    await parts.receiver.start()
    await until(lambda: [one.workflow for one in parts.claimed] == [unrung])
    (rung,) = await started(parts)
    await until(lambda: len(parts.claimed) == 2)
    assert parts.claimed[1].workflow == rung


@pytest.mark.parametrize("fault", [A_FAULT, StoreUnavailable("away")])
async def test_a_look_that_fails_is_not_the_last_and_holds_no_slot(
    making: Making, fault: Exception
) -> None:
    parts = await making(look=SOON)
    await started(parts, ring=False)
    parts.store.faults.next["commit"] = [fault]
    await parts.receiver.start()
    await until(lambda: parts.claimed)
    await until(lambda: parts.slots.used == 1)


# -- local retries, and stopping ------------------------------------------------------------------


async def test_a_local_timer_claims_its_step_without_a_doorbell(making: Making) -> None:
    parts = await making()
    one, other = await started(parts, 2, ring=False)
    parts.receiver.retry(one, StepKey("a"))
    await turns()
    assert parts.claimed == []
    await parts.receiver.start()
    parts.receiver.retry(other, StepKey("a"))
    await until(lambda: parts.claimed)
    await turns()
    assert [found.workflow for found in parts.claimed] == [other]
    assert parts.slots.used == 1


async def test_a_local_timer_waits_for_room_like_everybody(making: Making) -> None:
    parts = await making(concurrency=1)
    one, other = await started(parts, 2, ring=False)
    await parts.receiver.start()
    parts.receiver.retry(one, StepKey("a"))
    parts.receiver.retry(other, StepKey("a"))
    await until(lambda: parts.claimed)
    await turns()
    assert len(parts.claimed) == 1
    parts.settle_all()
    await until(lambda: len(parts.claimed) == 2)


async def test_stopping_does_not_wait_for_room_that_may_never_come(making: Making) -> None:
    parts = await making(opened=False)
    (workflow,) = await started(parts, ring=False)
    await parts.receiver.start()
    parts.receiver.retry(workflow, StepKey("a"))
    await turns()
    async with asyncio.timeout(5):
        await parts.receiver.stop()
    await parts.open_gate()
    await turns()
    assert parts.claimed == []


async def test_stopping_finishes_the_claims_under_way(making: Making) -> None:
    parts = await making()
    rung, retried = await started(parts, 2, ring=False)
    parts.put(rung, "a")
    commits = len(parts.store.batches)
    parts.store.faults.hold("commit")
    await parts.receiver.start()
    await until(lambda: len(parts.store.batches) > commits)
    parts.receiver.retry(retried, StepKey("a"))
    await turns()
    stopping = asyncio.create_task(parts.receiver.stop())
    await turns()
    assert not stopping.done()
    parts.store.faults.let_go("commit")
    await stopping
    assert {one.workflow for one in parts.claimed} == {rung, retried}
    assert len(parts.queue.acked) == 1
    parts.put(rung, "a")
    await turns()
    assert depth(parts) == 1
