"""Bugs in what the language has beyond calls: waits, callbacks, questions, branches, operators."""

from __future__ import annotations

from tests.simulation.mutants.planting import masked, tested

SUITE = "tests/adapters/stores/test_memory.py::TestMemoryStore"
ANSWERS = "sidecar.saga.answers"
FAN_OUT = "sidecar.saga.fan_out"
FORWARD = "sidecar.saga.forward"
OPERATORS = "sidecar.saga.operators"
QUERIES = "sidecar.adapters.memory.queries:MemoryQueries"

CALLBACKS = (
    tested(
        "what a service has taken on is nobody's to answer",
        f"{ANSWERS}:_taken_on",
        "awaiting=True",
        "awaiting=False",
        f"{SUITE}::test_who_answers_later_is_waited_for_and_held_by_nobody",
    ),
    tested(
        "a callback is waited for no longer than the call",
        f"{ANSWERS}:_taken_on",
        "lease_until=until",
        "lease_until=step.lease_until",
        f"{SUITE}::test_who_answers_later_is_waited_for_and_held_by_nobody",
    ),
    tested(
        "a callback that does not come is told as a silent sidecar",
        f"{ANSWERS}:lease_ended",
        "NO_CALLBACK if step.awaiting else LEASE_ENDED",
        "LEASE_ENDED",
        f"{SUITE}::test_a_callback_that_does_not_come_in_time_is_an_unknown_outcome",
    ),
    tested(
        "a sign of life extends nothing",
        f"{ANSWERS}:heartbeat",
        "draft.now + _defined(draft, step).callback_timeout",
        "step.lease_until",
        f"{SUITE}::test_a_sign_of_life_extends_the_time_for_the_callback",
    ),
    tested(
        "one attempt spends two tries when its lease ends before its callback",
        f"{ANSWERS}:_taken_on",
        "max(0, run.tries - 1)",
        "run.tries",
        f"{SUITE}::test_the_word_may_come_after_the_lease_of_the_call",
    ),
    tested(
        "a call that is taken on while turning back is waited for",
        f"{ANSWERS}:_taken_on",
        "event.action is Action.EXECUTE and draft.turning_back",
        "False",
        f"{SUITE}::test_a_word_that_comes_while_turning_back_ends_its_attempt",
    ),
    tested(
        "what a service has taken on counts as without effect when the workflow turns back",
        "sidecar.saga.queueing:stop",
        "if step.awaiting:",
        "if False:",
        f"{SUITE}::test_turning_back_does_not_wait_for_a_callback",
    ),
)

DOUBTS = (
    tested(
        "a service is asked how it went without end",
        f"{ANSWERS}:_told_how_it_went",
        "asked_enough = check is None or",
        "asked_enough = check is None and",
        f"{SUITE}::test_an_answer_that_proves_nothing_is_asked_for_again_within_a_budget",
    ),
    tested(
        "to ask spends a try",
        f"{ANSWERS}:_apply",
        "(spent and not asking)",
        "spent",
        f"{SUITE}::test_the_lease_of_a_question_is_one_of_its_own",
    ),
    tested(
        "a promise to refuse clears what may have happened",
        f"{ANSWERS}:_told_how_it_went",
        "_fail(draft, replace(step, doubt_at=None), outcome)",
        "_fail(draft, replace(step, doubt_at=None, may_have_effect=False), outcome)",
        f"{SUITE}::test_a_promise_to_refuse_turns_back_and_is_undone_all_the_same",
    ),
    tested(
        "a service is asked how it went on the way back",
        f"{ANSWERS}:_told_how_it_went",
        "or asked_enough or draft.turning_back:",
        "or asked_enough:",
        f"{SUITE}::test_who_asks_while_the_workflow_turns_back_is_awaited",
    ),
    tested(
        "nobody is ever asked how it went",
        f"{ANSWERS}:_can_be_asked",
        "return unsure and",
        "return not unsure and",
        f"{SUITE}::test_who_is_in_doubt_can_be_claimed_and_asks",
    ),
)

WAITS = (
    tested(
        "a timer fires during a pause",
        "sidecar.saga.waits:fired",
        "wait is not None and not draft.paused",
        "wait is not None",
        f"{SUITE}::test_the_timers_of_a_paused_workflow_wait_for_the_resume",
    ),
    tested(
        "a timer fires before its time",
        "sidecar.saga.waits:fired",
        "or step.due_at > draft.now",
        "",
        f"{SUITE}::test_a_wait_is_nobodys_to_claim_and_ends_by_its_time",
    ),
    tested(
        "a signal is handed out during a pause",
        "sidecar.saga.waits:signal_sent",
        "[] if draft.paused else _waiting_for(draft, event.name)",
        "_waiting_for(draft, event.name)",
        f"{SUITE}::test_what_is_sent_during_a_pause_is_handed_out_at_the_resume",
    ),
    tested(
        "signals kept during a pause are left lying",
        f"{OPERATORS}:resume",
        "for step in waits.take_kept(draft):",
        "for step in ():",
        f"{SUITE}::test_what_is_sent_during_a_pause_is_handed_out_at_the_resume",
    ),
    tested(
        "the newest of the signals that were kept is taken first",
        "sidecar.saga.draft:Draft.take_signal",
        "(one for one in self.signals if one.name == name)",
        "(one for one in reversed(self.signals) if one.name == name)",
        f"{SUITE}::test_a_signal_that_comes_early_is_kept_and_taken_once",
    ),
    tested(
        "a signal that is sent again is another",
        "sidecar.saga.machine:_signal_sent",
        "if event.id in workflow.heard:",
        "if False:",
        f"{SUITE}::test_the_same_signal_again_is_no_other",
    ),
    tested(
        "signals are kept without end",
        "sidecar.saga.waits:signal_sent",
        "if not waiting and len(draft.signals) >= MOST_KEPT:",
        "if False:",
        f"{SUITE}::test_so_many_signals_are_kept_and_no_more",
    ),
    tested(
        "two signals have one number",
        "sidecar.saga.draft:Draft.next_signal",
        'self._fields["last_signal"] = number',
        "pass",
        f"{SUITE}::test_a_signal_that_comes_early_is_kept_and_taken_once",
    ),
)

BRANCHES = (
    tested(
        "a step that is skipped holds up those after it",
        f"{FORWARD}:_Passed.__contains__",
        "return name in self._sure or self._had_its_turn(name)",
        "return False",
        f"{SUITE}::test_a_step_whose_condition_is_false_is_gone_past",
    ),
    tested(
        "a join of any waits for all",
        f"{FORWARD}:_Passed._any",
        "defined.join is Join.ANY and any(",
        "defined.join is Join.ANY and all(",
        f"{SUITE}::test_a_join_of_any_goes_on_with_the_first",
    ),
    tested(
        "an optional step that fails turns the workflow back",
        f"{FORWARD}:failed",
        "by_name[step.key.step].optional and not draft.turning_back",
        "by_name[step.key.step].optional and draft.turning_back",
        f"{SUITE}::test_an_optional_failure_stops_nothing_and_is_undone_if_it_may_have_acted",
    ),
    tested(
        "an output that cannot be told loses the end of its workflow",
        f"{FORWARD}:_complete_if_finished",
        'fields["error"] = error_body(error.code, f"the output: {error.message}")',
        "return",
        f"{SUITE}::test_an_output_that_cannot_be_told_undoes_nothing",
    ),
)

VERBS = (
    tested(
        "a workflow that is resumed is not rung for",
        f"{OPERATORS}:resume",
        "if step.status in CLAIMABLE and not step.leased:",
        "if False:",
        f"{SUITE}::test_nothing_is_claimed_while_paused_and_what_is_due_is_rung_for_then",
    ),
    tested(
        "a step is skipped while it is being called",
        f"{OPERATORS}:_free",
        "if under_way(step):",
        "if False:",
        f"{SUITE}::test_an_undoing_that_is_skipped_counts_as_done",
    ),
    tested(
        "a skip that comes again when the workflow has turned back clears an effect",
        f"{OPERATORS}:skip",
        "if undoes:",
        "if undoes or step.status in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):",
        f"{SUITE}::test_a_skip_that_is_repeated_after_the_turning_back_clears_no_effect",
    ),
    tested(
        "a skip of the way forward is taken for one of what was undone",
        f"{OPERATORS}:skip",
        "(StepStatus.COMPENSATED if undoes else StepStatus.SKIPPED)",
        "StepStatus.COMPENSATED or (status is StepStatus.SKIPPED and not undoes)",
        f"{SUITE}::test_an_undoing_that_is_skipped_counts_as_done",
    ),
    tested(
        "to skip a step clears what may have happened",
        f"{OPERATORS}:skip",
        "output=event.output,",
        "output=event.output,\n        may_have_effect=False,",
        f"{SUITE}::test_what_was_skipped_and_may_have_acted_is_undone_later",
    ),
    tested(
        "a retry leaves the workflow in error",
        "sidecar.saga.stuck:mend",
        "if not rollback.failures(draft):",
        "if False:",
        f"{SUITE}::test_a_retry_after_the_last_try_of_a_compensation_begins_its_tries_anew",
    ),
    tested(
        "what was terminated can be tried again",
        f"{OPERATORS}:retry",
        '_must_not_have_ended(draft, "retry")',
        "pass",
        f"{SUITE}::test_a_rollback_can_be_terminated_and_owes_nothing_any_more",
    ),
    tested(
        "a retry begins no tries anew",
        "sidecar.saga.queueing:all_anew",
        "tries=0, started_at=None,",
        "",
        f"{SUITE}::test_a_retry_after_the_last_try_of_a_compensation_begins_its_tries_anew",
    ),
    tested(
        "what is terminated forgets what calls in flight may have done",
        f"{OPERATORS}:_cut_off",
        "if under_way(step):",
        "if False:",
        f"{SUITE}::test_what_is_terminated_stops_where_it_stands_and_late_answers_are_noted",
    ),
    tested(
        "a verb reads the steps in whatever order they were stored",
        f"{OPERATORS}:_named_or_all",
        "return draft.in_order()",
        "return list(draft.steps.values())",
        "tests/unit/saga/test_language.py::test_verbs_tell_their_story_in_one_order",
    ),
)

ITEMS = (
    tested(
        "one item more is opened than may be",
        f"{FAN_OUT}:_open_next",
        "fan.open < defined.fan_out.max_parallel",
        "fan.open <= defined.fan_out.max_parallel",
        f"{SUITE}::test_items_are_opened_as_many_at_a_time_as_may_be",
    ),
    tested(
        "an item that failed is not counted",
        f"{FAN_OUT}:_counted",
        "failed=step.fan.failed + (item.status is StepStatus.FAILED)",
        "failed=step.fan.failed",
        f"{SUITE}::test_one_failure_too_many_turns_back_and_opens_no_more",
    ),
    tested(
        "one failure more is tolerated than may be",
        f"{FAN_OUT}:tolerates",
        "step.fan.failed <= fan_out.tolerated",
        "step.fan.failed <= fan_out.tolerated + 1",
        f"{SUITE}::test_one_failure_too_many_turns_back_and_opens_no_more",
    ),
    masked(
        "a list without elements is opened",
        f"{FAN_OUT}:begin",
        "if not found:",
        "if False:",
        f"{SUITE}::test_a_workflow_of_which_nothing_is_left_ends_with_its_start",
        by="no item is opened then, and a step of which none is open has ended: only the history"
        " says it in two lines",
    ),
    tested(
        "items go on being opened after the workflow has turned back",
        "sidecar.saga.rollback:turn_back",
        "if step.fan is not None and step.status is StepStatus.WAITING:",
        "if False:",
        f"{SUITE}::test_a_cancel_in_mid_fan_out_awaits_calls_and_undoes_what_was_done",
    ),
    tested(
        "the first item to be undone is passed over",
        f"{FAN_OUT}:_undo_next",
        "and item.key.index >= fan.undone",
        "and item.key.index > fan.undone",
        f"{SUITE}::test_items_are_undone_as_many_at_a_time_as_were_called",
    ),
    tested(
        "items are undone together where steps are undone one by one",
        f"{FAN_OUT}:_undo_next",
        "if draft.definition.order is Order.SEQUENTIAL:",
        "if False:",
        f"{SUITE}::test_one_by_one_means_items_too",
    ),
    tested(
        "an item that cannot be undone keeps the place of the next",
        f"{FAN_OUT}:_undo_next",
        "if fan.undoing < at_once and fan.kept > before:",
        "if False:",
        f"{SUITE}::test_what_cannot_be_rendered_leaves_its_turn_to_the_next",
    ),
    tested(
        "an item that could not be undone is forgotten",
        f"{FAN_OUT}:item_undone",
        "kept=step.fan.kept + kept",
        "kept=step.fan.kept",
        f"{SUITE}::test_an_item_that_cannot_be_undone_needs_a_person_while_the_others_go_on",
    ),
    tested(
        "a workflow names an item that succeeded as the one that failed",
        f"{FORWARD}:_failed_item",
        "return failed[-1] if failed else item",
        "return item",
        "tests/unit/saga/test_language.py::test_the_item_that_cannot_be_sent_is_the_one_named",
    ),
    tested(
        "an item sees the outputs of all as its own when it is undone",
        "sidecar.saga.draft:Draft.rendered",
        "outputs=Own(scope.outputs, own, item.output),",
        "",
        f"{SUITE}::test_items_are_undone_as_many_at_a_time_as_were_called",
    ),
    tested(
        "a part of the items is taken for all of them",
        "sidecar.saga.draft:Draft.need_whole",
        "if self._original.partial:",
        "if False:",
        f"{SUITE}::test_the_whole_output_is_read_by_a_later_step",
        f"{SUITE}::test_items_that_fail_are_tolerated_up_to_a_number",
    ),
    tested(
        "an expression does not say that it needs all items",
        "sidecar.definitions.rendering:render",
        "except (RenderError, IncompleteState):",
        "except RenderError:",
        f"{SUITE}::test_items_that_fail_are_tolerated_up_to_a_number",
    ),
    masked(
        "the item that comes next is not read with the one that ended",
        "sidecar.saga.partial:to_open",
        "fan.opened + max(0, room)",
        "fan.opened",
        f"{SUITE}::test_items_are_opened_as_many_at_a_time_as_may_be",
        by="what was not read is asked for: the machine says so, and all of it is read. It costs,"
        " and the cost is counted on PostgreSQL",
    ),
)

TWIN = (
    tested(
        "the twin fires timers of workflows that are paused",
        f"{QUERIES}.due_timers",
        "and not row.workflow.paused",
        "",
        f"{SUITE}::test_the_timers_of_a_paused_workflow_wait_for_the_resume",
    ),
    tested(
        "the twin shows items that had no turn without their element",
        f"{QUERIES}.list_items",
        "if item.input is None:",
        "if False:",
        f"{SUITE}::test_items_come_by_pages",
    ),
    tested(
        "the twin keeps what a database could not of a signal",
        "sidecar.adapters.memory.checks:check_batch",
        "check_text(*(text for text in said if isinstance(text, str)))",
        "pass",
        f"{SUITE}::test_what_cannot_be_kept_of_a_signal_fails_its_batch",
    ),
)

LANGUAGE = (*CALLBACKS, *DOUBTS, *WAITS, *BRANCHES, *VERBS, *ITEMS, *TWIN)
