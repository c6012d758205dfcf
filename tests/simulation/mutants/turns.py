"""Bugs in how steps take turns: in the core, in the engine, and in both stores."""

from __future__ import annotations

from tests.simulation.mutants.planting import simulated, tested

MEMORY = "tests/adapters/stores/test_memory.py::TestMemoryStore"
SUITE = "tests/adapters/stores/test_postgres.py::TestPostgresStore"
RACES = "tests/adapters/stores/test_postgres_turns.py"
ENGINE = "tests/unit/engine/test_turns.py"
STANDING = "sidecar.saga.turns:standing_of_step"
LOCKED = "sidecar.adapters.postgres.locked"
WRITING = "sidecar.adapters.postgres.writing"
QUERIES = "sidecar.adapters.postgres.queries"

TURNS = (
    simulated(
        "a step that takes turns can be claimed at once",
        "sidecar.saga.queueing:open_call",
        "if defined.concurrency is None:",
        "if True:",
    ),
    simulated(
        "a step that is over has its place for ever",
        STANDING,
        "step.status not in OPEN",
        "False",
    ),
    tested(
        "a place is given to whoever asks",
        "sidecar.adapters.memory.outbox:Outbox.has_place",
        "sum(placed) >= limit",
        "False",
        f"{MEMORY}::test_of_two_steps_that_are_admitted_at_once_one_has_the_place",
    ),
    tested(
        "a step that is being undone has its place still",
        STANDING,
        "or step.status is StepStatus.COMPENSATING",
        "",
        f"{MEMORY}::test_a_place_is_kept_as_long_as_the_step_is_on_its_way_forward",
    ),
    tested(
        "all steps of a definition share their places",
        "sidecar.saga.turns:turn_of",
        "step.turn, step.key.step)",
        'step.turn, "pay")',
        f"{MEMORY}::test_only_calls_of_the_same_step_of_the_same_definition_share_places",
    ),
    tested(
        "what failed is tried again past those who wait",
        "sidecar.saga.queueing:try_anew",
        "StepSignal.RETRY if step.turn is None else StepSignal.AWAIT",
        "StepSignal.RETRY",
        f"{MEMORY}::test_what_failed_past_a_pivot_waits_for_its_turn_again",
    ),
    tested(
        "a late answer that proves nothing lets a step past those who wait",
        "sidecar.saga.answers:_awaits",
        "if waits_for_turn(step)",
        "if False",
        f"{MEMORY}::test_only_an_end_is_news_of_one_that_waits_to_be_tried_anew",
    ),
    tested(
        "nobody looks who is next when a place is given back",
        "sidecar.engine.turns:Turns.follow",
        "stand.freed or",
        "",
        f"{ENGINE}::test_a_commit_makes_look_at_just_the_keys_that_it_moved",
    ),
    tested(
        "an admission lets the workflow begin, and not its step",
        "sidecar.engine.turns:Turns._admit_one",
        "Admitted(one.step)",
        "Admitted()",
        f"{ENGINE}::test_a_step_is_admitted_by_its_name",
    ),
    tested(
        "who waits for a place is not told who has it",
        "sidecar.engine.queries:Queries._holders",
        "for turn in waited_for(workflow)",
        "for turn in ()",
        "tests/unit/engine/test_views.py::test_who_waits_for_its_turn_says_who_has_the_places",
    ),
    tested(
        "two count the places of one key at once",
        f"{LOCKED}:SQL.lock_turns",
        "NOT pg_try_advisory_xact_lock(",
        "(24770, NULL) = (",
        f"{RACES}::test_two_who_admit_two_to_one_place_admit_one",
    ),
    tested(
        "who finds no place in a batch is overtaken by those after him",
        "sidecar.adapters.memory.outbox:Outbox.has_place",
        "turn in self._full or",
        "",
        f"{MEMORY}::test_who_finds_no_place_is_overtaken_by_nobody_in_his_batch",
    ),
    tested(
        "who finds no place in a batch of PostgreSQL is overtaken by those after him",
        "sidecar.adapters.postgres.commit:Transaction._has_place",
        "turn in self._full or",
        "",
        f"{SUITE}::test_who_finds_no_place_is_overtaken_by_nobody_in_his_batch",
    ),
    tested(
        "a place is taken although somebody else counts the places of its key",
        "sidecar.adapters.postgres.commit:Transaction._advance",
        "if turn in self._locked.turns_elsewhere:",
        "if False:",
        f"{RACES}::test_a_key_that_somebody_else_has_locked_holds_up_nobody_else",
    ),
    tested(
        "who asks for a retry of one that waits for its turn is not told so",
        "sidecar.saga.operators:_not_to_retry",
        "if waits_for_turn(step)",
        "if False",
        f"{MEMORY}::test_a_retry_does_not_get_past_those_who_wait",
    ),
    tested(
        "whoever looks for the next takes the connections that keep a sidecar alive",
        f"{QUERIES}:PostgresQueries.next_turns",
        "self._rows(",
        "self._vital_rows(",
        f"{RACES}::test_who_is_next_is_asked_beside_what_keeps_a_sidecar_alive",
    ),
    tested(
        "one that cannot be admitted holds up all who wait behind him",
        "sidecar.engine.turns:Turns._admit_line",
        "if errors:",
        "if False:",
        f"{ENGINE}::test_one_that_cannot_be_admitted_is_put_off_and_the_next_has_his_place",
    ),
    tested(
        "the keys of a leader's first page hide all others",
        "sidecar.engine.duties:Duties._look_at_turns",
        "free[-1] if len(free) >= BATCH_MAX else None",
        "None",
        "tests/unit/engine/test_poisoned_duties.py::"
        "test_a_leader_looks_at_the_keys_page_by_page_and_begins_anew",
    ),
    tested(
        "an admission whose key is locked goes from batch to batch without a rest",
        "sidecar.engine.commit_line:Waiting.ride_again",
        "if self.member.turn is None",
        "if True",
        "tests/unit/engine/test_group_commit.py::"
        "test_one_that_takes_a_turn_rests_between_its_rides",
    ),
    tested(
        "who waits is counted as if he had a place",
        f"{LOCKED}:SQL.taken_turns",
        "AND t.placed",
        "",
        f"{SUITE}::test_a_step_waits_until_it_is_admitted_and_nobody_can_claim_it",
    ),
    tested(
        "who comes and goes with one batch leaves his row behind",
        "sidecar.adapters.postgres.written:Written._add",
        "self.stands |= {stand.who: stand for stand in changes.turns}",
        "self.stands = {stand.who: stand for stand in changes.turns} | self.stands",
        f"{SUITE}::test_who_is_admitted_and_stopped_by_one_batch_keeps_no_place",
    ),
    tested(
        "one item that ends takes the places of all others",
        f"{WRITING}:SQL.turns",
        "AND t.idx = COALESCE(v.idx, 0)",
        "",
        f"{SUITE}::test_items_of_a_fan_out_that_fails_leave_nobody_in_the_line",
    ),
    tested(
        "who began the older workflow comes first, however late he began to wait",
        f"{QUERIES}:SQL.next_turns",
        "ORDER BY t.priority DESC, t.since, t.workflow_id, t.idx\n        LIMIT",
        "ORDER BY t.priority DESC, t.workflow_id, t.idx LIMIT",
        f"{SUITE}::test_what_failed_past_a_pivot_waits_for_its_turn_again",
    ),
)
