"""Children: steps that run another definition, as a workflow of its own.

A child's id is made from its parent, the step, the item and, if a person had it begin anew, the
number of that, so started twice it is one. What parent and child tell each other goes by letters,
kept in the same transaction as what they tell of. The end of a child is final only together with
its root: its parent, and nobody else, may turn back a child that has completed.
"""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga.bodies import error_body, misfit
from sidecar.saga.changes import ChildStart, Verdict
from sidecar.saga.definition import JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.events import ChildTold, ParentTurnedBack
from sidecar.saga.states import Reason, StepSignal, StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, Parent, Step, StepKey, WorkflowId

MAX_DEPTH = 8
"""How many generations a root may have below it."""

MOST_AT_ONCE = 4_000
"""How many children, with theirs, one transaction may start: more might never get to its end."""


def child_id(parent: WorkflowId, key: StepKey, retries: int = 0) -> WorkflowId:
    """Return the id of the child of a step: a UUID of version 7 (RFC 9562) that sorts with it.

    `retries` says how often the step began anew: the first child's id is made without.
    """
    again = f"/{retries}" if retries else ""
    digest = hashlib.sha256(f"{parent}/{key.step}/{key.index}{again}".encode()).hexdigest()
    variant = "89ab"[int(digest[0], 16) % 4]
    return WorkflowId(f"{parent[:13]}-7{digest[1:4]}-{variant}{digest[4:7]}-{digest[7:19]}")


def id_of(parent: WorkflowId, step: Step) -> WorkflowId:
    """Return the id of the newest child of a step: each that it began anew was an attempt."""
    return child_id(parent, step.key, step.execute.attempt)


def body_of(draft: Draft, defined: StepDefinition, step: Step) -> JsonText:
    """Return what the child of a step is given. Raises `RenderError`."""
    if defined.input is not None:
        return draft.rendered(defined.input, step)
    return draft.element(step.key) if step.is_item else draft.input


def begin(
    draft: Draft,
    defined: StepDefinition,
    step: Step,
    body: JsonText,
    details: JsonText | None = None,
) -> Step:
    """Start the child of a step, and let the step wait for it. Raises `RenderError`."""
    child = defined.child
    if child is None:
        raise AssertionError(f"{step.key} runs no child")
    above = draft.parent
    depth = 1 if above is None else above.depth + 1
    if depth > MAX_DEPTH:
        raise RenderError(f"children of children go at most {MAX_DEPTH} levels deep")
    root = draft.id if above is None else above.root
    namespace = draft.definition.namespace
    draft.start_child(
        ChildStart(
            id=id_of(draft.id, step),
            parent=Parent(draft.id, step.key, root, depth),
            definition=DefinitionRef(namespace, child.definition, child.version),
            input=body,
            # Past a pivot a deadline only alerts: what has to be done is not turned back by it.
            deadline_at=None if draft.past_pivot(defined.name) else draft.deadline_at,
            trace=draft.trace,
        )
    )
    # From now on it may do anything: whatever it did, it alone can say.
    return draft.move(
        step,
        StepSignal.AWAIT,
        "starts_child",
        details=details,
        input=body,
        may_have_effect=True,
        due_at=None,
        stored=True,
    )


def turn_back(draft: Draft, step: Step) -> None:
    """Have the child of a step undone; the step waits for the end of that."""
    reason = draft.reason or Reason.FAILED
    draft.tell(id_of(draft.id, step), ParentTurnedBack(reason))


def begin_undo(draft: Draft, step: Step) -> Step:
    """Begin to undo the child of a step."""
    moved = draft.move(step, StepSignal.COMPENSATE, "undo", due_at=None, lease_until=None)
    turn_back(draft, moved)
    return moved


def told(draft: Draft, event: ChildTold) -> tuple[Step, Verdict]:
    """Apply what a child tells; return its step, moved if that was an end of it."""
    step = draft.step(event.step)
    undoing = step.status is StepStatus.COMPENSATING
    if event.child is not None and event.child != id_of(draft.id, step):
        details = error_body(
            "earlier_child", f"{event.child} is {event.status}; it is not waited for"
        )
        draft.note("child", "late", step=step, details=details)
        return step, Verdict.LATE
    if step.status is not StepStatus.WAITING and not undoing:
        return step, Verdict.DUPLICATE
    match event.status:
        case WorkflowStatus.COMPLETED if not undoing and not event.kept:
            moved = _completed(draft, step, event)
        case WorkflowStatus.ROLLED_BACK if undoing:
            moved = draft.move(step, StepSignal.UNDO, "child_rolled_back")
        case WorkflowStatus.ROLLED_BACK:
            undone = replace(step, may_have_effect=False, error=event.error)
            moved = draft.move(undone, StepSignal.FAIL, "child_rolled_back")
        case WorkflowStatus.TERMINATED if undoing and not event.kept:
            moved = draft.move(
                step, StepSignal.GIVE_UP, "child_terminated", compensation_error=_why(event)
            )
        case WorkflowStatus.TERMINATED if draft.turning_back and not undoing:
            # It will not end otherwise; what it did is owed, and a person is needed for that.
            moved = draft.move(step, StepSignal.FAIL, "child_terminated", error=_why(event))
        case _ if undoing and event.kept:
            moved = draft.move(
                step, StepSignal.GIVE_UP, "child_kept", compensation_error=event.error
            )
        case _:
            return _stands(draft, step, event), Verdict.APPLIED
    return moved, Verdict.APPLIED


def _completed(draft: Draft, step: Step, event: ChildTold) -> Step:
    """End a step by its child; if the output cannot be used it failed, and is yet to be undone."""
    check = draft.definition.by_name[step.key.step].output_check
    error = misfit(check, event.output, "output")
    if error is None:
        return draft.move(step, StepSignal.SUCCEED, "child_completed", output=event.output)
    return draft.move(step, StepSignal.FAIL, "output_invalid", error=error)


def _stands(draft: Draft, step: Step, event: ChildTold) -> Step:
    """Keep in sight that a child needs a person."""
    name = "error" if step.status is StepStatus.WAITING else "compensation_error"
    draft.note("child", event.status, step=step, details=event.error)
    return draft.put(replace(step, **{name: _why(event)}))


def _why(event: ChildTold) -> JsonText:
    body = error_body(f"child_{event.status}", f"the child of the step is {event.status}")
    return event.error or body
