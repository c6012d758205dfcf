"""The gate: its rules as a table of stories, and its task against a service in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.services.memory import MemoryService, outcome
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.engine.gate import (
    UNLIMITED,
    Gate,
    GateReason,
    GateRules,
    GateState,
    GateTimes,
)
from sidecar.ports import telemetry as metrics
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.workflow import WorkflowId

_K = OutcomeKind
BAD = (_K.NOT_SENT, _K.NOT_NOW)
OTHERS = tuple(kind for kind in OutcomeKind if kind not in (*BAD, _K.RELEASED))
FAST = GateTimes(first_pause=0.001, last_pause=0.002, check=0.005)
NEVER_CHECKS = GateTimes(first_pause=0.001, last_pause=0.002, check=3600)


def workflow(number: int) -> WorkflowId:
    """Return the id of the n-th workflow."""
    return WorkflowId(f"w{number}")


def opened(times: GateTimes | None = None) -> GateRules:
    """Return rules whose service has been ready."""
    rules = GateRules(times or GateTimes())
    rules.asked(ready=True)
    return rules


def turned_away() -> GateRules:
    """Return rules that closed because of ten bad outcomes."""
    rules = opened()
    for number in range(10):
        rules.outcome(workflow(number), _K.NOT_NOW)
    return rules


# -- the rules ------------------------------------------------------------------------------------


@pytest.mark.fault(68)
def test_it_starts_closed_until_the_service_was_ready() -> None:
    rules = GateRules()
    assert (rules.state, rules.reason) == (GateState.CLOSED, GateReason.STARTING)
    assert not rules.asked(ready=False)
    assert rules.reason is GateReason.STARTING
    assert rules.asked(ready=True)
    assert (rules.state, rules.reason) == (GateState.OPEN, GateReason.READY)


def test_outcomes_do_not_open_a_closed_gate() -> None:
    rules = GateRules()
    for kind in OutcomeKind:
        assert not rules.outcome(workflow(1), kind)
    assert rules.state is GateState.CLOSED


@pytest.mark.parametrize("kind", BAD)
def test_ten_bad_outcomes_over_ten_workflows_close_it(kind: OutcomeKind) -> None:
    rules = opened()
    changed = [rules.outcome(workflow(number), kind) for number in range(10)]
    assert changed == [False] * 9 + [True]
    assert (rules.state, rules.reason) == (GateState.CLOSED, GateReason.TURNED_AWAY)


def test_one_workflow_alone_does_not_close_it() -> None:
    rules = opened()
    assert not any(rules.outcome(workflow(1), _K.NOT_NOW) for _ in range(1000))


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_outcome_in_between_starts_the_count_again(kind: OutcomeKind) -> None:
    rules = opened()
    for _ in range(3):
        for number in range(9):
            assert not rules.outcome(workflow(number), _K.NOT_SENT)
        assert not rules.outcome(workflow(99), kind)
    assert rules.state is GateState.OPEN


def test_a_claim_given_back_says_nothing_about_the_service() -> None:
    rules = opened()
    for number in range(10):
        rules.outcome(workflow(number), _K.NOT_SENT)
        rules.outcome(workflow(number), _K.RELEASED)
    assert rules.state is GateState.CLOSED


@pytest.mark.fault(21)
def test_after_the_breaker_a_ready_service_gets_one_trial() -> None:
    rules = turned_away()
    states = [rules.state]
    assert rules.asked(ready=True)
    states.append(rules.state)
    assert not rules.asked(ready=True)
    assert not rules.outcome(workflow(1), _K.RELEASED)
    assert rules.outcome(workflow(1), _K.DONE)
    states.append(rules.state)
    assert states == [GateState.CLOSED, GateState.TRIAL, GateState.OPEN]


def test_a_trial_that_fails_closes_it_and_the_pause_keeps_growing() -> None:
    rules = turned_away()
    pauses = []
    for _ in range(8):
        pauses.append(rules.pause(0.5))
        rules.asked(ready=True)
        rules.outcome(workflow(1), _K.NOT_NOW)
        assert rules.state is GateState.CLOSED
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_a_service_that_goes_away_after_the_breaker_needs_no_trial() -> None:
    rules = turned_away()
    assert not rules.asked(ready=False)
    assert rules.asked(ready=True)
    assert rules.state is GateState.OPEN


@pytest.mark.parametrize("state", [GateState.OPEN, GateState.TRIAL])
def test_not_ready_closes_it(state: GateState) -> None:
    rules = opened()
    rules.state = state
    assert rules.asked(ready=False)
    assert (rules.state, rules.reason) == (GateState.CLOSED, GateReason.NOT_READY)


@pytest.mark.fault(21)
def test_pauses_are_jittered_capped_and_start_anew() -> None:
    rules = GateRules()
    assert rules.pause(0.0) == pytest.approx(0.16)
    assert rules.pause(0.999999) == pytest.approx(0.48, rel=1e-3)
    for _ in range(2000):
        assert rules.pause(0.5) <= 5.0
    rules.asked(ready=True)
    assert rules.pause(0.5) == 5.0  # an open gate checks now and then
    rules.asked(ready=False)
    assert rules.pause(0.5) == 0.2


# -- the task -------------------------------------------------------------------------------------


class StillClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class Watched:
    """A gate, its service, and what it told."""

    def __init__(self, times: GateTimes) -> None:
        self.service = CountingService()
        self.telemetry = MemoryTelemetry()
        self.heard: list[tuple[bool, str]] = []
        self.gate = Gate(
            self.service,
            clock=StillClock(),
            entropy=SystemEntropy(),
            telemetry=self.telemetry,
            on_change=self.hear,
            times=times,
        )

    def hear(self, *, is_open: bool, reason: str) -> None:
        self.heard.append((is_open, reason))

    def fail(self, count: int = 10) -> None:
        for number in range(count):
            self.gate.record(workflow(number), outcome(_K.NOT_NOW))


class CountingService(MemoryService):
    """Tells when it is asked whether it is ready."""

    def __init__(self) -> None:
        super().__init__(is_ready=False)
        self.questions = 0
        self.raises = False
        self.asked = asyncio.Event()

    async def ready(self) -> bool:
        self.questions += 1
        self.asked.set()
        if self.raises:
            raise LookupError("a fault in an adapter")
        return await super().ready()

    async def wait_asked(self, times: int) -> None:
        while self.questions < times:
            self.asked.clear()
            await self.asked.wait()


Watching = Callable[[GateTimes], Awaitable[Watched]]


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    made: list[Watched] = []

    async def watch(times: GateTimes) -> Watched:
        watched = Watched(times)
        made.append(watched)
        await watched.gate.start()
        return watched

    yield watch
    for each in made:
        await each.gate.stop()


@pytest.mark.fault(68)
async def test_it_opens_when_the_service_comes_up(watching: Watching) -> None:
    watched = await watching(FAST)
    gate = watched.gate
    waiter = asyncio.create_task(gate.wait_open())
    await watched.service.wait_asked(5)
    before = (gate.is_open, gate.limit, str(gate.reason))
    assert before == (False, 0, "starting")
    assert watched.telemetry.gauges[metrics.GATE_OPEN.name, ()] == 0
    watched.service.is_ready = True
    await waiter
    after = (gate.is_open, gate.limit, str(gate.reason))
    assert after == (True, UNLIMITED, "ready")
    assert watched.heard == [(True, "ready")]
    assert watched.telemetry.gauges[metrics.GATE_OPEN.name, ()] == 1


async def test_it_closes_when_ready_fails_and_opens_again(watching: Watching) -> None:
    watched = await watching(FAST)
    watched.service.is_ready = True
    await watched.gate.wait_open()
    watched.service.is_ready = False
    assert await watched.telemetry.wait_for_fact("gate.closed") == {"reason": "not_ready"}
    watched.service.is_ready = True
    await watched.gate.wait_open()
    assert watched.heard == [(True, "ready"), (False, "not_ready"), (True, "ready")]


async def test_the_breaker_leads_to_a_trial_of_one(watching: Watching) -> None:
    watched = await watching(FAST)
    watched.service.is_ready = True
    await watched.gate.wait_open()
    watched.fail()
    limits = [watched.gate.limit]
    assert watched.heard[-1] == (False, "turned_away")
    await watched.gate.wait_open()
    limits.append(watched.gate.limit)
    watched.gate.record(workflow(1), outcome(_K.NOT_NOW))
    limits.append(watched.gate.limit)
    await watched.gate.wait_open()
    watched.gate.record(workflow(1), outcome(_K.DONE))
    limits.append(watched.gate.limit)
    assert limits == [0, 1, 0, UNLIMITED]
    assert [is_open for is_open, _ in watched.heard] == [True, False, True, False, True]


@pytest.mark.fault(20, 66)
async def test_a_call_that_was_not_sent_makes_it_ask_at_once(watching: Watching) -> None:
    watched = await watching(NEVER_CHECKS)
    watched.service.is_ready = True
    await watched.gate.wait_open()
    watched.service.is_ready = False
    watched.gate.record(workflow(1), outcome(_K.NOT_SENT))
    await watched.telemetry.wait_for_fact("gate.closed")
    assert watched.heard[-1] == (False, "not_ready")


async def test_every_bad_outcome_is_recorded_before_the_next_question(watching: Watching) -> None:
    watched = await watching(NEVER_CHECKS)
    watched.service.is_ready = True
    await watched.gate.wait_open()
    questions = watched.service.questions
    for number in range(9):
        watched.gate.record(workflow(number), outcome(_K.NOT_NOW))
    await asyncio.sleep(0)
    assert watched.service.questions == questions
    assert watched.gate.is_open


async def test_a_question_that_raises_is_no_yes_and_is_asked_again(watching: Watching) -> None:
    watched = await watching(FAST)
    watched.service.raises = True
    await watched.service.wait_asked(watched.service.questions + 3)
    assert not watched.gate.is_open
    watched.service.raises = False
    watched.service.is_ready = True
    await watched.gate.wait_open()


async def test_start_and_stop_are_harmless_when_repeated(watching: Watching) -> None:
    watched = await watching(FAST)
    await watched.gate.start()
    await watched.gate.stop()
    await watched.gate.stop()
    asked = watched.service.questions
    await asyncio.sleep(0)
    assert watched.service.questions == asked
    await watched.gate.start()
    watched.service.is_ready = True
    await watched.gate.wait_open()
