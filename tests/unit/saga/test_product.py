"""Every event in every state: it applies as the tables say, or it raises and changes nothing."""

from __future__ import annotations

import copy
import itertools

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.events import Answered, CancelRequested, DeadlinePassed, Event, LeaseEnded
from sidecar.saga.invariants import violations
from sidecar.saga.machine import advance
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import STEP_TABLE, WORKFLOW_TABLE, Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.unit.saga.worlds import Run, definition, render, step

KEY = StepKey("a")
DEFINED = definition(step("a"), step("b", "a"))


def queued() -> Run:
    return Run(DEFINED)


def running() -> Run:
    run = queued()
    run.claim("a")
    return run


def retrying() -> Run:
    run = queued()
    run.answer("a", OutcomeKind.UNKNOWN)
    return run


def succeeded() -> Run:
    run = queued()
    run.done("a")
    return run


def failed() -> Run:
    run = queued()
    run.answer("a", OutcomeKind.REFUSED)
    return run


def cancelled() -> Run:
    run = queued()
    run.apply(CancelRequested())
    return run


def compensating() -> Run:
    run = succeeded()
    run.answer("b", OutcomeKind.REFUSED)
    return run


def compensating_called() -> Run:
    run = compensating()
    run.claim("a")
    return run


def compensated() -> Run:
    run = compensating()
    run.done("a")
    return run


def compensation_failed() -> Run:
    run = compensating()
    run.answer("a", OutcomeKind.REFUSED)
    return run


STATES = [
    queued, running, retrying, succeeded, failed, cancelled,
    compensating, compensating_called, compensated, compensation_failed,
]  # fmt: skip
EVENTS: list[Event] = [
    *(
        Answered(KEY, action, attempt, Outcome(kind))
        for action, attempt, kind in itertools.product(Action, (1, 2), OutcomeKind)
    ),
    *(LeaseEnded(KEY, action, attempt) for action, attempt in itertools.product(Action, (1, 2))),
    CancelRequested(),
    DeadlinePassed(),
]


def _legal(before: Run, changes: Changes) -> None:
    """Every change of status that was written is a cell of a table, or a claim."""
    for event in changes.events:
        if event.before is None or event.after is None or event.cause == "claimed":
            continue
        if event.kind == "workflow":
            row = WORKFLOW_TABLE[WorkflowStatus(event.before)]
            assert WorkflowStatus(event.after) in row.values()
        else:
            assert StepStatus(event.after) in STEP_TABLE[StepStatus(event.before)].values()
    assert violations(before.definition, changes.workflow) == []


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.fault(8)
def test_the_whole_product(state: object) -> None:
    outcomes = {"applied": 0, "illegal": 0}
    for event in EVENTS:
        run = state()  # type: ignore[operator]
        before = copy.deepcopy(run.workflow)
        try:
            changes = advance(run.definition, run.workflow, event, now=run.now, render=render)
        except IllegalTransition:
            outcomes["illegal"] += 1
        else:
            _legal(run, changes)
            outcomes["applied"] += changes.verdict is Verdict.APPLIED
            if not changes.writes:
                assert changes.workflow == before
        assert run.workflow == before
    assert outcomes["illegal"] > 0
