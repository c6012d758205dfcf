"""What views say of a workflow in each of its states."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.engine.views import StepView, WorkflowView
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Reason, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine
from sidecar.saga.workflow import Fan, Run, Step, StepKey, Turn, Workflow
from tests.unit.engine.faces import Faces
from tests.unit.engine.stand_ins import NOON

CHARGE = StepKey("charge")
PAY = StepKey("pay")
IN_TURN = b"""
name: pay
steps:
  - name: pay
    service: payments
    execute: /pay
    compensate: none
    concurrency: { key: all, limit: 2 }
"""


@pytest.fixture
async def faces() -> Faces:
    made = Faces()
    await made.register()
    return made


async def seen(faces: Faces, workflow: Workflow, **values: object) -> WorkflowView:
    faces.store.put(workflow, **values)
    return await faces.queries.get("default", workflow.id)


def steps(view: WorkflowView) -> dict[str, StepView]:
    return {step.name: step for step in view.steps}


async def test_a_new_workflow_shows_all_steps_and_what_it_waits_for(faces: Faces) -> None:
    workflow = await faces.start(input={"amount": 1})
    view = await faces.queries.get("default", workflow.id)
    assert [(step.name, step.status) for step in view.steps] == [
        ("charge", "queued"),
        ("ship", "pending"),
    ]
    assert view.input == '{"amount":1}'
    assert (view.started_at, view.ended_at, view.last_error) == (None, None, None)
    assert any("payments" in line for line in view.waiting_on)
    assert steps(view)["ship"].service == "shipping"
    assert steps(view)["ship"].index is None


async def test_steps_never_reached_are_cancelled_once_the_workflow_turned_back(
    faces: Faces,
) -> None:
    workflow = await faces.start()
    for status in (
        WorkflowStatus.ROLLING_BACK,
        WorkflowStatus.ROLLED_BACK,
        WorkflowStatus.ERROR,
    ):
        view = await seen(faces, workflow, status=status, reason=Reason.FAILED)
        assert steps(view)["ship"].status == "cancelled"


async def test_steps_not_reached_in_an_error_ahead_are_still_pending(faces: Faces) -> None:
    workflow = await faces.start()
    view = await seen(faces, workflow, status=WorkflowStatus.ERROR)
    assert steps(view)["ship"].status == "pending"


async def test_a_compensated_step_shows_both_of_its_ways(faces: Faces) -> None:
    workflow = await faces.start()
    run = Run(attempt=3, tries=2, started_at=NOON, claimed_at=NOON, ended_at=NOON)
    undo = Run(attempt=1, tries=1, started_at=NOON + timedelta(seconds=1))
    step = Step(
        key=CHARGE,
        service="payments",
        status=StepStatus.COMPENSATED,
        execute=run,
        compensate=undo,
        stored=True,
        output=JsonText('{"id":1}'),
        compensation_output=JsonText('{"refund":2}'),
    )
    view = await seen(
        faces,
        workflow,
        status=WorkflowStatus.ROLLED_BACK,
        reason=Reason.FAILED,
        steps={CHARGE: step},
    )
    charge = steps(view)["charge"]
    assert (charge.attempt, charge.tries, charge.output) == (3, 2, '{"id":1}')
    assert charge.compensation is not None
    assert charge.compensation.status == "compensated"
    assert charge.compensation.output == '{"refund":2}'
    assert view.started_at == NOON


async def test_a_step_that_is_not_undone_has_no_compensation(faces: Faces) -> None:
    workflow = await faces.start()
    view = await faces.queries.get("default", workflow.id)
    assert all(step.compensation is None for step in view.steps)


async def test_a_retry_says_when_it_comes_and_why(faces: Faces) -> None:
    workflow = await faces.start()
    due = NOON + timedelta(hours=1)
    step = replace(
        workflow.steps[CHARGE],
        status=StepStatus.RETRYING,
        due_at=due,
        error=JsonText('{"code":"unknown","message":"reset"}'),
    )
    view = await seen(faces, workflow, steps={CHARGE: step})
    assert view.next_attempt_at == due
    assert view.last_error == step.error
    assert view.waiting_on


async def test_a_step_that_its_rate_limit_holds_says_so_and_when_it_moves(faces: Faces) -> None:
    workflow = await faces.start()
    due = NOON + timedelta(hours=1)
    held = replace(workflow.steps[CHARGE], status=StepStatus.RETRYING, due_at=due)
    faces.store.promised = {CHARGE}
    view = await seen(faces, workflow, steps={CHARGE: held})
    assert view.next_attempt_at == due
    (line,) = view.waiting_on
    assert line == f"charge: execute waits for the rate limit of its action until {due.isoformat()}"


async def test_a_fan_out_says_how_many_of_its_items_the_rate_limit_holds(faces: Faces) -> None:
    workflow = await faces.start()
    fan = replace(workflow.steps[CHARGE], fan=Fan(total=9, opened=5, open=5))
    faces.store.promised = {StepKey("charge", index) for index in (1, 2, 4)}
    view = await seen(faces, workflow, steps={CHARGE: fan})
    assert any("3 items wait for the rate limit" in line for line in view.waiting_on)


async def test_the_limits_are_asked_for_only_where_something_is_put_off(faces: Faces) -> None:
    workflow = await faces.start()
    await faces.queries.get("default", workflow.id)
    assert "promised_steps" not in faces.store.asked


async def test_who_waits_for_its_turn_says_who_has_the_places(faces: Faces) -> None:
    await faces.register(IN_TURN)
    one, two, three = [await faces.start("pay") for _ in range(3)]
    key = JsonText('"all"')
    faces.store.holders = {key: [InLine(two.id, PAY), InLine(three.id, StepKey("pay", 4))]}
    faces.store.put(two, status=WorkflowStatus.ERROR)
    faces.store.put(three, paused=True)
    (line,) = (await faces.queries.get("default", one.id)).waiting_on
    assert line == (
        'pay: execute waits for its turn: 2 at a time with the key "all", '
        f"now {two.id} (error), pay[4] of {three.id} (in_progress, paused)"
    )
    turn = {"turn": Turn(key, 2), "status": WorkflowStatus.QUEUED, "steps": {}}
    view = await seen(faces, one, **turn)
    assert view.waiting_on[0].startswith("waits for its turn: 2 at a time with the key")
    assert f"now {two.id} (error), " in view.waiting_on[0]


async def test_the_places_are_asked_for_only_where_somebody_waits_for_one(faces: Faces) -> None:
    workflow = await faces.start()
    await faces.queries.get("default", workflow.id)
    assert "turn_holders" not in faces.store.asked


async def test_items_of_a_fan_out_come_by_their_index(faces: Faces) -> None:
    workflow = await faces.start()
    rows = {
        StepKey("charge", index): Step(StepKey("charge", index), "payments", stored=True)
        for index in (2, 0, 1)
    }
    view = await seen(faces, workflow, steps=rows)
    assert [(one.name, one.index) for one in view.steps] == [
        ("charge", 0),
        ("charge", 1),
        ("charge", 2),
        ("ship", None),
    ]
