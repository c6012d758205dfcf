"""Calls of limited actions: none without a turn, none lost, and nothing is asked for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from sidecar.adapters.services.memory import Act, outcome
from sidecar.engine import calling
from sidecar.engine.limiting import GOOD_FOR_S
from sidecar.errors import StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.store import Claimed
from sidecar.saga.definition import Definition
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.pacing import RateLimit
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.parts import MARGIN, Parts, turns

CHARGES = call("charge")["execute"]
SLOW = RateLimit(2, timedelta(hours=2))
"""Two at once, then one an hour."""
AWAY = StoreUnavailable("the store is away")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "READ_AGAIN_S", 0.001)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts(concurrency=100, rate_limits={CHARGES: SLOW})
    await made.open()
    yield made
    await made.close()


async def started(parts: Parts, definition: Definition, count: int) -> list[WorkflowId]:
    """Start so many workflows."""
    return [await parts.start(definition) for _ in range(count)]


async def claim(parts: Parts) -> list[Claimed]:
    """Claim all that is due, and hand it to the caller."""
    before = len(parts.claimed)
    await parts.committer.claim_due(100)
    mine = parts.claimed[before:]
    parts.settle_all()
    for one in mine:
        parts.caller.take(one, parts.clock.monotonic())
    return mine


def calls(parts: Parts) -> list[WorkflowId]:
    """For which workflows the service was called."""
    return [one.workflow for one in parts.service.calls]


def asked(parts: Parts) -> int:
    """How many questions about rates the store was asked."""
    return parts.store.faults.asked.count("ask_rates")


async def test_calls_that_are_not_limited_cost_no_question(parts: Parts) -> None:
    await started(parts, await parts.define(call("ship")), 3)
    await claim(parts)
    await until(lambda: len(calls(parts)) == 3)
    assert asked(parts) == 0


async def test_a_batch_of_limited_calls_asks_at_most_twice(parts: Parts) -> None:
    """The first alone, if it was first; all others together."""
    await started(parts, await parts.define(call("charge")), 20)
    assert len(await claim(parts)) == 20
    await until(lambda: parts.slots.used == 0)
    assert 1 <= asked(parts) <= 2
    assert parts.count(metrics.RATE_HELD, CHARGES) == 18
    waits = sorted(parts.telemetry.observations[metrics.RATE_WAIT_SECONDS.name])
    assert waits == [0, 0, *(3600 * hours for hours in range(1, 19))]


async def test_a_step_over_the_limit_is_given_back_until_its_turn_and_called_once(
    parts: Parts,
) -> None:
    workflows = await started(parts, await parts.define(call("charge")), 4)
    await claim(parts)
    await until(lambda: parts.slots.used == 0)
    assert calls(parts) == workflows[:2]
    now = parts.clock.now()
    for hours, workflow in enumerate(workflows[2:], start=1):
        step = await parts.step(workflow, "charge")
        assert (step.status, step.due_at) == (StepStatus.RETRYING, now + timedelta(hours=hours))
        assert (step.execute.tries, step.execute.attempt) == (0, 1)
    assert await claim(parts) == []
    for hours, workflow in enumerate(workflows[2:], start=1):
        parts.clock.advance(3600)
        assert [one.workflow for one in await claim(parts)] == [workflow]
        await until(lambda: parts.slots.used == 0)
        assert calls(parts) == workflows[: 2 + hours]
    for workflow in workflows:
        assert (await parts.see(workflow)).status is WorkflowStatus.COMPLETED


async def test_a_call_counts_if_its_own_path_is_limited_whatever_it_is_for() -> None:
    undo = call("charge")["compensate"]
    parts = Parts(concurrency=100, rate_limits={undo: SLOW}, may_take_more=False)
    await parts.open()
    no = Act(outcome(OutcomeKind.REFUSED))
    parts.service.script = {("refuse", Action.EXECUTE): no}
    await started(parts, await parts.define(call("charge"), call("refuse")), 3)
    for expected in (0, 0, 3):
        assert len(await claim(parts)) == 3
        before = asked(parts)
        await until(lambda: parts.slots.used == 0)
        assert (asked(parts) > before) is bool(expected)
    undone = [one for one in parts.service.calls if one.action is Action.COMPENSATE]
    assert len(undone) == SLOW.limit
    await parts.close()


async def test_while_the_store_does_not_answer_nobody_calls_and_then_all_do(parts: Parts) -> None:
    parts.store.faults.next["ask_rates"] = [AWAY] * 5
    (workflow,) = await started(parts, await parts.define(call("charge")), 1)
    await claim(parts)
    await parts.store.faults.until_asked("ask_rates", 4)
    assert calls(parts) == []
    await until(lambda: parts.slots.used == 0)
    assert calls(parts) == [workflow]


async def test_a_claim_for_which_no_turn_can_be_had_in_time_is_given_back(parts: Parts) -> None:
    parts.store.faults.next["ask_rates"] = [AWAY] * 1000
    (workflow,) = await started(parts, await parts.define(call("charge")), 1)
    await claim(parts)
    await parts.store.faults.until_asked("ask_rates", 2)
    parts.clock.advance(MARGIN.total_seconds())
    await until(lambda: parts.slots.used == 0)
    step = await parts.step(workflow, "charge")
    assert (step.status, step.due_at) == (StepStatus.RETRYING, parts.clock.now())
    assert (step.execute.tries, step.may_have_effect) == (0, False)
    assert calls(parts) == []


async def test_a_turn_that_comes_too_late_is_not_used(parts: Parts) -> None:
    """Or what stood still for a while would call all at once."""
    parts.store.faults.hold("rates_asked")
    (workflow,) = await started(parts, await parts.define(call("charge")), 1)
    await claim(parts)
    await parts.store.faults.until_asked("rates_asked")
    parts.clock.advance(GOOD_FOR_S + 0.1)
    parts.store.faults.let_go("rates_asked")
    await until(lambda: parts.slots.used == 0)
    assert asked(parts) == 2
    assert calls(parts) == [workflow]


async def test_nobody_calls_who_is_told_to_give_back_while_waiting(parts: Parts) -> None:
    parts.store.faults.hold("ask_rates")
    (workflow,) = await started(parts, await parts.define(call("charge")), 1)
    await claim(parts)
    await parts.store.faults.until_asked("ask_rates")
    parts.caller.give_back_from_now_on()
    parts.store.faults.let_go("ask_rates")
    await until(lambda: parts.slots.used == 0)
    assert calls(parts) == []
    assert (await parts.step(workflow, "charge")).status is StepStatus.RETRYING


async def test_who_waits_when_the_sidecar_stops_is_left_to_its_lease(parts: Parts) -> None:
    parts.store.faults.hold("ask_rates")
    await started(parts, await parts.define(call("charge")), 2)
    await claim(parts)
    await parts.store.faults.until_asked("ask_rates")
    await asyncio.wait_for(parts.caller.stop(), 5)
    parts.store.faults.let_go("ask_rates")
    await turns()
    assert calls(parts) == []


async def test_whoever_asks_as_soon_as_the_last_was_answered_is_answered_too(parts: Parts) -> None:
    """Each asks in the very step in which the one before it was told."""
    await started(parts, await parts.define(call("charge")), 1)
    await parts.committer.claim_due(1)
    (one,) = parts.claimed
    for _ in range(SLOW.limit):
        assert (await parts.limiter.ask(one, CHARGES, 1.0)).granted
    assert not (await parts.limiter.ask(one, CHARGES, 1.0)).granted


async def test_whoever_asks_once_the_sidecar_has_stopped_is_told_so(parts: Parts) -> None:
    await started(parts, await parts.define(call("charge")), 1)
    await parts.committer.claim_due(1)
    (one,) = parts.claimed
    await parts.limiter.stop()
    with pytest.raises(StoreUnavailable, match="stopping"):
        await parts.limiter.ask(one, CHARGES, 1.0)
    assert asked(parts) == 0


async def test_a_turn_is_asked_for_by_the_try_that_it_is_for(parts: Parts) -> None:
    lost = outcome(OutcomeKind.UNKNOWN)
    parts.service.script = {("charge", Action.EXECUTE): Act(lost)}
    await started(parts, await parts.define(call("charge")), 1)
    await claim(parts)
    await until(lambda: parts.slots.used == 0)
    parts.clock.advance(60)
    await claim(parts)
    await until(lambda: parts.slots.used == 0)
    assert parts.store.tries_asked == [0, 1]
