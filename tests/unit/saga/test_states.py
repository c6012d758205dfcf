"""The whole product of statuses and signals: legal as the table says, illegal without effect."""

from __future__ import annotations

import itertools

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga import states
from sidecar.saga.states import (
    STEP_TABLE,
    WORKFLOW_TABLE,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)


@pytest.mark.parametrize(
    ("status", "signal"), list(itertools.product(WorkflowStatus, WorkflowSignal)), ids=str
)
def test_every_workflow_status_meets_every_signal(
    status: WorkflowStatus, signal: WorkflowSignal
) -> None:
    expected = WORKFLOW_TABLE[status].get(signal)
    if expected is not None:
        assert states.workflow_after(status, signal) is expected
    else:
        with pytest.raises(IllegalTransition) as caught:
            states.workflow_after(status, signal)
        assert (caught.value.state, caught.value.event) == (status, signal)


@pytest.mark.parametrize(
    ("status", "signal"), list(itertools.product(StepStatus, StepSignal)), ids=str
)
def test_every_step_status_meets_every_signal(status: StepStatus, signal: StepSignal) -> None:
    expected = STEP_TABLE[status].get(signal)
    if expected is not None:
        assert states.step_after("s", status, signal) is expected
    else:
        with pytest.raises(IllegalTransition, match="step s is"):
            states.step_after("s", status, signal)


def test_ends_have_no_way_out() -> None:
    for end in states.WORKFLOW_ENDS - {WorkflowStatus.COMPLETED}:
        assert WORKFLOW_TABLE[end] == {}
    # Only the parent of a child may.
    assert set(WORKFLOW_TABLE[WorkflowStatus.COMPLETED]) == {WorkflowSignal.TURN_BACK}


def test_every_signal_and_every_status_is_used() -> None:
    steps = {after for row in STEP_TABLE.values() for after in row.values()}
    assert steps | {StepStatus.PENDING} == set(StepStatus)
    assert {signal for row in STEP_TABLE.values() for signal in row} == set(StepSignal)
    assert {signal for row in WORKFLOW_TABLE.values() for signal in row} == set(WorkflowSignal)
