"""What is owed: effects that are there, or may be, in a workflow that does not go forward any more.

A workflow that turned back owes them their undoing, and works on it. One that was terminated owes
them to somebody who decides what is to become of them, until its rerun takes them over. Whether an
effect is owed does not depend on how the definition wants it undone: `central` and `service` are
the same here.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.saga.definition import Definition, StepDefinition
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, Workflow, WorkflowId

_NOTHING_LEFT = frozenset({StepStatus.PENDING, StepStatus.CANCELLED, StepStatus.COMPENSATED})


def is_owed(defined: StepDefinition, step: Step) -> bool:
    """Whether a step has, or may have, an effect that is to be undone, begun with that or not."""
    effect = step.may_have_effect and not defined.no_effect
    return effect and step.status not in _NOTHING_LEFT


def owes(definition: Definition, steps: Iterable[Step]) -> bool:
    """Whether anything is owed of these steps; of fan-outs it is enough to see the steps."""
    return any(is_owed(definition.by_name[one.key.step], one) for one in steps if not one.is_item)


def may_owe(
    status: WorkflowStatus, *, turning_back: bool, taken_over_by: WorkflowId | None
) -> bool:
    """Whether a workflow that stands so goes forward no more, and no other owes what it did."""
    return (status is WorkflowStatus.TERMINATED or turning_back) and taken_over_by is None


def still_owes(workflow: Workflow) -> bool:
    """The same of a workflow as it is kept."""
    return may_owe(
        workflow.status,
        turning_back=workflow.turning_back,
        taken_over_by=workflow.taken_over_by,
    )


def debts_of(definition: Definition, workflow: Workflow) -> list[Step]:
    """Return what a workflow that was read whole owes: calls, and items of fan-outs."""
    if not still_owes(workflow):
        return []
    return [
        step
        for step in workflow.steps.values()
        if step.fan is None and is_owed(definition.by_name[step.key.step], step)
    ]
