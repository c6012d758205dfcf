"""Ways to spoil a sound run, each with the rule that must find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.chaos.book import Entry, Fact
from tests.chaos.expectations import Cancel, Exit, Rule, Start
from tests.chaos.rows import EventRow, LeaderSample, Leaks
from tests.unit.chaos.sound_run import DONE, UNDONE, Run

Plant = Callable[[Run], None]
PLANTS: list[tuple[Rule, str, Plant]] = []


def planter(plants: list[tuple[Rule, str, Plant]]) -> Callable[[Rule], Callable[[Plant], Plant]]:
    """Return what registers, in a list, a way to spoil a run with the rule that must find it."""

    def plant(rule: Rule) -> Callable[[Plant], Plant]:
        def register(spoil: Plant) -> Plant:
            plants.append((rule, spoil.__name__, spoil))
            return spoil

        return register

    return plant


plant = planter(PLANTS)


def entry(run: Run, workflow: str, step: str, action: str = "execute") -> Entry:
    wanted = (workflow, step, action)
    return next(one for one in run.entries if (one.workflow, one.step, one.action) == wanted)


def change_entry(run: Run, old: Entry, **fields: object) -> None:
    run.entries[run.entries.index(old)] = replace(old, **fields)  # type: ignore[arg-type]


def change_row(run: Run, workflow: str, **fields: object) -> None:
    run.workflows = [
        replace(row, **fields) if row.id == workflow else row  # type: ignore[arg-type]
        for row in run.workflows
    ]


def change_step(run: Run, workflow: str, step: str, **fields: object) -> None:
    for number, row in enumerate(run.steps):
        if (row.workflow, row.step) == (workflow, step):
            run.steps[number] = replace(row, **fields)  # type: ignore[arg-type]


def change_event(run: Run, wanted: Callable[[EventRow], bool], **fields: object) -> None:
    found = [number for number, event in enumerate(run.events) if wanted(event)]
    assert found, "there is nothing to spoil"
    run.events[found[0]] = replace(run.events[found[0]], **fields)  # type: ignore[arg-type]


def move_entry(run: Run, old: Entry, before: Entry) -> None:
    run.entries.remove(old)
    run.entries.insert(run.entries.index(before), old)


def add_event(run: Run, workflow: str, **fields: object) -> None:
    last = [event for event in run.events if event.workflow == workflow][-1]
    event = replace(last, seq=last.seq + 1, **fields)  # type: ignore[arg-type]
    run.events.insert(run.events.index(last) + 1, event)
    change_row(run, workflow, last_seq=event.seq)


@plant(Rule.TERMINALITY)
def it_has_not_ended(run: Run) -> None:
    change_row(run, DONE, status="in_progress")


@plant(Rule.TERMINALITY)
def it_ended_as_it_must_not(run: Run) -> None:
    run.starts[0] = replace(run.starts[0], ends=frozenset({"rolled_back"}))


@plant(Rule.COMPLETED)
def a_step_of_a_completed_one_never_happened(run: Run) -> None:
    run.entries.remove(entry(run, DONE, "ship"))


@plant(Rule.COMPLETED)
def a_step_of_a_completed_one_was_undone(run: Run) -> None:
    undone = replace(entry(run, UNDONE, "charge", "compensate"), workflow=DONE)
    run.entries.append(replace(undone, key=f"{DONE}/charge/compensate"))


@plant(Rule.COMPLETED)
def a_compensation_was_barred_in_a_completed_one(run: Run) -> None:
    undone = replace(entry(run, UNDONE, "ship"), workflow=DONE, action="compensate")
    run.entries.append(replace(undone, key=f"{DONE}/ship/compensate", fact=Fact.BARRED))


@plant(Rule.ROLLED_BACK)
def an_effect_was_left(run: Run) -> None:
    run.entries.remove(entry(run, UNDONE, "reserve", "compensate"))


@plant(Rule.ROLLED_BACK)
def an_effect_came_after_its_undoing(run: Run) -> None:
    late = entry(run, UNDONE, "pack")
    run.entries.remove(late)
    run.entries.append(late)


@plant(Rule.ROLLED_BACK)
def what_never_happened_was_undone(run: Run) -> None:
    change_entry(run, entry(run, UNDONE, "pack"), fact=Fact.REFUSED)


@plant(Rule.ERROR)
def an_error_left_more_than_it_had_to(run: Run) -> None:
    change_row(run, UNDONE, status="error")
    change_step(run, UNDONE, "pack", status="compensation_failed")
    run.entries.remove(entry(run, UNDONE, "pack", "compensate"))
    run.entries.remove(entry(run, UNDONE, "reserve", "compensate"))


@plant(Rule.ONE_END)
def it_ended_twice(run: Run) -> None:
    add_event(run, DONE, before="in_progress", after="rolled_back")


@plant(Rule.ONE_END)
def a_completed_one_has_a_failed_step(run: Run) -> None:
    change_step(run, DONE, "ship", status="failed")


@plant(Rule.ONE_END)
def a_rolled_back_one_may_have_an_effect(run: Run) -> None:
    change_step(run, UNDONE, "ship", may_have_effect=True)


@plant(Rule.UNDO_ORDER)
def charge_was_undone_before_pack(run: Run) -> None:
    first = entry(run, UNDONE, "pack", "compensate")
    move_entry(run, entry(run, UNDONE, "charge", "compensate"), first)


@plant(Rule.UNDO_ORDER)
def the_undoing_of_charge_began_before_that_of_pack_was_over(run: Run) -> None:
    for event in run.events:
        if (event.workflow, event.step, event.after) == (UNDONE, "pack", "compensated"):
            late = event
    number = run.events.index(late)
    run.events[number] = replace(late, seq=90)


@plant(Rule.ORDER)
def ship_was_called_before_pack(run: Run) -> None:
    move_entry(run, entry(run, DONE, "ship"), entry(run, DONE, "pack"))


@plant(Rule.ORDER)
def a_join_fired_twice(run: Run) -> None:
    event = next(
        one for one in run.events if (one.workflow, one.step, one.cause) == (DONE, "ship", "ready")
    )
    run.events.insert(run.events.index(event), event)


@plant(Rule.ORDER)
def a_join_fired_before_its_last_branch(run: Run) -> None:
    event = next(
        one for one in run.events if (one.workflow, one.step, one.cause) == (DONE, "ship", "ready")
    )
    run.events.remove(event)
    before = next(
        one for one in run.events if (one.workflow, one.step, one.cause) == (DONE, "pack", "done")
    )
    run.events.insert(run.events.index(before), event)


@plant(Rule.ORDER)
def a_step_was_called_that_is_not_defined(run: Run) -> None:
    run.entries.append(replace(entry(run, DONE, "ship"), step="gift", key=f"{DONE}/gift/execute"))


@plant(Rule.EFFECTS)
def an_effect_happened_twice(run: Run) -> None:
    run.entries.append(replace(entry(run, DONE, "charge"), attempt=2))


@plant(Rule.EFFECTS)
def the_second_attempt_had_another_key(run: Run) -> None:
    again = replace(entry(run, DONE, "charge"), attempt=2, fact=Fact.NOT_DONE)
    run.entries.append(replace(again, key=f"{DONE}/charge/execute/2"))


@plant(Rule.SAME_BODY)
def the_same_key_came_with_another_body(run: Run) -> None:
    again = replace(entry(run, DONE, "charge"), attempt=2, fact=Fact.REPEATED)
    run.entries.append(replace(again, body_hash="another"))


@plant(Rule.ONE_REQUEST)
def one_attempt_was_sent_twice(run: Run) -> None:
    run.entries.append(replace(entry(run, DONE, "charge"), fact=Fact.REPEATED))


@plant(Rule.DATA_FLOW)
def ship_was_shown_the_output_of_another_workflow(run: Run) -> None:
    shown = dict(entry(run, DONE, "ship").seen)
    shown["pack"] = "mark of another"
    change_entry(run, entry(run, DONE, "ship"), seen=shown)


@plant(Rule.DATA_FLOW)
def ship_was_not_shown_an_output(run: Run) -> None:
    change_entry(run, entry(run, DONE, "ship"), seen={})


@plant(Rule.DATA_FLOW)
def a_step_was_undone_with_another_output(run: Run) -> None:
    seen = {"outcome": "succeeded", "own": "mark of another"}
    change_entry(run, entry(run, UNDONE, "pack", "compensate"), seen=seen)


@plant(Rule.DATA_FLOW)
def a_step_was_undone_with_another_input(run: Run) -> None:
    change_entry(run, entry(run, UNDONE, "pack", "compensate"), input_hash="another")


@plant(Rule.DATA_FLOW)
def a_step_has_kept_an_output_that_it_never_gave(run: Run) -> None:
    change_step(run, DONE, "pack", output={"mark": "mark of another"})


@plant(Rule.NO_LOSS)
def an_accepted_start_is_lost(run: Run) -> None:
    run.starts.append(Start("lost", "order", {}, frozenset({"completed"}), "w-lost"))


@plant(Rule.NO_LOSS)
def a_start_key_has_started_two(run: Run) -> None:
    run.workflows.append(replace(run.workflows[0], id="w-twin"))


@plant(Rule.NO_LOSS)
def a_start_key_is_kept_for_another(run: Run) -> None:
    run.start_keys[run.starts[0].key] = UNDONE


@plant(Rule.NO_LOSS)
def an_accepted_start_is_another_definitions(run: Run) -> None:
    run.starts[0] = replace(run.starts[0], definition="another")


@plant(Rule.NO_LOSS)
def nobody_asked_for_it(run: Run) -> None:
    run.starts.pop()


@plant(Rule.NO_LOSS)
def a_service_was_called_for_what_does_not_exist(run: Run) -> None:
    run.entries.append(replace(entry(run, DONE, "charge"), workflow="w-ghost"))


@plant(Rule.AT_REST)
def a_step_is_claimable_still(run: Run) -> None:
    change_step(run, UNDONE, "ship", status="retrying")


@plant(Rule.AT_REST)
def a_step_is_leased_still(run: Run) -> None:
    change_step(run, UNDONE, "ship", leased=True)


@plant(Rule.HISTORY)
def an_event_is_missing(run: Run) -> None:
    run.events.pop(1)


@plant(Rule.HISTORY)
def the_last_event_is_missing(run: Run) -> None:
    run.events.pop()


@plant(Rule.HISTORY)
def a_step_is_not_what_its_history_says(run: Run) -> None:
    change_step(run, UNDONE, "ship", status="cancelled")


@plant(Rule.TRANSITION)
def a_transition_is_illegal(run: Run) -> None:
    change_event(run, lambda event: event.after == "failed", before="succeeded")


@plant(Rule.TRANSITION)
def a_workflow_turned_forward_again(run: Run) -> None:
    add_event(run, UNDONE, before="rolled_back", after="in_progress")


@plant(Rule.TRANSITION)
def a_step_left_a_status_that_it_had_not(run: Run) -> None:
    change_event(run, lambda event: event.after == "failed", before="retrying")


@plant(Rule.ATTEMPTS)
def an_attempt_was_skipped(run: Run) -> None:
    change_event(run, lambda event: event.cause == "claimed", attempt=2)


@plant(Rule.ATTEMPTS)
def the_row_counts_more_attempts_than_the_history(run: Run) -> None:
    change_step(run, DONE, "ship", attempt=3)


@plant(Rule.CLAIMS)
def two_claims_of_a_step_overlapped(run: Run) -> None:
    claim = next(event for event in run.events if event.cause == "claimed")
    number = run.events.index(claim)
    settled = replace(claim, time=claim.time + 9, cause="unknown", after="retrying")
    run.events[number + 1 : number + 1] = [settled, replace(claim, attempt=2, before="retrying")]


@plant(Rule.EPOCHS)
def an_epoch_fell(run: Run) -> None:
    run.leaders.append(LeaderSample(1, "a"))


@plant(Rule.EPOCHS)
def an_epoch_had_two_holders(run: Run) -> None:
    run.leaders.append(LeaderSample(2, "c"))


@plant(Rule.CANCEL)
def an_accepted_cancel_was_forgotten(run: Run) -> None:
    run.cancels.append(Cancel(DONE, 202))


@plant(Rule.CANCEL)
def a_refused_cancel_was_done(run: Run) -> None:
    change_row(run, UNDONE, reason="cancelled")
    run.cancels.append(Cancel(UNDONE, 409))


@plant(Rule.CANCEL)
def a_cancel_was_answered_with_something_else(run: Run) -> None:
    run.cancels.append(Cancel(UNDONE, 404))


@plant(Rule.CANCEL)
def what_was_cancelled_does_not_exist(run: Run) -> None:
    run.cancels.append(Cancel("w-ghost", 202))


@plant(Rule.LEAK)
def a_lock_is_held(run: Run) -> None:
    run.leaks = Leaks(advisory_locks=2)


@plant(Rule.LEAK)
def a_transaction_is_idle(run: Run) -> None:
    run.leaks = Leaks(stale_transactions=1)


@plant(Rule.LEAK)
def a_transaction_is_prepared(run: Run) -> None:
    run.leaks = Leaks(prepared=1)


@plant(Rule.LEAK)
def a_sidecar_keeps_what_it_has_opened(run: Run) -> None:
    run.files["payments-1"] = 200


@plant(Rule.EXIT)
def a_sidecar_ended_by_itself(run: Run) -> None:
    run.exits.append(Exit("payments-1", 1))


@plant(Rule.VACUOUS)
def too_few_were_refused(run: Run) -> None:
    change_entry(run, entry(run, UNDONE, "ship"), fact=Fact.NOT_DONE)
