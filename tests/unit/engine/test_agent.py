"""One sidecar as a whole, where its queue or its election does not do what it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import CapturingLogger, capture_logs

from sidecar.adapters.services.memory import Act
from sidecar.engine import agent as agents
from sidecar.engine import calling, receiving, supervision
from sidecar.engine.agent import Settings
from sidecar.errors import QueueUnavailable, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.service import Call
from sidecar.saga.bodies import error_body
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.parts import NEVER, turns
from tests.unit.engine.whole import Whole

AWAY = QueueUnavailable("the broker is away")
BUG = ValueError("a bug")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE_S", 0.001)
    monkeypatch.setattr(agents, "QUEUE_PAUSE_S", 0.001)


@pytest.fixture
async def whole() -> AsyncIterator[Whole]:
    made = Whole()
    yield made
    await made.agent.stop()


@pytest.mark.parametrize("fault", [AWAY, BUG], ids=repr)
async def test_while_the_queue_cannot_be_opened_the_looks_into_the_store_go_on(
    whole: Whole, fault: Exception
) -> None:
    whole.queue.faults.next["open"] = [fault] * 10_000
    await whole.agent.start()
    await whole.runs_a_workflow()
    whole.queue.faults.next["open"].clear()
    await whole.queue.faults.until_asked("receive")


@pytest.mark.fault(66)
async def test_a_queue_that_opens_after_the_draining_began_is_left_again(whole: Whole) -> None:
    whole.queue.faults.hold("open")
    await whole.agent.start()
    await whole.queue.faults.until_asked("open")
    await whole.agent.drain()
    whole.queue.faults.let_go("open")
    await whole.queue.faults.until_asked("pause", times=2)
    await turns()
    assert "receive" not in whole.queue.faults.asked


@pytest.mark.fault(66)
@pytest.mark.parametrize("fault", [AWAY, BUG], ids=repr)
async def test_a_broker_that_is_away_keeps_no_leader_from_resigning(
    whole: Whole, fault: Exception, logs: list[MutableMapping[str, Any]]
) -> None:
    await whole.agent.start()
    await until(lambda: whole.agent.leadership.leading)
    whole.queue.faults.next["pause"] = [fault]
    await whole.agent.drain()
    assert whole.booth.holder is None
    assert "queue_not_left" in [line["event"] for line in logs]


async def test_a_gate_that_opens_while_draining_brings_no_queue_back(whole: Whole) -> None:
    whole.service.is_ready = False
    await whole.agent.start()
    await whole.agent.drain()
    whole.service.is_ready = True
    await whole.agent.gate.wait_open()
    await turns()
    assert "resume" not in whole.queue.faults.asked


async def test_a_queue_that_refuses_to_follow_the_gate_is_asked_again(whole: Whole) -> None:
    whole.queue.faults.next["resume"] = [AWAY, BUG, AWAY]
    await whole.agent.start()
    await whole.queue.faults.until_asked("resume", times=4)
    assert whole.agent.gate.is_open
    assert not whole.queue.faults.next["resume"]


@pytest.mark.fault(69)
async def test_neither_heart_nor_candidate_is_ended_by_a_bug(
    whole: Whole, logs: list[MutableMapping[str, Any]]
) -> None:
    whole.election.bugs = 2
    whole.store.faults.next["beat"] = [ValueError("a bug")] * 2
    await whole.agent.start()
    await until(lambda: whole.agent.leadership.leading)
    await whole.store.faults.until_asked("beat", times=4)
    failed = [line["task"] for line in logs if line["event"] == "long_task_failed"]
    assert sorted(failed) == ["heartbeat", "heartbeat", "leadership", "leadership"]


async def test_what_a_look_has_claimed_when_the_draining_begins_is_still_done(
    whole: Whole,
) -> None:
    await whole.store.open()
    workflow = await whole.start(await whole.define(call("charge")))
    whole.store.faults.hold("committed")
    await whole.agent.start()
    await whole.store.faults.until_asked("committed", times=2)  # the first was the start
    stopping = asyncio.create_task(whole.agent.stop())
    await turns()
    whole.store.faults.let_go("committed")
    await stopping
    await whole.store.open()  # to look at what is left
    assert (await whole.see(workflow)).status is WorkflowStatus.COMPLETED


async def test_a_store_that_is_away_does_not_hold_up_a_draining_that_has_nothing_to_wait_for(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(receiving, "CLAIMS_END_WITHIN_S", 0.01)
    whole.store.faults.hold("commit")
    await whole.agent.start()
    await whole.store.faults.until_asked("commit")
    await whole.agent.drain()
    events = [line["event"] for line in logs]
    assert "claims_given_up" in events
    assert "drain_ended_early" not in events


async def test_the_body_that_came_with_an_error_is_not_logged(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = CapturingLogger()
    monkeypatch.setattr(calling, "log", told)
    said = error_body("http_422", "no such card", status=422, detail={"card": "4111-1111"})
    no = Act(Outcome(OutcomeKind.REFUSED, error=said))
    whole.service.script = {("charge", Action.EXECUTE): no}
    await whole.agent.start()
    await whole.start(await whole.define(call("charge")))
    await until(lambda: bool(told.calls))
    (line,) = told.calls
    assert line.args == ("attempt_ended",)
    assert line.kwargs == {"outcome": "refused", "error": "http_422: no such card"}


async def test_a_bug_in_opening_the_queue_is_not_the_end_of_receiving(whole: Whole) -> None:
    whole.queue.faults.next["open"] = [ValueError("a bug")] * 3
    await whole.agent.start()
    await whole.runs_a_workflow()
    await whole.queue.faults.until_asked("open", times=4)


async def test_a_part_that_does_not_close_keeps_no_other_open(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    async def close() -> None:
        raise ValueError("a bug")

    await whole.agent.start()
    monkeypatch.setattr(whole.queue, "close", close)
    whole.store.faults.next["leave"] = [ValueError("a bug")]
    await whole.agent.stop()
    assert whole.booth.holder is None
    with pytest.raises(StoreUnavailable):
        await whole.store.ping()
    events = [line["event"] for line in logs]
    assert "close_failed" in events
    assert "could_not_say_goodbye" in events


async def test_a_drain_waits_for_the_answers_that_are_on_their_way(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer, answer = asyncio.Event(), asyncio.Event(), whole.service.call

    async def answer_later(call: Call) -> Outcome:
        asked.set()
        await may_answer.wait()
        return await answer(call)

    monkeypatch.setattr(whole.service, "call", answer_later)
    await whole.agent.start()
    workflow = await whole.start(await whole.define(call("charge")))
    await asked.wait()
    draining = asyncio.create_task(whole.agent.drain())
    await until(lambda: not whole.agent.leadership.leading)
    await turns()
    assert not draining.done()
    may_answer.set()
    await draining
    assert (await whole.see(workflow)).status is WorkflowStatus.COMPLETED


async def test_a_start_brings_its_first_step_to_its_own_service_without_a_doorbell() -> None:
    whole = Whole(settings=Settings(look=NEVER), same_store=True)
    await whole.agent.start()
    try:
        await whole.agent.gate.wait_open()
        await whole.define(call("charge"))
        await turns()  # the looks come to rest: one under way holds all slots
        await until(lambda: whole.agent.receiver.has_room)
        started = await whole.agent.commands.start("default", "order")
        assert [one.claim_next for batch in whole.store.batches for one in batch.starts] == [True]
        await whole.until_completed(started.id)
        await until(lambda: whole.agent.slots.used == 0)
        assert whole.telemetry.total(metrics.DOORBELLS_RUNG) == 0
    finally:
        await whole.agent.stop()


@pytest.mark.parametrize(
    "why", ["no slot is free", "the gate is closed", "it is draining", "messages may come"]
)
async def test_a_start_is_left_to_others_when(why: str) -> None:
    messages = why == "messages may come"
    whole = Whole(settings=Settings(look=NEVER, concurrency=1), same_store=not messages)
    whole.service.is_ready = why != "the gate is closed"
    agent = whole.agent
    await agent.start()
    try:
        await whole.define(call("charge"))
        if why != "the gate is closed":
            await agent.gate.wait_open()
            await until(lambda: agent.receiver.has_room or messages)
        if why == "no slot is free":
            agent.slots.take()
        if why == "it is draining":
            await agent.drain()
        used = agent.slots.used
        started = await agent.commands.start("default", "order")
        (start,) = [one for batch in whole.store.batches for one in batch.starts]
        assert not start.claim_next
        if messages:  # its doorbell brings it
            return
        assert agent.slots.used == used
        (step,) = (await whole.see(started.id)).steps.values()
        assert step.status is StepStatus.QUEUED
        assert whole.service.calls == []
        if why == "no slot is free":
            agent.slots.give_back()
    finally:
        await agent.stop()
