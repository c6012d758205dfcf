"""A start that runs another workflow again: what both of them are told by the machine."""

from __future__ import annotations

import dataclasses

from sidecar.ports.store import Start
from sidecar.saga.events import RerunRequested
from sidecar.saga.machine import NewWorkflow
from sidecar.saga.reruns import is_kept
from sidecar.saga.workflow import DefinitionRef, Workflow


def both_sides(start: Start, old: Workflow) -> tuple[RerunRequested, NewWorkflow]:
    """Return what is told to the workflow `old`, and what its rerun then begins with.

    One that was terminated is read whole and with all bodies.
    """
    definition = start.definition
    ref = DefinitionRef(definition.namespace, definition.name, definition.version)
    reason = start.rerun.reason if start.rerun else ""
    event = RerunRequested(start.id, old.definition == ref, reason, start.actor)
    new = start.new
    return event, dataclasses.replace(new, kept=old) if is_kept(old, event) else new
