"""Waits that failed past a pivot: a person lets them begin anew."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga.definition import JsonText, StepDefinition, Template, Wait
from sidecar.saga.events import RetryRequested, SignalSent, TimerFired
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.unit.saga.worlds import Run, definition, step

GO = StepKey("go")
HOUR = timedelta(hours=1)


def waits(**wait: object) -> Run:
    """A workflow past its pivot, at a wait."""
    go = StepDefinition("go", after=("buy",), wait=Wait(**wait))  # type: ignore[arg-type]
    run = Run(definition(step("buy", pivot=True), go, step("tell", "go")))
    run.answer("buy", OutcomeKind.DONE, output=JsonText("{}"))
    return run


def in_vain() -> Run:
    """One whose signal did not come in time."""
    run = waits(signal="go", timeout=HOUR)
    run.now += HOUR
    run.apply(TimerFired(GO))
    assert run.workflow.status is WorkflowStatus.ERROR
    return run


@pytest.mark.parametrize("key", [None, GO])
def test_a_signal_is_waited_for_once_more_with_all_its_time(key: StepKey | None) -> None:
    run = in_vain()
    run.apply(RetryRequested(key, "call them again"))
    assert run.workflow.status is WorkflowStatus.IN_PROGRESS
    assert (run.status("go"), run.step("go").due_at) == (StepStatus.WAITING, run.now + HOUR)
    run.apply(SignalSent("go", JsonText("1")))
    assert run.status("tell") is StepStatus.QUEUED


def test_a_signal_that_came_meanwhile_is_taken_at_once() -> None:
    run = in_vain()
    run.apply(SignalSent("go", JsonText("1")))
    assert run.workflow.status is WorkflowStatus.ERROR
    run.apply(RetryRequested(GO))
    assert run.workflow.status is WorkflowStatus.IN_PROGRESS
    assert (run.status("go"), run.status("tell")) == (StepStatus.SUCCEEDED, StepStatus.QUEUED)


def test_what_cannot_say_until_when_would_say_the_same_again() -> None:
    run = waits(until=Template(JsonText("!"), constant=False))
    assert run.workflow.status is WorkflowStatus.ERROR
    with pytest.raises(IllegalTransition, match="for what it says itself; `skip` it"):
        run.apply(RetryRequested(GO))
