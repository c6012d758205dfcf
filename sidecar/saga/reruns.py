"""Running a workflow again: what is kept of the first one, and what both histories tell of it.

Of one that has completed or was rolled back nothing is kept: everything is done again, under keys
of its own. One that was terminated stands in the middle. Its rerun keeps what had passed, with its
outputs, and owes from that moment on what the first one owed, which then owes nothing any more.
Services know those effects by the first one's keys: `Step.origin` is the workflow in these.

    succeeded, skipped,         kept as it is; undone under the old key if the rerun turns back
    failed and optional
    to be undone, and that not  the same, if it had succeeded
    asked of anybody
    failed, effect unknown      tried again under the old key: a service that had done it says so
                                again, and one that had not does it once
    anything else               as if it had never begun

Whatever is kept is kept by one rerun alone, owed or not: two that both went on from it would each
do what comes after it. What cannot be handed over is refused, and a person settles it first
(`Resolution.COMPENSATED`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.debts import is_owed
from sidecar.saga.definition import Definition, Join, JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.events import RerunRequested
from sidecar.saga.queueing import NOT_DUE, milliseconds
from sidecar.saga.states import UNDOING, WORKFLOW_ENDS, StepSignal, StepStatus, WorkflowStatus
from sidecar.saga.workflow import NEVER_RUN, Step, StepKey, Workflow, WorkflowId

_SIGNALS = {
    StepStatus.SUCCEEDED: StepSignal.SUCCEED,
    StepStatus.SKIPPED: StepSignal.SKIP,
    StepStatus.FAILED: StepSignal.FAIL,
    StepStatus.CANCELLED: StepSignal.CANCEL,
}
"""How what is kept gets to the status that it had."""
MOST_NAMED = 3
"""How many of the items that are still to be settled an error names."""
_WAY_OUT = "find out what is there, undo it, say so with `resolve` (compensated), and run it again"


def rerun(draft: Draft, event: RerunRequested) -> Verdict:
    """Note that a workflow is run again, and by whom what it owes. Raises `IllegalTransition`."""
    hindrance = _hindrance(draft, event)
    if hindrance is not None:
        raise IllegalTransition("workflow", hindrance, "rerun")
    told: dict[str, object] = {"rerun": event.new, "reason": event.reason}
    if draft.owes_since is not None:
        told["takes_over"] = [step.key.step for step in _owed(draft.definition, draft.steps)]
    if draft.status is WorkflowStatus.TERMINATED and event.same_version and _keeps(draft, event):
        draft.hand_over(event.new)
    draft.note("operator", "rerun", details=_object(told))
    return Verdict.APPLIED


def is_kept(old: Workflow, event: RerunRequested) -> bool:
    """Whether the rerun of `old` keeps its results."""
    return old.status is WorkflowStatus.TERMINATED and event.same_version


def before_undoing(
    steps: Mapping[StepKey, Step], succeeded: Collection[StepKey]
) -> dict[StepKey, Step]:
    """Return the steps of a workflow that was terminated, as far as no service undid anything.

    A compensation that nobody had claimed was never begun: its step, if it is one of those that are
    known to have `succeeded`, stands again as it did before.
    """
    return {
        key: replace(step, status=StepStatus.SUCCEEDED)
        if _only_to_be_undone(step) and key in succeeded
        else step
        for key, step in steps.items()
    }


def _only_to_be_undone(step: Step) -> bool:
    """Whether a step was to be undone, and nobody has been asked to."""
    asked_for = step.compensate.attempt > 0 or step.fan is not None or step.is_item
    return step.status is StepStatus.COMPENSATION_FAILED and not asked_for


def is_to_be_tried_again(defined: StepDefinition, step: Step) -> bool:
    """Whether a step that was kept has an outcome that is still to be found out."""
    plain = not step.is_item and step.fan is None and not defined.optional
    return plain and step.status is StepStatus.FAILED and step.may_have_effect


def take_over(draft: Draft, old: Workflow) -> None:
    """Begin a workflow with the results of `old`, which was read whole and with all bodies."""
    for name in _kept(draft.definition, old.steps, turning_back=old.turning_back):
        step = old.steps[StepKey(name)]
        _take(draft, old, step)
        if step.fan is None:
            continue
        items = sorted((one for one in old.steps.values() if one.is_item), key=lambda one: one.key)
        each = [old.elements[StepKey(name, index)] for index in range(step.fan.total)]
        if each:
            draft.add_items(name, JsonText(f"[{','.join(each)}]"), each)
        for item in items:
            if item.key.step == name:
                _take(draft, old, item)


def origin(rerun_of: WorkflowId | None) -> JsonText | None:
    """What the beginning of a workflow tells of the one that is run again by it."""
    return None if rerun_of is None else _object({"rerun_of": rerun_of})


def _take(draft: Draft, old: Workflow, step: Step) -> None:
    known_by = (step.origin or old.id) if step.execute.attempt else None
    taken = replace(
        step,
        status=StepStatus.PENDING,
        compensate=NEVER_RUN,
        compensation_input=None,
        compensation_output=None,
        compensation_error=None,
        call_ms=milliseconds(draft.definition.by_name[step.key.step].timeout),
        stored=True,
        awaiting=False,
        origin=known_by,
    )
    draft.move(taken, _SIGNALS[step.status], "taken_over", **NOT_DUE)


# -- what can be kept ---------------------------------------------------------------------------


def _hindrance(draft: Draft, event: RerunRequested) -> str | None:
    """Why a workflow cannot be run again, and what then to do."""
    if draft.parent is not None:
        return "run by another workflow; run the root again"
    if draft.status not in WORKFLOW_ENDS:
        return draft.status
    if draft.taken_over_by is not None:
        return f"{draft.status}, and {draft.taken_over_by} took over what it did: rerun that one"
    if draft.owes_since is None:
        return None
    if not event.same_version:
        return (
            f"{draft.status}, and owes effects their undoing, which only a rerun of the same "
            f"version can take over: leave out the version, or {_WAY_OUT}"
        )
    return _not_to_be_kept(draft, event)


def _keeps(draft: Draft, event: RerunRequested) -> Collection[str]:
    """The steps that the rerun keeps. Raises `IncompleteState`."""
    draft.need_whole()
    steps = before_undoing(draft.steps, event.succeeded)
    return _kept(draft.definition, steps, turning_back=draft.turning_back)


def _not_to_be_kept(draft: Draft, event: RerunRequested) -> str | None:
    kept = _keeps(draft, event)
    for step in _owed(draft.definition, before_undoing(draft.steps, event.succeeded)):
        defined = draft.definition.by_name[step.key.step]
        if _only_to_be_undone(step) and defined.child is None:
            why = "it was to be undone, and is not known to have succeeded"
        elif step.status in UNDOING:
            why = "its undoing had begun, and nobody knows how far it came"
        elif defined.child is not None:
            why = "it ran a child, which nobody else can have undone"
        elif step.key.step in kept:
            continue
        elif step.fan is not None:
            why = _why_not_whole(draft, step)
        else:
            why = "what came before it has been undone"
        return (
            f"{draft.status}, and owes effects their undoing; that of step {step.key} cannot be "
            f"taken over: {why}; {_WAY_OUT}"
        )
    return None


def _why_not_whole(draft: Draft, step: Step) -> str:
    """Why a fan-out is not kept that has ended or was cut off; which items are to be settled."""
    items = draft.items(step.key.step)
    if _is_whole(items):
        return "its fan-out was stopped on the way"
    defined = draft.definition.by_name[step.key.step]
    others = [str(one.key) for one in items if is_owed(defined, one)]
    some = ", ".join(others[:MOST_NAMED]) + (", …" if others[MOST_NAMED:] else "")
    return f"some of its items were undone by hand; resolve the others ({some})"


def _is_whole(items: Iterable[Step]) -> bool:
    """Whether all items of a fan-out stand as they ended: none has been undone since."""
    return all(item.status in _SIGNALS for item in items)


def _owed(definition: Definition, steps: Mapping[StepKey, Step]) -> list[Step]:
    """The steps that are owed their undoing, in the order in which they are written."""
    found = ((one, steps.get(StepKey(one.name))) for one in definition.steps)
    return [step for one, step in found if step is not None and is_owed(one, step)]


def _kept(
    definition: Definition, steps: Mapping[StepKey, Step], *, turning_back: bool
) -> Collection[str]:
    """The steps that are kept: those that had their turn, by what is kept of those before them.

    A step that a person skipped before its turn stays so; after the way back nobody can tell it
    from one whose condition was false, and the condition is asked again.
    """
    passed: dict[str, StepStatus] = {}
    others: list[str] = []
    items: defaultdict[str, list[Step]] = defaultdict(list)
    for one in steps.values():
        if one.is_item:
            items[one.key.step].append(one)
    for name in definition.topological:
        step, defined = steps.get(StepKey(name)), definition.by_name[name]
        if step is None or (defined.child is not None and step.may_have_effect):
            continue
        if step.fan is not None and not _is_whole(items[name]):
            continue
        if not _had_its_turn(defined, passed):
            if step.status is StepStatus.SKIPPED and not turning_back:
                others.append(name)
            continue
        optional = step.status is StepStatus.FAILED and defined.optional
        if optional or step.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED):
            passed[name] = step.status
        elif is_to_be_tried_again(defined, step):
            others.append(name)
    return (*passed, *others)


def _had_its_turn(defined: StepDefinition, passed: Mapping[str, StepStatus]) -> bool:
    before = [passed.get(name) for name in defined.after]
    some = defined.join is Join.ANY and StepStatus.SUCCEEDED in before
    return some or None not in before


def _object(words: Mapping[str, object]) -> JsonText:
    given = {name: told for name, told in words.items() if told}
    return JsonText(json.dumps(given, ensure_ascii=False))
