"""Random graphs, random answers: whatever happens, all done or all undone, in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.saga.definition import Definition
from sidecar.saga.events import CancelRequested, LeaseEnded
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import CLAIMABLE, WAIT_RETURNS, Action, StepStatus, WorkflowStatus
from tests.unit.saga.worlds import Run, definition, step

FORWARD = [
    OutcomeKind.DONE, OutcomeKind.DONE, OutcomeKind.DONE, OutcomeKind.DONE, OutcomeKind.REFUSED,
    OutcomeKind.UNKNOWN, OutcomeKind.UNUSABLE, OutcomeKind.NOT_SENT, OutcomeKind.RELEASED,
    OutcomeKind.HELD,
]  # fmt: skip
BACK = [
    OutcomeKind.DONE,
    OutcomeKind.DONE,
    OutcomeKind.UNKNOWN,
    OutcomeKind.RELEASED,
    OutcomeKind.HELD,
]


@st.composite
def graphs(draw: st.DrawFn) -> Definition:
    """Up to eight steps, each after any of the earlier ones."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    steps = []
    for number, name in enumerate(names):
        after = draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        steps.append(step(name, *sorted(after)))
    return definition(*steps)


@settings(max_examples=300, deadline=None)
@given(graphs(), st.data())
@pytest.mark.fault(23)
def test_a_workflow_ends_done_or_undone(defined: Definition, data: st.DataObject) -> None:
    run = Run(defined)
    undone: list[str] = []
    cancel_at = data.draw(st.none() | st.integers(0, 30))
    for number in range(1_000):
        if run.workflow.status in WAIT_RETURNS:
            break
        if number == cancel_at:
            run.apply(CancelRequested())
        else:
            _one_event(run, data, undone)
    status = run.workflow.status
    assert status in WAIT_RETURNS
    statuses = {one.status for one in run.workflow.steps.values()}
    if status is WorkflowStatus.COMPLETED:
        assert statuses == {StepStatus.SUCCEEDED}
        assert not undone
    elif status is WorkflowStatus.ROLLED_BACK:
        assert statuses <= {StepStatus.COMPENSATED, StepStatus.FAILED, StepStatus.CANCELLED}
        for one in run.workflow.steps.values():
            assert one.may_have_effect == (one.status is StepStatus.COMPENSATED)
        for number, name in enumerate(undone):
            assert not defined.ancestors[name] & set(undone[:number])


def _one_event(run: Run, data: st.DataObject, undone: list[str]) -> None:
    ready = sorted(
        str(key) for key, one in run.workflow.steps.items() if one.leased or one.status in CLAIMABLE
    )
    name = data.draw(st.sampled_from(ready))
    found = run.step(name)
    if not found.leased and data.draw(st.booleans()):
        run.claim(name)
        return
    if found.leased and data.draw(st.integers(0, 10)) == 0:
        run.apply(LeaseEnded(found.key, found.action, found.run.attempt))
        return
    kinds = BACK if found.action is Action.COMPENSATE else FORWARD
    kind = data.draw(st.sampled_from(kinds))
    back = found.action is Action.COMPENSATE
    run.answer(name, kind)
    if back and kind is OutcomeKind.DONE:
        undone.append(name)
