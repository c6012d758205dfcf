"""What the end of an attempt means for its step.

An attempt ends by an answer, or by a lease that ran out without one. An attempt is current
while it is the newest of its step and action: after its lease ended its answer still counts
until another claim has been made. Answers to older attempts change nothing; the compensation
that is owed already covers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.bodies import error_body
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.events import Answered, LeaseEnded
from sidecar.saga.forward import queue_successors
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.policy import BUSY_GAP, COMPENSATION_DEFAULT, RetryPolicy
from sidecar.saga.rollback import failed, stop, unwind
from sidecar.saga.states import Action, StepSignal, StepStatus
from sidecar.saga.workflow import Run, Step

_SPENDS_A_TRY = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.MISCONFIGURED, OutcomeKind.UNUSABLE})
_MAY_HAVE_ACTED = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.UNUSABLE, OutcomeKind.BUSY})
_WAITS = frozenset({OutcomeKind.BUSY, OutcomeKind.NOT_NOW, OutcomeKind.NOT_SENT})

LEASE_ENDED = Outcome(
    OutcomeKind.UNKNOWN,
    error=error_body("lease_ended", "the sidecar that held the step did not say how it went"),
    may_have_effect=True,
)


@dataclass(frozen=True, slots=True)
class _End:
    """How an attempt ended."""

    outcome: Outcome
    chance: float


def answered(draft: Draft, event: Answered) -> Verdict:
    """Apply an answer."""
    step = draft.step(event.step)
    run = _run_of(step, event)
    if event.attempt < run.attempt or (run.answered < event.attempt and not _awaits(step, event)):
        draft.note(
            "late_answer",
            event.outcome.kind,
            step=step,
            action=event.action,
            attempt=event.attempt,
        )
        return Verdict.LATE
    if run.answered >= event.attempt:
        return Verdict.DUPLICATE
    if run.closed >= event.attempt:
        # The lease had ended, so another sidecar may be claiming the step at this moment.
        draft.takes_away = True
    _apply(draft, step, event, _End(event.outcome, event.chance), answered=True)
    return Verdict.APPLIED


def lease_ended(draft: Draft, event: LeaseEnded) -> Verdict:
    """Apply the end of a lease: the outcome of its attempt is unknown."""
    step = draft.step(event.step)
    run = _run_of(step, event)
    current = event.attempt == run.attempt and step.action is event.action and step.leased
    if not current or run.closed >= event.attempt:
        return Verdict.IGNORED
    _apply(draft, step, event, _End(LEASE_ENDED, event.chance), answered=False)
    return Verdict.APPLIED


def _run_of(step: Step, event: Answered | LeaseEnded) -> Run:
    run = step.execute if event.action is Action.EXECUTE else step.compensate
    if not 1 <= event.attempt <= run.attempt:
        name = type(event).__name__
        raise IllegalTransition(
            f"step {step.key}", step.status, f"{name} of {event.action} attempt {event.attempt}"
        )
    return run


def _awaits(step: Step, event: Answered) -> bool:
    if event.action is Action.COMPENSATE:
        return step.status is StepStatus.COMPENSATING
    return step.status in (StepStatus.RUNNING, StepStatus.RETRYING)


def _apply(
    draft: Draft, step: Step, event: Answered | LeaseEnded, end: _End, *, answered: bool
) -> None:
    run = step.run
    first_end = run.closed < event.attempt
    if first_end:
        _note_claim(draft, step, run)
    spent = first_end and (end.outcome.kind in _SPENDS_A_TRY or _is_final(end.outcome))
    run = replace(
        run,
        closed=event.attempt,
        answered=event.attempt if answered else run.answered,
        tries=run.tries + spent,
    )
    if event.action is Action.EXECUTE:
        effect = (
            step.may_have_effect
            or end.outcome.may_have_effect
            or end.outcome.kind in _MAY_HAVE_ACTED
            or end.outcome.kind is OutcomeKind.DONE
        )
        closed = replace(step, execute=run, may_have_effect=effect, lease_until=None)
        _executed(draft, closed, end)
    else:
        _compensated(draft, replace(step, compensate=run, lease_until=None), end)


def _is_final(outcome: Outcome) -> bool:
    return outcome.kind in (OutcomeKind.DONE, OutcomeKind.REFUSED)


def _note_claim(draft: Draft, step: Step, run: Run) -> None:
    """Write the claim's own line of history; the claim itself wrote only the step's row."""
    undoing = step.action is Action.COMPENSATE
    before = StepStatus.QUEUED if run.attempt == 1 else StepStatus.RETRYING
    draft.note(
        "compensation" if undoing else "step",
        "claimed",
        step=step,
        before=step.status if undoing else before,
        after=step.status if undoing else StepStatus.RUNNING,
        attempt=run.attempt,
        time=run.claimed_at,
        actor="sidecar",
    )


def _executed(draft: Draft, step: Step, end: _End) -> None:
    outcome = end.outcome
    defined = draft.definition.by_name[step.key.step]
    if outcome.kind is OutcomeKind.DONE:
        run = replace(step.execute, ended_at=draft.now)
        step = replace(step, output=outcome.output, execute=run, due_at=None)
        draft.move(step, StepSignal.SUCCEED, "done")
        if draft.turning_back:
            unwind(draft)
        else:
            queue_successors(draft, step.key.step)
        return
    if outcome.kind is OutcomeKind.RELEASED:
        _released(draft, step)
        return
    step = replace(step, error=outcome.error)
    due = None if draft.turning_back else _next_try(draft, _policy(draft, defined, step), step, end)
    if due is not None:
        draft.move(step, StepSignal.RETRY, outcome.kind, due_at=due)
        return
    run = replace(step.execute, ended_at=draft.now)
    moved = draft.move(replace(step, execute=run, due_at=None), StepSignal.FAIL, outcome.kind)
    failed(draft, moved)


def _released(draft: Draft, step: Step) -> None:
    if draft.turning_back:
        stop(draft, step, OutcomeKind.RELEASED)
        unwind(draft)
    else:
        draft.move(step, StepSignal.RELEASE, OutcomeKind.RELEASED, due_at=draft.now)


def _compensated(draft: Draft, step: Step, end: _End) -> None:
    outcome = end.outcome
    run = step.compensate
    if outcome.kind is OutcomeKind.DONE:
        ended = replace(run, ended_at=draft.now)
        step = replace(step, compensate=ended, compensation_output=outcome.output, due_at=None)
        draft.move(step, StepSignal.UNDO, "done")
        unwind(draft)
        return
    if outcome.kind is OutcomeKind.RELEASED:
        draft.move(step, StepSignal.RELEASE, OutcomeKind.RELEASED, due_at=draft.now)
        return
    step = replace(step, compensation_error=outcome.error)
    defined = draft.definition.by_name[step.key.step]
    due = _next_try(draft, _undo_policy(defined), step, end)
    if due is not None:
        draft.move(step, StepSignal.RETRY, outcome.kind, due_at=due)
        return
    ended = replace(run, ended_at=draft.now)
    draft.move(replace(step, compensate=ended, due_at=None), StepSignal.GIVE_UP, outcome.kind)
    unwind(draft)


def _undo_policy(defined: StepDefinition) -> RetryPolicy:
    return defined.compensation.retry if defined.compensation else COMPENSATION_DEFAULT


def _policy(draft: Draft, defined: StepDefinition, step: Step) -> RetryPolicy:
    """Where the way back is closed, a step is tried as stubbornly as a compensation."""
    if draft.definition.past_pivot(defined.name) or (defined.pivot and step.may_have_effect):
        return _undo_policy(defined)
    return defined.retry


def _next_try(draft: Draft, policy: RetryPolicy, step: Step, end: _End) -> datetime | None:
    """Return when to try again, or None if this outcome or the policy forbids it."""
    outcome, run = end.outcome, step.run
    if outcome.kind is OutcomeKind.REFUSED:
        return None
    if outcome.kind is OutcomeKind.UNUSABLE and step.action is Action.EXECUTE:
        return None
    if outcome.kind is OutcomeKind.BUSY:
        pause = BUSY_GAP
    elif outcome.kind in _WAITS:
        pause = policy.delay(run.attempt, end.chance)
    elif policy.allows_try(run.tries):
        pause = policy.delay(run.tries, end.chance)
    else:
        return None
    due = draft.now + max(pause, outcome.retry_after or timedelta())
    return due if policy.allows_time(run.started_at or draft.now, due) else None
