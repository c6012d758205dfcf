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
from sidecar.saga import fan_out, forward, rollback
from sidecar.saga.bodies import error_body
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.events import Answered, Attempted, Heartbeat, LeaseEnded
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.policy import BUSY_GAP, COMPENSATION_DEFAULT, RetryPolicy
from sidecar.saga.queueing import NOT_CALLED, NOT_DUE, give_back, milliseconds, stop
from sidecar.saga.states import Action, StepSignal, StepStatus
from sidecar.saga.turns import waits_for_turn
from sidecar.saga.workflow import Run, Step

_SPENDS_A_TRY = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.MISCONFIGURED, OutcomeKind.UNUSABLE})
_MAY_HAVE_ACTED = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.UNUSABLE, OutcomeKind.BUSY})
_EXECUTING = frozenset(
    {StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.WAITING, StepStatus.IN_DOUBT}
)
_WAITS = frozenset({OutcomeKind.BUSY, OutcomeKind.NOT_NOW, OutcomeKind.NOT_SENT})
_ENDED_OTHERWISE = {
    OutcomeKind.DONE: frozenset(
        {
            StepStatus.RETRYING,
            StepStatus.WAITING,
            StepStatus.IN_DOUBT,
            StepStatus.FAILED,
            StepStatus.COMPENSATING,
            StepStatus.COMPENSATION_FAILED,
        }
    ),
    OutcomeKind.REFUSED: frozenset(
        {StepStatus.RETRYING, StepStatus.IN_DOUBT, StepStatus.SUCCEEDED, StepStatus.COMPENSATED}
    ),
}
"""Where a step cannot stand if its attempt ended by this answer: it had another, or none."""

LEASE_ENDED = Outcome(
    OutcomeKind.UNKNOWN,
    error=error_body("lease_ended", "the sidecar that held the step did not say how it went"),
    may_have_effect=True,
)

NO_CALLBACK = Outcome(
    OutcomeKind.UNKNOWN,
    error=error_body("callback_timeout", "the service did not call back in time"),
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
    older = event.attempt < run.attempt
    if older or (run.answered < event.attempt and not _awaits(step, event)) or _parts(step, event):
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
    if event.outcome.kind is OutcomeKind.PENDING:
        return _taken_on(draft, step, event)
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
    kept = step.awaiting and draft.paused  # until the workflow is resumed
    longer = event.until is not None and step.lease_until != event.until
    if not current or run.closed >= event.attempt or kept or longer:
        return Verdict.IGNORED
    outcome = NO_CALLBACK if step.awaiting else LEASE_ENDED
    _apply(draft, step, event, _End(outcome, event.chance), answered=False)
    return Verdict.APPLIED


def heartbeat(draft: Draft, event: Heartbeat) -> Verdict:
    """Wait longer for a callback. While the call is under way its lease guards it."""
    step = draft.step(event.step)
    run = _run_of(step, event)
    current = event.attempt == run.attempt and run.closed < event.attempt and step.leased
    if not current or step.action is not event.action:
        return Verdict.LATE
    if not step.awaiting:
        return Verdict.IGNORED
    draft.put(replace(step, lease_until=draft.now + _defined(draft, step).callback_timeout))
    return Verdict.APPLIED


def _taken_on(draft: Draft, step: Step, event: Answered) -> Verdict:
    """The service will answer by a callback, which is waited for as long as the call may take.

    Nobody holds the step meanwhile, but its attempt goes on. One that is not to go forward any
    more is not waited for: it ends here, and is undone.
    """
    if step.awaiting or event.action is Action.STATUS:
        return Verdict.DUPLICATE
    run = step.run
    if run.closed < event.attempt:
        note_claim(draft, step, run)
    else:
        # The lease had ended, so another sidecar may be claiming the step at this moment.
        draft.takes_away = True
        undone = event.action is Action.COMPENSATE
        # Its end had spent a try; it will have another end.
        reopened = replace(run, closed=event.attempt - 1, tries=max(0, run.tries - 1))
        step = replace(step, **{"compensate" if undone else "execute": reopened})
    until = draft.now + _defined(draft, step).callback_timeout
    waiting = replace(step, awaiting=True, due_at=None, lease_until=until, doubt_at=None)
    if event.action is Action.EXECUTE and draft.turning_back:
        stopped = stop(draft, waiting, OutcomeKind.PENDING)
        _failed(draft, stopped)
    else:
        draft.move(waiting, StepSignal.AWAIT, OutcomeKind.PENDING)
    return Verdict.APPLIED


def _run_of(step: Step, event: Attempted) -> Run:
    run = step.compensate if event.action is Action.COMPENSATE else step.execute
    if not 1 <= event.attempt <= run.attempt:
        name = type(event).__name__
        raise IllegalTransition(
            f"step {step.key}", step.status, f"{name} of {event.action} attempt {event.attempt}"
        )
    return run


def _awaits(step: Step, event: Answered) -> bool:
    match event.action:
        case Action.COMPENSATE:
            return step.status is StepStatus.COMPENSATING
        case Action.STATUS:
            return step.status is StepStatus.IN_DOUBT
        case Action.EXECUTE if waits_for_turn(step):
            # It failed for good, and is to be tried anew: nothing less than an end is news of it.
            return event.outcome.kind in (OutcomeKind.DONE, OutcomeKind.REFUSED)
        case Action.EXECUTE:
            return step.status in _EXECUTING


def _parts(step: Step, event: Answered) -> bool:
    """Whether the attempt has had an answer, and one that says something else."""
    if step.run.answered < event.attempt or step.action is not event.action:
        return False
    return step.status in _ENDED_OTHERWISE.get(event.outcome.kind, ())


def _defined(draft: Draft, step: Step) -> StepDefinition:
    return draft.definition.by_name[step.key.step]


def _apply(
    draft: Draft, step: Step, event: Answered | LeaseEnded, end: _End, *, answered: bool
) -> None:
    run = step.run
    first_end = run.closed < event.attempt
    if first_end and not step.awaiting:
        note_claim(draft, step, run)
    spent = first_end and (end.outcome.kind in _SPENDS_A_TRY or _is_final(end.outcome))
    asking = event.action is Action.STATUS
    run = replace(
        run,
        closed=event.attempt,
        answered=event.attempt if answered else run.answered,
        tries=run.tries + (spent and not asking),
    )
    if event.action is Action.COMPENSATE:
        _compensated(draft, replace(step, compensate=run, lease_until=None, awaiting=False), end)
        return
    effect = (
        step.may_have_effect
        or end.outcome.may_have_effect
        or end.outcome.kind in _MAY_HAVE_ACTED
        or end.outcome.kind is OutcomeKind.DONE
    )
    closed = replace(step, execute=run, may_have_effect=effect, lease_until=None, awaiting=False)
    if asking:
        _told_how_it_went(draft, closed, end)
    else:
        _executed(draft, closed, end)


def _is_final(outcome: Outcome) -> bool:
    return outcome.kind in (OutcomeKind.DONE, OutcomeKind.REFUSED)


def note_claim(draft: Draft, step: Step, run: Run) -> None:
    """Write the claim's own line of history; the claim itself wrote only the step's row.

    To be called once for each claim, before whatever ends it.
    """
    if step.action is Action.EXECUTE:
        before = StepStatus.QUEUED if run.attempt == 1 else StepStatus.RETRYING
        after = StepStatus.RUNNING
    else:
        before = after = step.status
    draft.note(
        "compensation" if step.action is Action.COMPENSATE else "step",
        "claimed",
        step=step,
        before=before,
        after=after,
        attempt=run.attempt,
        time=run.claimed_at,
        actor="sidecar",
    )


def _executed(draft: Draft, step: Step, end: _End) -> None:
    outcome = end.outcome
    if outcome.kind is OutcomeKind.DONE:
        _succeeded(draft, step, outcome)
        return
    if outcome.kind in NOT_CALLED:
        _released(draft, step, outcome)
        return
    step = replace(step, error=outcome.error)
    defined = _defined(draft, step)
    due = None if draft.turning_back else _next_try(draft, _policy(draft, defined, step), step, end)
    if due is not None:
        draft.move(step, StepSignal.RETRY, outcome.kind, due_at=due)
    elif _can_be_asked(draft, defined, step, outcome):
        asked = replace(step, doubt_at=draft.now, call_ms=milliseconds(defined.timeout))
        draft.move(asked, StepSignal.DOUBT, outcome.kind, due_at=draft.now)
    else:
        _fail(draft, step, outcome)


def _can_be_asked(draft: Draft, defined: StepDefinition, step: Step, outcome: Outcome) -> bool:
    """Whether the service can be asked how it went, which matters only on the way forward."""
    unsure = step.may_have_effect and outcome.kind is not OutcomeKind.UNUSABLE
    return unsure and defined.status_check is not None and not draft.turning_back


def _told_how_it_went(draft: Draft, step: Step, end: _End) -> None:
    """Apply what a service said of an execute in doubt: only a clear answer proves anything."""
    outcome = end.outcome
    if outcome.kind is OutcomeKind.DONE:
        _succeeded(draft, step, outcome)
        return
    check = _defined(draft, step).status_check
    if outcome.kind is OutcomeKind.HELD and not draft.turning_back:
        give_back(draft, step, outcome)
        return
    pause = RetryPolicy().delay(max(1, step.run.attempt - step.run.tries), end.chance)
    pause = max(pause, outcome.retry_after or timedelta())
    due = draft.now if outcome.kind is OutcomeKind.RELEASED else draft.now + pause
    asked_enough = check is None or due > (step.doubt_at or draft.now) + check.budget
    if outcome.kind is OutcomeKind.REFUSED or asked_enough or draft.turning_back:
        # What was unknown stays so: it is undone, and the service has promised to refuse it.
        _fail(draft, replace(step, doubt_at=None), outcome)
    else:
        draft.move(step, StepSignal.RETRY, outcome.kind, due_at=due)


def _succeeded(draft: Draft, step: Step, outcome: Outcome) -> None:
    run = replace(step.execute, ended_at=draft.now)
    step = replace(step, output=outcome.output, execute=run, due_at=None, doubt_at=None)
    moved = draft.move(step, StepSignal.SUCCEED, "done")
    if moved.is_item:
        item_ended(draft, moved)
    else:
        forward.concluded(draft, moved)


def _fail(draft: Draft, step: Step, outcome: Outcome) -> None:
    run = replace(step.execute, ended_at=draft.now)
    moved = draft.move(replace(step, execute=run), StepSignal.FAIL, outcome.kind, **NOT_DUE)
    _failed(draft, moved)


def _failed(draft: Draft, step: Step) -> None:
    if step.is_item:
        item_ended(draft, step)
    else:
        forward.failed(draft, step)


def item_ended(draft: Draft, item: Step) -> None:
    """Draw the conclusion from the end of one item of a fan-out."""
    step = fan_out.item_ended(draft, item)
    if draft.turning_back:
        rollback.unwind(draft)
    elif not fan_out.tolerates(draft, step):
        forward.items_failed(draft, step, item)
    elif step.status is StepStatus.SUCCEEDED:
        forward.passed(draft, step.key.step)


def _released(draft: Draft, step: Step, outcome: Outcome) -> None:
    if not draft.turning_back:
        give_back(draft, step, outcome)
        return
    stopped = stop(draft, step, outcome.kind)
    if stopped.is_item:
        item_ended(draft, stopped)
    else:
        rollback.unwind(draft)


def _compensated(draft: Draft, step: Step, end: _End) -> None:
    outcome = end.outcome
    run = step.compensate
    if outcome.kind is OutcomeKind.DONE:
        ended = replace(run, ended_at=draft.now)
        step = replace(step, compensate=ended, compensation_output=outcome.output, due_at=None)
        undone(draft, draft.move(step, StepSignal.UNDO, "done"))
        return
    if outcome.kind in NOT_CALLED:
        give_back(draft, step, outcome)
        return
    step = replace(step, compensation_error=outcome.error)
    due = _next_try(draft, _undo_policy(_defined(draft, step)), step, end)
    if due is not None:
        draft.move(step, StepSignal.RETRY, outcome.kind, due_at=due)
        return
    step = replace(step, compensate=replace(run, ended_at=draft.now), due_at=None)
    undone(draft, draft.move(step, StepSignal.GIVE_UP, outcome.kind))


def undone(draft: Draft, step: Step) -> None:
    """Draw the conclusion from a step or item that has been undone, or could not be."""
    if step.is_item:
        fan_out.item_undone(draft, step)
    rollback.unwind(draft)


def _undo_policy(defined: StepDefinition) -> RetryPolicy:
    return defined.compensation.retry if defined.compensation else COMPENSATION_DEFAULT


def _policy(draft: Draft, defined: StepDefinition, step: Step) -> RetryPolicy:
    """Where the way back is closed, a step is tried as stubbornly as a compensation.

    One that is optional is not: it would hold up the rest.
    """
    closed = draft.past_pivot(defined.name) or (defined.pivot and step.may_have_effect)
    return _undo_policy(defined) if closed and not defined.optional else defined.retry


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
