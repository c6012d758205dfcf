"""Ways to spoil a sound history so that no run of the reference model could have written it."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.expectations import Rule
from tests.chaos.rows import EventRow
from tests.unit.chaos.plants import Plant, add_event, change_event, change_row, change_step, planter
from tests.unit.chaos.sound_run import Run
from tests.unit.chaos.sound_tries import DONE, LATE
from tests.unit.chaos.tries_plants import told

PLANTS: list[tuple[Rule, str, Plant]] = []
plant = planter(PLANTS)


@plant(Rule.CONFORMANCE)
def an_unknown_outcome_ended_well(run: Run) -> None:
    change_event(run, told(DONE, "reserve", "done"), cause="unknown")


@plant(Rule.CONFORMANCE)
def a_word_that_nobody_knows_moved_a_step(run: Run) -> None:
    change_event(run, told(DONE, "rest", "time_has_come"), cause="impatience")


@plant(Rule.CONFORMANCE)
def a_line_left_a_status_that_the_step_had_not(run: Run) -> None:
    change_event(run, told(DONE, "charge", "done"), before="waiting")


@plant(Rule.CONFORMANCE)
def it_completed_before_its_last_step_had_passed(run: Run) -> None:
    last = next(event for event in run.events if told(DONE, "ship", "done")(event))
    end = next(event for event in run.events if told(DONE, None, "all_steps_passed")(event))
    _swap(run, last, end)


@plant(Rule.CONFORMANCE)
def it_was_rolled_back_before_all_was_undone(run: Run) -> None:
    last = next(event for event in run.events if told(LATE, "charge", "done")(event))
    end = next(event for event in run.events if told(LATE, None, "all_undone")(event))
    _swap(run, last, end)


@plant(Rule.CONFORMANCE)
def a_step_was_begun_on_the_way_back(run: Run) -> None:
    change_event(
        run, told(LATE, "ship", "deadline_passed"), cause="ready", after="queued", time=500.0
    )


@plant(Rule.CONFORMANCE)
def it_was_tried_again_on_the_way_back(run: Run) -> None:
    turned = next(event for event in run.events if told(LATE, None, "deadline_passed")(event))
    tried = next(event for event in run.events if told(LATE, "charge", "unknown")(event))
    _swap(run, tried, turned)


@plant(Rule.CONFORMANCE)
def it_was_undone_on_the_way_forward(run: Run) -> None:
    add_event(
        run,
        DONE,
        kind="compensation",
        step="ship",
        cause="undo",
        before="succeeded",
        after="compensating",
    )


@plant(Rule.CONFORMANCE)
def it_turned_back_for_a_step_and_none_had_failed(run: Run) -> None:
    change_event(run, told(LATE, None, "deadline_passed"), cause="step_failed")


@plant(Rule.CONFORMANCE)
def it_stood_still_and_nothing_could_not_be_undone(run: Run) -> None:
    change_event(run, told(LATE, None, "all_undone"), cause="compensation_failed", after="error")


@plant(Rule.CONFORMANCE)
def it_failed_past_a_pivot_and_has_none(run: Run) -> None:
    wanted = told(DONE, None, "all_steps_passed")
    change_event(run, wanted, cause="failed_past_pivot", after="error")


@plant(Rule.CONFORMANCE)
def it_was_mended_into_the_wrong_way(run: Run) -> None:
    add_event(run, LATE, cause="mended", before="error", after="in_progress")


@plant(Rule.CONFORMANCE)
def a_root_was_turned_back_by_a_parent(run: Run) -> None:
    change_event(run, told(LATE, None, "deadline_passed"), cause="parent_turned_back")


@plant(Rule.CONFORMANCE)
def it_was_kept_as_cancelled_and_had_run_out_of_time(run: Run) -> None:
    change_row(run, LATE, reason="cancelled")


@plant(Rule.CONFORMANCE)
def a_line_carries_the_number_of_another_claim(run: Run) -> None:
    change_event(run, told(DONE, "charge", "done"), attempt=5)


@plant(Rule.CONFORMANCE)
def a_row_is_not_where_its_history_led(run: Run) -> None:
    change_step(run, DONE, "ship", status="skipped")


@plant(Rule.CONFORMANCE)
def a_step_moved_that_has_no_row(run: Run) -> None:
    run.steps = [row for row in run.steps if (row.workflow, row.step) != (DONE, "rest")]


def _swap(run: Run, first: EventRow, second: EventRow) -> None:
    """Let two lines stand in each other's place."""
    places = run.events.index(first), run.events.index(second)
    run.events[places[0]] = replace(second, seq=first.seq, time=first.time)
    run.events[places[1]] = replace(first, seq=second.seq, time=second.time)
