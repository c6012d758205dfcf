"""What needs a person, since it failed where there is no way back; and the end of that need."""

from __future__ import annotations

from sidecar.saga import fan_out, rollback
from sidecar.saga.draft import Draft
from sidecar.saga.states import StepStatus, WorkflowSignal, WorkflowStatus
from sidecar.saga.workflow import Step


def is_stuck(draft: Draft, step: Step) -> bool:
    """Whether a step has failed where there is no way back, and waits for a person."""
    if step.status is not StepStatus.FAILED or step.fan is not None:
        return False
    if draft.status is WorkflowStatus.QUEUED:
        return False  # it is tried again as soon as the workflow has its turn
    if step.is_item:
        return _waits_for_items(draft, draft.named(step.key.step))
    defined = draft.definition.by_name[step.key.step]
    past = draft.past_pivot(defined.name) or (defined.pivot and step.may_have_effect)
    return past and not draft.turning_back and not defined.optional


def _waits_for_items(draft: Draft, step: Step) -> bool:
    """Whether more items of a step have failed than it tolerates, where there is no way back."""
    waiting = step.status is StepStatus.WAITING and not draft.turning_back
    return waiting and not fan_out.tolerates(draft, step) and fan_out.must_go_on(draft, step)


def mend(draft: Draft) -> None:
    """Let a workflow in `error` go on once nothing needs a person any more."""
    if draft.status is not WorkflowStatus.ERROR:
        return
    if draft.turning_back:
        if not rollback.failures(draft):
            draft.signal(WorkflowSignal.MEND, "mended")
        return
    steps = [draft.named(defined.name) for defined in draft.definition.steps]
    if not any(is_stuck(draft, step) or _waits_for_items(draft, step) for step in steps):
        draft.signal(WorkflowSignal.MEND_AHEAD, "mended")
