"""Going back: stop what has not been sent, await what has, undo what was done.

A step is undone after everything that depended on it has been undone or turned out to have
had no effect; steps that do not depend on each other are undone in parallel. What cannot be
undone ends in `compensation_failed`, holds up only the steps it depended on, and puts the
workflow in `error` for a person.
"""

from __future__ import annotations

from sidecar.errors import RenderError
from sidecar.saga.bodies import at_step, error_body
from sidecar.saga.definition import JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.states import (
    OPEN,
    Reason,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)
from sidecar.saga.workflow import Step, StepKey


def failed(draft: Draft, step: Step) -> None:
    """Draw the conclusion from a step that has just failed for good."""
    defined = draft.definition.by_name[step.key.step]
    error = at_step(step.error, str(step.key))
    if draft.turning_back:
        unwind(draft)
    elif draft.definition.past_pivot(defined.name) or (defined.pivot and step.may_have_effect):
        if draft.status is WorkflowStatus.IN_PROGRESS:
            draft.signal(WorkflowSignal.BREAK, "failed_past_pivot", error=error)
    else:
        turn_back(draft, Reason.FAILED, cause="step_failed", error=error, own=step.key)


def turn_back(
    draft: Draft,
    reason: Reason,
    *,
    cause: str,
    error: JsonText | None = None,
    own: StepKey | None = None,
) -> None:
    """Turn the workflow back.

    Steps that wait to be called are cancelled, or count as failed if an earlier attempt may
    have had an effect; steps that are being called stay, since their answer decides. `own` is
    the step whose own transition this belongs to.
    """
    fields = {"reason": reason} if error is None else {"reason": reason, "error": error}
    draft.signal(WorkflowSignal.TURN_BACK, cause, **fields)
    for defined in draft.definition.steps:
        step = draft.named(defined.name)
        if step.status in (StepStatus.QUEUED, StepStatus.RETRYING):
            draft.takes_away = draft.takes_away or (step.stored and step.key != own)
            stop(draft, step, cause)
        elif step.status is StepStatus.PENDING:
            draft.move(step, StepSignal.CANCEL, cause, stored=True)
    unwind(draft)


def stop(draft: Draft, step: Step, cause: str) -> None:
    """End a step that is not being called: failed if it may have had an effect."""
    signal = StepSignal.FAIL if step.may_have_effect else StepSignal.CANCEL
    draft.move(step, signal, cause, due_at=None, lease_until=None)


def owes_compensation(defined: StepDefinition, step: Step) -> bool:
    """Whether the step has an effect that is still to be undone and not yet being undone."""
    return (
        step.status in (StepStatus.SUCCEEDED, StepStatus.FAILED)
        and step.may_have_effect
        and not defined.no_effect
    )


def unwind(draft: Draft) -> None:
    """Begin every compensation whose turn has come; end the rollback if none is left."""
    definition = draft.definition
    holding: set[str] = set()
    for name in reversed(definition.topological):
        step = draft.named(name)
        if owes_compensation(definition.by_name[name], step):
            if holding.isdisjoint(definition.descendants[name]):
                step = _begin(draft, definition.by_name[name], step)
            else:
                holding.add(name)
        if step.status in OPEN or step.status is StepStatus.COMPENSATION_FAILED:
            holding.add(name)
    statuses = {step.status for step in draft.steps.values()}
    if StepStatus.COMPENSATION_FAILED in statuses:
        _break(draft)
    elif not holding and draft.status is WorkflowStatus.ROLLING_BACK:
        draft.signal(WorkflowSignal.UNWIND, "all_undone")


def _begin(draft: Draft, defined: StepDefinition, step: Step) -> Step:
    compensation = defined.compensation
    if compensation is None:
        body = error_body("no_compensation", "the definition names no way to undo this step")
        return draft.move(
            step, StepSignal.GIVE_UP, "no_compensation", compensation_error=body, due_at=None
        )
    try:
        rendered = draft.rendered(compensation.input) if compensation.input else None
    except RenderError as error:
        body = error_body(error.code, error.message)
        return draft.move(
            step, StepSignal.GIVE_UP, "render_failed", compensation_error=body, due_at=None
        )
    return draft.move(
        step,
        StepSignal.COMPENSATE,
        "undo",
        compensation_input=rendered,
        due_at=draft.now,
        lease_until=None,
        call_ms=max(1, round(compensation.timeout.total_seconds() * 1000)),
    )


def _break(draft: Draft) -> None:
    if draft.status is WorkflowStatus.ROLLING_BACK:
        failures = [
            step for step in draft.steps.values() if step.status is StepStatus.COMPENSATION_FAILED
        ]
        error = at_step(failures[0].compensation_error, str(failures[0].key))
        draft.signal(WorkflowSignal.BREAK, "compensation_failed", error=error)
