"""Fan-outs: one run of a step for each element of a list.

Every item has a row of its own, with its own attempts and its own lease; the step itself waits,
and keeps counters. The end of an item touches its row, the counters, and the item whose turn is
next, however many there are. Only what concerns all items (turning back, the whole output) needs
all of them.

On the way back the step is `compensating` while its items are undone, as many at a time as were
called at a time.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga import children
from sidecar.saga.bodies import at_step, error_body
from sidecar.saga.definition import MOST_ITEMS, FanOut, JsonText, Order, StepDefinition
from sidecar.saga.draft import Draft
from sidecar.saga.queueing import CAN_BE_STOPPED, fail_unsent, open_call, stop, under_way
from sidecar.saga.states import StepSignal, StepStatus
from sidecar.saga.undoing import begin_undo, owes_compensation
from sidecar.saga.workflow import Fan, Step, StepKey

MOST_AT_ONCE = 2 * 1024 * 1024
"""With how much input, in characters, one transition opens items, or begins to undo them. It is
decided under a lock, held in memory, and written at once; the others follow as these end."""

MOST_NEXT = 10
"""How many items the end of one opens while others are under way: only their elements are read."""


def begin(draft: Draft, defined: FanOut, step: Step) -> Step:
    """Open a fan-out with its first items; return the step. Raises `RenderError`."""
    rendered = draft.rendered(defined.items)
    try:
        found = msgspec.json.decode(rendered, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise RenderError("`for_each` must come to a list") from None
    if len(found) > MOST_ITEMS:
        raise RenderError(f"`for_each` comes to {len(found)} elements; at most {MOST_ITEMS}")
    name = step.key.step
    fan = Fan(total=len(found))
    if not found:
        return draft.move(step, StepSignal.SUCCEED, "no_elements", fan=fan, stored=True)
    draft.add_items(name, rendered, [JsonText(bytes(one).decode()) for one in found])
    step = draft.move(step, StepSignal.AWAIT, "fans_out", fan=fan, stored=True, due_at=None)
    return _open_next(draft, step, MOST_ITEMS)


def item_ended(draft: Draft, item: Step) -> Step:
    """Count an item that has ended on the way forward, and open the next; return its step.

    The step has ended, too, if this was the last of its items.
    """
    step = draft.named(item.key.step)
    step = _counted(draft, step, item)
    if draft.turning_back or not tolerates(draft, step):
        return _ended_if_none_is_open(draft, step)
    return _open_next(draft, step, MOST_NEXT)


def tolerates(draft: Draft, step: Step) -> bool:
    """Whether so many items may fail."""
    fan_out = draft.definition.by_name[step.key.step].fan_out
    return step.fan is None or fan_out is None or step.fan.failed <= fan_out.tolerated


def must_go_on(draft: Draft, step: Step) -> bool:
    """Whether only a person can help a step that fails: the way back is closed."""
    optional = draft.definition.by_name[step.key.step].optional
    return draft.past_pivot(step.key.step) and not optional


def close(draft: Draft, step: Step, cause: str) -> Step:
    """Open no more items, and end those that are not being called. Raises `IncompleteState`."""
    defined = draft.definition.by_name[step.key.step]
    for item in draft.items(step.key.step):
        if defined.child is not None and item.status is StepStatus.WAITING:
            children.turn_back(draft, item)
        elif item.status in CAN_BE_STOPPED and not under_way(item):
            draft.takes_away = draft.takes_away or item.stored
            step = _counted(draft, step, stop(draft, item, cause))
    if step.fan is not None:
        step = draft.put(replace(step, fan=replace(step.fan, opened=step.fan.total)))
    return _ended_if_none_is_open(draft, step)


def _counted(draft: Draft, step: Step, item: Step) -> Step:
    if step.fan is None:
        raise AssertionError(f"{step.key} has no items")
    fan = replace(
        step.fan,
        open=step.fan.open - 1,
        failed=step.fan.failed + (item.status is StepStatus.FAILED),
        effects=step.fan.effects or item.may_have_effect,
    )
    return draft.put(replace(step, fan=fan, may_have_effect=fan.effects))


def _open_next(draft: Draft, step: Step, most: int) -> Step:
    """Open items while there is room for them, but not more; end the step if there is none left.

    If no other is under way, one is opened, whatever that takes.
    """
    defined = draft.definition.by_name[step.key.step]
    if defined.fan_out is None or step.fan is None:
        raise AssertionError(f"{step.key} has no items")
    fan = step.fan
    last = fan.opened + most
    while fan.open < defined.fan_out.max_parallel and fan.opened < fan.total:
        if fan.open and (draft.opened_with >= MOST_AT_ONCE or fan.opened >= last):
            break
        item = _open(draft, defined, StepKey(defined.name, fan.opened))
        unsent = item.status is StepStatus.FAILED
        fan = replace(
            fan, opened=fan.opened + 1, open=fan.open + (not unsent), failed=fan.failed + unsent
        )
        step = draft.put(replace(step, fan=fan))
        if not tolerates(draft, step):
            break
    return _ended_if_none_is_open(draft, step)


def _open(draft: Draft, defined: StepDefinition, key: StepKey) -> Step:
    item = draft.step(key)
    try:
        body = draft.rendered(defined.input, item) if defined.input else draft.element(key)
        draft.opened_with += len(body)
        if defined.child is not None:
            return children.begin(draft, defined, item, body)
        return open_call(draft, defined, item, body)
    except RenderError as error:
        return fail_unsent(draft, item, error)


def _ended_if_none_is_open(draft: Draft, step: Step) -> Step:
    fan = step.fan
    if fan is None or fan.open or step.status is not StepStatus.WAITING:
        return step
    if not tolerates(draft, step):
        if must_go_on(draft, step) and not draft.turning_back:
            return step  # a person retries or skips the items
        body = error_body("items_failed", f"{fan.failed} of {fan.total} items failed")
        return draft.move(step, StepSignal.FAIL, "items_failed", error=body, due_at=None)
    if fan.opened < fan.total or draft.turning_back:
        return draft.move(step, StepSignal.FAIL, "turned_back", due_at=None)
    return draft.move(step, StepSignal.SUCCEED, "all_items_ended", due_at=None)


# -- the way back -----------------------------------------------------------------------------


def begin_undo_of_items(draft: Draft, step: Step) -> Step:
    """Begin to undo the items of a step. Raises `IncompleteState`."""
    draft.need_whole()
    step = draft.move(step, StepSignal.COMPENSATE, "undo", due_at=None, lease_until=None)
    return _undo_next(draft, step, MOST_ITEMS)


def item_undone(draft: Draft, item: Step) -> Step:
    """Count an item that has been undone, or could not be; return its step."""
    step = draft.named(item.key.step)
    if step.fan is None:
        raise AssertionError(f"{step.key} has no items")
    kept = item.status is StepStatus.COMPENSATION_FAILED
    fan = replace(step.fan, undoing=step.fan.undoing - 1, kept=step.fan.kept + kept)
    return _undo_next(draft, draft.put(replace(step, fan=fan)), step.fan.undoing)


def _undo_next(draft: Draft, step: Step, most: int) -> Step:
    """Begin to undo items until `most` are being undone; end the step if none is left.

    Of more than were under way before, those that are to follow would not have been read.
    """
    defined = draft.definition.by_name[step.key.step]
    fan = step.fan
    if fan is None or defined.fan_out is None:
        raise AssertionError(f"{step.key} has no items")
    at_once = min(most, defined.fan_out.max_parallel)
    if draft.definition.order is Order.SEQUENTIAL:
        at_once = 1
    owed = sorted(
        item.key.index
        for item in draft.steps.values()
        if item.is_item
        and item.key.step == defined.name
        and item.key.index >= fan.undone
        and owes_compensation(defined, item)
    )
    before = fan.kept
    for index in owed:
        if fan.undoing >= at_once or (fan.undoing and draft.opened_with >= MOST_AT_ONCE):
            break
        item = draft.step(StepKey(defined.name, index))
        if defined.child is not None:
            item = children.begin_undo(draft, item)
        else:
            item = begin_undo(draft, defined, item)
            draft.opened_with += len(item.compensation_input or "")
        kept = item.status is StepStatus.COMPENSATION_FAILED
        fan = replace(fan, undone=index + 1, undoing=fan.undoing + (not kept), kept=fan.kept + kept)
    if fan.undoing < at_once and fan.kept > before:
        draft.need_whole()  # one that could not be begun leaves its place to the next
    step = draft.put(replace(step, fan=fan))
    if fan.undoing or step.status is not StepStatus.COMPENSATING:
        return step
    draft.need_whole()  # to be sure that none was left out
    if not fan.kept:
        return draft.move(step, StepSignal.UNDO, "all_items_undone", due_at=None)
    error = error_body("items_not_undone", f"{fan.kept} of {fan.total} items could not be undone")
    return draft.move(
        step, StepSignal.GIVE_UP, "items_not_undone", compensation_error=error, due_at=None
    )


def cut_off(draft: Draft, item: Step) -> None:
    """Count an item that was ended together with its workflow."""
    step = draft.named(item.key.step)
    if item.status is not StepStatus.COMPENSATION_FAILED:
        _counted(draft, step, item)
    elif step.fan is not None:
        fan = replace(step.fan, undoing=step.fan.undoing - 1, kept=step.fan.kept + 1)
        draft.put(replace(step, fan=fan))


def retry_item(draft: Draft, item: Step) -> None:
    """Count an item that had failed as on its way again."""
    step = draft.named(item.key.step)
    if step.fan is not None:
        fan = replace(step.fan, open=step.fan.open + 1, failed=step.fan.failed - 1)
        draft.put(replace(step, fan=fan))


def retry_undo(draft: Draft, item: Step) -> None:
    """Count an item that could not be undone as being undone again."""
    step = draft.named(item.key.step)
    if step.fan is None:
        return
    fan = replace(step.fan, undoing=step.fan.undoing + 1, kept=step.fan.kept - 1)
    step = draft.put(replace(step, fan=fan))
    if step.status is StepStatus.COMPENSATION_FAILED:
        draft.move(step, StepSignal.RETRY, "retry", due_at=None)


def error_of(step: Step, item: Step) -> JsonText:
    """The error of a workflow for an item of one of its steps."""
    return at_step(item.error or step.error, str(item.key))
