"""Steps that wait: for a span, until a moment, or for a signal.

They have no service and are never rung for. A signal that comes before anybody waits for it is
kept; the first to wait for it takes it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from sidecar.errors import IllegalTransition, RenderError
from sidecar.saga.bodies import error_body
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText, Template, Wait
from sidecar.saga.draft import Draft
from sidecar.saga.events import SignalSent
from sidecar.saga.moments import parse_moment
from sidecar.saga.states import WORKFLOW_ENDS, StepSignal, StepStatus
from sidecar.saga.workflow import Signal, Step

MOST_KEPT = 100
"""How many signals a workflow keeps that nobody has waited for."""


def begin(draft: Draft, wait: Wait, step: Step, details: JsonText | None = None) -> Step:
    """Let a step wait; what it waits for may be there already. Raises `RenderError`."""
    if wait.signal is not None:
        due = draft.now + wait.timeout if wait.timeout else None
        taken = None if draft.paused else draft.take_signal(wait.signal)
        if taken is not None:
            return _succeed(draft, step, taken)
    elif wait.until is not None:
        due = _moment(draft, wait.until)
    else:
        due = draft.now + (wait.duration or timedelta())
    return draft.move(step, StepSignal.AWAIT, "waits", details=details, due_at=due, stored=True)


def fired(draft: Draft, step: Step) -> tuple[Step, Verdict]:
    """Apply the end of a step's time: it has waited enough, or its signal did not come."""
    wait = draft.definition.by_name[step.key.step].wait
    waits = step.status is StepStatus.WAITING and wait is not None and not draft.paused
    if not waits or wait is None or step.due_at is None or step.due_at > draft.now:
        return step, Verdict.IGNORED
    if wait.signal is None:
        moved = draft.move(step, StepSignal.SUCCEED, "time_has_come", due_at=None)
    else:
        body = error_body("signal_timeout", f"the signal {wait.signal} did not come in time")
        moved = draft.move(step, StepSignal.FAIL, "signal_timeout", due_at=None, error=body)
    return moved, Verdict.APPLIED


def signal_sent(draft: Draft, event: SignalSent) -> Step | None:
    """Give a signal to the step that waits for it, or keep it; return the step, if there is one.

    Raises `IllegalTransition` where no step will ever wait for it.
    """
    if event.name not in draft.definition.signals:
        raise IllegalTransition("workflow", "never waiting for that", f"signal {event.name}")
    if draft.turning_back or draft.status in WORKFLOW_ENDS:
        raise IllegalTransition("workflow", draft.status, f"signal {event.name}")
    signal = Signal(
        number=draft.next_signal(),
        name=event.name,
        payload=event.payload,
        actor=event.actor,
        reason=event.reason,
        sent_at=draft.now,
    )
    said = {"name": event.name, "id": event.id, "reason": event.reason}
    waiting = [] if draft.paused else _waiting_for(draft, event.name)
    if not waiting and len(draft.signals) >= MOST_KEPT:
        raise IllegalTransition("workflow", f"keeping {MOST_KEPT} signals", f"signal {event.name}")
    draft.note(
        "signal",
        "received" if waiting else "kept",
        step=waiting[0] if waiting else None,
        details=JsonText(
            json.dumps({name: text for name, text in said.items() if text}, ensure_ascii=False)
        ),
    )
    if not waiting:
        draft.keep_signal(signal)
        return None
    return _succeed(draft, waiting[0], signal)


def take_kept(draft: Draft) -> list[Step]:
    """Give the signals that were kept during a pause to the steps that wait for them."""
    ended = []
    for defined in draft.definition.steps:
        if defined.wait is None or defined.wait.signal is None:
            continue
        step = draft.named(defined.name)
        if step.status is StepStatus.WAITING and (taken := draft.take_signal(defined.wait.signal)):
            ended.append(_succeed(draft, step, taken))
    return ended


def _waiting_for(draft: Draft, name: str) -> list[Step]:
    named = (one.name for one in draft.definition.steps if one.wait and one.wait.signal == name)
    steps = [draft.named(one) for one in named]
    return [step for step in steps if step.status is StepStatus.WAITING]


def _succeed(draft: Draft, step: Step, signal: Signal) -> Step:
    about = {
        "actor": signal.actor,
        "reason": signal.reason,
        "sent_at": signal.sent_at.astimezone(UTC).isoformat(),
    }
    rest = json.dumps(about, ensure_ascii=False)[1:]
    output = JsonText(f'{{"payload":{signal.payload},{rest}')
    return draft.move(step, StepSignal.SUCCEED, "signal", output=output, due_at=None, stored=True)


def _moment(draft: Draft, until: Template) -> datetime:
    try:
        return parse_moment(json.loads(draft.rendered(until)))
    except ValueError as error:
        raise RenderError(f"`until` {error}") from None
