"""Ways to spoil a sound run of all that the language has, each with the rule that must find it."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.book import Fact
from tests.chaos.expectations import Rule
from tests.chaos.rows import Crowd, Leaks
from tests.unit.chaos.plants import (
    Plant,
    add_event,
    change_entry,
    change_event,
    change_row,
    change_step,
    entry,
    move_entry,
    planter,
)
from tests.unit.chaos.sound_language import ACCOUNT, DONE, LIMIT, PAID, REPAID, SEAT, UNDONE
from tests.unit.chaos.sound_run import Run

PLANTS: list[tuple[Rule, str, Plant]] = []
plant = planter(PLANTS)
LATER = 50.0


@plant(Rule.COMPLETED)
def a_skipped_step_was_done(run: Run) -> None:
    done = replace(entry(run, DONE, "by_air"), step="by_sea", key=f"{DONE}/by_sea/execute")
    run.entries.insert(run.entries.index(entry(run, DONE, "go")), done)


@plant(Rule.COMPLETED)
def an_item_that_succeeded_never_happened(run: Run) -> None:
    change_entry(run, entry(run, DONE, "legs[1]"), fact=Fact.REFUSED, mark=None)


@plant(Rule.COMPLETED)
def an_item_that_was_refused_was_done(run: Run) -> None:
    change_entry(run, entry(run, DONE, "legs[2]"), fact=Fact.APPLIED)


@plant(Rule.COMPLETED)
def an_optional_step_that_was_refused_was_done(run: Run) -> None:
    change_entry(run, entry(run, DONE, "mail"), fact=Fact.APPLIED)


@plant(Rule.COMPLETED)
def what_was_taken_on_was_never_done(run: Run) -> None:
    run.entries = [one for one in run.entries if not (one.later and one.fact is Fact.APPLIED)]


@plant(Rule.EFFECTS)
def what_was_taken_on_was_done_twice(run: Run) -> None:
    late = next(one for one in run.entries if one.later and one.applied)
    run.entries.append(late)


@plant(Rule.EFFECTS)
def an_item_came_without_its_index(run: Run) -> None:
    change_entry(run, entry(run, DONE, "legs[1]"), key=f"{DONE}/legs/execute")


@plant(Rule.ROLLED_BACK)
def an_item_was_not_undone(run: Run) -> None:
    run.entries.remove(entry(run, UNDONE, "legs[0]", "compensate"))


@plant(Rule.UNDO_ORDER)
def the_opening_was_undone_before_an_item(run: Run) -> None:
    late = entry(run, UNDONE, "legs[0]", "compensate")
    run.entries.remove(late)
    run.entries.append(late)


@plant(Rule.ONE_END)
def a_completed_one_was_left_at_a_step_that_may_not_fail(run: Run) -> None:
    change_step(run, DONE, "by_air", status="failed")


@plant(Rule.ONE_END)
def a_step_without_a_condition_was_skipped(run: Run) -> None:
    change_step(run, DONE, "rest", status="skipped")


@plant(Rule.ONE_END)
def a_child_ended_twice_though_nobody_turned_it_back(run: Run) -> None:
    change_event(run, lambda one: one.cause == "parent_turned_back", cause="cancelled")


@plant(Rule.ORDER)
def one_of_many_began_before_any_had_succeeded(run: Run) -> None:
    change_event(
        run,
        lambda one: (one.step, one.after) == ("by_air", "succeeded"),
        after="retrying",
    )


@plant(Rule.ORDER)
def a_step_began_while_the_wait_went_on(run: Run) -> None:
    ended = next(one for one in run.events if one.cause == "time_has_come")
    begun = next(one for one in run.events if (one.step, one.cause) == ("mail", "ready"))
    run.events.remove(begun)
    run.events.insert(run.events.index(ended), begun)


@plant(Rule.ORDER)
def an_item_began_before_its_step(run: Run) -> None:
    begun = next(one for one in run.events if one.cause == "fans_out")
    run.events.remove(begun)
    item = next(one for one in run.events if one.step == "legs[0]" and one.after == "succeeded")
    run.events.insert(run.events.index(item), begun)


@plant(Rule.ORDER)
def a_wait_was_called(run: Run) -> None:
    run.entries.append(
        replace(entry(run, DONE, "go"), step="rest", key=f"{DONE}/rest/execute", fact=Fact.REFUSED)
    )


@plant(Rule.DATA_FLOW)
def who_comes_after_a_fan_out_was_shown_another_list(run: Run) -> None:
    change_entry(run, entry(run, DONE, "go"), seen={"legs": "['-', '-', '-']"})


@plant(Rule.DATA_FLOW)
def a_step_was_shown_the_mark_of_one_that_failed(run: Run) -> None:
    change_entry(run, entry(run, DONE, "close"), seen={"mail": "mark"})


@plant(Rule.DATA_FLOW)
def a_parent_has_kept_what_its_child_never_gave(run: Run) -> None:
    change_step(run, DONE, "pay", output={"mark": "mark of another"})


@plant(Rule.ITEMS)
def a_fan_out_ended_without_one_of_its_items(run: Run) -> None:
    run.steps = [one for one in run.steps if (one.workflow, one.step) != (DONE, "legs[2]")]


@plant(Rule.ITEMS)
def more_items_failed_than_may(run: Run) -> None:
    change_step(run, DONE, "legs[1]", status="failed")


@plant(Rule.ITEMS)
def more_items_were_under_way_than_may(run: Run) -> None:
    for item in ("legs[0]", "legs[1]"):
        change_event(
            run,
            lambda one, item=item: (one.workflow, one.step, one.after) == (DONE, item, "succeeded"),
            after="retrying",
        )


@plant(Rule.ITEMS)
def a_step_was_called_that_has_items(run: Run) -> None:
    run.entries.append(
        replace(entry(run, DONE, "legs[2]"), step="legs", key=f"{DONE}/legs/execute")
    )


@plant(Rule.CHILD)
def a_child_was_started_twice(run: Run) -> None:
    run.workflows += [replace(one, id="c-twin") for one in run.workflows if one.id == PAID]


@plant(Rule.CHILD)
def a_child_was_started_for_a_call(run: Run) -> None:
    change_row(run, PAID, parent_step="open")


@plant(Rule.CHILD)
def a_child_was_never_started(run: Run) -> None:
    run.workflows = [one for one in run.workflows if one.id != PAID]


@plant(Rule.CHILD)
def a_child_was_left_completed_below_a_parent_that_was_not(run: Run) -> None:
    change_row(run, REPAID, status="completed")


@plant(Rule.CHILD)
def a_child_was_rolled_back_below_a_step_that_succeeded(run: Run) -> None:
    change_row(run, PAID, status="rolled_back")


@plant(Rule.TREE)
def an_effect_of_a_child_was_left(run: Run) -> None:
    run.entries.remove(entry(run, REPAID, "charge", "compensate"))


@plant(Rule.TREE)
def a_parent_went_on_before_its_child_was_done(run: Run) -> None:
    early = entry(run, DONE, "legs[0]")
    move_entry(run, early, entry(run, PAID, "charge"))


@plant(Rule.TREE)
def a_parent_was_undone_before_its_child(run: Run) -> None:
    early = entry(run, UNDONE, "open", "compensate")
    move_entry(run, early, entry(run, REPAID, "charge", "compensate"))


@plant(Rule.ORPHAN)
def a_child_moved_after_its_root_had_ended(run: Run) -> None:
    last = max(one.time for one in run.events)
    add_event(run, PAID, kind="step", step="charge", time=last + LATER)


@plant(Rule.ORPHAN)
def a_child_acted_after_its_root_had_ended(run: Run) -> None:
    change_entry(run, entry(run, PAID, "charge"), wall=1_000.0)


@plant(Rule.ORPHAN)
def a_child_has_not_ended(run: Run) -> None:
    change_row(run, PAID, status="in_progress")


@plant(Rule.TURNS)
def two_of_a_key_were_under_way_at_a_time(run: Run) -> None:
    change_event(run, lambda one: (one.workflow, one.cause) == (UNDONE, "its_turn"), time=101.0)


@plant(Rule.TURNS)
def the_effects_of_two_of_a_key_were_mixed(run: Run) -> None:
    move_entry(run, entry(run, UNDONE, "open"), entry(run, DONE, "close"))


@plant(Rule.TURNS)
def two_steps_of_a_key_were_under_way_at_a_time(run: Run) -> None:
    change_event(
        run,
        lambda one: (one.workflow, one.step, one.cause) == (UNDONE, "legs[1]", "its_turn"),
        time=101.0,
    )


@plant(Rule.TURNS)
def two_workflows_of_a_key_were_seen_at_a_moment(run: Run) -> None:
    run.crowds.append(Crowd("trip", "", ACCOUNT, 2))


@plant(Rule.TURNS)
def two_steps_of_a_key_were_seen_at_a_moment(run: Run) -> None:
    run.crowds.append(Crowd("trip", "legs", SEAT, 2))


@plant(Rule.TURNS)
def a_step_began_that_waited_for_its_turn(run: Run) -> None:
    change_event(
        run,
        lambda one: (one.step, one.cause) == ("legs[1]", "its_turn"),
        cause="ready",
    )


@plant(Rule.RATE)
def a_path_was_called_too_often(run: Run) -> None:
    often = entry(run, DONE, "go")
    run.entries += [replace(often, fact=Fact.REPEATED, attempt=n + 2) for n in range(LIMIT + 4)]


@plant(Rule.AT_REST)
def a_wait_goes_on(run: Run) -> None:
    change_step(run, DONE, "rest", status="waiting")


@plant(Rule.LEAK)
def a_letter_was_never_brought(run: Run) -> None:
    run.leaks = Leaks(advisory_locks=1, letters=1)


@plant(Rule.LEAK)
def a_place_was_never_given_back(run: Run) -> None:
    run.leaks = Leaks(advisory_locks=1, places=1)
