"""Bugs in the pure core: what an answer means, what comes next, and how it is undone."""

from __future__ import annotations

from tests.simulation.mutants.planting import Edit, Mutant, masked, simulated, tested

MACHINE = "tests/unit/saga/test_machine.py"

ANSWERS = (
    simulated(
        "an answer to an old attempt is taken for one to the newest",
        "sidecar.saga.answers:answered",
        "if older or (run.answered < event.attempt and not _awaits(step, event))"
        " or _parts(step, event):",
        "if False:",
        within=200,
    ),
    simulated(
        "the same answer is counted twice",
        "sidecar.saga.answers:answered",
        "if run.answered >= event.attempt:",
        "if False:",
    ),
    masked(
        "the end of an old lease ends a newer one",
        "sidecar.saga.answers:lease_ended",
        "current = event.attempt == run.attempt and step.action is event.action and step.leased",
        "current = step.leased",
        by="a step is claimed again only when its earlier attempt is closed, and what is closed"
        " is not closed twice",
        within=100,
    ),
    simulated(
        "an unknown outcome is not tried again",
        "sidecar.saga.answers:_next_try",
        "if outcome.kind is OutcomeKind.REFUSED:",
        "if outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.UNKNOWN):",
    ),
    simulated(
        "a later answer clears what may have happened",
        "sidecar.saga.answers:_apply",
        "step.may_have_effect\n        or end.outcome.may_have_effect",
        "end.outcome.may_have_effect",
    ),
    simulated(
        "a claim that is given back is never due again",
        "sidecar.saga.queueing:give_back",
        "due_at=due",
        "due_at=None",
    ),
    simulated(
        "the answer leaves the lease as it was",
        "sidecar.saga.answers:_apply",
        "execute=run, may_have_effect=effect, lease_until=None",
        "execute=run, may_have_effect=effect",
    ),
    simulated(
        "a call that was not sent counts as a try",
        "sidecar.saga.answers:_apply",
        "end.outcome.kind in _SPENDS_A_TRY",
        "end.outcome.kind is OutcomeKind.NOT_SENT or end.outcome.kind in _SPENDS_A_TRY",
        within=300,
    ),
    simulated(
        "a step is tried without end",
        "sidecar.saga.policy:RetryPolicy.allows_try",
        "tries < self.max_attempts",
        "True",
    ),
    tested(
        "the budget of time is ignored",
        "sidecar.saga.policy:RetryPolicy.allows_time",
        "next_try - first_claim <= self.total_budget",
        "True",
        f"{MACHINE}::test_waiting_spends_no_try_but_the_budget",
    ),
    simulated(
        "the key of a call is another one for every attempt",
        "sidecar.ports.service:Call.idempotency_key",
        "{self.keyed_action}",
        "{self.keyed_action}/{self.attempt}",
    ),
)

FORWARD = (
    simulated(
        "a join waits for any of its predecessors, not for all",
        "sidecar.saga.forward:_Passed._any",
        "return defined.join is Join.ANY and any(",
        "return any(",
    ),
    simulated(
        "a join is never begun",
        "sidecar.saga.forward:passed",
        "for one in definition.successors[name])",
        "for one in definition.successors[name] if len(definition.by_name[one].after) < 2)",
    ),
    simulated(
        "a step may be begun twice",
        "sidecar.saga.forward:_open_ready",
        "if step.status is not StepStatus.PENDING or not passed.is_ready(defined):",
        "if not passed.is_ready(defined):",
    ),
    simulated(
        "two lines of a history have one number",
        "sidecar.saga.draft:Draft.note",
        "seq=self._original.last_seq + len(self._events) + 1",
        "seq=self._original.last_seq + max(len(self._events), 1)",
    ),
)

BACK = (
    simulated(
        "what may have happened is not undone",
        "sidecar.saga.undoing:owes_compensation",
        "step.status in _ENDED",
        "step.status is StepStatus.SUCCEEDED",
    ),
    Mutant(
        "undone in the order in which it was done",
        (
            Edit(
                "sidecar.saga.rollback:unwind",
                "reversed(definition.topological)",
                "definition.topological",
            ),
            Edit(
                "sidecar.saga.rollback:unwind",
                "definition.descendants[name]",
                "definition.ancestors[name]",
            ),
        ),
    ),
    simulated(
        "a sibling that is being called is not awaited",
        "sidecar.saga.rollback:unwind",
        "if step.status in OPEN or",
        "if step.status is StepStatus.COMPENSATING or",
    ),
    simulated(
        "turning back leaves queued steps to be called",
        "sidecar.saga.rollback:turn_back",
        "elif step.status in CAN_BE_STOPPED and not under_way(step):",
        "elif step.status is StepStatus.RETRYING and not under_way(step):",
    ),
    simulated(
        "a step is tried on although its workflow has turned back",
        "sidecar.saga.answers:_executed",
        "due = None if draft.turning_back else _next_try(",
        "due = _next_try(",
    ),
    simulated(
        "a compensation that may have happened counts as done",
        "sidecar.saga.answers:_compensated",
        "if outcome.kind is OutcomeKind.DONE:",
        "if outcome.kind in (OutcomeKind.DONE, OutcomeKind.UNKNOWN):",
    ),
    simulated(
        "what cannot be undone counts as undone",
        "sidecar.saga.rollback:unwind",
        "if broken:",
        "if False:",
    ),
)

CANCELS = (
    simulated(
        "a workflow past its pivot can be cancelled",
        "sidecar.saga.machine:_cancel",
        "if _pivot_claimed(draft):",
        "if False:",
        within=400,
        rare=True,
    ),
    simulated(
        "a cancel that came too late is told that it was in time",
        "sidecar.saga.machine:_cancel",
        "if undoing or draft.reason is Reason.CANCELLED:",
        "if True:",
    ),
    tested(
        "a deadline turns a workflow back before its time",
        "sidecar.saga.machine:_deadline",
        "if not due or not open_ahead",
        "if not open_ahead",
        f"{MACHINE}::test_a_deadline_turns_back_only_when_it_has_passed",
    ),
    simulated(
        "a deadline turns a workflow back past its pivot",
        "sidecar.saga.machine:_deadline",
        "if _pivot_claimed(draft):",
        "if False:",
        within=400,
        rare=True,
    ),
)

CORE = (*ANSWERS, *FORWARD, *BACK, *CANCELS)
