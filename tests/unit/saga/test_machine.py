"""The saga's semantics, one sentence a test."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import Compensation, JsonText, Template
from sidecar.saga.events import Answered, CancelRequested, DeadlinePassed, LeaseEnded
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.unit.saga.worlds import Run, definition, step

A, B, C = StepKey("a"), StepKey("b"), StepKey("c")
CHAIN = definition(step("a"), step("b", "a"), step("c", "b"))
DIAMOND = definition(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))


def test_steps_follow_one_another_to_the_end() -> None:
    run = Run(CHAIN)
    run.done("a", "b", "c")
    assert run.workflow.status is WorkflowStatus.COMPLETED
    assert run.workflow.ended_at == run.now


def test_a_join_waits_for_all_its_predecessors() -> None:
    run = Run(DIAMOND)
    run.done("a", "b")
    assert run.status("d") is StepStatus.PENDING
    run.done("c")
    assert run.status("d") is StepStatus.QUEUED


def test_a_refusal_rolls_back_in_reverse() -> None:
    run = Run(CHAIN)
    run.done("a", "b")
    run.answer("c", OutcomeKind.REFUSED, error=JsonText('{"code":"no","message":"no"}'))
    assert (run.status("b"), run.status("a")) == (StepStatus.COMPENSATING, StepStatus.SUCCEEDED)
    run.done("b")
    assert run.status("a") is StepStatus.COMPENSATING
    run.done("a")
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK
    assert run.workflow.reason is Reason.FAILED
    assert '"step": "c"' in (run.workflow.error or "")


def test_independent_steps_are_undone_in_parallel() -> None:
    run = Run(DIAMOND)
    run.done("a", "b", "c")
    run.answer("d", OutcomeKind.REFUSED)
    assert {run.status("b"), run.status("c")} == {StepStatus.COMPENSATING}
    run.done("c")
    assert run.status("a") is StepStatus.SUCCEEDED
    run.done("b")
    assert run.status("a") is StepStatus.COMPENSATING


@pytest.mark.fault(26)
def test_a_sibling_in_flight_is_awaited_and_undone() -> None:
    run = Run(DIAMOND)
    run.done("a")
    run.claim("b")
    run.answer("c", OutcomeKind.REFUSED)
    assert run.status("b") is StepStatus.RUNNING
    assert run.status("a") is StepStatus.SUCCEEDED
    run.done("b")
    assert run.status("b") is StepStatus.COMPENSATING


def test_a_sibling_not_yet_sent_is_cancelled() -> None:
    run = Run(DIAMOND)
    run.done("a")
    changes = run.answer("c", OutcomeKind.REFUSED)
    assert run.status("b") is StepStatus.CANCELLED
    assert changes.takes_away


@pytest.mark.fault(11)
def test_unknown_is_retried_then_compensated_too() -> None:
    run = Run(CHAIN)
    for _ in range(2):
        run.answer("a", OutcomeKind.UNKNOWN)
        assert run.status("a") is StepStatus.RETRYING
    run.answer("a", OutcomeKind.UNKNOWN)
    assert run.status("a") is StepStatus.COMPENSATING
    assert run.step("a").execute.tries == 3


@pytest.mark.fault(11)
def test_unknown_sticks_through_a_later_refusal() -> None:
    run = Run(CHAIN)
    run.answer("a", OutcomeKind.UNKNOWN)
    run.answer("a", OutcomeKind.REFUSED)
    assert run.status("a") is StepStatus.COMPENSATING


def test_an_unusable_answer_is_not_retried_and_is_undone() -> None:
    run = Run(CHAIN)
    run.answer("a", OutcomeKind.UNUSABLE)
    assert run.status("a") is StepStatus.COMPENSATING


@pytest.mark.parametrize("kind", [OutcomeKind.BUSY, OutcomeKind.NOT_NOW, OutcomeKind.NOT_SENT])
@pytest.mark.fault(19, 20)
def test_waiting_spends_no_try_but_the_budget(kind: OutcomeKind) -> None:
    run = Run(CHAIN)
    count = 0
    while run.status("a") in (StepStatus.QUEUED, StepStatus.RETRYING):
        run.answer("a", kind)
        count += 1
        assert run.step("a").execute.tries == 0
        assert count < 1000
    assert count > 3
    undone = kind is OutcomeKind.BUSY
    assert run.status("a") is (StepStatus.COMPENSATING if undone else StepStatus.FAILED)


def test_retry_after_moves_the_next_try_but_never_past_the_budget() -> None:
    run = Run(CHAIN)
    run.answer("a", OutcomeKind.NOT_NOW, retry_after=timedelta(seconds=45))
    assert run.step("a").due_at == run.now + timedelta(seconds=45)
    run.answer("a", OutcomeKind.NOT_NOW, retry_after=timedelta(seconds=45))
    assert run.status("a") is StepStatus.FAILED


def test_a_release_costs_nothing() -> None:
    run = Run(CHAIN)
    run.answer("a", OutcomeKind.RELEASED)
    assert run.step("a").due_at == run.now
    assert run.step("a").execute.tries == 0
    assert run.step("a").execute.attempt == 1
    run.done("a")
    assert run.status("a") is StepStatus.SUCCEEDED


@pytest.mark.fault(1, 5, 10)
def test_a_lease_that_ends_is_an_unknown_outcome() -> None:
    run = Run(CHAIN)
    attempt = run.claim("a")
    run.apply(LeaseEnded(A, Action.EXECUTE, attempt))
    assert run.status("a") is StepStatus.RETRYING
    assert run.step("a").may_have_effect
    assert run.apply(LeaseEnded(A, Action.EXECUTE, attempt)).verdict is Verdict.IGNORED


def test_a_release_after_the_lease_ended_only_makes_the_step_due() -> None:
    run = Run(CHAIN)
    attempt = run.claim("a")
    run.apply(LeaseEnded(A, Action.EXECUTE, attempt))
    run.apply(Answered(A, Action.EXECUTE, attempt, Outcome(OutcomeKind.RELEASED)))
    assert run.status("a") is StepStatus.RETRYING
    assert run.step("a").due_at == run.now
    assert run.step("a").may_have_effect


def test_an_answer_still_counts_after_its_lease_until_the_next_claim() -> None:
    run = Run(CHAIN)
    attempt = run.claim("a")
    run.apply(LeaseEnded(A, Action.EXECUTE, attempt))
    changes = run.apply(Answered(A, Action.EXECUTE, attempt, Outcome(OutcomeKind.DONE)))
    assert changes.takes_away
    assert run.status("a") is StepStatus.SUCCEEDED


def test_a_late_answer_changes_nothing_but_the_history() -> None:
    run = Run(CHAIN)
    attempt = run.claim("a")
    run.apply(LeaseEnded(A, Action.EXECUTE, attempt))
    run.claim("a")
    before = run.workflow.steps
    changes = run.apply(Answered(A, Action.EXECUTE, attempt, Outcome(OutcomeKind.REFUSED)))
    assert changes.verdict is Verdict.LATE
    assert [event.kind for event in changes.events] == ["late_answer"]
    assert run.workflow.steps == before


def test_the_same_answer_twice_is_a_duplicate() -> None:
    run = Run(CHAIN)
    attempt = run.claim("a")
    answer = Answered(A, Action.EXECUTE, attempt, Outcome(OutcomeKind.UNKNOWN))
    run.apply(answer)
    again = run.apply(answer)
    assert again.verdict is Verdict.DUPLICATE
    assert not again.writes


def test_cancel_undoes_and_may_be_repeated() -> None:
    run = Run(CHAIN)
    run.done("a")
    run.apply(CancelRequested())
    assert run.workflow.reason is Reason.CANCELLED
    assert run.status("b") is StepStatus.CANCELLED
    assert run.apply(CancelRequested()).verdict is Verdict.IGNORED
    run.done("a")
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK
    assert run.apply(CancelRequested()).verdict is Verdict.IGNORED


def test_a_completed_workflow_cannot_be_cancelled() -> None:
    run = Run(definition(step("a")))
    run.done("a")
    with pytest.raises(IllegalTransition):
        run.apply(CancelRequested())


@pytest.mark.fault(25)
def test_a_deadline_turns_back_only_when_it_has_passed() -> None:
    run = Run(definition(step("a"), step("b", "a"), timeout=timedelta(minutes=5)))
    run.done("a")
    assert run.apply(DeadlinePassed()).verdict is Verdict.IGNORED
    run.now += timedelta(minutes=5)
    run.apply(DeadlinePassed())
    assert run.workflow.reason is Reason.TIMED_OUT


@pytest.mark.fault(22)
def test_a_compensation_that_gives_up_is_an_error_and_holds_up_only_its_own() -> None:
    run = Run(DIAMOND)
    run.done("a", "b", "c")
    run.answer("d", OutcomeKind.REFUSED)
    run.answer("b", OutcomeKind.REFUSED)
    assert run.workflow.status is WorkflowStatus.ERROR
    assert run.status("b") is StepStatus.COMPENSATION_FAILED
    run.done("c")
    assert run.status("c") is StepStatus.COMPENSATED
    assert run.status("a") is StepStatus.SUCCEEDED


def test_a_compensation_is_tried_by_its_own_policy() -> None:
    run = Run(definition(step("a"), step("b", "a")))
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    for _ in range(2):
        run.answer("a", OutcomeKind.UNKNOWN)
        assert run.status("a") is StepStatus.COMPENSATING
    run.answer("a", OutcomeKind.UNKNOWN)
    assert run.status("a") is StepStatus.COMPENSATION_FAILED
    assert run.workflow.status is WorkflowStatus.ERROR


def test_what_names_no_compensation_cannot_be_undone() -> None:
    run = Run(definition(step("a", compensation=None), step("b", "a")))
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    assert run.status("a") is StepStatus.COMPENSATION_FAILED
    assert run.workflow.status is WorkflowStatus.ERROR


def test_what_has_no_effect_need_not_be_undone() -> None:
    run = Run(definition(step("a", compensation=None, no_effect=True), step("b", "a")))
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    assert run.workflow.status is WorkflowStatus.ROLLED_BACK


PIVOT = definition(step("a"), step("p", "a", pivot=True), step("z", "p"))


def test_a_claimed_pivot_closes_the_way_back() -> None:
    run = Run(PIVOT)
    run.done("a")
    run.claim("p")
    with pytest.raises(IllegalTransition):
        run.apply(CancelRequested())


def test_a_pivot_refused_reopens_the_way_back() -> None:
    run = Run(PIVOT)
    run.done("a")
    run.answer("p", OutcomeKind.REFUSED)
    assert run.workflow.status is WorkflowStatus.ROLLING_BACK


def test_an_unknown_pivot_is_tried_by_the_compensation_policy_then_error() -> None:
    run = Run(PIVOT)
    run.done("a")
    for _ in range(3):
        run.answer("p", OutcomeKind.UNKNOWN)
    assert run.workflow.status is WorkflowStatus.ERROR
    assert run.workflow.reason is None


def test_past_a_pivot_a_refusal_is_an_error_not_a_rollback() -> None:
    run = Run(PIVOT)
    run.done("a", "p")
    run.answer("z", OutcomeKind.REFUSED)
    assert run.workflow.status is WorkflowStatus.ERROR
    assert run.status("a") is StepStatus.SUCCEEDED


def test_past_a_pivot_the_deadline_is_noted_once() -> None:
    run = Run(definition(step("p", pivot=True), step("z", "p"), timeout=timedelta(minutes=1)))
    run.done("p")
    run.now += timedelta(minutes=2)
    changes = run.apply(DeadlinePassed())
    assert [event.kind for event in changes.events] == ["deadline_ignored"]
    assert run.apply(DeadlinePassed()).verdict is Verdict.IGNORED


def test_an_input_that_cannot_be_rendered_fails_its_step_before_it_is_sent() -> None:
    bad = Template(JsonText("!"), constant=False)
    run = Run(definition(step("a"), step("b", "a", input=bad)))
    run.done("a")
    assert run.status("b") is StepStatus.FAILED
    assert run.status("a") is StepStatus.COMPENSATING


def test_a_compensation_input_that_cannot_be_rendered_is_an_error() -> None:
    bad = Compensation("/undo", input=Template(JsonText("!"), constant=False))
    run = Run(definition(step("a", compensation=bad), step("b", "a")))
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    assert run.workflow.status is WorkflowStatus.ERROR


def test_an_input_sees_earlier_outputs() -> None:
    run = Run(definition(step("a"), step("b", "a", input=Template(JsonText("a"), constant=False))))
    run.answer("a", OutcomeKind.DONE, output=JsonText('{"id":7}'))
    assert run.step("b").input == '{"id":7}'


def test_history_has_no_gap_and_tells_every_change() -> None:
    run = Run(CHAIN)
    events = list(run.began.events)
    for name in ("a", "b", "c"):
        events += run.answer(name, OutcomeKind.DONE).events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    changes = [(event.before, event.after) for event in events if event.step == "b"]
    assert changes == [("pending", "queued"), ("queued", "running"), ("running", "succeeded")]


def test_a_step_held_by_its_rate_limit_is_due_at_its_turn_and_spends_nothing() -> None:
    run = Run(CHAIN)
    for _ in range(3):
        run.answer("a", OutcomeKind.HELD, retry_after=timedelta(hours=1))
        assert run.step("a").due_at == run.now + timedelta(hours=1)
        assert run.status("a") is StepStatus.RETRYING
        assert run.step("a").execute.tries == 0
        assert run.step("a").execute.started_at is None
        assert not run.step("a").may_have_effect
        run.now += timedelta(hours=1)
    run.answer("a", OutcomeKind.NOT_NOW, retry_after=timedelta(seconds=45))
    assert run.status("a") is StepStatus.RETRYING


def test_what_was_spent_of_a_budget_before_a_step_was_held_stays_spent() -> None:
    run = Run(CHAIN)
    run.answer("a", OutcomeKind.NOT_NOW, retry_after=timedelta(seconds=45))
    run.now += timedelta(seconds=45)
    run.answer("a", OutcomeKind.HELD, retry_after=timedelta(hours=1))
    began = run.step("a").execute.started_at
    assert began == run.now + timedelta(hours=1) - timedelta(seconds=45)
    run.now += timedelta(hours=1)
    run.answer("a", OutcomeKind.NOT_NOW, retry_after=timedelta(seconds=45))
    assert run.status("a") is StepStatus.FAILED


def test_a_compensation_that_is_held_waits_for_its_turn() -> None:
    run = Run(CHAIN)
    run.done("a")
    run.answer("b", OutcomeKind.REFUSED)
    run.answer("a", OutcomeKind.HELD, retry_after=timedelta(minutes=5))
    assert run.status("a") is StepStatus.COMPENSATING
    assert run.step("a").due_at == run.now + timedelta(minutes=5)
    assert run.step("a").compensate.tries == 0
    assert run.step("a").compensate.started_at is None


def test_a_step_that_is_held_when_its_workflow_turns_back_is_not_sent_any_more() -> None:
    run = Run(CHAIN)
    run.claim("a")
    run.apply(CancelRequested())
    run.apply(Answered(A, Action.EXECUTE, 1, Outcome(OutcomeKind.HELD)))
    assert run.status("a") is StepStatus.CANCELLED
