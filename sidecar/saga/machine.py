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

from sidecar.errors import IllegalTransition, RenderError
from sidecar.saga import children, forward, operators, reruns, waits
from sidecar.saga.answers import answered, heartbeat, item_ended, lease_ended, undone
from sidecar.saga.bodies import error_body, misfit
from sidecar.saga.changes import Changes, ChildStart, Verdict
from sidecar.saga.definition import Concurrency, Definition, JsonText, Render
from sidecar.saga.draft import Circumstances, Draft
from sidecar.saga.events import (
    Admitted,
    Answered,
    Attempted,
    CancelRequested,
    ChildTold,
    DeadlinePassed,
    Event,
    Heartbeat,
    LeaseEnded,
    ParentTerminated,
    ParentTurnedBack,
    RollbackReviewed,
    SignalSent,
    TimerFired,
    Told,
)
from sidecar.saga.queueing import admit, turn_key, under_way
from sidecar.saga.rollback import turn_back, unwind
from sidecar.saga.states import (
    UNDOING,
    WORKFLOW_ENDS,
    Reason,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)
from sidecar.saga.turns import waits_for_turn
from sidecar.saga.workflow import DefinitionRef, Parent, Step, Turn, Workflow, WorkflowId


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """What a workflow is started with; a child with its `parent`, and the deadline of that.

    `rerun_of` is the workflow that is run again by it, and `kept` that workflow, whole and with all
    bodies, if its results are kept.
    """

    id: WorkflowId
    input: JsonText
    labels: Mapping[str, str] = field(default_factory=dict)
    start_key: str | None = None
    trace: str | None = None
    parent: Parent | None = None
    deadline_at: datetime | None = None
    rerun_of: WorkflowId | None = None
    kept: Workflow | None = None


def child_of(child: ChildStart) -> NewWorkflow:
    """Return what a child is started with."""
    return NewWorkflow(
        child.id,
        child.input,
        trace=child.trace,
        parent=child.parent,
        deadline_at=child.deadline_at,
    )


def _deadline_of(definition: Definition, new: NewWorkflow, now: datetime) -> datetime | None:
    """The own deadline, or the parent's if that comes sooner."""
    own = now + definition.timeout if definition.timeout else None
    return min((one for one in (own, new.deadline_at) if one is not None), default=None)


def start(
    definition: Definition, new: NewWorkflow, *, now: datetime, render: Render, actor: str = "api"
) -> Changes:
    """Begin a workflow: admit it and queue its roots, or let it wait for its turn."""
    workflow = Workflow(
        id=new.id,
        definition=DefinitionRef(definition.namespace, definition.name, definition.version),
        status=WorkflowStatus.QUEUED,
        created_at=now,
        deadline_at=_deadline_of(definition, new, now),
        labels=new.labels,
        start_key=new.start_key,
        trace=new.trace,
        parent=new.parent,
        input=new.input,
    )
    draft = Draft(definition, workflow, Circumstances(now, actor, render))
    details = reruns.origin(new.rerun_of)
    if new.kept is not None:
        reruns.take_over(draft, new.kept)
    # Who starts a root is told that its input does not fit; a child can only tell its parent.
    error = misfit(definition.input_check, new.input, "input") if new.parent else None
    if error is not None:
        turn_back(draft, Reason.FAILED, cause="input_invalid", error=error)
    elif definition.concurrency is not None:
        _wait_for_turn(draft, definition.concurrency, details)
    else:
        draft.signal(WorkflowSignal.ADMIT, "started", details=details)
        forward.begin(draft)
    return draft.changes()


def _wait_for_turn(draft: Draft, concurrency: Concurrency, details: JsonText | None) -> None:
    """Let a new workflow wait until there is a place for it."""
    try:
        key = turn_key(draft, concurrency)
    except RenderError as error:
        body = error_body(error.code, error.message)
        turn_back(draft, Reason.FAILED, cause=error.code, error=body)
        return
    draft.set(turn=Turn(key, concurrency.limit))
    draft.note("workflow", "waits_for_its_turn", after=draft.status, details=details)


def _admitted(draft: Draft, event: Admitted) -> Verdict:
    if event.step is not None:
        step = draft.step(event.step)
        if not waits_for_turn(step):
            return Verdict.IGNORED
        admit(draft, step)
        return Verdict.APPLIED
    if draft.status is not WorkflowStatus.QUEUED:
        return Verdict.IGNORED
    draft.signal(WorkflowSignal.ADMIT, "its_turn")
    forward.begin(draft)
    return Verdict.APPLIED


def advance(
    definition: Definition, workflow: Workflow, event: Event, *, now: datetime, render: Render
) -> Changes:
    """Apply `event` to `workflow`. Raises `IllegalTransition`, and then nothing has changed.

    What other workflows tell raises nothing: that it came in vain stands in the history.
    """
    at = Circumstances(now, event.actor, render)
    draft = Draft(definition, workflow, at)
    try:
        return draft.changes(_apply(draft, workflow, event))
    except IllegalTransition as error:
        if not isinstance(event, Told):
            raise
        return _refused(Draft(definition, workflow, at), event, error)


def _refused(draft: Draft, event: Told, error: IllegalTransition) -> Changes:
    """Note a letter that cannot be heeded: nobody waits for an answer, and it is not kept."""
    told = event.status if isinstance(event, ChildTold) else type(event).__name__
    step = draft.step(event.step) if isinstance(event, ChildTold) else None
    details = error_body(error.code, error.message, told=told)
    draft.note("child" if step else "parent", "refused", step=step, details=details)
    return draft.changes(Verdict.LATE)


def _apply(draft: Draft, workflow: Workflow, event: Event) -> Verdict:
    match event:
        case Answered() | LeaseEnded() | Heartbeat():
            return _attempted(draft, event)
        case TimerFired():
            return _timer_fired(draft, event)
        case SignalSent():
            return _signal_sent(draft, workflow, event)
        case ChildTold():
            return _child_told(draft, event)
        case ParentTurnedBack() | ParentTerminated():
            return _told_by_parent(draft, event)
        case Admitted() | CancelRequested() | DeadlinePassed() | RollbackReviewed():
            return _of_workflow(draft, workflow, event)
        case _:
            return operators.apply(draft, event)


def _of_workflow(
    draft: Draft,
    workflow: Workflow,
    event: Admitted | CancelRequested | DeadlinePassed | RollbackReviewed,
) -> Verdict:
    match event:
        case Admitted():
            return _admitted(draft, event)
        case CancelRequested():
            return _cancel(draft, event)
        case DeadlinePassed():
            return _deadline(draft, workflow)
        case RollbackReviewed():
            return _review(draft)


def _signal_sent(draft: Draft, workflow: Workflow, event: SignalSent) -> Verdict:
    if event.id in workflow.heard:
        return Verdict.DUPLICATE
    if event.id:
        draft.set(heard=workflow.heard | {event.id})
    step = waits.signal_sent(draft, event)
    if step is not None:
        forward.concluded(draft, step)
    return Verdict.APPLIED


def _attempted(draft: Draft, event: Attempted) -> Verdict:
    match event:
        case Answered():
            return answered(draft, event)
        case LeaseEnded():
            return lease_ended(draft, event)
        case Heartbeat():
            return heartbeat(draft, event)


def _child_told(draft: Draft, event: ChildTold) -> Verdict:
    before = draft.step(event.step).status
    step, verdict = children.told(draft, event)
    if step.status is before:
        return verdict
    if step.status in UNDOING:
        undone(draft, step)
    elif step.is_item:
        item_ended(draft, step)
    elif step.status is StepStatus.FAILED:
        forward.failed(draft, step)
    else:
        forward.concluded(draft, step)
    return verdict


def _told_by_parent(draft: Draft, event: ParentTurnedBack | ParentTerminated) -> Verdict:
    if isinstance(event, ParentTurnedBack):
        return _parent_turned_back(draft, event)
    if draft.status in WORKFLOW_ENDS:
        return Verdict.IGNORED
    operators.stop_all(draft, event.reason)
    return Verdict.APPLIED


def _parent_turned_back(draft: Draft, event: ParentTurnedBack) -> Verdict:
    """Turn back as the parent did, even after the end; say so if that cannot be."""
    if draft.status is WorkflowStatus.ROLLED_BACK:
        draft.tell_parent()
        return Verdict.APPLIED
    if draft.turning_back and draft.status is not WorkflowStatus.TERMINATED:
        return Verdict.IGNORED  # it tells when it is undone
    if draft.status is WorkflowStatus.TERMINATED or _pivot_claimed(draft):
        past = (
            "was terminated" if draft.status is WorkflowStatus.TERMINATED else "is past its pivot"
        )
        error = error_body("child_kept", f"the child {past}, so it cannot be undone")
        draft.tell_parent(kept=True, error=error)
        return Verdict.APPLIED
    turn_back(draft, event.reason, cause="parent_turned_back")
    return Verdict.APPLIED


def _timer_fired(draft: Draft, event: TimerFired) -> Verdict:
    step, verdict = waits.fired(draft, draft.step(event.step))
    if step.status is StepStatus.SUCCEEDED and verdict is Verdict.APPLIED:
        forward.concluded(draft, step)
    elif step.status is StepStatus.FAILED and verdict is Verdict.APPLIED:
        forward.failed(draft, step)
    return verdict


def _cancel(draft: Draft, event: CancelRequested) -> Verdict:
    if draft.status in (WorkflowStatus.QUEUED, WorkflowStatus.IN_PROGRESS):
        if _pivot_claimed(draft):
            raise IllegalTransition("workflow", "past its pivot", "cancel")
        said = operators.said(event.reason)
        turn_back(draft, Reason.CANCELLED, cause="cancelled", details=said)
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
        until = _first_claim_ends(draft)
        if until is not None and until <= draft.now:
            return Verdict.IGNORED  # its lease is over, and somebody is about to say so
        draft.set(deadline_at=until)
        if until is None:
            draft.note("deadline_ignored", "past_pivot")
        else:
            draft.note("deadline_deferred", "pivot_claimed")
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
    """Whether a pivot is held by a sidecar, or was called; not if its claims were given back."""
    return bool(_pivots_begun(draft))


def _pivots_begun(draft: Draft) -> list[Step]:
    pivots = [draft.named(name) for name in draft.definition.pivots]
    return [one for one in pivots if one.may_have_effect or one.execute.started_at is not None]


def _first_claim_ends(draft: Draft) -> datetime | None:
    """When a pivot's claim that may yet be given back ends at the latest; None if one was called.

    Until then nobody knows whether the workflow is past it.
    """
    ends = None
    for one in _pivots_begun(draft):
        first = one.execute.started_at == one.execute.claimed_at
        if one.may_have_effect or not first or not under_way(one):
            return None
        ends = one.lease_until
    return ends
