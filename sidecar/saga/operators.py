"""What a person may do to a workflow that exists, and what becomes of it then.

None of this gets around the laws: an effect that may be there stays owed unless somebody says,
with what shows it, that it is not; and nothing is taken from a sidecar that is calling.
"""

from __future__ import annotations

import json
from typing import assert_never

from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga import (
    afterwards,
    anew,
    answers,
    children,
    fan_out,
    forward,
    reruns,
    rollback,
    stuck,
    waits,
)
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.draft import Draft
from sidecar.saga.events import (
    ParentTerminated,
    PauseRequested,
    RerunRequested,
    Resolution,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
    TerminateRequested,
)
from sidecar.saga.queueing import NOT_DUE, all_anew, ended_unknown, stop, try_anew, under_way
from sidecar.saga.states import (
    CLAIMABLE,
    OPEN,
    WORKFLOW_ENDS,
    Action,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
)
from sidecar.saga.turns import waiting_in_turn, waits_for_turn
from sidecar.saga.workflow import NEVER_RUN, Step, StepKey

_UNSURE = frozenset({StepStatus.RETRYING, StepStatus.IN_DOUBT, StepStatus.WAITING})
_TO_SKIP = _UNSURE | {StepStatus.PENDING, StepStatus.QUEUED}


Requested = (
    PauseRequested
    | ResumeRequested
    | TerminateRequested
    | RetryRequested
    | SkipRequested
    | ResolveRequested
    | RerunRequested
)


def apply(draft: Draft, event: Requested) -> Verdict:
    """Do what a person asks for. Raises `IllegalTransition`."""
    match event:
        case PauseRequested():
            return pause(draft, event)
        case ResumeRequested():
            return resume(draft, event)
        case TerminateRequested():
            return terminate(draft, event)
        case RetryRequested():
            return retry(draft, event)
        case SkipRequested():
            return skip(draft, event)
        case ResolveRequested():
            return resolve(draft, event)
        case RerunRequested():
            return reruns.rerun(draft, event)
        case _:
            assert_never(event)


def pause(draft: Draft, event: PauseRequested) -> Verdict:
    """Let nothing be claimed and no timer fire; calls under way are settled."""
    _must_not_have_ended(draft, "pause")
    if draft.paused:
        return Verdict.IGNORED
    draft.paused = True
    draft.note("operator", "paused", details=said(event.reason))
    return Verdict.APPLIED


def resume(draft: Draft, event: ResumeRequested) -> Verdict:
    """Let a paused workflow go on: ring for all that is due, hand out the signals kept."""
    _must_not_have_ended(draft, "resume")
    if not draft.paused:
        return Verdict.IGNORED
    draft.need_whole()
    draft.paused = False
    draft.note("operator", "resumed", details=said(event.reason))
    for step in waits.take_kept(draft):
        forward.concluded(draft, step)
    for step in draft.in_order():
        if step.status in CLAIMABLE and not step.leased:
            draft.ring(step)
    return Verdict.APPLIED


def terminate(draft: Draft, event: TerminateRequested) -> Verdict:
    """Stop everything and undo nothing. What calls under way come to is only noted."""
    if draft.status is WorkflowStatus.TERMINATED:
        return Verdict.IGNORED
    _must_not_have_ended(draft, "terminate")
    stop_all(draft, event.reason)
    return Verdict.APPLIED


def stop_all(draft: Draft, reason: str) -> None:
    """End a workflow where it stands, and its children with it."""
    draft.need_whole()
    draft.takes_away = True
    draft.signal(WorkflowSignal.TERMINATE, "terminated", details=said(reason))
    for item in [step for step in draft.in_order() if step.is_item]:
        if item.status in OPEN:
            fan_out.cut_off(draft, _cut_off(draft, item, reason))
    for defined in draft.definition.steps:
        step = draft.named(defined.name)
        if step.status is StepStatus.PENDING:
            draft.move(step, StepSignal.CANCEL, "terminated", stored=True)
        elif step.status in OPEN:
            _cut_off(draft, step, reason)


def _cut_off(draft: Draft, step: Step, reason: str) -> Step:
    if draft.definition.by_name[step.key.step].child is not None and step.fan is None:
        draft.tell(children.id_of(draft.id, step), ParentTerminated(reason))
    if step.leased and not step.awaiting:
        answers.note_claim(draft, step, step.run)
    if step.status is StepStatus.COMPENSATING:
        run = replace(step.compensate, closed=step.compensate.attempt)
        ended = replace(step, compensate=run, awaiting=False, **NOT_DUE)
        return draft.move(ended, StepSignal.GIVE_UP, "terminated")
    if under_way(step):
        return draft.move(ended_unknown(step), StepSignal.FAIL, "terminated", **NOT_DUE)
    return stop(draft, step, "terminated")


# -- retry ------------------------------------------------------------------------------------


def retry(draft: Draft, event: RetryRequested) -> Verdict:
    """Try now what waits for its next try, and anew what has failed for good."""
    _must_not_have_ended(draft, "retry")
    draft.need_whole()
    named = _named_or_all(draft, event.step)
    found = [step for step in named if _retry(draft, step, event)]
    if not found:
        if any(under_way(step) for step in named):
            return Verdict.IGNORED  # it is being tried at this moment
        raise _not_to_retry(draft, event.step, named)
    stuck.mend(draft)
    for step in found:
        if draft.step(step.key).status is StepStatus.SUCCEEDED:
            forward.concluded(draft, draft.step(step.key))  # its signal was there already
    return Verdict.APPLIED


def _named_or_all(draft: Draft, key: StepKey | None) -> list[Step]:
    if key is None:
        return draft.in_order()
    named = draft.step(key)
    if named.fan is None:
        return [named]
    return [named, *draft.items(key.step)]


def _retry(draft: Draft, step: Step, event: RetryRequested) -> bool:
    """Try one step again; return whether there was anything to try.

    What could not be sent for what it would say is not tried again: it would say the same.
    """
    details = said(event.reason)
    runs_child = draft.definition.by_name[step.key.step].child is not None and step.fan is None
    if step.status is StepStatus.COMPENSATION_FAILED and runs_child:
        moved = draft.move(step, StepSignal.RETRY, "retry", details=details)
        children.turn_back(draft, moved)
        if step.is_item:
            fan_out.retry_undo(draft, step)
        return True
    if step.status is StepStatus.COMPENSATION_FAILED and step.compensate.attempt:
        again = replace(step, compensate=all_anew(step.compensate))
        draft.move(again, StepSignal.RETRY, "retry", details=details, due_at=draft.now)
        if step.is_item:
            fan_out.retry_undo(draft, step)
        return True
    defined = draft.definition.by_name[step.key.step]
    if stuck.is_stuck(draft, step) and anew.begins_anew(defined, step):
        return anew.begin(draft, defined, step, details)
    if step.execute.attempt and stuck.is_stuck(draft, step):
        try_anew(draft, step, "retry", details)
        if step.is_item:
            fan_out.retry_item(draft, step)
        return True
    if step.status not in CLAIMABLE or step.leased:
        return False
    draft.takes_away = True  # a claim may have it already
    if step.due_at is not None:
        draft.put(replace(step, due_at=draft.now))
        draft.note("operator", "retry", step=step, details=details)
    return step.due_at is not None


def _not_to_retry(draft: Draft, key: StepKey | None, named: list[Step]) -> IllegalTransition:
    """Say why nothing of it can be tried, and what helps one that only waits for its turn."""
    if draft.status is WorkflowStatus.QUEUED and draft.turn is not None:
        return IllegalTransition("workflow", waiting_in_turn(*draft.turn), "retry")
    waits = next((step for step in named if waits_for_turn(step)), None)
    turns = draft.definition.by_name[waits.key.step].concurrency if waits else None
    if waits is not None and waits.turn is not None and turns is not None:
        state = f"{waiting_in_turn(waits.turn, turns.limit)}, or `skip` this step"
        return IllegalTransition(f"step {waits.key}", state, "retry")
    if key is None:
        return IllegalTransition("workflow", draft.status, "retry")
    return IllegalTransition(f"step {key}", _why_not(draft, draft.step(key)), "retry")


def _why_not(draft: Draft, step: Step) -> str:
    defined = draft.definition.by_name[step.key.step]
    fresh = stuck.is_stuck(draft, step) and anew.begins_anew(defined, step)
    return anew.why_not(defined, step) if fresh else step.status


# -- skip and resolve -------------------------------------------------------------------------


def skip(draft: Draft, event: SkipRequested) -> Verdict:
    """Go on without a step: forward as if it had passed, back without undoing it.

    Whatever effect it may have had stays owed, if the workflow turns back later.
    """
    undoes = event.action is Action.COMPENSATE
    status = draft.step(event.step).status
    if status is (StepStatus.COMPENSATED if undoes else StepStatus.SKIPPED):
        return Verdict.IGNORED
    step = _free(draft, event.step, "skip")
    if draft.status is WorkflowStatus.QUEUED:
        raise IllegalTransition("workflow", "waiting for its turn", "skip")
    details = said(event.reason)
    if undoes:
        _leave(draft, step, "skipped", details)
        return Verdict.APPLIED
    open_ahead = step.status in _TO_SKIP and step.fan is None and not draft.turning_back
    if not open_ahead and not stuck.is_stuck(draft, step):
        raise IllegalTransition(f"step {step.key}", step.status, "skip")
    if step.is_item and step.status is StepStatus.PENDING:
        raise IllegalTransition(f"step {step.key}", step.status, "skip")
    if step.awaiting:
        step = ended_unknown(step)
    moved = draft.move(
        step,
        StepSignal.SKIP,
        "skipped",
        details=details,
        output=event.output,
        stored=True,
        **NOT_DUE,
    )
    _go_on(draft, step, moved)
    return Verdict.APPLIED


def resolve(draft: Draft, event: ResolveRequested) -> Verdict:
    """Settle what is unknown by what a person found out."""
    if _is_settled(draft.step(event.step), event.resolution):
        return Verdict.IGNORED
    details = said(event.reason, event.evidence, event.resolution)
    if draft.status is WorkflowStatus.TERMINATED:
        return afterwards.resolve(draft, event, details)
    step = _free(draft, event.step, "resolve")
    match event.resolution:
        case Resolution.SUCCEEDED:
            _resolve_succeeded(draft, step, event.output, details)
        case Resolution.NO_EFFECT:
            _resolve_without_effect(draft, step, details)
        case Resolution.COMPENSATED:
            if step.status not in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):
                raise IllegalTransition(f"step {step.key}", step.status, "resolve as compensated")
            _leave(draft, step, "resolved", details)
    return Verdict.APPLIED


def _is_settled(step: Step, resolution: Resolution) -> bool:
    """Whether that is what is known of a step already."""
    match resolution:
        case Resolution.SUCCEEDED:
            return step.status is StepStatus.SUCCEEDED
        case Resolution.COMPENSATED:
            return step.status is StepStatus.COMPENSATED
        case Resolution.NO_EFFECT:
            ended = step.status in (StepStatus.FAILED, StepStatus.CANCELLED)
            return step.status is StepStatus.COMPENSATED or (ended and not step.may_have_effect)


def _resolve_succeeded(
    draft: Draft, step: Step, output: JsonText | None, details: JsonText | None
) -> None:
    if not stuck.is_stuck(draft, step) and not _is_unsure(draft, step):
        raise IllegalTransition(f"step {step.key}", step.status, "resolve as succeeded")
    was = ended_unknown(step) if step.awaiting else step
    known = replace(was, may_have_effect=True, output=output)
    moved = draft.move(known, StepSignal.SUCCEED, "resolved", details=details, **NOT_DUE)
    _go_on(draft, step, moved)


def _resolve_without_effect(draft: Draft, step: Step, details: JsonText | None) -> None:
    if step.status in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):
        _leave(draft, step, "resolved", details)
        return
    if not _is_unsure(draft, step):
        raise IllegalTransition(f"step {step.key}", step.status, "resolve as without effect")
    if draft.definition.by_name[step.key.step].child is not None:
        children.turn_back(draft, step)  # it may be on its way still, and must not go on
    ended = replace(ended_unknown(step) if step.awaiting else step, may_have_effect=False)
    moved = draft.move(ended, StepSignal.FAIL, "resolved", details=details, **NOT_DUE)
    if moved.is_item:
        answers.item_ended(draft, moved)
    else:
        forward.failed(draft, moved)


def _is_unsure(draft: Draft, step: Step) -> bool:
    """Whether a call may have had an effect, and no answer has said so yet."""
    child = draft.definition.by_name[step.key.step].child is not None
    called = step.status in _UNSURE and (child or step.execute != NEVER_RUN)
    return called and step.fan is None and not draft.turning_back


def _go_on(draft: Draft, before: Step, step: Step) -> None:
    """Go on after a step or item that a person made pass."""
    if not step.is_item:
        stuck.mend(draft)
        forward.concluded(draft, step)
        return
    if before.status is StepStatus.FAILED:
        fan_out.retry_item(draft, before)
        stuck.mend(draft)
    answers.item_ended(draft, step)


def _leave(draft: Draft, step: Step, cause: str, details: JsonText | None) -> None:
    """Take an effect for undone."""
    if step.fan is not None:
        raise IllegalTransition(f"step {step.key}", step.status, f"{cause} as a whole")
    if step.awaiting:
        run = replace(step.compensate, closed=step.compensate.attempt)
        step = replace(step, compensate=run, awaiting=False)
    again = step.is_item and step.status is StepStatus.COMPENSATION_FAILED
    if again:
        fan_out.retry_undo(draft, step)
    moved = draft.move(step, StepSignal.UNDO, cause, details=details, **NOT_DUE)
    if moved.is_item:
        fan_out.item_undone(draft, moved)
    stuck.mend(draft)
    rollback.unwind(draft)


# -- what all share ---------------------------------------------------------------------------


def _free(draft: Draft, key: StepKey, verb: str) -> Step:
    """The step that a person speaks of. Raises `IllegalTransition` while it is being called."""
    draft.need_whole()
    _must_not_have_ended(draft, verb)
    step = draft.step(key)
    if under_way(step):
        raise IllegalTransition(f"step {key}", "being called", verb)
    draft.takes_away = draft.takes_away or step.status in CLAIMABLE
    return step


def _must_not_have_ended(draft: Draft, verb: str) -> None:
    if draft.status in WORKFLOW_ENDS:
        raise IllegalTransition("workflow", draft.status, verb)


def said(reason: str, evidence: str = "", resolution: str = "") -> JsonText | None:
    """Return what history keeps of the words that a person gave."""
    words = {"resolution": resolution, "reason": reason, "evidence": evidence}
    given = {name: text for name, text in words.items() if text}
    return JsonText(json.dumps(given, ensure_ascii=False)) if given else None
