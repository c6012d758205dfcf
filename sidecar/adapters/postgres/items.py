"""The items of fan-outs, under the locks of their workflows: the part that is needed, or all.

What a settlement reads does not grow with the number of items: the item that it speaks of, the
elements of the next ones, and on the way back the next one to be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from sidecar.adapters.postgres import records, rows
from sidecar.adapters.postgres.sql import Connection, load, send
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.partial import fans_of, to_open
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId

SQL = load(__file__)

Spoken = Mapping[WorkflowId, Sequence[StepKey]]
"""The steps that the events of a batch speak of."""


@dataclass(slots=True)
class Items:
    """Items and elements of some workflows."""

    steps: dict[WorkflowId, list[Step]] = field(default_factory=dict)
    elements: dict[WorkflowId, dict[StepKey, JsonText]] = field(default_factory=dict)

    def added_to(self, workflow: Workflow, *, partial: bool) -> Workflow:
        """Return a workflow with its items."""
        found = {step.key: step for step in self.steps.get(workflow.id, ())}
        return replace(
            workflow,
            steps={**workflow.steps, **found},
            elements=self.elements.get(workflow.id, {}),
            partial=partial,
        )


async def some_items(
    connection: Connection,
    workflows: Iterable[Workflow],
    spoken: Spoken,
    definitions: Mapping[DefinitionRef, Definition],
) -> Items:
    """Read what the events that speak of these steps need."""
    keys: list[dict[str, Any]] = []
    coming: list[dict[str, Any]] = []
    undoing: list[dict[str, Any]] = []
    for workflow in workflows:
        named = spoken.get(workflow.id, ())
        keys += [_record(workflow.id, key.step, key.index) for key in named if key.index >= 0]
        for name, step in fans_of(workflow).items():
            fan = step.fan
            if fan is None:
                continue
            if step.status is StepStatus.WAITING:
                fan_out = definitions[workflow.definition].by_name[name].fan_out
                next_ = to_open(fan_out, fan, len(named))
                coming += [_record(workflow.id, name, at) for at in next_]
            elif step.status is StepStatus.COMPENSATING:
                record = {"undone": fan.undone, "most": len(named)}
                undoing.append({"workflow_id": workflow.id, "step": name, **record})
    values = {"keys": records.packed(keys), "undoing": records.packed(undoing)}
    found = await _read_items(connection, "some_items", values)
    loaded = [
        _record(known, step.key.step, step.key.index)
        for known, steps in found.steps.items()
        for step in steps
    ]
    await _read_elements(
        connection, found, "some_elements", {"keys": records.packed(loaded + coming)}
    )
    return found


async def all_items(connection: Connection, ids: Sequence[WorkflowId]) -> Items:
    """Read all items of these workflows."""
    found = await _read_items(connection, "all_items", {"ids": ids})
    await _read_elements(connection, found, "all_elements", {"ids": ids})
    return found


async def _read_items(connection: Connection, statement: str, values: Mapping[str, Any]) -> Items:
    found = Items()
    cursor = await send(connection, SQL[statement], **values)
    for row in await cursor.fetchall():
        found.steps.setdefault(WorkflowId(row["workflow_id"]), []).append(rows.step_of(row))
    return found


async def _read_elements(
    connection: Connection, found: Items, statement: str, values: Mapping[str, Any]
) -> None:
    cursor = await send(connection, SQL[statement], **values)
    for row in await cursor.fetchall():
        known, key = WorkflowId(row["workflow_id"]), StepKey(row["step"], row["idx"])
        found.elements.setdefault(known, {})[key] = row["element"]


def _record(workflow: WorkflowId, step: str, index: int) -> dict[str, Any]:
    # An index of zero is left out of a record like every zero; the statements know that.
    return {"workflow_id": workflow, "step": step, "idx": index}
