"""What a transition needs of a workflow that has fan-outs: a part that does not grow with them.

A store reads this part, and reads the whole only when the machine says that it needs it, which
raises `IncompleteState`: when a fan-out begins to be undone, when its whole output is read, when
a person asks for something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec.structs import replace

from sidecar.saga.definition import Definition, FanOut
from sidecar.saga.fan_out import MOST_NEXT
from sidecar.saga.states import StepStatus
from sidecar.saga.undoing import owes_compensation
from sidecar.saga.workflow import Fan, Step, StepKey, Workflow


def fans_of(workflow: Workflow) -> dict[str, Step]:
    """Return the steps that have items, by their names."""
    return {
        step.key.step: step
        for step in workflow.steps.values()
        if step.fan is not None and step.fan.total
    }


def part(definition: Definition, workflow: Workflow, keys: Collection[StepKey]) -> Workflow:
    """Return the part of a whole `workflow` that events about the steps `keys` need.

    That is all but its items, and of these the ones named by `keys` and, of each fan-out, those
    whose turn is next: to be opened for as many as there is room, to be undone as many as `keys`.
    """
    fans = fans_of(workflow)
    if not fans:
        return workflow
    wanted = {key for key in keys if key in workflow.steps}
    coming: set[StepKey] = set()
    for name, step in fans.items():
        if step.fan is None:
            continue
        if step.status is StepStatus.WAITING:
            fan_out = definition.by_name[name].fan_out
            coming |= {StepKey(name, index) for index in to_open(fan_out, step.fan, len(keys))}
        elif step.status is StepStatus.COMPENSATING:
            owed = _to_undo(definition, workflow, step.key.step, step.fan)
            wanted |= set(sorted(owed)[: len(keys)])
    return replace(
        workflow,
        steps={
            key: step for key, step in workflow.steps.items() if not step.is_item or key in wanted
        },
        elements={
            key: workflow.elements[key] for key in wanted | coming if key in workflow.elements
        },
        partial=True,
    )


def to_open(fan_out: FanOut | None, fan: Fan, ended: int) -> range:
    """Return the items that can be opened when so many end.

    There is room for more than those where large inputs were held back at first.
    """
    if fan_out is None:
        return range(0)
    room = min(fan_out.max_parallel - fan.open + ended, MOST_NEXT * ended)
    return range(fan.opened, min(fan.total, fan.opened + max(0, room)))


def _to_undo(definition: Definition, workflow: Workflow, name: str, fan: Fan) -> Iterator[StepKey]:
    defined = definition.by_name[name]
    for key, step in workflow.steps.items():
        coming = step.is_item and key.step == name and key.index >= fan.undone
        if coming and owes_compensation(defined, step):
            yield key
