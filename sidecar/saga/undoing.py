"""Undoing one step, or one item of a step."""

from __future__ import annotations

from sidecar.errors import RenderError
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.queueing import milliseconds
from sidecar.saga.states import StepSignal, StepStatus
from sidecar.saga.workflow import Step

_ENDED = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED})


def owes_compensation(defined: StepDefinition, step: Step) -> bool:
    """Whether the step has an effect that is still to be undone and not yet being undone."""
    return step.status in _ENDED and step.may_have_effect and not defined.no_effect


def begin_undo(draft: Draft, defined: StepDefinition, step: Step) -> Step:
    """Let the compensation of a call be claimed; give up where there is none."""
    compensation = defined.compensation
    if compensation is None:
        body = error_body("no_compensation", "the definition names no way to undo this step")
        return draft.move(
            step, StepSignal.GIVE_UP, "no_compensation", compensation_error=body, due_at=None
        )
    try:
        rendered = draft.rendered(compensation.input, step) if compensation.input else None
    except RenderError as error:
        body = error_body(error.code, error.message)
        return draft.move(
            step, StepSignal.GIVE_UP, error.code, compensation_error=body, due_at=None
        )
    return draft.move(
        step,
        StepSignal.COMPENSATE,
        "undo",
        compensation_input=rendered,
        due_at=draft.now,
        lease_until=None,
        call_ms=milliseconds(compensation.timeout),
    )
