"""A whole sidecar with operators, timers and signals: what they do while it works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from sidecar.adapters.services.memory import HANGS, Act, outcome
from sidecar.engine import verbs
from sidecar.engine.agent import Settings
from sidecar.engine.duties import DutyTimes
from sidecar.errors import Conflict, InvalidRequest, NotFound
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.finishing import token_of
from tests.unit.engine.parts import ME, SOON, turns
from tests.unit.engine.whole import Whole

_K = OutcomeKind
SHORT = timedelta(milliseconds=1)
PROMPT = Settings(
    look=SOON,
    heartbeat_s=0.001,
    drain_s=0.01,
    duties=DutyTimes(every=SHORT, idle_every=SHORT, ring_every=SHORT, forget_every=SHORT),
)
APPROVE = {"name": "approve", "wait": {"signal": "approved", "timeout": "1h"}}
REST = {"name": "rest", "wait": {"duration": "1h"}}
WHY = "the customer called"


class Attended(Whole):
    """A sidecar with somebody who looks after it."""

    def __init__(self) -> None:
        super().__init__(settings=PROMPT)
        self.verbs = self.agent.verbs

    async def begin(self, *steps: dict[str, Any], **more: Any) -> WorkflowId:
        """Start a workflow of these steps."""
        return await self.start(await self.define(*steps, **more))

    async def until_step(
        self, workflow: WorkflowId, name: str, status: StepStatus = StepStatus.WAITING
    ) -> None:
        """Look until a step stands there."""
        while StepKey(name) not in (await self.see(workflow)).steps:
            await turns(1)
        while (await self.step(workflow, name)).status is not status:
            await turns(1)

    async def called(self, step: str) -> None:
        """Wait until the service was called for a step."""
        await until(lambda: any(one.key.step == step for one in self.service.calls))

    async def causes(self, workflow: WorkflowId) -> list[str]:
        """What history says of the workflow and of operators."""
        told = await self.store.list_events(workflow, 0, 1000)
        return [one.cause for one in told if one.kind in ("workflow", "operator")]


@pytest.fixture
async def attended() -> AsyncIterator[Attended]:
    with capture_logs():
        made = Attended()
        await made.agent.start()
        await made.agent.gate.wait_open()
        yield made
        await made.agent.stop()


# -- timers and signals -------------------------------------------------------------------------


async def test_the_leader_lets_a_step_go_on_that_has_waited_long_enough(attended: Attended) -> None:
    workflow = await attended.begin(call("charge"), REST, call("ship"))
    await attended.until_step(workflow, "rest")
    attended.clock.advance(3599)
    await turns()
    assert (await attended.step(workflow, "rest")).status is StepStatus.WAITING
    attended.clock.advance(2)
    await attended.until_completed(workflow)


async def test_a_signal_that_comes_while_it_is_waited_for(attended: Attended) -> None:
    workflow = await attended.begin(APPROVE, call("ship", input="${steps.approve.output.payload}"))
    await attended.until_step(workflow, "approve")
    view = await attended.agent.queries.get(ME.namespace, workflow)
    assert any("waits for the signal approved until" in line for line in view.waiting_on)
    await attended.verbs.signal(ME.namespace, workflow, "approved", {"by": "anna"})
    await attended.until_completed(workflow)
    assert attended.service.calls[-1].body == '{"by":"anna"}'


async def test_a_signal_that_comes_before_it_is_waited_for(attended: Attended) -> None:
    attended.service.script = {("charge", Action.EXECUTE): HANGS}
    workflow = await attended.begin(call("charge"), APPROVE, call("ship"))
    await attended.called("charge")
    await attended.verbs.signal(ME.namespace, workflow, "approved", 1, "early", "anna")
    attended.service.script = {}
    await attended.agent.tasks.complete(token_of(attended.service.calls[0]))
    await attended.until_completed(workflow)
    output = (await attended.step(workflow, "approve")).output
    assert output is not None
    assert {**orjson.loads(output), "sent_at": None} == {
        "payload": 1,
        "actor": "anna",
        "reason": "early",
        "sent_at": None,
    }


async def test_a_signal_that_does_not_come_in_time_turns_the_workflow_back(
    attended: Attended,
) -> None:
    workflow = await attended.begin(call("charge"), APPROVE, call("ship"))
    await attended.until_step(workflow, "approve")
    attended.clock.advance(3601)
    await attended.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    view = await attended.agent.queries.get(ME.namespace, workflow)
    assert "signal_timeout" in (view.error or "")
    with pytest.raises(Conflict):
        await attended.verbs.signal(ME.namespace, workflow, "approved")


# -- pause and resume ---------------------------------------------------------------------------


async def test_while_it_is_paused_nothing_is_called_and_no_timer_fires(attended: Attended) -> None:
    workflow = await attended.begin(
        call("charge"), {**REST, "after": []}, call("ship", after=["charge", "rest"])
    )
    await attended.until_step(workflow, "charge", StepStatus.SUCCEEDED)
    await attended.verbs.pause(ME.namespace, workflow, WHY, "anna")
    attended.clock.advance(3601)
    await turns(200)
    assert (await attended.step(workflow, "rest")).status is StepStatus.WAITING
    await attended.verbs.resume(ME.namespace, workflow)
    await attended.until_completed(workflow)
    assert await attended.causes(workflow) == ["started", "paused", "resumed", "all_steps_passed"]


async def test_a_signal_that_is_sent_during_a_pause_counts_after_it(attended: Attended) -> None:
    workflow = await attended.begin(APPROVE, call("ship"))
    await attended.until_step(workflow, "approve")
    await attended.verbs.pause(ME.namespace, workflow)
    await attended.verbs.signal(ME.namespace, workflow, "approved")
    await turns()
    assert (await attended.step(workflow, "approve")).status is StepStatus.WAITING
    await attended.verbs.resume(ME.namespace, workflow)
    await attended.until_completed(workflow)


async def test_a_call_under_way_is_settled_during_a_pause(attended: Attended) -> None:
    slow = Act(answers_after=0.02)
    attended.service.script = {("charge", Action.EXECUTE): slow}
    workflow = await attended.begin(call("charge"), call("ship"))
    await attended.called("charge")
    await attended.verbs.pause(ME.namespace, workflow)
    await attended.until_step(workflow, "charge", StepStatus.SUCCEEDED)
    await attended.until_step(workflow, "ship", StepStatus.QUEUED)
    await turns(200)
    assert [one.key.step for one in attended.service.calls] == ["charge"]
    await attended.verbs.resume(ME.namespace, workflow)
    await attended.until_completed(workflow)


# -- terminate ----------------------------------------------------------------------------------


async def test_a_terminated_workflow_is_left_as_it_is(attended: Attended) -> None:
    attended.service.script = {("ship", Action.EXECUTE): HANGS}
    workflow = await attended.begin(call("charge"), call("ship"))
    await attended.called("ship")
    view = await attended.verbs.terminate(ME.namespace, workflow, WHY, "anna")
    assert (view.status, view.ended_at) == ("terminated", attended.clock.now())
    again = await attended.verbs.terminate(ME.namespace, workflow, WHY, "anna")
    assert again == view
    await turns(200)
    assert attended.service.effects_of(workflow, "charge") == [Action.EXECUTE]
    # What the call comes to is noted, and changes nothing.
    with pytest.raises(Conflict):
        await attended.agent.tasks.complete(token_of(attended.service.calls[-1]))
    assert (await attended.see(workflow)).status is WorkflowStatus.TERMINATED


async def test_what_has_ended_is_not_terminated(attended: Attended) -> None:
    workflow = await attended.begin(call("charge"))
    await attended.until_completed(workflow)
    with pytest.raises(Conflict, match="completed"):
        await attended.verbs.terminate(ME.namespace, workflow, WHY)


# -- retry, skip, resolve -----------------------------------------------------------------------


async def test_a_retry_does_not_wait_for_its_time(attended: Attended) -> None:
    attended.service.script = {
        ("charge", Action.EXECUTE): (Act(outcome(_K.UNKNOWN), has_effect=False), Act())
    }
    slow = {"initial_interval": "1h", "max_interval": "1h", "total_budget": "10h"}
    workflow = await attended.begin(call("charge", retry=slow))
    await attended.until_step(workflow, "charge", StepStatus.RETRYING)
    await attended.verbs.retry(ME.namespace, workflow, "charge", WHY)
    await attended.until_completed(workflow)
    first, second = attended.service.calls
    assert (first.idempotency_key, second.attempt) == (second.idempotency_key, 2)


async def test_a_compensation_that_failed_for_good_is_retried(attended: Attended) -> None:
    attended.service.script = {
        ("ship", Action.EXECUTE): Act(outcome(_K.REFUSED)),
        ("charge", Action.COMPENSATE): (Act(outcome(_K.REFUSED)), Act()),
    }
    workflow = await attended.begin(call("charge"), call("ship"))
    await attended.until_status(workflow, WorkflowStatus.ERROR)
    view = await attended.verbs.retry(ME.namespace, workflow)
    assert view.status in ("rolling_back", "rolled_back")
    await attended.until_status(workflow, WorkflowStatus.ROLLED_BACK)


async def test_a_retry_of_what_is_being_tried_is_no_error(attended: Attended) -> None:
    attended.service.script = {("charge", Action.EXECUTE): HANGS}
    workflow = await attended.begin(call("charge"))
    await attended.called("charge")
    before = await attended.see(workflow)
    view = await attended.verbs.retry(ME.namespace, workflow, "charge")
    assert view.steps[0].status == "running"
    assert (await attended.see(workflow)).revision == before.revision


async def test_past_a_pivot_a_person_goes_on_without_a_step(attended: Attended) -> None:
    attended.service.script = {("tell", Action.EXECUTE): Act(outcome(_K.REFUSED))}
    workflow = await attended.begin(call("charge", pivot=True), call("tell"), call("ship"))
    await attended.until_status(workflow, WorkflowStatus.ERROR)
    view = await attended.verbs.skip(ME.namespace, workflow, "tell", WHY, {"told": "by phone"})
    assert view.steps[1].output == '{"told":"by phone"}'
    await attended.until_completed(workflow)
    assert (await attended.verbs.skip(ME.namespace, workflow, "tell", WHY)).status == "completed"


@pytest.mark.parametrize(
    ("resolution", "end"),
    [("succeeded", WorkflowStatus.COMPLETED), ("no_effect", WorkflowStatus.ROLLED_BACK)],
)
async def test_what_is_unknown_is_settled_by_what_a_person_found_out(
    attended: Attended, resolution: str, end: WorkflowStatus
) -> None:
    attended.service.script = {("charge", Action.EXECUTE): Act(outcome(_K.UNKNOWN))}
    slow = {"initial_interval": "1h", "max_interval": "1h", "total_budget": "10h"}
    workflow = await attended.begin(call("charge", retry=slow))
    await attended.until_step(workflow, "charge", StepStatus.RETRYING)
    for _ in range(2):
        await attended.verbs.resolve(
            ME.namespace, workflow, "charge", resolution, WHY, "ledger, line 7", actor="anna"
        )
    await attended.until_status(workflow, end)
    assert [one.action for one in attended.service.calls] == [Action.EXECUTE]


# -- what all share -----------------------------------------------------------------------------


async def test_a_verb_is_refused_before_anything_is_stored(attended: Attended) -> None:
    workflow = await attended.begin(call("charge", service="elsewhere"))
    space, asked = ME.namespace, attended.verbs
    before = await attended.see(workflow)
    for refused in (
        asked.terminate(space, workflow, " "),
        asked.pause(space, workflow, "x" * (verbs.MAX_REASON + 1)),
        asked.pause(space, workflow, "\ud800"),
        asked.skip(space, workflow, "charge", ""),
        asked.skip(space, workflow, "charge", WHY, action="status"),
        asked.skip(space, workflow, "charge", WHY, 1, "compensate"),
        asked.resolve(space, workflow, "charge", "perhaps", WHY, "x"),
        asked.resolve(space, workflow, "charge", "succeeded", WHY, ""),
        asked.resolve(space, workflow, "charge", "no_effect", WHY, "x", 1),
    ):
        with pytest.raises(InvalidRequest):
            await refused
    for missing in (
        asked.retry(space, workflow, "none"),
        asked.retry(space, workflow, "charge[0]"),
        asked.retry(space, "0190c0de-0000-7000-8000-000000000001"),
        asked.pause("another", workflow),
    ):
        with pytest.raises(NotFound):
            await missing
    assert await attended.see(workflow) == before


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("charge", StepKey("charge")),
        ("charge[0]", StepKey("charge", 0)),
        ("c[999999]", StepKey("c", 999_999)),
    ],
)
def test_a_step_is_read_as_it_is_written(written: str, key: StepKey) -> None:
    assert verbs.step_key(written) == key
    assert str(key) == written


@pytest.mark.parametrize(
    "written", ["c[]", "c[", "c[0", "c[-1]", "c[x]", "c[1000000]", "c[1]x", "c[²]"]
)
def test_what_is_no_step_is_not_found(written: str) -> None:
    with pytest.raises(NotFound):
        verbs.step_key(written)
