"""Bugs in running a workflow again, in settling what was terminated, in beginning anew."""

from __future__ import annotations

from tests.simulation.mutants.planting import simulated, tested

SUITE = "tests/adapters/stores/test_memory.py::TestMemoryStore"
REAL = "tests/adapters/stores/test_postgres.py::TestPostgresStore"
RERUNS = "sidecar.saga.reruns"
AFTERWARDS = "sidecar.saga.afterwards"
STARTS = "sidecar.adapters.postgres.starts"

KEPT = (
    simulated(
        "what a rerun keeps is known to services by its own key",
        f"{RERUNS}:_take",
        "(step.origin or old.id) if step.execute.attempt else None",
        "None",
        within=400,
        rare=True,
    ),
    tested(
        "a rerun of a rerun forgets the first key",
        f"{RERUNS}:_take",
        "(step.origin or old.id)",
        "old.id",
        f"{SUITE}::test_a_rerun_of_a_rerun_still_knows_the_first_key",
    ),
    tested(
        "what was taken over is undone with an id that its service does not know",
        "sidecar.saga.draft:Draft.rendered",
        "item.origin is not None",
        "False",
        f"{SUITE}::test_what_was_kept_is_undone_with_the_id_that_its_service_knows",
    ),
    tested(
        "what is unknown is done anew by a rerun",
        f"{RERUNS}:is_to_be_tried_again",
        "step.status is StepStatus.FAILED and step.may_have_effect",
        "False",
        f"{SUITE}::test_what_is_unknown_is_tried_again_under_the_old_key_and_the_rest_anew",
    ),
    tested(
        "a step is kept though what it came after is not",
        f"{RERUNS}:_kept",
        "not _had_its_turn(defined, passed)",
        "False",
        "tests/unit/saga/test_reruns.py::test_what_came_after_what_a_person_undid_is_not_kept",
    ),
    tested(
        "what was skipped before its turn is done by a rerun",
        f"{RERUNS}:_kept",
        "step.status is StepStatus.SKIPPED and not turning_back",
        "False",
        f"{SUITE}::test_a_step_skipped_before_its_turn_stays_so",
    ),
    tested(
        "a rerun begins at the roots whatever it has kept",
        "sidecar.saga.forward:begin",
        "_open_ready(draft, draft.definition.steps)",
        "_open_ready(draft, draft.definition.roots)",
        f"{SUITE}::test_what_passed_without_an_effect_is_kept_too",
    ),
    tested(
        "what waits for its turn can be retried before it",
        "sidecar.saga.stuck:is_stuck",
        "draft.status is WorkflowStatus.QUEUED",
        "False",
        "tests/unit/saga/test_reruns.py::test_what_waits_for_its_turn_is_not_retried_before_it",
    ),
)

HANDED_OVER = (
    tested(
        "two reruns take over the same debts",
        f"{RERUNS}:_hindrance",
        "draft.taken_over_by is not None",
        "False",
        f"{SUITE}::test_only_one_rerun_takes_over",
    ),
    tested(
        "two reruns go on from the same results, if nothing is owed",
        f"{RERUNS}:rerun",
        "_keeps(draft, event)",
        "draft.owes_since",
        f"{SUITE}::test_only_one_rerun_goes_on_though_nothing_is_owed",
    ),
    tested(
        "what was taken over is still owed by the first one",
        "sidecar.saga.debts:may_owe",
        " and taken_over_by is None",
        "",
        f"{SUITE}::test_the_debts_move_in_the_same_commit",
    ),
    tested(
        "another version takes over debts",
        f"{RERUNS}:_hindrance",
        "not event.same_version",
        "False",
        f"{SUITE}::test_another_version_cannot_take_over",
    ),
    tested(
        "what is half undone is taken over as if it had not been touched",
        f"{RERUNS}:_not_to_be_kept",
        "step.status in UNDOING",
        "False",
        f"{SUITE}::test_what_is_half_undone_is_refused",
    ),
    tested(
        "a fan-out is kept though an item of it was undone by hand",
        f"{RERUNS}:_is_whole",
        "item.status in _SIGNALS",
        "True",
        f"{SUITE}::test_a_fan_out_with_an_item_undone_by_hand_is_refused_until_all_are",
    ),
    tested(
        "what somebody has begun to undo is kept",
        f"{RERUNS}:_only_to_be_undone",
        "step.compensate.attempt > 0 or",
        "",
        f"{SUITE}::test_what_is_half_undone_is_refused",
    ),
    tested(
        "what was to be undone is kept, whether it had succeeded or not",
        f"{RERUNS}:before_undoing",
        "and key in succeeded",
        "",
        f"{SUITE}::test_what_was_to_be_undone_and_had_not_succeeded_is_refused",
    ),
    tested(
        "a child is handed over, which nobody could have undone",
        f"{RERUNS}:_not_to_be_kept",
        "defined.child is not None",
        "False",
        f"{SUITE}::test_a_child_is_not_handed_over",
    ),
    tested(
        "nobody goes on with a version that was retired",
        "sidecar.ports.reruns:goes_on",
        "old.status is WorkflowStatus.TERMINATED and",
        "False and",
        f"{SUITE}::test_a_version_that_was_retired_meanwhile_is_gone_on_with",
    ),
    tested(
        "the database lets nobody go on with a version that was retired",
        f"{STARTS}:SQL.unfit",
        "WHERE w.id = v.goes_on_from",
        "WHERE false",
        f"{REAL}::test_a_version_that_was_retired_meanwhile_is_gone_on_with",
    ),
    tested(
        "the database does not keep who took over",
        f"{STARTS}:SQL.hand_over",
        "WHERE w.id = v.id",
        "WHERE w.id = v.id AND false",
        f"{REAL}::test_the_debts_move_in_the_same_commit",
    ),
    tested(
        "the database forgets under which key a step is known",
        "sidecar.adapters.postgres.writing:SQL.history",
        "v.comp_error::json, v.origin",
        "v.comp_error::json, NULL::uuid",
        f"{REAL}::test_what_was_kept_is_undone_under_the_old_key",
    ),
)

SETTLED = (
    tested(
        "what was taken over can still be settled in the first one",
        f"{AFTERWARDS}:resolve",
        " and not draft.taken_over_by",
        "",
        "tests/unit/saga/test_reruns.py::test_what_was_taken_over_is_settled_in_the_rerun_alone",
    ),
    tested(
        "a fan-out is owed after its last item was settled",
        f"{AFTERWARDS}:_count",
        "not any(",
        "False and not any(",
        f"{SUITE}::test_what_cannot_be_handed_over_is_refused_until_it_is_undone_by_hand",
    ),
)

ANEW = (
    tested(
        "the end of an earlier child is taken for that of the newest",
        "sidecar.saga.children:told",
        "event.child is not None and",
        "False and",
        f"{SUITE}::test_a_child_that_was_rolled_back_past_a_pivot_is_begun_anew",
    ),
    tested(
        "a child that is begun anew has the id of the first",
        "sidecar.saga.children:id_of",
        "step.execute.attempt",
        "0",
        f"{SUITE}::test_a_child_that_was_rolled_back_past_a_pivot_is_begun_anew",
    ),
    tested(
        "a child whose effect is there is begun anew",
        "sidecar.saga.anew:begin",
        "if step.may_have_effect:",
        "if False:",
        "tests/unit/saga/test_children_in_trouble.py"
        "::test_a_child_whose_effect_is_there_is_not_begun_anew",
    ),
    tested(
        "a wait that is begun anew goes on past nobody who waits for it",
        "sidecar.saga.operators:retry",
        "if draft.step(step.key).status is StepStatus.SUCCEEDED:",
        "if False:",
        "tests/unit/saga/test_retried_waits.py::test_a_signal_that_came_meanwhile_is_taken_at_once",
    ),
    tested(
        "a letter that cannot be heeded is forgotten without a word",
        "sidecar.saga.machine:advance",
        "if not isinstance(event, Told):",
        "if True:",
        "tests/unit/saga/test_children_in_trouble.py"
        "::test_a_letter_that_cannot_be_heeded_stands_in_the_history",
    ),
)

RERUN = (*KEPT, *HANDED_OVER, *SETTLED, *ANEW)
