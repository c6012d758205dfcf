"""Where one step gets into the reach of sidecars, and where it is taken out of it.

A step that takes turns is not claimable while it waits: so it costs neither tries nor budget, and
whoever claims knows nothing of turns.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import Concurrency, JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import UNDOING, StepSignal, StepStatus
from sidecar.saga.turns import MAX_TURN_KEY
from sidecar.saga.workflow import Run, Step


def open_call(draft: Draft, defined: StepDefinition, step: Step, body: JsonText | None) -> Step:
    """Let a step be claimed with what it sends, or wait for its turn. Raises `RenderError`."""
    if defined.concurrency is None:
        return queue(draft, defined, step, body)
    return draft.move(
        step,
        StepSignal.AWAIT,
        "waits_for_its_turn",
        input=body,
        due_at=None,
        call_ms=milliseconds(defined.timeout),
        stored=True,
        turn=turn_key(draft, defined.concurrency, step),
    )


def admit(draft: Draft, step: Step) -> Step:
    """Let a step be claimed whose turn has come; one that failed before is tried again."""
    signal = StepSignal.RETRY if step.execute.attempt else StepSignal.QUEUE
    return draft.move(step, signal, "its_turn", due_at=draft.now)


def turn_key(draft: Draft, turns: Concurrency, step: Step | None = None) -> JsonText:
    """Return by what a workflow, or a step of it, takes turns. Raises `RenderError`."""
    try:
        key = draft.rendered(turns.key, step)
    except RenderError as error:
        raise RenderError(f"concurrency.key: {error.message}") from error
    if len(key.encode()) > MAX_TURN_KEY:
        raise RenderError(f"concurrency.key: it is longer than {MAX_TURN_KEY} bytes")
    return key


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


def give_back(draft: Draft, step: Step, outcome: Outcome) -> Step:
    """Let a step be claimed again whose service was not called: at once, or when it has its turn.

    The time until then is no budget of its own: the budgets of its tries and of the questions how
    it went begin later by so much.
    """
    due = draft.now + (outcome.retry_after or timedelta())
    step = _as_if_later(step, due)
    return draft.move(step, StepSignal.RELEASE, outcome.kind, due_at=due)


def _as_if_later(step: Step, due: datetime) -> Step:
    """The step as if the time from its claim until `due` had not passed."""
    run = step.run
    claimed_at = run.claimed_at or due
    # A first claim that called nobody was none; its successor begins the budget.
    began = run.started_at if run.started_at != claimed_at else None
    passed = due - claimed_at
    moved = replace(run, started_at=None if began is None else began + passed)
    doubt_at = None if step.doubt_at is None else step.doubt_at + passed
    undone = step.status in UNDOING
    return replace(step, doubt_at=doubt_at, **{"compensate" if undone else "execute": moved})


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


def try_anew(draft: Draft, step: Step, cause: str, details: JsonText | None = None) -> None:
    """Let a call that failed be made again, with all its tries.

    Its place went to another when it failed; so it has to wait for its turn again.
    """
    again = replace(step, execute=all_anew(step.execute))
    signal = StepSignal.RETRY if step.turn is None else StepSignal.AWAIT
    due_at = draft.now if step.turn is None else None
    draft.move(again, signal, cause, details=details, due_at=due_at)


def under_way(step: Step) -> bool:
    """Whether a sidecar is calling its service for the step; its answer is awaited."""
    return step.leased and not step.awaiting


NOT_CALLED = frozenset({OutcomeKind.RELEASED, OutcomeKind.HELD})
"""How a sidecar gives a claim back that has called nobody."""

NOT_DUE: dict[str, Any] = {"due_at": None, "lease_until": None, "doubt_at": None}
"""What is set for a step that is not to be claimed any more."""

CAN_BE_STOPPED = frozenset(
    {StepStatus.QUEUED, StepStatus.RETRYING, StepStatus.IN_DOUBT, StepStatus.WAITING}
)
"""Statuses of a step on its way forward that can be ended, unless a sidecar is calling."""


def milliseconds(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, at least one."""
    return max(1, round(duration.total_seconds() * 1000))
