"""A pivot that was skipped is no point of no return: what comes after it can still turn back."""

from __future__ import annotations

import pytest

from sidecar.saga.definition import FanOut, JsonText, Template
from sidecar.saga.events import CancelRequested
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
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
