"""What is left of a workflow that was terminated, and what a person may still say of it.

It is at its end and nothing in it moves by itself, but what it owes is owed until a rerun takes it
over (`sidecar.saga.reruns`), or until somebody has undone it by hand, step by step, and says so.
"""

from __future__ import annotations

from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.debts import is_owed
from sidecar.saga.definition import JsonText
from sidecar.saga.draft import Draft
from sidecar.saga.events import Resolution, ResolveRequested
from sidecar.saga.states import StepSignal, StepStatus
from sidecar.saga.workflow import Step


def resolve(draft: Draft, event: ResolveRequested, details: JsonText | None) -> Verdict:
    """Take an effect for undone. Raises `IllegalTransition` and `IncompleteState`."""
    draft.need_whole()
    step = draft.step(event.step)
    owed = is_owed(draft.definition.by_name[step.key.step], step) and not draft.taken_over_by
    if event.resolution is Resolution.SUCCEEDED or step.fan is not None or not owed:
        state = f"{step.status} in a workflow that was terminated"
        if draft.taken_over_by:
            state += f", and what it owes was taken over by {draft.taken_over_by}"
        raise IllegalTransition(f"step {step.key}", state, f"resolve as {event.resolution}")
    _undone(draft, step, details)
    if step.is_item:
        _count(draft, draft.named(step.key.step), step, details)
    return Verdict.APPLIED


def _undone(draft: Draft, step: Step, details: JsonText | None) -> None:
    if step.status is not StepStatus.COMPENSATION_FAILED:
        step = draft.move(step, StepSignal.GIVE_UP, "terminated")
    draft.move(step, StepSignal.UNDO, "resolved", details=details)


def _count(draft: Draft, step: Step, item: Step, details: JsonText | None) -> None:
    """Count an item as undone; with the last of them the step is, too."""
    fan = step.fan
    if fan is None:
        raise AssertionError(f"{step.key} has no items")
    failed = item.status is StepStatus.FAILED
    kept = item.status is StepStatus.COMPENSATION_FAILED
    step = draft.put(
        replace(step, fan=replace(fan, failed=fan.failed - failed, kept=fan.kept - kept))
    )
    defined = draft.definition.by_name[step.key.step]
    if not any(is_owed(defined, one) for one in draft.items(step.key.step)):
        _undone(draft, step, details)
