"""A pivot that was skipped is no point of no return: what comes after it can still turn back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.definition import Concurrency, FanOut, JsonText, Template
from sidecar.saga.events import CancelRequested, SkipRequested
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, StepKey
from tests.unit.saga.worlds import Run, definition, step

LIST = FanOut(Template(JsonText("[1]"), constant=True))
SKIPPED = Template(JsonText("false"), constant=True)


@pytest.mark.parametrize("kind", [OutcomeKind.REFUSED, OutcomeKind.UNUSABLE, OutcomeKind.DONE])
def test_a_fan_out_behind_it_ends_when_the_workflow_is_cancelled(kind: OutcomeKind) -> None:
    run = Run(definition(step("pay", pivot=True, when=SKIPPED), step("mail", "pay", fan_out=LIST)))
    run.claim("mail[0]")
    run.apply(CancelRequested())
    assert run.workflow.status is WorkflowStatus.ROLLING_BACK
    run.answer("mail[0]", kind)
    if run.workflow.status is WorkflowStatus.ROLLING_BACK:
        run.done("mail[0]")
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK
    undone = kind is not OutcomeKind.REFUSED
    assert run.status("mail") is (StepStatus.COMPENSATED if undone else StepStatus.FAILED)


def test_a_step_skipped_before_its_turn_lets_nobody_past_what_runs_before_it() -> None:
    """Least of all a pivot: what runs before it may still be refused."""
    run = Run(definition(step("a"), step("b", "a"), step("c", "b"), step("pay", "c", pivot=True)))
    run.apply(SkipRequested(StepKey("b"), "not needed"))
    run.apply(SkipRequested(StepKey("c"), "not needed"))
    assert run.status("pay") is StepStatus.PENDING
    run.done("a")
    assert run.status("pay") is StepStatus.QUEUED
    run.done("pay")
    assert run.workflow.status is WorkflowStatus.COMPLETED


def test_a_step_skipped_last_lets_nobody_past_what_runs_beside_it() -> None:
    run = Run(definition(step("a"), step("b", "a"), step("c", "b"), step("d"), step("e", "c", "d")))
    run.apply(SkipRequested(StepKey("c"), "not needed"))
    run.done("d", "a")
    assert run.status("e") is StepStatus.PENDING
    run.apply(SkipRequested(StepKey("b"), "not needed"))
    assert run.status("e") is StepStatus.QUEUED


def test_a_thousand_steps_can_be_skipped_before_their_turn() -> None:
    names = [f"s{at}" for at in range(1000)]
    steps = [step(name, *names[max(0, at - 2) : at]) for at, name in enumerate(names)]
    run = Run(definition(*steps[:-1], step("last", *names[-3:-1])))
    workflow = run.workflow
    skipped = {
        key: Step(key, f"svc-{key.step}", StepStatus.SKIPPED, stored=True)
        for key in map(StepKey, names[1:-1])
    }
    run.workflow = replace(workflow, steps={**workflow.steps, **skipped})
    run.done("s0")
    assert run.status("last") is StepStatus.QUEUED


def test_nothing_is_skipped_before_a_workflow_has_its_turn() -> None:
    always = Template(JsonText('"all"'), constant=True)
    run = Run(definition(step("a"), step("b", "a"), concurrency=Concurrency(always, 1)))
    with pytest.raises(IllegalTransition):
        run.apply(SkipRequested(StepKey("a"), "not needed"))
