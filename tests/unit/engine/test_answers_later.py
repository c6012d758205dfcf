"""A whole sidecar whose service answers later, or has to be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import orjson
import pytest
from structlog.testing import capture_logs

from sidecar.adapters.services.memory import ACTS_THEN_CUTS, UNREACHABLE, Act, outcome
from sidecar.engine.agent import Settings
from sidecar.engine.duties import DutyTimes
from sidecar.errors import Conflict, NotFound
from sidecar.ports import telemetry as metrics
from sidecar.ports.service import Call
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, WorkflowId
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.finishing import Finishing, token_of
from tests.unit.engine.parts import ME, SOON, turns
from tests.unit.engine.whole import Whole

_K = OutcomeKind
EXECUTE, STATUS = ("charge", Action.EXECUTE), ("charge", Action.STATUS)
TAKEN_ON = Act(outcome(_K.PENDING))
SHORT = timedelta(milliseconds=1)
SOMETIMES = Settings(
    look=SOON,
    heartbeat_s=0.001,
    drain_s=5.0,
    duties=DutyTimes(every=SHORT, idle_every=SHORT, ring_every=SHORT, forget_every=SHORT),
)
ONE_TRY = {"max_attempts": 1}


class Later(Whole):
    """A sidecar whose service finishes what it took on by callbacks, at this sidecar."""

    def __init__(self) -> None:
        super().__init__(settings=SOMETIMES)
        self.finishing = Finishing(self.service, self.call_back)
        self.refused: list[Exception] = []

    async def call_back(self, made: Call, answer: Outcome) -> None:
        try:
            if answer.kind is _K.DONE:
                output = orjson.loads(answer.output) if answer.output else None
                await self.agent.tasks.complete(token_of(made), output)
            else:
                await self.agent.tasks.fail(token_of(made), "it failed", outcome=answer.kind)
        except (Conflict, NotFound) as error:
            self.refused.append(error)

    async def charge(self, **more: object) -> WorkflowId:
        """Start a workflow of one step."""
        return await self.start(await self.define(call("charge", **more)))

    async def taken_on(self, **more: object) -> tuple[WorkflowId, str]:
        """A workflow whose step waits for its callback, and its token."""
        self.service.script = {EXECUTE: TAKEN_ON}
        self.finishing.after = None
        workflow = await self.charge(**more)
        await self.until_step(workflow, StepStatus.WAITING)
        return workflow, token_of(self.service.calls[-1])

    async def until_step(self, workflow: WorkflowId, status: StepStatus) -> Step:
        """Look until the step stands there, and return it."""
        while (found := await self.step(workflow, "charge")).status is not status:
            await turns(1)
        return found

    async def passing(self, fact: Callable[[], bool]) -> None:
        """Let time pass until a fact holds."""
        while not fact():
            self.clock.advance(0.2)
            await turns(5)

    async def late_answers(self, workflow: WorkflowId) -> list[str]:
        """What history says of answers that came too late."""
        told = await self.store.list_events(workflow, 0, 100)
        return [one.cause for one in told if one.kind == "late_answer"]


@pytest.fixture
async def later() -> AsyncIterator[Later]:
    with capture_logs():
        made = Later()
        await made.agent.start()
        await made.agent.gate.wait_open()
        yield made
        await made.agent.stop()


# -- callbacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.02])
async def test_a_service_that_answered_202_finishes_by_a_callback(
    later: Later, after: float
) -> None:
    """Also when the callback overtakes the settlement of the 202."""
    later.service.script = {EXECUTE: TAKEN_ON}
    later.finishing.then = Act(Outcome(_K.DONE, output=JsonText('{"id":1}')))
    later.finishing.after = after
    workflow = await later.charge()
    await later.until_completed(workflow)
    step = await later.step(workflow, "charge")
    assert (step.output, step.execute.attempt, step.execute.tries) == ('{"id":1}', 1, 1)
    assert await later.late_answers(workflow) == []


async def test_a_callback_that_overtakes_the_202_is_not_undone_by_it(later: Later) -> None:
    later.service.script = {EXECUTE: Act(outcome(_K.PENDING), answers_after=0.05)}
    later.finishing.after = None
    workflow = await later.charge()
    await until(lambda: later.service.calls)
    token = token_of(later.service.calls[0])
    assert await later.agent.tasks.heartbeat(token) is not None
    await later.agent.tasks.fence(token)
    await later.agent.tasks.complete(token, {"id": 2})
    await later.until_completed(workflow)
    await until(lambda: not later.service.in_flight and not later.agent.slots.used)
    step = await later.step(workflow, "charge")
    assert (step.status, step.output, step.awaiting) == (StepStatus.SUCCEEDED, '{"id":2}', False)


async def test_a_service_that_refuses_later_turns_the_workflow_back(later: Later) -> None:
    later.service.script = {("ship", Action.EXECUTE): TAKEN_ON}
    later.finishing.then = Act(outcome(_K.REFUSED))
    definition = await later.define(call("charge"), call("ship"))
    workflow = await later.start(definition)
    await later.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert later.service.effects_of(workflow, "charge") == [Action.EXECUTE, Action.COMPENSATE]


async def test_a_compensation_may_be_finished_later_too(later: Later) -> None:
    later.service.script = {
        ("ship", Action.EXECUTE): Act(outcome(_K.REFUSED)),
        ("charge", Action.COMPENSATE): TAKEN_ON,
    }
    workflow = await later.start(await later.define(call("charge"), call("ship")))
    await later.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert later.service.effects_of(workflow, "charge") == [Action.EXECUTE, Action.COMPENSATE]


async def test_a_slot_is_free_while_a_callback_is_awaited(later: Later) -> None:
    await later.taken_on()
    await until(lambda: not later.agent.slots.used)


async def test_what_is_not_finished_in_time_is_tried_again_and_the_old_token_is_void(
    later: Later,
) -> None:
    workflow, token = await later.taken_on(callback_timeout="30s", retry={"jitter": 0})
    later.service.script = {EXECUTE: TAKEN_ON}
    later.clock.advance(31)
    await later.passing(lambda: later.service.calls[-1].attempt == 2)
    assert later.service.calls[-1].idempotency_key == later.service.calls[0].idempotency_key
    await later.until_step(workflow, StepStatus.WAITING)
    for say in (later.agent.tasks.complete, later.agent.tasks.heartbeat, later.agent.tasks.fence):
        with pytest.raises(Conflict):
            await say(token)
    assert await later.late_answers(workflow) == ["done"]
    await later.agent.tasks.complete(token_of(later.service.calls[-1]))
    await later.until_completed(workflow)


async def test_what_comes_after_the_last_deadline_is_late_and_covered(later: Later) -> None:
    workflow, token = await later.taken_on(callback_timeout="30s", retry=ONE_TRY)
    later.clock.advance(31)
    await later.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    with pytest.raises(Conflict, match="too late"):
        await later.agent.tasks.complete(token, {"id": 1})
    with pytest.raises(Conflict, match="no longer"):
        await later.agent.tasks.fence(token)
    assert await later.late_answers(workflow) == ["done"]
    assert later.service.effects_of(workflow, "charge") == [Action.COMPENSATE]
    assert later.count(metrics.LATE_ANSWERS) == 1


async def test_after_its_deadline_it_still_counts_until_somebody_tries_again(later: Later) -> None:
    slow = {"initial_interval": "1h", "max_interval": "1h", "total_budget": "10h"}
    workflow, token = await later.taken_on(callback_timeout="30s", retry=slow)
    later.clock.advance(31)
    await later.until_step(workflow, StepStatus.RETRYING)
    await later.agent.tasks.complete(token, {"id": 1})
    await later.until_completed(workflow)


async def test_a_heartbeat_moves_the_deadline(later: Later) -> None:
    workflow, token = await later.taken_on(callback_timeout="30s", retry=ONE_TRY)
    for _ in range(3):
        later.clock.advance(20)
        until_when = await later.agent.tasks.heartbeat(token)
        assert until_when == later.clock.now() + timedelta(seconds=30)
        await turns()
    assert (await later.step(workflow, "charge")).status is StepStatus.WAITING
    await later.agent.tasks.complete(token)
    await later.until_completed(workflow)


async def test_said_twice_is_said_once(later: Later) -> None:
    workflow, token = await later.taken_on()
    for _ in range(3):
        await later.agent.tasks.complete(token, {"id": 1})
    with pytest.raises(Conflict):
        await later.agent.tasks.fail(token, "or not")
    assert (await later.step(workflow, "charge")).output == '{"id":1}'


async def test_turning_back_waits_for_no_callback(later: Later) -> None:
    workflow, token = await later.taken_on()
    await later.agent.verbs.cancel(ME.namespace, workflow)
    await later.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert later.service.effects_of(workflow, "charge") == [Action.COMPENSATE]
    with pytest.raises(Conflict):
        await later.agent.tasks.complete(token)


async def test_a_paused_workflow_still_takes_callbacks(later: Later) -> None:
    workflow, token = await later.taken_on()
    await later.agent.verbs.pause(ME.namespace, workflow)
    await later.agent.tasks.complete(token)
    assert (await later.step(workflow, "charge")).status is StepStatus.SUCCEEDED


async def test_another_sidecar_of_the_namespace_reads_the_same_tokens(later: Later) -> None:
    workflow, token = await later.taken_on()
    other = Whole(settings=SOMETIMES)
    other.store.tables = later.store.tables
    await other.agent.start()
    await other.agent.tasks.complete(token)
    await other.agent.stop()
    assert (await later.step(workflow, "charge")).status is StepStatus.SUCCEEDED


# -- asking -------------------------------------------------------------------------------------

ASKED = {"status": "/charges/status", "retry": ONE_TRY}


async def test_what_is_unknown_is_asked_for_and_not_tried_again(later: Later) -> None:
    later.service.script = {EXECUTE: ACTS_THEN_CUTS}
    workflow = await later.charge(**ASKED)
    await later.until_completed(workflow)
    entry = later.service.ledger[f"{workflow}/charge/execute"]
    assert (entry.attempts, entry.effects) == ([1], 1)


async def test_what_never_came_is_undone_all_the_same(later: Later) -> None:
    """The unknown sticks: the service only promised that the key will have no effect."""
    lost = Act(outcome(_K.UNKNOWN), has_effect=False)
    later.service.script = {EXECUTE: lost}
    workflow = await later.charge(**ASKED)
    await later.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert later.service.effects_of(workflow, "charge") == [Action.COMPENSATE]


async def test_it_is_asked_until_the_answer_is_clear(later: Later) -> None:
    unclear = (UNREACHABLE, Act(outcome(_K.UNKNOWN)), Act(outcome(_K.BUSY)), Act())
    later.service.script = {EXECUTE: ACTS_THEN_CUTS, STATUS: unclear}
    workflow = await later.charge(**ASKED)
    while (await later.see(workflow)).status is not WorkflowStatus.COMPLETED:
        later.clock.advance(0.2)
        await turns(5)
    told = await later.store.list_events(workflow, 0, 100)
    causes = [one.cause for one in told if one.after == "in_doubt"]
    assert causes[::2] == ["unknown", "not_sent", "unknown", "busy"]
    assert causes[1::2] == ["claimed"] * 4


async def test_after_its_budget_nobody_asks_any_more(later: Later) -> None:
    later.service.script = {EXECUTE: ACTS_THEN_CUTS, STATUS: Act(outcome(_K.UNKNOWN))}
    workflow = await later.charge(
        status={"path": "/charges/status", "budget": "10s"}, retry=ONE_TRY
    )
    while (await later.see(workflow)).status is not WorkflowStatus.ROLLED_BACK:
        later.clock.advance(1)
        await turns(5)
    assert later.service.effects_of(workflow, "charge") == [Action.EXECUTE, Action.COMPENSATE]
