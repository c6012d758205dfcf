"""Beginning anew, past a pivot, what no service was called for: a wait, or a child.

A wait begins as it did the first time, with all its time before it. A child is another workflow
then: the earlier one has ended, and was rolled back, so its id cannot be used again; the number of
the retry stands in the id of the next. One that may still have an effect is not begun again.
"""

from __future__ import annotations

from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga import children, fan_out, waits
from sidecar.saga.definition import JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.workflow import Step


def begins_anew(defined: StepDefinition, step: Step) -> bool:
    """Whether a step that failed waits or runs a child, so that nothing is called for it."""
    return step.fan is None and (defined.wait is not None or defined.child is not None)


def begin(draft: Draft, defined: StepDefinition, step: Step, details: JsonText | None) -> bool:
    """Begin a wait or a child anew; return whether that can be."""
    if step.may_have_effect:
        return False
    try:
        if defined.wait is not None:
            waits.begin(draft, defined.wait, step, details)
            return True
        body = children.body_of(draft, defined, step)
        run = replace(step.execute, attempt=step.execute.attempt + 1)
        children.begin(draft, defined, replace(step, execute=run), body, details)
    except RenderError:
        return False  # it would say the same again
    if step.is_item:
        fan_out.retry_item(draft, step)
    return True


def why_not(defined: StepDefinition, step: Step) -> str:
    """Why a step that failed cannot begin anew."""
    if defined.child is not None and step.may_have_effect:
        return f"{step.status}, and what its child did is still there; `skip` or `resolve` it"
    return f"{step.status} for what it says itself; `skip` it"
