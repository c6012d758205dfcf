"""A start that runs another workflow again: what both of them are told by the machine."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from sidecar.ports.store import Start
from sidecar.saga.events import RerunRequested
from sidecar.saga.machine import NewWorkflow
from sidecar.saga.reruns import before_undoing, is_kept
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, StepKey, Workflow


def goes_on(start: Start, old: Workflow | None) -> bool:
    """Whether it goes on from the workflow `old`, and so may run a version that was retired.

    Its version was chosen when `old` was started, and nobody else can take over what that owes.
    """
    if start.rerun is None or start.latest or old is None:
        return False
    return old.status is WorkflowStatus.TERMINATED and old.definition == _ref(start)


def both_sides(
    start: Start, old: Workflow, succeeded: frozenset[StepKey]
) -> tuple[RerunRequested, NewWorkflow]:
    """Return what is told to the workflow `old`, and what its rerun then begins with.

    One that was terminated is read whole and with all bodies, and with what has `succeeded` in it.
    """
    reason = start.rerun.reason if start.rerun else ""
    event = RerunRequested(start.id, old.definition == _ref(start), succeeded, reason, start.actor)
    if not is_kept(old, event):
        return event, start.new
    kept = replace(old, steps=before_undoing(old.steps, succeeded))
    return event, dataclasses.replace(start.new, kept=kept)


def _ref(start: Start) -> DefinitionRef:
    definition = start.definition
    return DefinitionRef(definition.namespace, definition.name, definition.version)
