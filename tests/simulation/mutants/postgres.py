"""Bugs in the store on PostgreSQL and in its election; only a real server can show them."""

from __future__ import annotations

from tests.simulation.mutants.planting import masked, tested

SUITE = "tests/adapters/stores/test_postgres.py::TestPostgresStore"
ALONE = "tests/adapters/stores/test_postgres.py"
FAULTS = "tests/adapters/stores/test_postgres_faults.py"
RACES = "tests/adapters/stores/test_postgres_races.py"
QUICK = "tests/adapters/stores/test_postgres_quick.py"
LOCKS = "tests/adapters/stores/test_postgres_locks.py"
ELECTION = "tests/adapters/elections/test_postgres.py"
CLAIMING = "sidecar.adapters.postgres.claiming"
WRITING = "sidecar.adapters.postgres.writing"
READING = "sidecar.adapters.postgres.reading:Reading"
STORE = "sidecar.adapters.stores.postgres:PostgresStore"

CLAIMS = (
    tested(
        "a claim waits for a row that somebody holds",
        f"{CLAIMING}:SQL.due",
        " SKIP LOCKED",
        "",
        f"{ALONE}::test_a_locked_step_is_not_claimed_and_called_locked",
    ),
    tested(
        "a claim by name waits for a row that somebody holds",
        f"{CLAIMING}:SQL.named",
        " SKIP LOCKED",
        "",
        f"{ALONE}::test_a_locked_step_is_not_claimed_and_called_locked",
    ),
    tested(
        "what is due is claimed without a lock",
        f"{CLAIMING}:SQL.due",
        "FOR UPDATE OF s SKIP LOCKED",
        "",
        f"{RACES}::test_eight_claimers_share_the_work_and_none_gets_more_than_it_asked_for",
    ),
    masked(
        "what is due is not materialized",
        f"{CLAIMING}:SQL.due",
        "due AS MATERIALIZED (",
        "due AS (",
        f"{RACES}::test_eight_claimers_share_the_work_and_none_gets_more_than_it_asked_for",
        f"{SUITE}::test_the_limit_is_kept_and_the_longest_due_come_first",
        by="PostgreSQL folds no part of a statement into another that locks rows; the word says"
        " aloud what FOR UPDATE has done already",
    ),
    tested(
        "the limit of claims in the database is ignored",
        f"{CLAIMING}:SQL.due",
        "LIMIT %(limit)s",
        "LIMIT %(limit)s + 5",
        f"{SUITE}::test_the_limit_is_kept_and_the_longest_due_come_first",
    ),
    tested(
        "a due time in the database is ignored",
        f"{CLAIMING}:SQL.due",
        "s.due_at <= statement_timestamp() AND",
        "",
        f"{SUITE}::test_urgent_or_not_nothing_is_claimed_before_it_is_due",
    ),
    tested(
        "a due time is ignored for a step that is named",
        f"{CLAIMING}:SQL.named",
        "s.due_at <= statement_timestamp() AND",
        "",
        f"{SUITE}::test_nothing_is_claimed_before_it_is_due",
        f"{SUITE}::test_each_key_that_is_not_claimed_says_why",
    ),
    tested(
        "a workflow paused in the database is gone on with",
        f"{CLAIMING}:SQL.due",
        "AND NOT w.paused",
        "",
        f"{SUITE}::test_nothing_of_a_paused_workflow_is_claimed_forward_or_back",
    ),
    tested(
        "a step that somebody holds is claimed by name",
        f"{CLAIMING}:SQL.named",
        "AND COALESCE(s.lease_until IS NULL, false)",
        "AND s.lease_until IS NOT DISTINCT FROM s.lease_until",
        f"{SUITE}::test_a_step_stays_with_its_claimer_until_the_machine_ends_the_lease",
        f"{SUITE}::test_each_key_that_is_not_claimed_says_why",
    ),
    tested(
        "a claim in the database does not raise the attempt",
        f"{CLAIMING}:SQL.taken",
        "comp_attempt = s.comp_attempt + CASE s.status WHEN 'compensating' THEN 1 ELSE 0 END",
        "comp_attempt = GREATEST(s.comp_attempt, 1)",
        f"{SUITE}::test_a_compensation_is_tried_until_it_is_done",
    ),
    tested(
        "a claim in the database sets no lease",
        f"{CLAIMING}:SQL.taken",
        "+ make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0)",
        "",
        f"{SUITE}::test_a_claim_says_all_that_a_call_needs_and_writes_the_step_alone",
        f"{SUITE}::test_a_lease_ends_with_its_time_and_not_before",
    ),
    tested(
        "what a settlement frees for another service is claimed with it",
        "sidecar.adapters.postgres.written:Written.claim_next",
        "mine = step.service == batch.service and",
        "mine =",
        f"{SUITE}::test_claim_next_takes_nothing_of_a_paused_workflow_or_of_another_service",
    ),
)

SETTLEMENTS = (
    tested(
        "a settlement does not look whether its workflow has moved",
        f"{WRITING}:SQL.moves",
        "w.revision = v.expected AND",
        "",
        f"{QUICK}::test_a_workflow_that_moved_meanwhile_is_decided_once_more",
    ),
    tested(
        "the last two branches of a join do not see each other",
        f"{WRITING}:SQL.moves",
        "FOR UPDATE OF w SKIP LOCKED",
        "",
        f"{LOCKS}::test_two_settlements_at_once_see_each_other",
    ),
    tested(
        "a settlement does not end its lease",
        f"{WRITING}:SQL.moves",
        "ELSE v.lease_until END",
        "ELSE s.lease_until END",
        f"{SUITE}::test_a_chain_runs_to_its_end",
    ),
    tested(
        "a number of the history is given again",
        f"{WRITING}:SQL.moves",
        "last_seq = v.last_seq,",
        "last_seq = w.last_seq,",
        f"{SUITE}::test_a_chain_runs_to_its_end",
    ),
    tested(
        "a workflow is read without its lock",
        "sidecar.adapters.postgres.locked:SQL.skip_locked",
        "FOR UPDATE SKIP LOCKED",
        "",
        f"{ALONE}::test_a_locked_workflow_is_skipped_or_waited_for",
    ),
    tested(
        "whoever should wait for a workflow does not",
        "sidecar.adapters.postgres.locked:SQL.wait",
        "FOR UPDATE",
        "",
        f"{LOCKS}::test_whoever_waits_for_a_workflow_decides_on_what_was_written",
    ),
    tested(
        "steps are taken away without their locks",
        "sidecar.adapters.postgres.locked:SQL.lock_steps",
        "FOR UPDATE",
        "",
        f"{LOCKS}::test_a_step_that_is_being_claimed_is_not_taken_away",
    ),
    tested(
        "steps are taken away by what was read before",
        "sidecar.adapters.postgres.quick:QuickDecisions._advance",
        "not (changes.takes_away or changes.children)",
        "not changes.children",
        f"{LOCKS}::test_a_refusal_does_not_take_away_what_is_being_claimed",
    ),
    tested(
        "an older state takes the place of a newer one",
        "sidecar.adapters.postgres.kept:KeptStates._put",
        "earlier.revision > workflow.revision",
        "False",
        f"{QUICK}::test_an_older_state_never_replaces_a_newer_one",
    ),
    masked(
        "states are kept after trouble with the store",
        "sidecar.adapters.postgres.kept:KeptStates.forget_all",
        "self._states.clear()",
        "pass",
        QUICK,
        by="a settlement that is decided on a state out of date loses by its revision, and is"
        " decided once more under the lock: to forget saves that second decision",
    ),
)

DOUBTS = (
    tested(
        "a session in doubt is left at work while its batch is repeated",
        f"{STORE}._run",
        "for session in doubted:",
        "for session in ():",
        f"{FAULTS}::test_a_lost_session_still_at_work_is_ended_before_its_batch_is_repeated",
    ),
    tested(
        "claims are not found again after a commit in doubt",
        f"{WRITING}:write",
        "if repeated else None",
        "if False else None",
        f"{SUITE}::test_a_batch_whose_answer_was_lost_gets_its_claims_again",
    ),
    tested(
        "a batch that took effect in part is begun anew",
        f"{STORE}._run",
        "self._doubt((batch.incarnation, batch.ticket), None)",
        "pass",
        f"{QUICK}::test_a_batch_that_took_effect_in_part_takes_effect_once",
    ),
    tested(
        "a start whose commit was in doubt is not recognised",
        "sidecar.adapters.postgres.starts:Starts._decide",
        "if status is not None:",
        "if False:",
        f"{SUITE}::test_the_same_start_after_a_lost_answer_is_one_workflow",
    ),
    tested(
        "a start key in the database may be used twice",
        f"{WRITING}:SQL.starts",
        "WHERE v.reserve IS NULL OR (v.id IN (SELECT workflow_id FROM reserved)) IS TRUE",
        "",
        f"{SUITE}::test_a_start_key_with_the_same_input_is_the_same_workflow",
    ),
    tested(
        "start keys are taken in any order",
        f"{WRITING}:SQL.starts",
        "ORDER BY v.definition, v.start_key",
        "",
        f"{LOCKS}::test_start_keys_are_taken_in_one_order",
    ),
    tested(
        "start keys are taken in any order under locks",
        "sidecar.adapters.postgres.starts:Starts.ask",
        "keyed.sort(key=lambda one: (one.definition.name, one.start_key))",
        "pass",
        f"{LOCKS}::test_start_keys_are_taken_in_one_order",
    ),
    tested(
        "a deadlock is taken for something else",
        "sidecar.adapters.postgres.errors:translate",
        "return StoreConflict(text)",
        "return StoreError(text)",
        f"{ALONE}::test_every_kind_of_error_has_one_meaning",
    ),
)

LEADERS = (
    tested(
        "questions that meet by chance make another connection",
        f"{READING}._connection",
        "await self._is_free_soon()",
        "False",
        f"{FAULTS}::test_a_store_that_nobody_asks_anything_keeps_two_connections",
    ),
    tested(
        "a connection that was waited for is not given back to those who wait",
        f"{READING}._connection",
        "self._kept.release()",
        "pass",
        f"{FAULTS}::test_a_store_that_nobody_asks_anything_keeps_two_connections",
    ),
    tested(
        "a heartbeat waits for the connection of a duty that waits for a lock",
        f"{READING}._is_free_soon",
        "PATIENCE_S",
        "None",
        f"{FAULTS}::test_a_duty_that_waits_for_a_lock_does_not_silence_its_sidecar",
    ),
    tested(
        "the epoch is not checked",
        "sidecar.adapters.postgres.commit:Transaction._decide",
        "await fence.fetchone() is None:",
        "False:",
        f"{SUITE}::test_a_void_epoch_is_refused_and_nothing_is_written",
    ),
    tested(
        "the epoch is checked and not held",
        "sidecar.adapters.postgres.commit:SQL.fence",
        "FOR SHARE",
        "",
        f"{LOCKS}::test_an_epoch_is_held_until_its_leader_has_written",
    ),
    tested(
        "two leaders have one epoch",
        "sidecar.adapters.postgres.queries:SQL.mint_epoch",
        "leaders.epoch + 1",
        "leaders.epoch",
        f"{SUITE}::test_a_void_epoch_is_refused_and_nothing_is_written",
    ),
    tested(
        "sidecars are forgotten without an epoch",
        "sidecar.adapters.postgres.queries:SQL.forget_sidecars",
        "AND epoch = %(epoch)s",
        "",
        f"{SUITE}::test_sidecars_long_silent_are_forgotten_by_the_leader_alone",
    ),
    tested(
        "a lease in the database ends before its time",
        "sidecar.adapters.postgres.queries:SQL.ended_leases",
        "s.lease_until < statement_timestamp()",
        "true",
        f"{SUITE}::test_a_lease_ends_with_its_time_and_not_before",
    ),
    tested(
        "the leader is not told of leases that are over",
        "sidecar.adapters.postgres.queries:SQL.leader_work",
        "s.lease_until < statement_timestamp()",
        "false",
        f"{SUITE}::test_a_lease_ends_with_its_time_and_not_before",
    ),
    tested(
        "a sidecar is rung for however long it has been silent",
        "sidecar.adapters.postgres.queries:SQL.ringable_steps",
        "AND seen_at > statement_timestamp() - %(unseen)s::interval",
        "",
        f"{SUITE}::test_who_is_silent_is_for_the_leader_to_say",
    ),
    tested(
        "the next page of what is rung for again begins at the first",
        "sidecar.adapters.postgres.queries:SQL.ringable_steps",
        "(ended.after_rank IS NULL\n           OR",
        "(true\n           OR",
        f"{SUITE}::test_page_by_page_every_step_has_its_turn",
    ),
    tested(
        "a leader that stands still keeps its lock for ever",
        "sidecar.adapters.elections.postgres:SQL.guard_session",
        "set_config('idle_session_timeout', %(idle_ms)s::text, false)",
        "%(idle_ms)s::text",
        f"{ELECTION}::test_a_paused_leaders_session_is_ended_by_the_server",
    ),
    tested(
        "a lock that was lost with its session alive is not missed",
        "sidecar.adapters.elections.postgres:SQL.still_held",
        "SELECT EXISTS (",
        "SELECT true OR EXISTS (",
        f"{ELECTION}::test_a_lock_that_is_gone_ends_the_term",
    ),
    tested(
        "a candidate takes the lock of a server that cannot be written any more",
        "sidecar.adapters.elections.postgres:SQL.try_lock",
        "current_setting('transaction_read_only') = 'off'",
        "true",
        f"{ELECTION}::test_a_candidate_takes_no_lock_where_nothing_can_be_written_any_more",
    ),
    tested(
        "a candidate that is stopped keeps its session",
        "sidecar.adapters.elections.postgres:PostgresElection.campaign",
        "await self._drop_session()",
        "pass",
        f"{ELECTION}::test_a_candidate_stopped_between_two_attempts_leaves_no_session",
    ),
    tested(
        "a lock that was granted to one who had given up is kept",
        "sidecar.adapters.elections.postgres:PostgresElection._ask",
        "kept = False",
        "kept = True",
        f"{ELECTION}::test_a_lock_granted_to_one_who_has_given_up_is_let_go",
    ),
    tested(
        "trust counts from the answer, not from the question",
        "sidecar.adapters.elections.postgres:PostgresTerm.extend",
        "= asked_at +",
        "= self._clock.monotonic() +",
        f"{ELECTION}::test_trust_ends_by_the_clock_counted_from_the_question",
    ),
)

POSTGRES = (*CLAIMS, *SETTLEMENTS, *DOUBTS, *LEADERS)
