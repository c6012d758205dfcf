"""Items with large inputs: only so much is opened, or begun to be undone, in one transition."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from sidecar.saga.definition import Compensation, FanOut, JsonText, StepDefinition, Template
from sidecar.saga.events import Answered
from sidecar.saga.fan_out import MOST_AT_ONCE, MOST_NEXT
from sidecar.saga.machine import advance
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.partial import part
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Fan, Step, StepKey
from tests.unit.saga.worlds import Run, definition, render, step

LARGE = Template(JsonText(json.dumps("x" * (MOST_AT_ONCE // 2))), constant=True)
TWELVE = Template(JsonText(json.dumps(list(range(12)))), constant=True)
MANY = FanOut(TWELVE, max_parallel=10)


def large(name: str, **more: object) -> StepDefinition:
    """A step whose every item is sent half of what may be opened at once, and a bit."""
    return step(name, fan_out=MANY, **more)


def in_status(run: Run, status: StepStatus) -> list[Step]:
    return [one for one in run.workflow.steps.values() if one.is_item and one.status is status]


def test_items_are_opened_while_their_inputs_are_not_too_much_at_once() -> None:
    run = Run(definition(large("many", input=LARGE)))
    assert len(in_status(run, StepStatus.QUEUED)) == 2
    run.done("many[0]")
    assert len(in_status(run, StepStatus.QUEUED)) == 3
    for _ in range(11):
        run.done(str(in_status(run, StepStatus.QUEUED)[0].key))
    assert run.workflow.status is WorkflowStatus.COMPLETED


def test_small_ones_are_opened_as_many_as_may_be_under_way() -> None:
    run = Run(definition(large("many")))
    assert len(in_status(run, StepStatus.QUEUED)) == MANY.max_parallel


def test_of_two_fan_outs_each_has_an_item_under_way() -> None:
    run = Run(definition(large("one", input=LARGE), large("other", input=LARGE)))
    assert [str(one.key) for one in in_status(run, StepStatus.QUEUED)] == [
        "one[0]",
        "one[1]",
        "other[0]",
    ]


@pytest.mark.parametrize(
    ("size", "at_an_end"),
    [(MOST_AT_ONCE // 8, 8), (10, MOST_NEXT)],
    ids=["by their size", "by their number"],
)
def test_while_they_fill_up_an_end_needs_no_more_than_those_that_it_opens(
    size: int, at_an_end: int
) -> None:
    every = Template(JsonText(json.dumps(["x" * size] * 70)), constant=True)
    run = Run(definition(step("many", fan_out=FanOut(every, max_parallel=70))))
    # As if only the first could be opened at the beginning.
    steps = {
        StepKey("many"): replace(run.step("many"), fan=Fan(total=70, opened=1, open=1)),
        StepKey("many", 0): run.step("many[0]"),
    }
    run.workflow = replace(run.workflow, steps=steps)
    for at in range(6):
        before = run.step("many").fan
        attempt = run.claim(f"many[{at}]")
        done = Answered(StepKey("many", at), Action.EXECUTE, attempt, Outcome(OutcomeKind.DONE))
        little = part(run.definition, run.workflow, [done.step])
        decided = advance(run.definition, little, done, now=run.now, render=render)
        assert decided.steps == run.apply(done).steps
        after = run.step("many").fan
        assert before is not None
        assert after is not None
        assert after.opened - before.opened == at_an_end


def test_they_are_undone_so_too_whatever_was_read() -> None:
    """An end decided on the items that it needs comes to the same as on all of them."""
    undo = Compensation("/undo", input=LARGE)
    run = Run(definition(large("many", compensation=undo), step("last", "many")))
    run.done(*(f"many[{at}]" for at in range(12)))
    run.answer("last", OutcomeKind.REFUSED)
    undoing = in_status(run, StepStatus.COMPENSATING)
    assert len(undoing) == 2
    for _ in range(10):
        (first, *_) = in_status(run, StepStatus.COMPENSATING)
        attempt = run.claim(str(first.key))
        event = Answered(first.key, first.action, attempt, Outcome(OutcomeKind.DONE))
        little = part(run.definition, run.workflow, [first.key])
        decided = advance(run.definition, little, event, now=run.now, render=render)
        assert decided.steps == run.apply(event).steps
        assert len(in_status(run, StepStatus.COMPENSATING)) == 2
    for one in in_status(run, StepStatus.COMPENSATING):
        run.done(str(one.key))
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK
