"""Children in trouble: terminated, said to have had no effect, past a pivot, begun in vain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.children import child_id
from sidecar.saga.definition import Concurrency, Definition, FanOut, JsonText, Template
from sidecar.saga.events import (
    Admitted,
    CancelRequested,
    ChildTold,
    ParentTurnedBack,
    Resolution,
    ResolveRequested,
    RetryRequested,
    TerminateRequested,
)
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Reason, StepStatus, WorkflowStatus
from sidecar.saga.turns import Standing
from tests.unit.saga.test_children import CHILD, PAY, ROOT, Family, Wants, family, runs
from tests.unit.saga.worlds import EPOCH, definition, key_of, render, step


@pytest.mark.parametrize("when", ["before", "meanwhile", "undoing"])
@pytest.mark.parametrize("fan", ["", "[0]"])
def test_a_child_that_was_terminated_needs_a_person_when_its_parent_turns_back(
    when: str, fan: str
) -> None:
    """Nothing else will ever come from it: its parent must not wait for it."""
    many = FanOut(Template(JsonText("[1]"), constant=True)) if fan else None
    house = family(runs("pay", fan_out=many), step("ship", "pay"))
    key = key_of(f"pay{fan}")
    child = child_id(ROOT, key)
    house.answer(child, "a", OutcomeKind.DONE if when == "undoing" else OutcomeKind.UNKNOWN)
    house.bring_all()
    verbs = [(child, TerminateRequested("enough")), (ROOT, CancelRequested())]
    for known, verb in verbs if when == "before" else verbs[::-1]:
        house.apply(known, verb)
        if when != "meanwhile":
            house.bring_all()
    house.bring_all()
    assert house.status() is WorkflowStatus.ERROR
    assert house.members[ROOT].steps[key].status is StepStatus.COMPENSATION_FAILED
    house.apply(ROOT, ResolveRequested(key, Resolution.COMPENSATED, "undone", "by hand"))
    assert house.status() is WorkflowStatus.ROLLED_BACK


@pytest.mark.parametrize("ended", [False, True])
def test_a_child_that_is_said_to_have_no_effect_gets_none(ended: bool) -> None:
    """Whoever said so cannot know what the child is still going to do."""
    house = family(runs("pay"), step("ship", "pay"))
    child = child_id(ROOT, PAY)
    if ended:
        house.answer(child, "a")
        house.letters.clear()
    house.apply(ROOT, ResolveRequested(PAY, Resolution.NO_EFFECT, "never charged", "statement"))
    assert house.status() is WorkflowStatus.ROLLED_BACK
    house.bring_all()
    if ended:
        house.answer(child, "a")
    assert house.status(child) is WorkflowStatus.ROLLED_BACK


def test_a_child_past_a_pivot_does_not_get_the_deadline_of_its_parent() -> None:
    """Its parent would not be turned back by it either, and could not do without the child."""
    steps = (runs("before"), step("buy", "before", pivot=True), runs("pay", "buy"))
    hour = timedelta(hours=1)
    child = Definition("child", 1, CHILD.steps)
    house = Family(root=definition(*steps, timeout=hour), child=child)
    early, late = child_id(ROOT, key_of("before")), child_id(ROOT, PAY)
    house.answer(early, "a")
    house.bring_all()
    house.answer(ROOT, "buy")
    assert house.members[early].deadline_at == EPOCH + hour
    assert house.members[late].deadline_at is None


def test_who_turns_back_as_soon_as_it_begins_has_a_place_until_its_child_is_undone() -> None:
    always = Concurrency(Template(JsonText('"all"'), constant=True), 1)
    unsendable = step("bad", input=Template(JsonText("!"), constant=False))
    defined = definition(runs("pay"), unsendable, concurrency=always)
    waits = start(defined, NewWorkflow(ROOT, JsonText("{}")), now=EPOCH, render=render)
    began = advance(defined, waits.workflow, Admitted(), now=EPOCH, render=render)
    assert began.workflow.status is WorkflowStatus.ROLLING_BACK
    assert len(began.children) == 1
    assert [(one.standing, one.freed) for one in began.turns] == [(Standing.HAS_PLACE, False)]
    told = ChildTold(PAY, WorkflowStatus.ROLLED_BACK)
    ended = advance(defined, began.workflow, told, now=EPOCH, render=render)
    assert ended.workflow.status is WorkflowStatus.ROLLED_BACK
    assert [(one.standing, one.freed) for one in ended.turns] == [(Standing.NONE, True)]


# -- begun anew past a pivot ------------------------------------------------------------------


def past_a_pivot(**more: Any) -> Family:
    """A root whose pivot has passed, and whose child is under way; its letters are brought."""
    house = family(step("buy", pivot=True), runs("pay", "buy", **more), step("tell", "pay"))
    house.answer(ROOT, "buy")
    return house


@pytest.mark.parametrize("fan", ["", "[0]"])
def test_a_child_that_was_rolled_back_past_a_pivot_is_begun_anew(fan: str) -> None:
    many = FanOut(Template(JsonText("[1]"), constant=True)) if fan else None
    house = past_a_pivot(fan_out=many)
    key = key_of(f"pay{fan}")
    for retries in (0, 1):
        child = child_id(ROOT, key, retries)
        house.answer(child, "a", OutcomeKind.REFUSED)
        house.bring_all()
        assert house.status(child) is WorkflowStatus.ROLLED_BACK
        assert house.status() is WorkflowStatus.ERROR
        house.apply(ROOT, RetryRequested(key if retries else None, "mended"))
        assert house.status() is WorkflowStatus.IN_PROGRESS
    last = child_id(ROOT, key, 2)
    early = ChildTold(key, WorkflowStatus.ROLLED_BACK, child=child_id(ROOT, key, 1))
    assert house.apply(ROOT, early) is Verdict.LATE
    house.answer(last, "a")
    house.bring_all()
    house.answer(ROOT, "tell")
    assert house.status() is WorkflowStatus.COMPLETED


def test_a_child_whose_effect_is_there_is_not_begun_anew() -> None:
    """It completed, and only what it gave could not be used."""
    house = past_a_pivot(output_check=Wants('"other"'))
    house.answer(child_id(ROOT, PAY), "a")
    house.bring_all()
    assert house.status() is WorkflowStatus.ERROR
    with pytest.raises(IllegalTransition, match="what its child did is still there"):
        house.apply(ROOT, RetryRequested(PAY))
    with pytest.raises(IllegalTransition):
        house.apply(ROOT, RetryRequested())


def test_a_letter_that_cannot_be_heeded_stands_in_the_history() -> None:
    house = family(runs("pay"), step("ship", "pay"))
    child = child_id(ROOT, PAY)
    broken = replace(house.members[child], status=WorkflowStatus.ERROR)
    turned = ParentTurnedBack(Reason.CANCELLED)
    changes = advance(CHILD, broken, turned, now=house.now, render=render)
    (line,) = changes.events
    assert (changes.verdict, line.kind, line.cause) == (Verdict.LATE, "parent", "refused")
    assert "turn_back is not legal" in str(line.details)
    assert changes.workflow.status is WorkflowStatus.ERROR
