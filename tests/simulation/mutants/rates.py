"""Bugs in rate limits and priorities."""

from __future__ import annotations

from tests.simulation.mutants.planting import simulated, tested

MEMORY = "tests/adapters/stores/test_memory.py::TestMemoryStore"
POSTGRES = "tests/adapters/stores/test_postgres.py::TestPostgresStore"
SIDE_BY_SIDE = "tests/adapters/stores/test_postgres_rates.py"
LIMITING = "tests/unit/engine/test_limiting.py"
MACHINE = "tests/unit/saga/test_machine.py"
GIVEN_BACK = "tests/unit/saga/test_given_back.py"
PACING = "sidecar.saga.pacing:give_turns"
CALLER = "sidecar.engine.calling:Caller"
STATEMENT = "sidecar.adapters.postgres.rates:SQL.ask"
CLAIMING = "sidecar.adapters.postgres.claiming"

TURNS = (
    tested(
        "every call has its turn at once",
        PACING,
        "granted = moment - now <= min(one.patience, longest)",
        "granted = True",
        f"{MEMORY}::test_a_rested_action_may_be_called_as_often_as_the_limit_then_at_its_pace",
    ),
    tested(
        "promises that nobody came for add up to a burst",
        PACING,
        "moment = max(arrival, theoretical - tolerance)",
        "moment = arrival",
        f"{MEMORY}::test_promises_that_nobody_came_for_do_not_add_up_to_a_burst",
    ),
    tested(
        "what is granted is not counted",
        PACING,
        "            called = theoretical",
        "            called = meter.called",
        f"{MEMORY}::test_promises_that_nobody_came_for_do_not_add_up_to_a_burst",
        SIDE_BY_SIDE,
    ),
    tested(
        "the late all come back at the same time",
        PACING,
        "late = moment + interval",
        "late = meter.late",
        f"{MEMORY}::test_the_late_come_back_one_after_the_other_and_not_behind_the_whole_line",
    ),
    tested(
        "whoever comes back too early is taken for late",
        PACING,
        "one.promise <= now",
        "True",
        SIDE_BY_SIDE,
    ),
    tested(
        "what the late were promised is forgotten while they are away",
        "sidecar.adapters.memory.rates:MemoryRates.ask_rates",
        "promise.kept_until < now",
        "promise.moment <= now - KEPT_US",
        f"{MEMORY}::test_the_late_come_back_one_after_the_other_and_not_behind_the_whole_line",
    ),
    tested(
        "a new call is waited for as long as there is time",
        PACING,
        "NEW_PATIENCE_US if one.promise is None else one.patience",
        "one.patience",
        f"{MEMORY}::test_a_new_call_waits_less_long_than_one_that_was_promised",
    ),
    tested(
        "a limit that was raised leaves the line as it was",
        "sidecar.saga.pacing:_told_by",
        "if interval < meter.interval:",
        "if False:",
        f"{MEMORY}::test_where_calls_may_come_faster_from_now_on_nobody_keeps_a_turn_far_off",
    ),
    tested(
        "turns behind the end of a new line are kept",
        PACING,
        "(one.promise or 0) > behind",
        "False",
        f"{MEMORY}::test_where_calls_may_come_faster_from_now_on_nobody_keeps_a_turn_far_off",
    ),
    tested(
        "a limit that was lowered forgets what was called",
        STATEMENT,
        "WHEN t.earlier IN (0, t.every) OR t.called <= t.now THEN t.called",
        "WHEN true THEN t.called",
        f"{POSTGRES}::test_where_calls_may_come_less_often_from_now_on_those_before_count_for_more",
        SIDE_BY_SIDE,
    ),
    tested(
        "a promise is forgotten as soon as it is made",
        "sidecar.adapters.memory.rates:MemoryRates.ask_rates",
        "if turn.granted and not turn.promised:",
        "if True:",
        f"{MEMORY}::test_whoever_was_sent_away_comes_back_to_its_own_turn_by_any_handle",
    ),
    tested(
        "meters in the database are not locked",
        STATEMENT,
        "ORDER BY m.path FOR UPDATE",
        "ORDER BY m.path",
        f"{POSTGRES}::test_however_many_ask_at_once_no_turn_is_given_twice",
    ),
    tested(
        "some are given turns where a meter of others is missing",
        STATEMENT,
        "WHERE locked.known = (SELECT count(DISTINCT path) FROM asked)",
        "",
        SIDE_BY_SIDE,
    ),
    tested(
        "a turn that was granted and not used is lost",
        STATEMENT,
        "WHERE NOT granted OR promise IS NOT NULL",
        "WHERE NOT granted",
        f"{POSTGRES}::test_a_turn_that_was_not_used_is_asked_for_again_from_the_same_place",
        SIDE_BY_SIDE,
    ),
    tested(
        "a try that was spent keeps its place in the line",
        "sidecar.adapters.memory.rates:MemoryRates._promised",
        "(promise.scope, promise.tries) != (scope, tries)",
        "promise.scope != scope",
        f"{MEMORY}::test_a_turn_that_was_not_used_is_asked_for_again_from_the_same_place",
    ),
    tested(
        "a turn that was granted long ago is kept",
        "sidecar.adapters.memory.rates:MemoryRates.ask_rates",
        "KEPT_GRANTED_US if turn.granted else KEPT_US",
        "KEPT_US",
        f"{MEMORY}::test_a_turn_that_was_granted_long_ago_is_forgotten",
    ),
)

CALLS = (
    tested(
        "whoever asks just when the last were answered waits for a question that is over",
        "sidecar.engine.limiting:Limiter._ask_for_all",
        "self._asking = None",
        "pass",
        f"{LIMITING}::test_whoever_asks_as_soon_as_the_last_was_answered_is_answered_too",
    ),
    tested(
        "a store that does not answer lets everybody call",
        f"{CALLER}._wait_for_turn",
        "continue",
        "return None",
        f"{LIMITING}::test_while_the_store_does_not_answer_nobody_calls_and_then_all_do",
    ),
    simulated(
        "who is sent away calls all the same",
        f"{CALLER}._wait_for_turn",
        "if not grant.granted:",
        "if False:",
        within=200,
        rare=True,
    ),
    tested(
        "a turn is used however late",
        f"{CALLER}._begins_in_time",
        "return self._clock.monotonic() <= grant.ends",
        "return True",
        f"{LIMITING}::test_a_turn_that_comes_too_late_is_not_used",
    ),
    simulated(
        "calls of limited actions ask for no turn",
        "sidecar.engine.limiting:Limiter.limits",
        "return path in self._limits",
        "return False",
    ),
    tested(
        "the wait for a turn is spent from the budget of tries",
        "sidecar.saga.queueing:give_back",
        "step = _as_if_later(step, due)",
        "pass",
        f"{MACHINE}::test_a_step_held_by_its_rate_limit_is_due_at_its_turn_and_spends_nothing",
    ),
    tested(
        "a step that is held is due at once",
        "sidecar.saga.queueing:give_back",
        "draft.now + (outcome.retry_after or timedelta())",
        "draft.now",
        f"{MACHINE}::test_a_step_held_by_its_rate_limit_is_due_at_its_turn_and_spends_nothing",
    ),
)

PIVOTS = (
    tested(
        "a pivot that only waits for its rate limit closes the way back",
        "sidecar.saga.machine:_pivots_begun",
        "one.execute.started_at is not None",
        "one.execute.attempt > 0",
        f"{GIVEN_BACK}::test_a_pivot_that_was_only_given_back_leaves_the_way_back_open",
    ),
    tested(
        "a pivot that was called closes nothing while it waits",
        "sidecar.saga.machine:_pivots_begun",
        "one.may_have_effect or one.execute.started_at is not None",
        "one.may_have_effect",
        f"{GIVEN_BACK}::test_a_pivot_that_was_called_before_it_was_held_closes_the_way_back",
    ),
    tested(
        "a deadline is forgotten for a claim that may be given back",
        "sidecar.saga.machine:_deadline",
        "draft.set(deadline_at=until)",
        "draft.set(deadline_at=None)",
        f"{GIVEN_BACK}::test_a_deadline_is_kept_for_the_end_of_the_first_claim_of_a_pivot",
    ),
)

PRIORITIES = (
    tested(
        "priorities in memory change nothing",
        "sidecar.adapters.memory.tables:Row.rank",
        "self.priorities.get(step.key.step, 0)",
        "0",
        f"{MEMORY}::test_of_what_is_due_the_more_urgent_is_claimed_first",
    ),
    tested(
        "priorities in the database change nothing",
        f"{CLAIMING}:SQL.due",
        "ORDER BY (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority",
        "ORDER BY s.due_at",
        f"{POSTGRES}::test_of_what_is_due_the_more_urgent_is_claimed_first",
    ),
    tested(
        "whoever waits long enough still comes last",
        f"{CLAIMING}:SQL.due",
        "ORDER BY (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority",
        "ORDER BY s.priority DESC, s.due_at",
        f"{POSTGRES}::test_one_that_has_waited_long_enough_goes_before_a_more_urgent_one",
    ),
    tested(
        "a step cannot say that it is not urgent",
        "sidecar.definitions.compiling:_step",
        "model.priority if step.priority is None else step.priority",
        "step.priority or model.priority",
        f"{MEMORY}::test_a_step_without_one_has_the_priority_of_its_definition",
    ),
    tested(
        "of those that wait for a turn in memory the oldest is always first",
        "sidecar.adapters.memory.tables:MemoryTables.waiting_for",
        "(-one.priority, *_since(one))",
        "_since(one)",
        f"{MEMORY}::test_of_those_that_wait_for_a_turn_the_most_urgent_is_admitted_first",
    ),
)

RATES = TURNS + CALLS + PIVOTS + PRIORITIES
