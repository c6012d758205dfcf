"""A pivot whose claims were given back uncalled is none yet: the way back is open."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import CancelRequested, DeadlinePassed
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from tests.unit.saga.worlds import Run, definition, step

PIVOT = definition(step("a"), step("p", "a", pivot=True), step("z", "p"))


@pytest.mark.parametrize("kind", [OutcomeKind.HELD, OutcomeKind.RELEASED])
def test_a_pivot_that_was_only_given_back_leaves_the_way_back_open(kind: OutcomeKind) -> None:
    run = Run(PIVOT)
    run.done("a")
    for _ in range(2):
        run.answer("p", kind)
    run.apply(CancelRequested())
    assert run.status("p") is StepStatus.CANCELLED
    assert run.status("a") is StepStatus.COMPENSATING


def test_a_pivot_that_was_called_before_it_was_held_closes_the_way_back() -> None:
    run = Run(PIVOT)
    run.done("a")
    run.answer("p", OutcomeKind.NOT_NOW)
    run.now += timedelta(minutes=1)
    run.answer("p", OutcomeKind.HELD)
    with pytest.raises(IllegalTransition):
        run.apply(CancelRequested())


def test_a_deadline_turns_back_what_waits_for_the_rate_limit_of_its_pivot() -> None:
    run = Run(definition(step("p", pivot=True), timeout=timedelta(minutes=1)))
    run.answer("p", OutcomeKind.HELD, retry_after=timedelta(hours=3))
    run.now += timedelta(minutes=2)
    run.apply(DeadlinePassed())
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK


def test_a_deadline_is_kept_for_the_end_of_the_first_claim_of_a_pivot() -> None:
    run = Run(definition(step("p", pivot=True), timeout=timedelta(seconds=1)))
    run.claim("p")
    lease = run.step("p").lease_until
    assert lease is not None
    run.now += timedelta(seconds=2)
    assert [one.kind for one in run.apply(DeadlinePassed()).events] == ["deadline_deferred"]
    assert run.workflow.deadline_at == lease
    run.now = lease
    assert run.apply(DeadlinePassed()).verdict is Verdict.IGNORED
