"""The judge of the store's suite: what must hold of every stored workflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from sidecar.definitions import compile_stored
from sidecar.ports.store import Store
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.invariants import violations
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

ALL = 1_000


async def _with_items(store: Store, namespace: str, found: Workflow) -> Workflow:
    """A workflow with the items of its fan-outs; another revision if others write meanwhile."""
    items: dict[StepKey, Step] = {}
    for step in found.steps.values():
        if step.fan is not None:
            page = await store.list_items(found.id, step.key.step, -1, step.fan.total + 1)
            assert [one.key.index for one in page] == list(range(step.fan.total))
            items |= {one.key: one for one in page if one.stored}
    if not items:
        return found
    again = await store.get_workflow(namespace, found.id)
    assert again is not None
    return replace(again, steps={**again.steps, **items}, partial=False)


async def assert_sound(store: Store, namespace: str, workflow: WorkflowId) -> None:
    """Check what must hold of every stored workflow; one that does not exist is sound."""
    found = await store.get_workflow(namespace, workflow)
    if found is None:
        return
    stored = await store.get_definition(*found.definition)
    assert stored is not None
    definition = compile_stored(stored.document, *found.definition)
    if found.revision == (again := await _with_items(store, namespace, found)).revision:
        assert violations(definition, again) == []
    for moment in (found.created_at, found.deadline_at, found.ended_at):
        assert_utc(moment)
    for key, step in found.steps.items():
        assert step.key == key
        assert step.stored
        assert_utc(step.due_at)
        assert_utc(step.lease_until)
        for run in (step.execute, step.compensate):
            for moment in (run.started_at, run.claimed_at, run.ended_at):
                assert_utc(moment)
    told = await store.list_events(workflow, 0, ALL)
    events = [one for one in told if one.seq <= found.last_seq]  # others write meanwhile
    assert [one.seq for one in events] == list(range(1, found.last_seq + 1))
    for one in events:
        assert_utc(one.time)
    assert_told(found, events)


def assert_utc(moment: datetime | None) -> None:
    """Times are aware and in UTC."""
    if moment is not None:
        assert moment.utcoffset() == timedelta()


def assert_told(workflow: Workflow, events: Sequence[HistoryEvent]) -> None:
    """Every change of status is an event: the last one told is the present one.

    A claim is told when its attempt ends, so a step that is being called may be ahead.
    """
    told = [one.after for one in events if one.kind == "workflow"]
    assert told[-1] == workflow.status
    for key, step in workflow.steps.items():
        if step.status is StepStatus.RUNNING:
            continue
        after = [
            one.after
            for one in events
            if (one.step, one.index) == key and one.kind in ("step", "compensation")
        ]
        assert after[-1] == step.status
