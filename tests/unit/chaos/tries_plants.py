"""Ways to spoil a sound run of tries and waits, each with the rule that must find it."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.expectations import Rule
from tests.chaos.rows import EventRow
from tests.unit.chaos.plants import Plant, change_event, change_row, change_step, planter
from tests.unit.chaos.sound_run import Run
from tests.unit.chaos.sound_tries import DONE, LATE

PLANTS: list[tuple[Rule, str, Plant]] = []
plant = planter(PLANTS)


def told(
    workflow: str, step: str | None, cause: str, attempt: int | None = None, kind: str | None = None
) -> Callable[[EventRow], bool]:
    """Which lines speak of this."""

    def wanted(event: EventRow) -> bool:
        same = (event.workflow, event.step, event.cause) == (workflow, step, cause)
        return same and attempt in (None, event.attempt) and kind in (None, event.kind)

    return wanted


def sooner(run: Run, wanted: Callable[[EventRow], bool], by_s: float = 0.1) -> None:
    """Let a line have happened earlier."""
    found = next(event for event in run.events if wanted(event))
    change_event(run, wanted, time=found.time - by_s)


@plant(Rule.BACK_OFF)
def it_was_tried_again_too_soon(run: Run) -> None:
    sooner(run, told(DONE, "charge", "claimed", 2))


@plant(Rule.BACK_OFF)
def it_was_asked_for_too_soon_while_it_was_being_worked_on(run: Run) -> None:
    sooner(run, told(DONE, "charge", "claimed", 3))


@plant(Rule.BACK_OFF)
def it_was_tried_again_at_once_that_had_asked_for_time(run: Run) -> None:
    sooner(run, told(DONE, "charge", "claimed", 4), 2.0)


@plant(Rule.BACK_OFF)
def the_pause_did_not_grow(run: Run) -> None:
    sooner(run, told(DONE, "charge", "claimed", 6), 0.7)


@plant(Rule.BACK_OFF)
def it_was_tried_too_soon_after_its_callback_was_given_up(run: Run) -> None:
    sooner(run, told(DONE, "reserve", "claimed", 2))


@plant(Rule.BACK_OFF)
def it_was_undone_again_too_soon(run: Run) -> None:
    sooner(run, told(LATE, "charge", "claimed", 2, "compensation"))


@plant(Rule.BACK_OFF)
def it_was_asked_again_too_soon_how_it_went(run: Run) -> None:
    sooner(run, told(DONE, "ship", "claimed", 3))


@plant(Rule.TRIES)
def it_was_tried_too_often(run: Run) -> None:
    change_event(run, told(DONE, "charge", "busy"), cause="unknown")
    change_event(run, told(DONE, "charge", "not_now"), cause="unknown")


@plant(Rule.TRIES)
def it_was_done_again_and_not_asked_about(run: Run) -> None:
    change_event(run, told(DONE, "ship", "unknown"), after="retrying", action="execute")
    change_event(run, told(DONE, "ship", "claimed", 2), before="retrying", after="running")


@plant(Rule.TRIES)
def a_busy_answer_was_counted(run: Run) -> None:
    change_step(run, DONE, "charge", tries=4)


@plant(Rule.TRIES)
def a_try_to_undo_was_not_counted(run: Run) -> None:
    change_step(run, LATE, "charge", comp_tries=1)


@plant(Rule.DUE)
def its_deadline_passed_too_soon(run: Run) -> None:
    sooner(run, told(LATE, None, "deadline_passed"))
    change_row(run, LATE, deadline=None)


@plant(Rule.DUE)
def its_deadline_was_put_off_and_passed(run: Run) -> None:
    change_row(run, LATE, deadline=500.0)


@plant(Rule.DUE)
def a_deadline_passed_where_there_is_none(run: Run) -> None:
    change_row(run, LATE, definition="another", deadline=None)


@plant(Rule.DUE)
def a_wait_was_cut_short(run: Run) -> None:
    sooner(run, told(DONE, "rest", "time_has_come"))


@plant(Rule.DUE)
def a_callback_was_given_up_too_soon(run: Run) -> None:
    sooner(run, told(DONE, "reserve", "unknown", 1))
