"""What the machine tells of waits, fan-outs and verbs: the same story, and the right name in it."""

from __future__ import annotations

import json

from msgspec.structs import replace

from sidecar.saga.definition import Compensation, FanOut, JsonText, Template
from sidecar.saga.events import RetryRequested, TerminateRequested
from sidecar.saga.machine import advance
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.policy import RetryPolicy
from sidecar.saga.states import StepStatus, WorkflowStatus
from tests.unit.saga.worlds import Run, definition, render, step

LIST = Template(JsonText("list"), constant=False)


def test_verbs_tell_their_story_in_one_order() -> None:
    """However a store read the steps, the history is the same."""
    fan_out = FanOut(LIST, max_parallel=3)
    run = Run(definition(step("a"), step("b"), step("c", fan_out=fan_out)))
    for name in ("b", "c[1]", "a", "c[0]"):
        run.answer(name, OutcomeKind.UNKNOWN, error=JsonText("{}"))
    for event in (RetryRequested(), TerminateRequested("enough")):
        told = []
        for order in (list, lambda steps: list(reversed(list(steps)))):
            steps = dict(order(run.workflow.steps.items()))
            workflow = replace(run.workflow, steps=steps)
            changes = advance(run.definition, workflow, event, now=run.now, render=render)
            told.append([(one.step, one.index, one.cause) for one in changes.events])
        assert told[0] == told[1]
        assert len(told[0]) > 3


def test_the_item_that_cannot_be_sent_is_the_one_named() -> None:
    """The end of an item opens the next, which may be one failure too many."""
    odd = Template(JsonText("odd"), constant=False)
    run = Run(definition(step("f", input=odd, fan_out=FanOut(LIST, max_parallel=1))))
    run.done("f[0]")
    assert run.status("f[1]") is StepStatus.FAILED
    assert run.workflow.status is WorkflowStatus.ROLLING_BACK
    error = json.loads(str(run.workflow.error))
    assert (error["step"], error["code"]) == ("f[1]", "render_failed")


def test_an_item_that_cannot_be_undone_is_the_one_named() -> None:
    undo = Compensation("/undo", retry=RetryPolicy(max_attempts=1))
    run = Run(
        definition(
            step("f", compensation=undo, fan_out=FanOut(LIST, max_parallel=2)), step("g", "f")
        )
    )
    run.done(*(f"f[{at}]" for at in range(4)))
    run.answer("g", OutcomeKind.REFUSED)
    run.answer("f[1]", OutcomeKind.REFUSED, error=JsonText('{"code":"no","message":"sold"}'))
    assert run.workflow.status is WorkflowStatus.ERROR
    assert json.loads(str(run.workflow.error)) == {"code": "no", "message": "sold", "step": "f[1]"}
