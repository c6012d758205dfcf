"""What must hold in every stored state of a workflow.

Used three times: by the memory store before it commits, by the stores' conformance suite, and
by the simulator after every commit.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.saga.definition import Definition
from sidecar.saga.rollback import owes_compensation
from sidecar.saga.states import (
    CLAIMABLE,
    OPEN,
    WORKFLOW_ENDS,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.workflow import Step, StepKey, Workflow

_UNDOING = frozenset(
    {StepStatus.COMPENSATING, StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED}
)


def violations(definition: Definition, workflow: Workflow) -> list[str]:
    """Return what is wrong with `workflow`, in words; empty when all is well."""
    return [*_of_workflow(definition, workflow), *_of_steps(definition, workflow)]


def _of_workflow(definition: Definition, workflow: Workflow) -> Iterator[str]:
    steps = workflow.steps.values()
    status = workflow.status
    open_steps = [step for step in steps if step.status in OPEN]
    if status in WORKFLOW_ENDS:
        if workflow.ended_at is None:
            yield f"{status} without an end time"
        yield from (f"{status} with {step.key} still {step.status}" for step in open_steps)
    if status is WorkflowStatus.COMPLETED:
        missing = [
            one.name
            for one in definition.steps
            if StepKey(one.name) not in workflow.steps
            or workflow.steps[StepKey(one.name)].status is not StepStatus.SUCCEEDED
        ]
        yield from (f"completed but {name} has not succeeded" for name in missing)
    if status is WorkflowStatus.ROLLED_BACK:
        for step in steps:
            if owes_compensation(definition.by_name[step.key.step], step):
                yield f"rolled back but {step.key} is still owed its compensation"
            if step.status is StepStatus.COMPENSATION_FAILED:
                yield f"rolled back but the compensation of {step.key} failed"
    yield from _of_direction(workflow, under_way=bool(open_steps))


def _of_direction(workflow: Workflow, *, under_way: bool) -> Iterator[str]:
    status = workflow.status
    moving = (WorkflowStatus.IN_PROGRESS, WorkflowStatus.ROLLING_BACK)
    if status in moving and not under_way:
        yield f"{status} but nothing is under way: limbo"
    back = (WorkflowStatus.ROLLING_BACK, WorkflowStatus.ROLLED_BACK)
    if status in back and workflow.reason is None:
        yield f"{status} without a reason"
    ahead = (WorkflowStatus.QUEUED, WorkflowStatus.IN_PROGRESS, WorkflowStatus.COMPLETED)
    if status in ahead and workflow.reason is not None:
        yield f"{status} with reason {workflow.reason}"


def _of_steps(definition: Definition, workflow: Workflow) -> Iterator[str]:
    for step in workflow.steps.values():
        name = str(step.key)
        for what, run in (("execute", step.execute), ("compensate", step.compensate)):
            if not run.answered <= run.closed <= run.attempt or run.tries > run.attempt:
                yield f"{name}: {what} counters do not fit: {run}"
        if step.status is StepStatus.RUNNING and not step.leased:
            yield f"{name}: running without a lease"
        if step.leased and step.status not in (StepStatus.RUNNING, StepStatus.COMPENSATING):
            yield f"{name}: {step.status} with a lease"
        if step.status in CLAIMABLE and not step.leased and step.due_at is None:
            yield f"{name}: {step.status} but never due"
        if step.status is StepStatus.SUCCEEDED and not step.may_have_effect:
            yield f"{name}: succeeded without an effect"
        if step.status in _UNDOING:
            yield from _of_undoing(definition, workflow, step)
        elif step.execute.attempt:
            yield from _of_executed(definition, workflow, step)


def _of_executed(definition: Definition, workflow: Workflow, step: Step) -> Iterator[str]:
    for before in definition.by_name[step.key.step].after:
        earlier = workflow.steps.get(StepKey(before))
        if earlier is None or (
            earlier.status is not StepStatus.SUCCEEDED and not workflow.turning_back
        ):
            yield f"{step.key}: was called before {before} had passed"


def _of_undoing(definition: Definition, workflow: Workflow, step: Step) -> Iterator[str]:
    if not workflow.turning_back:
        yield f"{step.key}: {step.status} in a workflow that goes forward"
    if not step.may_have_effect:
        yield f"{step.key}: {step.status} without an effect"
    if step.compensate.attempt == 0:
        return
    for name in definition.descendants[step.key.step]:
        later = workflow.steps.get(StepKey(name))
        if later is None:
            continue
        owed = owes_compensation(definition.by_name[name], later)
        if owed or later.status in OPEN or later.status is StepStatus.COMPENSATION_FAILED:
            yield f"{step.key}: undone before {name}, which is {later.status}"
