"""Bugs in what bounds the language, and where its constructs meet."""

from __future__ import annotations

from tests.simulation.mutants.planting import tested

FAN_OUT = "sidecar.saga.fan_out"
SUITE = "tests/adapters/stores/test_memory.py::TestMemoryStore"
LARGE = "tests/unit/saga/test_large_items.py"
DRIVER = "sidecar.adapters.kafka.driver"
EDGE = "tests/adapters/queues/test_kafka_driver.py"

BOUNDS = (
    tested(
        "a task of the driver of Kafka is asked to end once",
        f"{DRIVER}:end",
        "range(_ASKED_TO_END)",
        "range(1)",
        f"{EDGE}::test_a_task_that_takes_its_end_for_that_of_another_is_asked_again",
    ),
    tested(
        "a call of the driver of Kafka is waited for that takes no notice of its end",
        f"{DRIVER}:apart",
        "await asyncio.wait({call})",
        "await call",
        f"{EDGE}::test_a_call_that_takes_one_cancellation_for_anothers_is_asked_again",
    ),
    tested(
        "whoever is cancelled again gives the end of a call of the driver of Kafka up",
        f"{DRIVER}:apart",
        "asyncio.shield(_in_background(_give_up(client, call)))",
        "_give_up(client, call)",
        f"{EDGE}::test_whoever_is_cancelled_twice_gets_on_and_the_call_is_ended_all_the_same",
    ),
    tested(
        "a start of the driver of Kafka that was left behind revives its client",
        f"{DRIVER}:_when_it_ends",
        "if client._closed:",
        "if False:",
        f"{EDGE}::test_a_call_that_is_left_behind_revives_no_client_that_was_closed",
    ),
    tested(
        "items are opened whatever their inputs come to together",
        f"{FAN_OUT}:_open_next",
        "draft.opened_with >= MOST_AT_ONCE",
        "False",
        f"{LARGE}::test_items_are_opened_while_their_inputs_are_not_too_much_at_once",
    ),
    tested(
        "a fan-out has no item under way when others have opened enough",
        f"{FAN_OUT}:_open_next",
        "if fan.open and (draft.opened_with",
        "if (draft.opened_with",
        f"{LARGE}::test_of_two_fan_outs_each_has_an_item_under_way",
    ),
    tested(
        "the end of an item opens more than was read",
        f"{FAN_OUT}:_open_next",
        " or fan.opened >= last",
        "",
        f"{LARGE}::test_while_they_fill_up_an_end_needs_no_more_than_those_that_it_opens",
    ),
    tested(
        "while they fill up all items are read at each end",
        "sidecar.saga.partial:to_open",
        "min(fan_out.max_parallel - fan.open + ended, MOST_NEXT * ended)",
        "ended",
        f"{LARGE}::test_while_they_fill_up_an_end_needs_no_more_than_those_that_it_opens",
    ),
    tested(
        "as many items are undone as are known",
        f"{FAN_OUT}:item_undone",
        "step.fan.undoing)",
        "MOST_ITEMS)",
        f"{LARGE}::test_they_are_undone_so_too_whatever_was_read",
    ),
)

CHECKED = (
    tested(
        "only one that runs itself at once is known to wait for itself",
        "sidecar.definitions.checker.places:_ways",
        "coming.append((child, found[child]))",
        "pass",
        "tests/unit/definitions/checker/test_places.py"
        "::test_it_is_found_through_levels_and_whoever_is_checked",
    ),
)

MEANWHILE = (
    tested(
        "a callback is given up by a lease that was seen to end before",
        "sidecar.saga.answers:lease_ended",
        "event.until is not None and step.lease_until != event.until",
        "False",
        f"{SUITE}::test_what_is_taken_on_after_its_lease_was_seen_to_end_has_its_time",
        f"{SUITE}::test_a_sign_of_life_counts_that_comes_after_the_time_was_seen_to_be_over",
    ),
    tested(
        "the history of what is terminated says nothing of the calls in flight",
        "sidecar.saga.operators:_cut_off",
        "answers.note_claim(draft, step, step.run)",
        "pass",
        f"{SUITE}::test_whoever_ends_a_claim_writes_its_line_first",
    ),
)

CORNERS = (*BOUNDS, *CHECKED, *MEANWHILE)
