"""Running a workflow again, on the pure machine: what is kept, what is refused, what is settled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.definition import (
    Compensation,
    Concurrency,
    Definition,
    FanOut,
    JsonText,
    Order,
    StepDefinition,
    Template,
)
from sidecar.saga.events import (
    Admitted,
    CancelRequested,
    RerunRequested,
    Resolution,
    ResolveRequested,
    RetryRequested,
    TerminateRequested,
)
from sidecar.saga.invariants import violations
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.reruns import before_undoing, is_kept
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, Workflow, WorkflowId
from tests.unit.saga.worlds import Run, definition, render, step

NEW = WorkflowId("again")
STOP = TerminateRequested("enough")


def rerun(run: Run, new: WorkflowId = NEW, *succeeded: str) -> Workflow:
    """Run the workflow of `run` again; return the new one."""
    event = RerunRequested(new, succeeded=frozenset(StepKey(name) for name in succeeded))
    old = run.workflow
    run.apply(event)
    old = replace(old, steps=before_undoing(old.steps, event.succeeded))
    begun = NewWorkflow(
        new, JsonText("{}"), rerun_of=old.id, kept=old if is_kept(old, event) else None
    )
    made = start(run.definition, begun, now=run.now, render=render).workflow
    assert violations(run.definition, made) == []
    return made


def by_hand(name: str) -> ResolveRequested:
    return ResolveRequested(StepKey(name), Resolution.COMPENSATED, "by hand", "ticket 7")


def statuses(workflow: Workflow) -> dict[str, StepStatus]:
    return {str(key): one.status for key, one in workflow.steps.items()}


def gone_on(run: Run, new: WorkflowId = NEW) -> Run:
    """The rerun of a workflow, as a run of its own."""
    further = Run(run.definition)
    further.workflow, further.now = rerun(run, new), run.now
    return further


def each(name: str, *after: str, at_once: int = 10, **more: object) -> StepDefinition:
    """A call for each of four elements."""
    items = FanOut(Template(JsonText("list"), constant=False), at_once)
    return step(name, *after, fan_out=items, **more)


def stopped(defined: Definition, *done: str) -> Run:
    """A workflow that was terminated after these steps were done."""
    run = Run(defined)
    run.done(*done)
    run.apply(STOP)
    return run


def test_of_one_that_was_rolled_back_nothing_is_kept() -> None:
    run = Run(definition(step("a"), step("b", "a")))
    run.done("a")
    run.apply(CancelRequested())
    run.done("a")
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK
    assert statuses(rerun(run)) == {"a": StepStatus.QUEUED}
    assert statuses(rerun(run, WorkflowId("once more"))) == {"a": StepStatus.QUEUED}


def test_what_came_after_something_undone_is_not_taken_over() -> None:
    defined = definition(step("a"), step("b", "a"), step("c", "b"), order=Order.PARALLEL)
    run = Run(defined)
    run.done("a", "b")
    run.answer("c", OutcomeKind.REFUSED)
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    run.apply(STOP)
    with pytest.raises(IllegalTransition, match="step b cannot be taken over: its undoing"):
        rerun(run)
    run.apply(by_hand("b"))
    assert statuses(rerun(run)) == {"a": StepStatus.QUEUED}


def test_what_came_after_what_a_person_undid_is_not_kept() -> None:
    run = stopped(definition(step("a"), step("b", "a"), step("c", "b")), "a", "b")
    run.apply(by_hand("a"))
    with pytest.raises(IllegalTransition, match="step b cannot be taken over: what came before"):
        rerun(run)
    run.apply(by_hand("b"))
    assert run.workflow.owes_since is None
    assert statuses(rerun(run)) == {"a": StepStatus.QUEUED}


def test_one_step_of_two_that_a_join_needed_is_enough() -> None:
    run = Run(definition(step("a"), step("b"), step("c", "a", "b"), step("d", "c")))
    run.done("a")
    run.claim("b")
    run.apply(STOP)
    made = rerun(run)
    assert statuses(made) == {"a": StepStatus.SUCCEEDED, "b": StepStatus.RETRYING}
    assert (made.steps[StepKey("b")].origin, made.steps[StepKey("b")].execute.tries) == ("w", 0)


def test_what_has_nothing_to_undo_is_tried_under_its_old_key_all_the_same() -> None:
    run = Run(definition(step("a", compensation=None, no_effect=True), step("b", "a")))
    run.claim("a")
    run.apply(STOP)
    assert run.workflow.owes_since is None
    made = rerun(run)
    assert made.steps[StepKey("a")].origin == "w"
    assert run.workflow.taken_over_by == NEW


def test_only_one_rerun_goes_on_past_a_pivot_though_nothing_is_owed() -> None:
    nothing = {"compensation": None, "no_effect": True}
    defined = definition(
        step("point", pivot=True, **nothing), step("pay", "point", **nothing), step("tell", "pay")
    )
    run = stopped(defined, "point")
    assert run.workflow.owes_since is None
    assert statuses(rerun(run)) == {"point": StepStatus.SUCCEEDED, "pay": StepStatus.QUEUED}
    with pytest.raises(IllegalTransition, match=f"{NEW} took over"):
        rerun(run, WorkflowId("once more"))


def test_what_keeps_nothing_takes_nothing_over() -> None:
    run = stopped(definition(step("a"), step("b", "a")))
    assert statuses(rerun(run)) == {"a": StepStatus.QUEUED}
    assert run.workflow.taken_over_by is None
    assert statuses(rerun(run, WorkflowId("once more"))) == {"a": StepStatus.QUEUED}


def test_what_waits_for_its_turn_is_not_retried_before_it() -> None:
    turns = Concurrency(Template("true", constant=True), 1)
    defined = definition(step("point", pivot=True), step("b", "point"), concurrency=turns)
    run = Run(definition(*defined.steps))
    run.done("point")
    run.claim("b")
    run.apply(STOP)
    run.definition = defined
    made = rerun(run)
    assert made.status is WorkflowStatus.QUEUED
    with pytest.raises(IllegalTransition):
        advance(defined, made, RetryRequested(), now=run.now, render=render)


def test_a_step_that_takes_turns_waits_for_its_turn_before_it_is_tried_again() -> None:
    turns = Concurrency(Template("true", constant=True), 1)
    run = Run(definition(step("a", concurrency=turns)))
    run.apply(Admitted(StepKey("a")))
    run.claim("a")
    run.apply(STOP)
    made = rerun(run)
    assert statuses(made) == {"a": StepStatus.WAITING}
    changes = advance(run.definition, made, Admitted(StepKey("a")), now=run.now, render=render)
    found = changes.workflow.steps[StepKey("a")]
    assert (found.status, found.origin) == (StepStatus.RETRYING, "w")


def test_what_was_taken_over_is_settled_in_the_rerun_alone() -> None:
    run = stopped(definition(step("a"), step("b", "a")), "a")
    rerun(run)
    with pytest.raises(IllegalTransition, match=f"taken over by {NEW}"):
        run.apply(by_hand("a"))
    with pytest.raises(IllegalTransition, match=f"{NEW} took over"):
        rerun(run, WorkflowId("once more"))


@pytest.mark.parametrize("resolution", [Resolution.NO_EFFECT, Resolution.COMPENSATED])
def test_what_was_cut_off_is_settled_by_a_person(resolution: Resolution) -> None:
    run = Run(definition(step("a")))
    run.claim("a")
    run.apply(STOP)
    event = ResolveRequested(StepKey("a"), resolution, "looked", "the ledger")
    changes = run.apply(event)
    assert run.status("a") is StepStatus.COMPENSATED
    assert run.workflow.owes_since is None
    assert [one.after for one in changes.events] == ["compensation_failed", "compensated"]
    assert run.apply(event).events == ()


@pytest.mark.parametrize("resolution", list(Resolution))
def test_what_owes_nothing_has_nothing_to_settle(resolution: Resolution) -> None:
    run = Run(definition(step("a"), step("b", "a")))
    run.apply(STOP)
    event = ResolveRequested(StepKey("b"), resolution, "looked", "the ledger")
    if resolution is Resolution.NO_EFFECT:
        assert run.apply(event).events == ()
    else:
        with pytest.raises(IllegalTransition, match="terminated"):
            run.apply(event)


def test_that_it_succeeded_is_no_use_to_a_workflow_at_its_end() -> None:
    run = Run(definition(step("a")))
    run.claim("a")
    run.apply(STOP)
    with pytest.raises(IllegalTransition, match="resolve as succeeded"):
        run.apply(ResolveRequested(StepKey("a"), Resolution.SUCCEEDED, "looked", "the ledger"))


def test_tries_and_time_begin_anew_but_attempts_go_on() -> None:
    run = Run(definition(step("a")))
    run.answer("a", OutcomeKind.UNKNOWN, may_have_effect=True)
    run.now += timedelta(hours=1)
    run.apply(STOP)
    made = rerun(run)
    found = made.steps[StepKey("a")]
    assert (found.execute.attempt, found.execute.tries, found.execute.started_at) == (1, 0, None)
    assert (found.status, found.due_at) == (StepStatus.RETRYING, run.now)


ITSELF = Compensation("/undo", input=Template(JsonText("workflow"), constant=False))


def test_what_was_taken_over_is_undone_with_the_id_that_its_service_knows() -> None:
    defined = definition(
        step("a", compensation=ITSELF), each("b", compensation=ITSELF), step("c", "a", "b")
    )
    run = stopped(defined, "a", "b[0]", "b[1]", "b[2]", "b[3]")
    second = gone_on(run)
    second.claim("c")
    second.apply(STOP)
    third = gone_on(second, WorkflowId("once more"))
    third.answer("c", OutcomeKind.REFUSED)
    third.done("c")
    for name in ("a", "b[0]", "b[3]"):
        assert third.step(name).status is StepStatus.COMPENSATING
        assert third.step(name).compensation_input == '"w"'


def test_what_a_rerun_did_itself_is_undone_with_its_own_id() -> None:
    run = stopped(definition(step("a"), step("b", "a", compensation=ITSELF), step("c", "b")), "a")
    second = gone_on(run)
    second.done("b")
    second.answer("c", OutcomeKind.REFUSED)
    assert second.step("b").compensation_input == f'"{NEW}"'


@pytest.mark.parametrize("resolution", [Resolution.NO_EFFECT, Resolution.COMPENSATED])
def test_a_fan_out_with_an_item_that_was_undone_by_hand_is_not_kept(resolution: Resolution) -> None:
    run = stopped(definition(each("a"), step("b", "a")), "a[0]", "a[1]", "a[2]", "a[3]")
    for index in (1, 0, 2, 3):
        run.apply(ResolveRequested(StepKey("a", index), resolution, "by hand", "ticket 7"))
        if index != 3:
            with pytest.raises(IllegalTransition, match="undone by hand; resolve the others"):
                rerun(run)
    assert run.status("a") is StepStatus.COMPENSATED
    assert set(statuses(rerun(run)).values()) == {StepStatus.WAITING, StepStatus.QUEUED}


def test_the_items_that_are_still_to_be_settled_are_named() -> None:
    run = stopped(definition(each("a"), step("b", "a")), "a[0]", "a[1]", "a[2]", "a[3]")
    run.apply(ResolveRequested(StepKey("a", 1), Resolution.COMPENSATED, "by hand", "ticket 7"))
    with pytest.raises(IllegalTransition, match=r"resolve the others \(a\[0\], a\[2\], a\[3\]\)"):
        rerun(run)


@pytest.mark.parametrize("status", list(StepStatus))
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("item", [False, True])
def test_whatever_has_become_of_a_step_its_workflow_is_run_again_or_refused(
    status: StepStatus, optional: bool, item: bool
) -> None:
    """Those that no terminated workflow can have are among them: none may end in a crash."""
    defined = definition(each("a", optional=optional), step("b", "a"))
    run = stopped(defined, "a[0]", "a[1]", "a[2]", "a[3]")
    key = StepKey("a", 1) if item else StepKey("a")
    changed = replace(run.workflow.steps[key], status=status)
    old = replace(run.workflow, steps={**run.workflow.steps, key: changed})
    kept = {StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.CANCELLED}
    if item or optional:
        kept |= {StepStatus.FAILED}
    if not item:
        kept |= {StepStatus.PENDING, StepStatus.COMPENSATED}  # nothing is owed, and nothing kept
    event = RerunRequested(NEW)
    if status not in kept:
        with pytest.raises(IllegalTransition, match="step a cannot be taken over"):
            advance(defined, old, event, now=run.now, render=render)
        return
    advance(defined, old, event, now=run.now, render=render)
    begun = NewWorkflow(NEW, JsonText("{}"), rerun_of=old.id, kept=old)
    start(defined, begun, now=run.now, render=render)


def turned_back() -> Run:
    """A workflow whose second step is to be undone, which nobody has been asked for."""
    run = Run(definition(step("a"), step("b", "a"), step("c", "b")))
    run.done("a", "b")
    run.answer("c", OutcomeKind.REFUSED)
    return run


def test_what_nobody_had_begun_to_undo_is_kept() -> None:
    run = turned_back()
    run.apply(STOP)
    assert run.status("b") is StepStatus.COMPENSATION_FAILED
    made = rerun(run, NEW, "a", "b")
    assert statuses(made) == {
        "a": StepStatus.SUCCEEDED,
        "b": StepStatus.SUCCEEDED,
        "c": StepStatus.QUEUED,
    }
    assert made.steps[StepKey("b")].origin == "w"
    assert run.status("b") is StepStatus.COMPENSATION_FAILED
    assert run.workflow.taken_over_by == NEW


def test_what_is_not_known_to_have_succeeded_is_not_kept_then() -> None:
    run = turned_back()
    run.apply(STOP)
    with pytest.raises(IllegalTransition, match="step b cannot be taken over: it was to be undone"):
        rerun(run, NEW, "a")


def test_what_somebody_had_begun_to_undo_is_refused() -> None:
    run = turned_back()
    run.claim("b")
    run.apply(STOP)
    with pytest.raises(IllegalTransition, match="step b cannot be taken over: its undoing had"):
        rerun(run, NEW, "a", "b")
