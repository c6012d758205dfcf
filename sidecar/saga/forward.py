"""Going forward: open what is ready, go past what is skipped, complete what is finished.

A step is ready when those before it have passed: they succeeded, were skipped, or failed and were
optional. One that waits for any of them is ready as soon as one has succeeded; if none does, when
all have passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum, auto

from sidecar.errors import RenderError
from sidecar.saga import children, fan_out, rollback, waits
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import Join, JsonText, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.queueing import fail_unsent, open_call, try_anew
from sidecar.saga.reruns import is_to_be_tried_again
from sidecar.saga.states import StepSignal, StepStatus, WorkflowSignal, WorkflowStatus
from sidecar.saga.workflow import Step


def begin(draft: Draft) -> None:
    """Open the roots; in the rerun of a workflow, what follows from the results that it kept."""
    if not draft.steps:
        _open_ready(draft, draft.definition.roots)
        return
    for step in draft.in_order():
        if is_to_be_tried_again(draft.definition.by_name[step.key.step], step):
            try_anew(draft, step, "same_key_again")
    _open_ready(draft, draft.definition.steps)


def passed(draft: Draft, name: str) -> None:
    """Go on after step `name`, which has passed."""
    definition = draft.definition
    _open_ready(draft, (definition.by_name[one] for one in definition.successors[name]))


def failed(draft: Draft, step: Step) -> None:
    """Draw the conclusion from a step that has just failed for good."""
    if draft.definition.by_name[step.key.step].optional and not draft.turning_back:
        passed(draft, step.key.step)
    else:
        rollback.failed(draft, step)


def concluded(draft: Draft, step: Step) -> None:
    """Draw the conclusion from a plain step that has just succeeded, or been skipped."""
    if draft.turning_back:
        rollback.unwind(draft)
    else:
        passed(draft, step.key.step)


class _Passed:
    """Which steps have passed: nobody who waits for them need wait any longer.

    A step that a person skipped before its turn passes when its turn comes. What has passed once is
    kept, so that a long chain of skipped steps is looked through once.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._sure: set[str] = set()

    def __contains__(self, name: str) -> bool:
        status = self._draft.named(name).status
        if status is not StepStatus.SKIPPED:
            return status is StepStatus.SUCCEEDED or (
                status is StepStatus.FAILED and self._draft.definition.by_name[name].optional
            )
        return name in self._sure or self._had_its_turn(name)

    def _had_its_turn(self, name: str) -> bool:
        known: dict[str, bool] = {}
        todo = [name]
        while todo:
            one = todo[-1]
            if one in known:
                todo.pop()
                continue
            defined = self._draft.definition.by_name[one]
            if one in self._sure or self._draft.named(one).status is not StepStatus.SKIPPED:
                known[one] = one in self
            elif open_ := [before for before in defined.after if before not in known]:
                todo += open_
            else:
                known[one] = self._any(defined) or all(known[before] for before in defined.after)
        self._sure |= {one for one, passed in known.items() if passed}
        return known[name]

    def is_ready(self, defined: StepDefinition) -> bool:
        """Whether the turn of a step has come."""
        return self._any(defined) or all(name in self for name in defined.after)

    def _any(self, defined: StepDefinition) -> bool:
        return defined.join is Join.ANY and any(
            self._draft.named(name).status is StepStatus.SUCCEEDED for name in defined.after
        )


class _Opened(Enum):
    """What became of a step that was ready."""

    UNDER_WAY = auto()
    PASSED = auto()
    FAILED = auto()


def _open_ready(draft: Draft, candidates: Iterable[StepDefinition]) -> None:
    definition = draft.definition
    waiting = deque(candidates)
    passed_now: set[str] = set()
    passed = _Passed(draft)
    while waiting and not draft.turning_back:
        defined = waiting.popleft()
        step = draft.named(defined.name)
        if step.status is StepStatus.SKIPPED and defined.name not in passed_now:
            # Perhaps it was skipped before its turn, and that has come now.
            if defined.name in passed:
                passed_now.add(defined.name)
                waiting.extend(
                    definition.by_name[one] for one in definition.successors[defined.name]
                )
            continue
        if step.status is not StepStatus.PENDING or not passed.is_ready(defined):
            continue
        opened = _open(draft, defined, step)
        if opened is _Opened.FAILED and not defined.optional:
            rollback.failed(draft, draft.named(defined.name))
        elif opened is not _Opened.UNDER_WAY:
            waiting.extend(definition.by_name[one] for one in definition.successors[defined.name])
    _complete_if_finished(draft)


def _open(draft: Draft, defined: StepDefinition, step: Step) -> _Opened:
    """Open a step; what cannot be rendered fails it before anything is sent."""
    try:
        if defined.when is not None and not _is_true(draft.rendered(defined.when)):
            draft.move(step, StepSignal.SKIP, "condition_is_false", stored=True)
            return _Opened.PASSED
        if defined.wait is not None:
            step = waits.begin(draft, defined.wait, step)
        elif defined.fan_out is not None:
            step = fan_out.begin(draft, defined.fan_out, step)
            if not fan_out.tolerates(draft, step):
                return _fail_items(draft, step)
        elif defined.child is not None:
            step = children.begin(draft, defined, step, children.body_of(draft, defined, step))
        else:
            sent = draft.rendered(defined.input) if defined.input else None
            step = open_call(draft, defined, step, sent)
    except RenderError as error:
        step = fail_unsent(draft, step, error)
    match step.status:
        case StepStatus.SUCCEEDED:
            return _Opened.PASSED
        case StepStatus.FAILED:
            return _Opened.FAILED
        case _:
            return _Opened.UNDER_WAY


def _fail_items(draft: Draft, step: Step) -> _Opened:
    """Too many items cannot even be sent."""
    if not fan_out.must_go_on(draft, step):
        fan_out.close(draft, step, "items_failed")
    return _Opened.FAILED


def items_failed(draft: Draft, step: Step, item: Step) -> None:
    """Draw the conclusion from more failures of items than a fan-out tolerates."""
    if draft.definition.by_name[step.key.step].optional and not draft.turning_back:
        if step.status is StepStatus.WAITING:
            step = fan_out.close(draft, step, "items_failed")
        if step.status is StepStatus.FAILED:
            passed(draft, step.key.step)
    else:
        rollback.failed(draft, step, fan_out.error_of(step, _failed_item(draft, item)))


def _failed_item(draft: Draft, item: Step) -> Step:
    """The item that was one too many: the one that ended, or one opened by that and unsent."""
    if item.status is StepStatus.FAILED:
        return item
    others = (one for one in draft.in_order() if one.is_item and one.key.step == item.key.step)
    failed = [one for one in others if one.status is StepStatus.FAILED]
    return failed[-1] if failed else item


def _is_true(rendered: JsonText) -> bool:
    if rendered not in ("true", "false"):
        raise RenderError("`when` must come to true or false")
    return rendered == "true"


def _complete_if_finished(draft: Draft) -> None:
    definition = draft.definition
    if draft.status is not WorkflowStatus.IN_PROGRESS or len(draft.steps) < len(definition.steps):
        return  # a step without a row is pending
    passed = _Passed(draft)
    if not all(step.name in passed for step in definition.steps):
        return
    fields: dict[str, JsonText] = {}
    if definition.output is not None:
        try:
            fields["output"] = draft.rendered(definition.output)
        except RenderError as error:
            # What was done is done; only what it is told by is missing.
            fields["error"] = error_body(error.code, f"the output: {error.message}")
    draft.signal(WorkflowSignal.COMPLETE, "all_steps_passed", **fields)
