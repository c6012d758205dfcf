"""A claim, as a store makes it: the one step of a workflow's life that no event stands for.

And the end of waiting for a place, as if the event had come that stands for it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from sidecar.saga.states import CLAIMABLE, Action, StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow

MARGIN = timedelta(seconds=5)
"""How much longer than the call a lease lasts."""


def can_be_claimed(step: Step) -> bool:
    """Whether a sidecar may claim the step, once it is due."""
    return step.status in CLAIMABLE and not step.leased and step.due_at is not None


def admitted(workflow: Workflow, key: StepKey, now: datetime) -> Workflow:
    """Return `workflow` with one step claimable that has waited for its turn."""
    ready = replace(workflow.steps[key], status=StepStatus.QUEUED, due_at=now)
    return replace(workflow, steps={**workflow.steps, key: ready})


def claimed(workflow: Workflow, key: StepKey, now: datetime) -> Workflow:
    """Return `workflow` with one step claimed, which must be claimable."""
    step = workflow.steps[key]
    run = replace(
        step.run,
        attempt=step.run.attempt + 1,
        started_at=step.run.started_at or now,
        claimed_at=now,
    )
    status = StepStatus.RUNNING if step.action is Action.EXECUTE else step.status
    lease = now + timedelta(milliseconds=step.call_ms) + MARGIN
    attempts: dict[str, Any] = {
        "compensate" if step.action is Action.COMPENSATE else "execute": run
    }
    held = replace(step, status=status, lease_until=lease, **attempts)
    return replace(workflow, steps={**workflow.steps, key: held})
