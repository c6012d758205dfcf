"""Bugs in how the store on PostgreSQL keeps what the language has beyond calls."""

from __future__ import annotations

from tests.simulation.mutants.planting import masked, tested

SUITE = "tests/adapters/stores/test_postgres.py::TestPostgresStore"
ALONE = "tests/adapters/stores/test_postgres.py"
RACES = "tests/adapters/stores/test_postgres_language_races.py"
COSTS = "tests/adapters/stores/test_postgres_costs.py"
CLAIMING = "sidecar.adapters.postgres.claiming"
WRITING = "sidecar.adapters.postgres.writing"
ITEMS = "sidecar.adapters.postgres.items"
LOCKED = "sidecar.adapters.postgres.locked"
QUERIES = "sidecar.adapters.postgres.queries"

CLAIMS = (
    tested(
        "what is in doubt is never due in the database",
        f"{CLAIMING}:SQL.due",
        "'in_doubt', ",
        "",
        f"{SUITE}::test_who_is_in_doubt_can_be_claimed_and_asks",
    ),
    tested(
        "what is in doubt cannot be claimed by its name",
        f"{CLAIMING}:SQL.named",
        "'in_doubt', ",
        "",
        f"{SUITE}::test_it_is_claimed_by_its_name_and_with_the_settlement",
    ),
    tested(
        "a question is claimed as a call",
        f"{CLAIMING}:SQL.taken",
        "status = CASE WHEN s.status IN ('compensating', 'in_doubt')",
        "status = CASE WHEN s.status IN ('compensating')",
        f"{SUITE}::test_who_is_in_doubt_can_be_claimed_and_asks",
    ),
    tested(
        "what is only rung for is claimed as if it had been written",
        "sidecar.adapters.postgres.written:Written.claim_next",
        "if step is None:",
        "if False:",
        f"{SUITE}::test_nothing_is_claimed_while_paused_and_what_is_due_is_rung_for_then",
    ),
    tested(
        "a step is skipped without the lock that a claim respects",
        "sidecar.saga.operators:_free",
        "draft.takes_away = draft.takes_away or step.status in CLAIMABLE",
        "pass",
        f"{RACES}::test_a_skip_that_races_a_claim_never_takes_away_what_is_called",
    ),
    tested(
        "a pause that has been written is not looked at by who claims by name",
        f"{CLAIMING}:SQL.named",
        "AND NOT w.paused",
        "",
        f"{SUITE}::test_nothing_is_claimed_while_paused_and_what_is_due_is_rung_for_then",
    ),
)

KEPT = (
    tested(
        "who made the call still holds what the service has taken on",
        f"{WRITING}:SQL.moves",
        "owner = CASE WHEN v.claim THEN %(owner)s WHEN v.awaiting THEN NULL",
        "owner = CASE WHEN v.claim THEN %(owner)s",
        f"{SUITE}::test_who_answers_later_is_waited_for_and_held_by_nobody",
    ),
    tested(
        "it is not kept that a callback will come",
        f"{WRITING}:SQL.moves",
        "awaiting = COALESCE(v.awaiting, false)",
        "awaiting = false",
        f"{SUITE}::test_who_answers_later_is_waited_for_and_held_by_nobody",
    ),
    tested(
        "it is not kept since when a step is in doubt",
        f"{WRITING}:SQL.moves",
        "doubt_at = v.doubt_at",
        "doubt_at = NULL",
        f"{SUITE}::test_who_is_in_doubt_can_be_claimed_and_asks",
    ),
    tested(
        "a pause is not kept",
        f"{WRITING}:SQL.moves",
        "paused = COALESCE(v.paused, false)",
        "paused = w.paused",
        f"{SUITE}::test_nothing_is_claimed_while_paused_and_what_is_due_is_rung_for_then",
    ),
    tested(
        "elements are numbered from one",
        f"{WRITING}:SQL.items",
        "e.number - 1",
        "e.number",
        f"{SUITE}::test_items_come_by_pages",
    ),
    tested(
        "a signal that was taken stays",
        f"{WRITING}:SQL.signals",
        "AND s.number = v.number",
        "AND false",
        f"{SUITE}::test_a_signal_that_was_taken_is_never_taken_again",
    ),
    tested(
        "signals that are kept are not read",
        f"{LOCKED}:LockedWorkflows.hear",
        'if row["kept_signals"]:',
        "if False:",
        f"{SUITE}::test_a_signal_that_comes_early_is_kept_and_taken_once",
    ),
    tested(
        "it is not looked which signals have come",
        f"{LOCKED}:LockedWorkflows._read_heard",
        "if not ids:",
        "if True:",
        f"{SUITE}::test_the_same_signal_again_is_no_other",
    ),
    tested(
        "a claim brings a workflow without the signals that are kept for it",
        f"{WRITING}:_read",
        "and not (row[47] or row[49])",
        "and not row[49]",
        f"{SUITE}::test_a_signal_that_comes_early_is_kept_and_taken_once",
    ),
    tested(
        "a signal that is kept and taken in one batch is kept",
        "sidecar.adapters.postgres.written:Written._add",
        "if self.kept.pop((known, number), None) is None:",
        "if True:",
        f"{ALONE}::test_a_signal_kept_and_taken_in_one_batch_leaves_nothing",
    ),
)

READING = (
    tested(
        "the first item of a fan-out is not found",
        f"{ITEMS}:SQL.some_items",
        "COALESCE(v.idx, 0) AS idx\n    FROM json_to_recordset(%(keys)s",
        "v.idx AS idx\n    FROM json_to_recordset(%(keys)s",
        f"{SUITE}::test_items_are_opened_as_many_at_a_time_as_may_be",
    ),
    tested(
        "of the items to be undone next one is read for a whole batch",
        f"{ITEMS}:SQL.some_items",
        "LIMIT v.most",
        "LIMIT 1",
        f"{SUITE}::test_a_batch_on_the_way_back_whose_answer_was_lost_takes_effect_once",
    ),
    tested(
        "an item without effect takes the place of the next to be undone",
        f"{ITEMS}:SQL.some_items",
        "AND s.status IN ('succeeded', 'skipped', 'failed') AND s.may_have_effect",
        "",
        f"{SUITE}::test_only_items_that_may_have_acted_are_undone",
    ),
    tested(
        "an item is looked up among all",
        f"{ITEMS}:SQL.some_items",
        "AND s.idx = v.idx LIMIT 1\n) AS s",
        "AND s.idx - v.idx = 0 LIMIT 1\n) AS s",
        f"{COSTS}::test_an_item_costs_the_same_forward_and_on_the_way_back",
    ),
    tested(
        "the element that comes next is not read with the item that ended",
        f"{ITEMS}:some_items",
        "to_open(fan_out, fan, len(named))",
        "range(0)",
        f"{COSTS}::test_an_item_costs_the_same_forward_and_on_the_way_back",
    ),
    tested(
        "all items are read for each",
        f"{LOCKED}:LockedWorkflows._read_items",
        "if one.id not in self._whole]",
        "if False]",
        f"{COSTS}::test_an_item_costs_the_same_forward_and_on_the_way_back",
        f"{SUITE}::test_items_are_opened_as_many_at_a_time_as_may_be",
    ),
    tested(
        "items that were read in part are taken for all",
        f"{LOCKED}:LockedWorkflows._read_items",
        "items.added_to(one, partial=True)",
        "items.added_to(one, partial=False)",
        f"{SUITE}::test_the_whole_output_is_read_by_a_later_step",
    ),
    tested(
        "the outputs of items are not read",
        f"{ITEMS}:SQL.all_items",
        "CASE WHEN w.renders THEN s.output::text END AS output",
        "NULL AS output",
        f"{SUITE}::test_the_whole_output_is_read_by_a_later_step",
    ),
    tested(
        "a workflow is shown with all its items",
        f"{QUERIES}:SQL.get_workflows",
        "AND idx = -1",
        "",
        f"{SUITE}::test_roots_of_every_kind_begin_with_the_start",
    ),
    tested(
        "the steps of a workflow that is read are looked for among all",
        f"{QUERIES}:SQL.get_workflows",
        " OFFSET 0",
        "",
        f"{COSTS}::test_a_workflow_is_read_whole_however_many_others_are_stored[new]",
    ),
    tested(
        "timers of a paused workflow are told in the database",
        f"{QUERIES}:SQL.due_timers",
        "AND NOT w.paused",
        "",
        f"{SUITE}::test_the_timers_of_a_paused_workflow_wait_for_the_resume",
    ),
    tested(
        "the leader is not told of timers",
        f"{QUERIES}:SQL.leader_work",
        "s.status = 'waiting'",
        "s.status = 'queued'",
        f"{SUITE}::test_a_wait_is_nobodys_to_claim_and_ends_by_its_time",
    ),
    tested(
        "the lease of a question is told as that of a call",
        f"{QUERIES}:PostgresQueries.ended_leases",
        "Action.STATUS if asking else Action.EXECUTE",
        "Action.EXECUTE",
        f"{SUITE}::test_the_lease_of_a_question_is_one_of_its_own",
    ),
    tested(
        "an attempt that has ended is current",
        f"{QUERIES}:SQL.is_current",
        "AND COALESCE(lease_until IS NOT NULL, false)",
        "",
        f"{SUITE}::test_an_attempt_is_current_from_its_claim_to_its_end",
    ),
    masked(
        "a step that waits is not locked when steps are taken away",
        f"{LOCKED}:SQL.lock_steps",
        "'queued', 'running', 'retrying', 'in_doubt', 'compensating'",
        "'queued', 'retrying', 'in_doubt', 'compensating'",
        f"{RACES}::test_a_skip_that_races_a_claim_never_takes_away_what_is_called",
        by="no claim takes a step that is being called, and its answer takes the workflow's lock:"
        " the rows of running steps are locked for nobody",
    ),
)

LANGUAGE_POSTGRES = (*CLAIMS, *KEPT, *READING)
