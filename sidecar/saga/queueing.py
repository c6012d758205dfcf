"""Where one step gets into the reach of sidecars, and where it is taken out of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.states import StepSignal, StepStatus
from sidecar.saga.workflow import Run, Step


def queue(draft: Draft, defined: StepDefinition, step: Step, body: JsonText | None) -> Step:
    """Let a step be claimed, with what it sends."""
    return draft.move(
        step,
        StepSignal.QUEUE,
        "ready",
        input=body,
        due_at=draft.now,
        call_ms=milliseconds(defined.timeout),
        stored=True,
    )


def fail_unsent(draft: Draft, step: Step, error: RenderError) -> Step:
    """Fail a step for what it would have sent."""
    body = error_body(error.code, error.message)
    return draft.move(step, StepSignal.FAIL, error.code, error=body, due_at=None, stored=True)


def stop(draft: Draft, step: Step, cause: str) -> Step:
    """End a step that is not being called: failed if it may have had an effect.

    An attempt whose callback is outstanding ends, and its outcome is unknown.
    """
    if step.awaiting:
        step = ended_unknown(step)
    signal = StepSignal.FAIL if step.may_have_effect else StepSignal.CANCEL
    return draft.move(step, signal, cause, **NOT_DUE)


def ended_unknown(step: Step) -> Step:
    """The step without the attempt under way, whose outcome nobody will hear of."""
    run = replace(step.execute, closed=step.execute.attempt)
    return replace(step, execute=run, may_have_effect=True, awaiting=False)


def all_anew(run: Run) -> Run:
    """A run with all its tries and its whole budget before it."""
    return replace(run, tries=0, started_at=None, ended_at=None)


def under_way(step: Step) -> bool:
    """Whether a sidecar is calling its service for the step; its answer is awaited."""
    return step.leased and not step.awaiting


NOT_DUE: dict[str, Any] = {"due_at": None, "lease_until": None, "doubt_at": None}
"""What is set for a step that is not to be claimed any more."""

CAN_BE_STOPPED = frozenset(
    {StepStatus.QUEUED, StepStatus.RETRYING, StepStatus.IN_DOUBT, StepStatus.WAITING}
)
"""Statuses of a step on its way forward that can be ended, unless a sidecar is calling."""


def milliseconds(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, at least one."""
    return max(1, round(duration.total_seconds() * 1000))
