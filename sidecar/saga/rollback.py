"""Going back: stop what has not been sent, await what has, undo what was done.

A step is undone after everything that depended on it has been undone or turned out to have
had no effect; steps that do not depend on each other are undone in parallel. A definition may
want it strictly one by one instead, or all at once. What cannot be undone ends in
`compensation_failed`, holds up only the steps it depended on, and puts the workflow in `error`
for a person.
"""

from __future__ import annotations

from sidecar.saga import children, fan_out
from sidecar.saga.bodies import at_step
from sidecar.saga.definition import JsonText, Order
from sidecar.saga.draft import Draft
from sidecar.saga.queueing import CAN_BE_STOPPED, stop, under_way
from sidecar.saga.states import (
    OPEN,
    Reason,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)
from sidecar.saga.undoing import begin_undo, owes_compensation
from sidecar.saga.workflow import Step, StepKey


def failed(draft: Draft, step: Step, error: JsonText | None = None) -> None:
    """Draw the conclusion from a step that has just failed for good."""
    defined = draft.definition.by_name[step.key.step]
    error = error or at_step(step.error, str(step.key))
    if draft.turning_back:
        unwind(draft)
    elif draft.past_pivot(defined.name) or (defined.pivot and step.may_have_effect):
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
    details: JsonText | None = None,
) -> None:
    """Turn the workflow back.

    Steps that wait to be called are cancelled, or count as failed if an earlier attempt may
    have had an effect; steps that are being called stay, since their answer decides. Nobody waits
    any longer for callbacks, timers and signals. `own` is the step whose own transition this
    belongs to.
    """
    fields = {"reason": reason} if error is None else {"reason": reason, "error": error}
    draft.signal(WorkflowSignal.TURN_BACK, cause, details=details, **fields)
    for defined in draft.definition.steps:
        step = draft.named(defined.name)
        if step.fan is not None and step.status is StepStatus.WAITING:
            fan_out.close(draft, step, cause)
        elif defined.child is not None and step.status is StepStatus.WAITING:
            children.turn_back(draft, step)
        elif step.status in CAN_BE_STOPPED and not under_way(step):
            draft.takes_away = draft.takes_away or (step.stored and step.key != own)
            stop(draft, step, cause)
        elif step.status is StepStatus.PENDING:
            draft.move(step, StepSignal.CANCEL, cause, stored=True)
    unwind(draft)


def unwind(draft: Draft) -> None:
    """Begin every compensation whose turn has come; end the rollback if none is left."""
    definition = draft.definition
    holding: set[str] = set()
    broken = False
    for name in reversed(definition.topological):
        step = draft.named(name)
        defined = definition.by_name[name]
        if owes_compensation(defined, step):
            if _is_held(definition.order, holding, definition.descendants[name]):
                holding.add(name)
            elif step.fan is not None:
                step = fan_out.begin_undo_of_items(draft, step)
            elif defined.child is not None:
                step = children.begin_undo(draft, step)
            else:
                step = begin_undo(draft, defined, step)
        if step.status in OPEN or step.status is StepStatus.COMPENSATION_FAILED:
            holding.add(name)
        broken = broken or _could_not_be_undone(step)
    if broken:
        _break(draft)
    elif not holding and draft.status is WorkflowStatus.ROLLING_BACK:
        draft.signal(WorkflowSignal.UNWIND, "all_undone")


def _is_held(order: Order, holding: set[str], descendants: frozenset[str]) -> bool:
    """Whether a step has to wait for one of those in `holding`."""
    match order:
        case Order.PARALLEL:
            return False
        case Order.SEQUENTIAL:
            return bool(holding)
        case Order.REVERSE:
            return not holding.isdisjoint(descendants)


def failures(draft: Draft) -> list[Step]:
    """The steps that could not be undone."""
    steps = (draft.named(one.name) for one in draft.definition.steps)
    return [step for step in steps if _could_not_be_undone(step)]


def _could_not_be_undone(step: Step) -> bool:
    """Whether a person is needed, though other items of the step may still be on their way."""
    kept = step.fan is not None and step.fan.kept > 0
    return step.status is StepStatus.COMPENSATION_FAILED or (
        kept and step.status is StepStatus.COMPENSATING
    )


def _break(draft: Draft) -> None:
    if draft.status is WorkflowStatus.ROLLING_BACK:
        first = failures(draft)[0]
        if first.fan is not None:
            first = _item_that_failed(draft, first)
        error = at_step(first.compensation_error, str(first.key))
        draft.signal(WorkflowSignal.BREAK, "compensation_failed", error=error)


def _item_that_failed(draft: Draft, step: Step) -> Step:
    """The first item of a step that is known not to have been undone; or else the step."""
    for one in draft.in_order():
        own = one.is_item and one.key.step == step.key.step
        if own and one.status is StepStatus.COMPENSATION_FAILED:
            return one
    return step
