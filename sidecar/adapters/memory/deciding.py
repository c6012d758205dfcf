"""What a transition gets to see of a row, and what comes of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from sidecar.adapters.memory.tables import BODIES, Row
from sidecar.errors import IncompleteState
from sidecar.saga import machine
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition, Render
from sidecar.saga.events import Event, step_of
from sidecar.saga.partial import part
from sidecar.saga.workflow import Workflow


def advanced(
    definition: Definition, row: Row, event: Event, *, now: datetime, render: Render
) -> Changes:
    """Decide on the part of the workflow that the event needs, or else on the whole of it.

    Raises `IllegalTransition` and `RenderError`.
    """
    key = step_of(event)
    seen = part(definition, row.workflow, () if key is None else (key,))
    try:
        return machine.advance(definition, lean(definition, seen), event, now=now, render=render)
    except IncompleteState:
        whole = lean(definition, row.workflow)
        return machine.advance(definition, whole, event, now=now, render=render)


def lean(definition: Definition, workflow: Workflow) -> Workflow:
    """The workflow as the machine gets to see it: bodies only where they are needed to render.

    What is not needed is not loaded by a database either, so nobody may rely on it.
    """
    renders = definition.renders
    unread: dict[str, Any] = dict.fromkeys(
        name for name in BODIES if not (renders and name == "output")
    )
    return replace(
        workflow,
        input=workflow.input if renders else None,
        output=None,
        error=workflow.error if workflow.parent else None,
        labels={},
        start_key=None,
        steps={key: replace(step, **unread) for key, step in workflow.steps.items()},
    )
