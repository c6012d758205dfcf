"""Going forward: queue what is ready, complete what is finished."""

from __future__ import annotations

from datetime import timedelta

from sidecar.errors import RenderError
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.rollback import failed
from sidecar.saga.states import StepSignal, StepStatus, WorkflowSignal, WorkflowStatus


def queue_ready(draft: Draft, candidates: tuple[StepDefinition, ...]) -> None:
    """Queue those among `candidates` whose predecessors have all passed.

    An input that cannot be rendered fails its step before anything is sent.
    """
    for defined in candidates:
        step = draft.named(defined.name)
        if step.status is not StepStatus.PENDING or draft.turning_back:
            continue
        if any(status is not StepStatus.SUCCEEDED for status in draft.statuses(defined.after)):
            continue
        try:
            body = draft.rendered(defined.input) if defined.input else None
        except RenderError as error:
            body = error_body(error.code, error.message)
            moved = draft.move(
                step, StepSignal.FAIL, "render_failed", error=body, due_at=None, stored=True
            )
            failed(draft, moved)
            continue
        draft.move(
            step,
            StepSignal.QUEUE,
            "ready",
            input=body,
            due_at=draft.now,
            call_ms=milliseconds(defined.timeout),
            stored=True,
        )


def queue_successors(draft: Draft, name: str) -> None:
    """Queue what waited for `name`, and complete the workflow if nothing is left."""
    definition = draft.definition
    successors = tuple(definition.by_name[one] for one in definition.successors[name])
    queue_ready(draft, successors)
    finished = (
        draft.status is WorkflowStatus.IN_PROGRESS
        and len(draft.steps) == len(definition.steps)
        and all(step.status is StepStatus.SUCCEEDED for step in draft.steps.values())
    )
    if finished:
        draft.signal(WorkflowSignal.COMPLETE, "all_steps_succeeded")


def milliseconds(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, at least one."""
    return max(1, round(duration.total_seconds() * 1000))
