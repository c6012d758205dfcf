"""The machine: the only two ways for a workflow to get from one state to the next.

    start    definition, input            -> changes (a new workflow and its first steps)
    advance  definition, workflow, event  -> changes

Both are pure: the same arguments give the same changes, and nothing is changed in place. An
event that is not legal raises `IllegalTransition`. An event about an attempt that is no longer
current, or that was applied before, is not an error: `Changes.verdict` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sidecar.errors import IllegalTransition
from sidecar.saga import forward, operators, waits
from sidecar.saga.answers import answered, heartbeat, lease_ended
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.definition import Definition, JsonText, Render
from sidecar.saga.draft import Circumstances, Draft
from sidecar.saga.events import (
    Answered,
    CancelRequested,
    DeadlinePassed,
    Event,
    Heartbeat,
    LeaseEnded,
    RollbackReviewed,
    SignalSent,
    TimerFired,
)
from sidecar.saga.rollback import turn_back, unwind
from sidecar.saga.states import (
    WORKFLOW_ENDS,
    Reason,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)
from sidecar.saga.workflow import DefinitionRef, Workflow, WorkflowId


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """What a workflow is started with."""

    id: WorkflowId
    input: JsonText
    labels: Mapping[str, str] = field(default_factory=dict)
    start_key: str | None = None
    trace: str | None = None


def start(
    definition: Definition, new: NewWorkflow, *, now: datetime, render: Render, actor: str = "api"
) -> Changes:
    """Begin a workflow: admit it and queue its roots."""
    workflow = Workflow(
        id=new.id,
        definition=DefinitionRef(definition.namespace, definition.name, definition.version),
        status=WorkflowStatus.QUEUED,
        created_at=now,
        deadline_at=now + definition.timeout if definition.timeout else None,
        labels=new.labels,
        start_key=new.start_key,
        trace=new.trace,
        input=new.input,
    )
    draft = Draft(definition, workflow, Circumstances(now, actor, render))
    draft.signal(WorkflowSignal.ADMIT, "started")
    forward.begin(draft)
    return draft.changes()


def advance(
    definition: Definition, workflow: Workflow, event: Event, *, now: datetime, render: Render
) -> Changes:
    """Apply `event` to `workflow`. Raises `IllegalTransition`, and then nothing has changed."""
    draft = Draft(definition, workflow, Circumstances(now, event.actor, render))
    return draft.changes(_apply(draft, workflow, event))


def _apply(draft: Draft, workflow: Workflow, event: Event) -> Verdict:
    match event:
        case Answered():
            return answered(draft, event)
        case LeaseEnded():
            return lease_ended(draft, event)
        case Heartbeat():
            return heartbeat(draft, event)
        case TimerFired():
            return _timer_fired(draft, event)
        case SignalSent():
            step = waits.signal_sent(draft, event)
            if step is not None:
                forward.concluded(draft, step)
            return Verdict.APPLIED
        case CancelRequested():
            return _cancel(draft)
        case DeadlinePassed():
            return _deadline(draft, workflow)
        case RollbackReviewed():
            return _review(draft)
        case _:
            return operators.apply(draft, event)


def _timer_fired(draft: Draft, event: TimerFired) -> Verdict:
    step, verdict = waits.fired(draft, draft.step(event.step))
    if step.status is StepStatus.SUCCEEDED and verdict is Verdict.APPLIED:
        forward.concluded(draft, step)
    elif step.status is StepStatus.FAILED and verdict is Verdict.APPLIED:
        forward.failed(draft, step)
    return verdict


def _cancel(draft: Draft) -> Verdict:
    if draft.status in (WorkflowStatus.QUEUED, WorkflowStatus.IN_PROGRESS):
        if _pivot_claimed(draft):
            raise IllegalTransition("workflow", "past its pivot", "cancel")
        turn_back(draft, Reason.CANCELLED, cause="cancelled")
        return Verdict.APPLIED
    undoing = draft.turning_back and draft.status is not WorkflowStatus.ROLLED_BACK
    if undoing or draft.reason is Reason.CANCELLED:
        return Verdict.IGNORED
    raise IllegalTransition("workflow", draft.status, "cancel")


def _deadline(draft: Draft, workflow: Workflow) -> Verdict:
    due = workflow.deadline_at is not None and workflow.deadline_at <= draft.now
    open_ahead = draft.status in (WorkflowStatus.QUEUED, WorkflowStatus.IN_PROGRESS)
    if not due or not open_ahead or workflow.paused:
        return Verdict.IGNORED
    if _pivot_claimed(draft):
        draft.set(deadline_at=None)
        draft.note("deadline_ignored", "past_pivot")
    else:
        turn_back(draft, Reason.TIMED_OUT, cause="deadline_passed")
    return Verdict.APPLIED


def _review(draft: Draft) -> Verdict:
    """Go on with a rollback as after any of its steps: mostly nothing is left to begin."""
    if not draft.turning_back or draft.status in WORKFLOW_ENDS:
        return Verdict.IGNORED
    unwind(draft)
    return Verdict.APPLIED


def _pivot_claimed(draft: Draft) -> bool:
    return any(draft.named(name).execute.attempt > 0 for name in draft.definition.pivots)
