"""What must hold in every stored state of a workflow.

Used three times: by the memory store before it commits, by the stores' conformance suite, and
by the simulator after every commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sidecar.saga.debts import owes, still_owes
from sidecar.saga.definition import Definition, Join, Order, StepDefinition
from sidecar.saga.states import (
    CLAIMABLE,
    OPEN,
    UNDOING,
    WORKFLOW_ENDS,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.turns import (
    InLine,
    Stand,
    Standing,
    TurnKey,
    standing_of_step,
    standing_of_workflow,
    turn_of,
)
from sidecar.saga.undoing import owes_compensation
from sidecar.saga.workflow import Fan, Step, StepKey, Workflow


def violations(definition: Definition, workflow: Workflow) -> list[str]:
    """Return what is wrong with a whole `workflow`, in words; empty when all is well."""
    return [*_of_workflow(definition, workflow), *_of_steps(definition, workflow)]


def misplaced(
    definition: Definition,
    workflow: Workflow,
    standing: Callable[[TurnKey, InLine], Standing],
) -> list[str]:
    """Return what is wrong with the places that a whole workflow and its steps have, in words.

    `standing` is what a store keeps of them. A place is had by just those that are under way.
    """
    found = []
    mine = turn_of(workflow)
    if mine is not None:
        kept = standing(mine, InLine(workflow.id))
        due = standing_of_workflow(definition, workflow)
        # One that had given its place back goes on without one: a child that had completed, or one
        # that was in `error`, also if it is past its pivot and goes on forward.
        turns = definition.concurrency
        gave_back = workflow.turning_back or (turns is not None and turns.release_on_error)
        without = due is Standing.HAS_PLACE and gave_back
        if kept is not due and not (without and kept is Standing.NONE):
            found.append(f"the workflow is {workflow.status} and its place is kept as: {kept}")
    for step in workflow.steps.values():
        turn = turn_of(workflow, step)
        if turn is not None:
            kept = standing(turn, InLine(workflow.id, step.key))
            if kept is not standing_of_step(step):
                found.append(f"{step.key} is {step.status} and its place is kept as: {kept}")
    return found


def crowded(stands: Iterable[Stand]) -> list[str]:
    """Return what is wrong with the places of one key: more may not have one than is allowed.

    Where versions of a definition allow different numbers, the greatest counts.
    """
    placed = [one for one in stands if one.standing is Standing.HAS_PLACE]
    most = max((one.limit for one in placed), default=0)
    if len(placed) <= most:
        return []
    return [f"{len(placed)} have a place of {placed[0].turn}, and {most} may"]


def _of_workflow(definition: Definition, workflow: Workflow) -> Iterator[str]:
    steps = workflow.steps.values()
    status = workflow.status
    open_steps = [step for step in steps if step.status in OPEN]
    if status in WORKFLOW_ENDS:
        if workflow.ended_at is None:
            yield f"{status} without an end time"
        yield from (f"{status} with {step.key} still {step.status}" for step in open_steps)
    if status is WorkflowStatus.COMPLETED:
        missing = [one.name for one in definition.steps if not _has_passed(workflow, one)]
        yield from (f"completed but {name} has not passed" for name in missing)
    if status is WorkflowStatus.ROLLED_BACK:
        for step in steps:
            if owes_compensation(definition.by_name[step.key.step], step):
                yield f"rolled back but {step.key} is still owed its compensation"
            if step.status is StepStatus.COMPENSATION_FAILED:
                yield f"rolled back but the compensation of {step.key} failed"
    yield from _of_debts(definition, workflow)
    yield from _of_direction(workflow, under_way=bool(open_steps))


def _of_debts(definition: Definition, workflow: Workflow) -> Iterator[str]:
    owed = still_owes(workflow) and owes(definition, workflow.steps.values())
    if owed and workflow.owes_since is None:
        yield "owes effects their undoing and does not say so"
    if not owed and workflow.owes_since is not None:
        yield "says that it owes effects their undoing, and owes none"
    if owed and workflow.status in (WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK):
        yield f"{workflow.status} while effects are owed their undoing"


def _has_passed(workflow: Workflow, defined: StepDefinition) -> bool:
    step = workflow.steps.get(StepKey(defined.name))
    if step is None:
        return False
    optional = step.status is StepStatus.FAILED and defined.optional
    return optional or step.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)


def _of_direction(workflow: Workflow, *, under_way: bool) -> Iterator[str]:
    status = workflow.status
    if status is WorkflowStatus.QUEUED and (workflow.turn is None or under_way):
        yield "queued without a turn to wait for, or with open steps"
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
        defined = definition.by_name[step.key.step]
        wrongs = (*_of_step(defined, step), *_of_turn(defined, step))
        yield from (f"{step.key}: {wrong}" for wrong in wrongs)
        if step.fan is not None:
            yield from (f"{step.key}: {wrong}" for wrong in _of_items(workflow, step, step.fan))
        if step.status in UNDOING:
            yield from _of_undoing(definition, workflow, step)
        elif step.execute.attempt:
            yield from _of_executed(definition, workflow, step)


def _of_step(defined: StepDefinition, step: Step) -> Iterator[str]:
    for what, run in (("execute", step.execute), ("compensate", step.compensate)):
        if not run.answered <= run.closed <= run.attempt or run.tries > run.attempt:
            yield f"{what} counters do not fit: {run}"
    is_call = defined.wait is None and defined.child is None and step.fan is None
    if step.status is StepStatus.RUNNING and not step.leased:
        yield "running without a lease"
    if step.leased and not step.awaiting and step.status not in _HELD:
        yield f"{step.status} with a lease"
    if step.awaiting and not (step.leased and step.status in _AWAITING):
        yield f"{step.status}, awaiting a callback without an end"
    if is_call and step.status in CLAIMABLE and not step.leased and step.due_at is None:
        yield f"{step.status} but never due"
    if is_call and step.status is StepStatus.WAITING and not step.awaiting and step.turn is None:
        yield "waiting for nothing"
    if is_call and step.status is StepStatus.SUCCEEDED and not step.may_have_effect:
        yield "succeeded without an effect"
    if step.status is StepStatus.IN_DOUBT and not (step.may_have_effect and step.doubt_at):
        yield "in doubt without reason or end"


def _of_turn(defined: StepDefinition, step: Step) -> Iterator[str]:
    takes_turns = defined.concurrency is not None and step.fan is None
    if step.turn is not None and not takes_turns:
        yield "takes turns, and its definition says nothing of it"
    forward = step.status in OPEN and step.status is not StepStatus.COMPENSATING
    if takes_turns and step.turn is None and forward:
        yield f"{step.status} without a turn"


_HELD = (StepStatus.RUNNING, StepStatus.COMPENSATING, StepStatus.IN_DOUBT)
_AWAITING = (StepStatus.WAITING, StepStatus.COMPENSATING)


def _of_items(workflow: Workflow, step: Step, fan: Fan) -> Iterator[str]:
    """The counters of a fan-out against its items."""
    items = [
        one for one in workflow.steps.values() if one.is_item and one.key.step == step.key.step
    ]
    forward = [one for one in items if one.status in OPEN and one.status not in UNDOING]
    counted = {
        "open": (fan.open, len(forward)),
        "failed": (fan.failed, sum(one.status is StepStatus.FAILED for one in items)),
        "undoing": (fan.undoing, sum(one.status is StepStatus.COMPENSATING for one in items)),
        "kept": (fan.kept, sum(one.status is StepStatus.COMPENSATION_FAILED for one in items)),
    }
    if workflow.turning_back:
        del counted["failed"]  # undone since
    for name, (said, found) in counted.items():
        if said != found:
            yield f"counts {said} items as {name} where there are {found}"
    if fan.opened > fan.total or any(one.key.index >= fan.opened for one in items):
        yield f"has items beyond the {fan.opened} of {fan.total} that had their turn"
    if step.status is StepStatus.SUCCEEDED and (fan.open or fan.opened < fan.total):
        yield "succeeded before all of its items ended"
    moving = workflow.status in (WorkflowStatus.IN_PROGRESS, WorkflowStatus.ROLLING_BACK)
    if moving and step.status is StepStatus.WAITING and not forward:
        yield "waits for items, but none is under way: limbo"
    effects = any(one.may_have_effect for one in items)
    if effects and not step.may_have_effect and not forward:
        yield "does not know of the effects of its items"


def _of_executed(definition: Definition, workflow: Workflow, step: Step) -> Iterator[str]:
    if workflow.turning_back or workflow.status in WORKFLOW_ENDS:
        return
    defined = definition.by_name[step.key.step]
    before = [definition.by_name[name] for name in defined.after]
    missing = [one.name for one in before if not _has_passed(workflow, one)]
    some = any(
        (earlier := workflow.steps.get(StepKey(one.name))) is not None
        and earlier.status is StepStatus.SUCCEEDED
        for one in before
    )
    if missing and not (defined.join is Join.ANY and some):
        yield f"{step.key}: was called before {', '.join(missing)} had passed"


def _of_undoing(definition: Definition, workflow: Workflow, step: Step) -> Iterator[str]:
    if not workflow.turning_back and workflow.status is not WorkflowStatus.TERMINATED:
        yield f"{step.key}: {step.status} in a workflow that goes forward"
    if not step.may_have_effect:
        yield f"{step.key}: {step.status} without an effect"
    if step.compensate.attempt == 0 or workflow.status is WorkflowStatus.TERMINATED:
        return
    for name in _undone_first(definition, step.key.step):
        later = workflow.steps.get(StepKey(name))
        if later is None:
            continue
        owed = owes_compensation(definition.by_name[name], later)
        if owed or later.status in OPEN or later.status is StepStatus.COMPENSATION_FAILED:
            yield f"{step.key}: undone before {name}, which is {later.status}"


def _undone_first(definition: Definition, name: str) -> Iterable[str]:
    """The steps that must have been undone before step `name` is."""
    match definition.order:
        case Order.PARALLEL:
            return ()
        case Order.SEQUENTIAL:
            order = definition.topological
            return order[order.index(name) + 1 :]
        case Order.REVERSE:
            return definition.descendants[name]
