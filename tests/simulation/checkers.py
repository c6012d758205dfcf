"""What must hold: after every commit, at every call, and when all is at rest.

The checkers trust the tables and the services' ledger alone. They compare each committed state
with the one before it, so that a step back is seen even if a later one hides it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from sidecar.adapters.memory.tables import MemoryTables, Row
from sidecar.ports.records import Lease
from sidecar.ports.service import Call
from sidecar.ports.store import Batch, BatchResult, Epoch, Moved
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.changes import Verdict as Decided
from sidecar.saga.definition import Definition, Join, StepDefinition
from sidecar.saga.events import Answered, DeadlinePassed, LeaseEnded, TimerFired
from sidecar.saga.invariants import crowded
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import (
    WORKFLOW_ENDS,
    Action,
    Reason,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.turns import turn_of
from sidecar.saga.workflow import (
    NO_INDEX,
    DefinitionRef,
    Run,
    Step,
    StepKey,
    Workflow,
    WorkflowId,
)
from tests.simulation.language import misread
from tests.simulation.pace import Pace
from tests.simulation.sides import SimClock
from tests.simulation.workload import mark

LEASE_MARGIN = timedelta(seconds=5)
ENDLESS = frozenset({"busy", "not_now", "not_sent"})
TRIED = frozenset({"unknown", "misconfigured"})
TOLD = frozenset({"held", "released", "taken_over", "same_key_again"})
DUTIES = (LeaseEnded, DeadlinePassed, TimerFired)


class Checkers:
    """All of them; `complain` is told what is wrong."""

    def __init__(
        self,
        tables: MemoryTables,
        definition: Callable[[DefinitionRef], Definition],
        clock: SimClock,
        silent_after: timedelta,
        complain: Callable[[str], None],
        pace: Pace,
    ) -> None:
        self._tables = tables
        self._definition = definition
        self._clock = clock
        self._silent_after = silent_after
        self._complain = complain
        self._pace = pace
        self._before: dict[WorkflowId, Workflow] = {}
        self._told: dict[WorkflowId, int] = {}
        self._bodies: dict[str, str] = {}
        self._listed: set[tuple[WorkflowId, StepKey, Action, int]] = set()
        self._claimed_at: dict[tuple[WorkflowId, StepKey, Action, int], datetime] = {}
        self._epoch = 0
        self.seen: Counter[str] = Counter()

    # -- after every commit ---------------------------------------------------------------------

    def committed(self, changed: Sequence[Workflow]) -> None:
        """Compare each workflow with what it was before."""
        for after in changed:
            before = self._before.get(after.id)
            wrong = [*self._history(before, after)]
            for step in after.steps.values():
                self._claims(after.id, step)
            if before is not None:
                wrong += [
                    *_one_way(self._definition(after.definition), before, after, self._clock.now()),
                    *self._attempts(before, after),
                ]
            turns = {turn_of(after), *(turn_of(after, step) for step in after.steps.values())}
            for turn in turns - {None}:
                wrong += crowded(self._tables.turns.get(turn, {}).values())
            self._before[after.id] = after
            for text in wrong:
                self._complain(f"{after.id}: {text}")

    def fenced(self, batch: Batch) -> None:
        """A batch that took effect must have carried the epoch in force, if it needs any."""
        epoch = batch.epoch
        if epoch is None and any(isinstance(one.event, DUTIES) for one in batch.transitions):
            self._complain("a duty was done without an epoch")
        if epoch is not None and epoch.number != self._epoch:
            self._complain(f"a write under the void epoch {epoch.number} was accepted")

    def minted(self, epoch: Epoch) -> None:
        """Every term has a higher epoch than all before it."""
        if epoch.number <= self._epoch:
            self._complain(f"epoch {epoch.number} was minted after epoch {self._epoch}")
        self._epoch = epoch.number

    def applied(self, batch: Batch, result: BatchResult) -> None:
        """An answer that was not late must have been one to the newest attempt."""
        for one, moved in zip(batch.transitions, result.transitions, strict=True):
            event = one.event
            if not isinstance(event, Answered) or not isinstance(moved, Moved):
                continue
            if moved.changes.verdict is Decided.LATE:
                continue
            step = moved.changes.workflow.steps[event.step]
            run = step.compensate if event.action is Action.COMPENSATE else step.execute
            if run.attempt != event.attempt:
                self._complain(
                    f"{one.workflow} {event.step}: an answer to attempt {event.attempt} was "
                    f"taken for one to attempt {run.attempt}"
                )

    def _history(self, before: Workflow | None, after: Workflow) -> Iterator[str]:
        history = self._tables.rows[after.id].history
        known = self._told.get(after.id, 0)
        back = before is not None and before.turning_back
        for number, event in enumerate(history[known:], start=known + 1):
            if event.seq != number:
                yield f"event {number} of the history has number {event.seq}"
            if event.step is not None and event.after is not None:
                self.seen[event.after] += 1
            if event.kind == "late_answer":
                self.seen[event.kind] += 1
            elif event.cause in TOLD:
                self.seen[event.cause] += 1
            if event.cause == "render_failed":
                yield f"{event.step}: its input could not be rendered, but all inputs here can"
            back = back or event.after == WorkflowStatus.ROLLING_BACK
            if event.after == StepStatus.FAILED and event.step is not None and not back:
                yield from self._gave_up(after, event)
        if after.last_seq != len(history):
            yield f"last_seq {after.last_seq}, but {len(history)} events"
        self._told[after.id] = len(history)

    def _gave_up(self, after: Workflow, event: HistoryEvent) -> Iterator[str]:
        """What is not a definite no is tried as often as the definition says."""
        step = after.steps[StepKey(str(event.step), event.index)]
        most = self._definition(after.definition).by_name[step.key.step].retry.max_attempts
        if event.before == StepStatus.IN_DOUBT:
            return  # it was asked for as long as there was a budget
        if event.cause in ENDLESS or (
            event.cause in TRIED and most is not None and step.execute.tries < most
        ):
            yield f"{step.key}: given up for {event.cause} after {step.execute.tries} tries"

    def _attempts(self, before: Workflow, after: Workflow) -> Iterator[str]:
        definition = self._definition(after.definition)
        for key, step in after.steps.items():
            earlier = before.steps.get(key)
            if earlier is None or earlier is step:
                continue
            forward = step.execute.attempt > earlier.execute.attempt
            if before.turning_back and forward and step.status is not StepStatus.IN_DOUBT:
                yield f"{key}: claimed forward although the workflow had turned back"
            for was, now in (
                (earlier.execute, step.execute),
                (earlier.compensate, step.compensate),
            ):
                yield from (f"{key}: {text}" for text in _run_rises(was, now))
            child = definition.by_name[key.step].child is not None
            if earlier.may_have_effect and not step.may_have_effect and not child:
                yield f"{key}: forgot that it may have had an effect"
            if not earlier.awaiting and after.status is not WorkflowStatus.TERMINATED:
                yield from self._lease(after.id, earlier, step)
            most = definition.by_name[key.step].retry.max_attempts
            past = definition.past_pivot(key.step) or definition.by_name[key.step].pivot
            if most is not None and step.execute.tries > most and not past:
                yield f"{key}: {step.execute.tries} tries, {most} allowed"

    def _claims(self, workflow: WorkflowId, step: Step) -> None:
        if step.leased:
            attempt = (workflow, step.key, step.action, step.run.attempt)
            self._claimed_at.setdefault(attempt, self._clock.now())

    def listed(self, leases: Sequence[Lease]) -> None:
        """The store says that these leases are over: they must be, or their holder silent."""
        now = self._clock.now()
        for lease in leases:
            holder = self._tables.rows[lease.workflow].holders.get(lease.key)
            owner = holder.incarnation if holder is not None else "nobody"
            sidecar = self._tables.sidecars.get(owner)
            unseen = sidecar is None or sidecar.seen_at <= now - self._silent_after
            silent = holder is not None and unseen
            if not (lease.lease_until <= now or silent or owner in self._tables.gone):
                self._complain(f"{lease}: listed as ended before its time")
            self._listed.add((lease.workflow, lease.key, lease.action, lease.attempt))

    def _lease(self, workflow: WorkflowId, earlier: Step, step: Step) -> Iterator[str]:
        was, now = earlier.run, step.run
        same = earlier.action is step.action and now.attempt == was.attempt
        if not same or now.closed <= was.closed or now.answered > was.answered:
            return
        if self._answered_pending(workflow, step.key):
            return  # nobody waits for the callback of what is to be undone
        self.seen["lease_ended"] += 1
        if (workflow, step.key, step.action, now.attempt) not in self._listed:
            yield f"{step.key}: its lease was ended, and nobody had said that it was over"

    def _answered_pending(self, workflow: WorkflowId, key: StepKey) -> bool:
        history = self._tables.rows[workflow].history
        # The callback may come in the same commit, too late: that is noted, and moves nothing.
        mine = [one for one in history if (one.step, one.index) == key and one.after is not None]
        return bool(mine) and mine[-1].cause == OutcomeKind.PENDING

    # -- at every call --------------------------------------------------------------------------

    def sent(self, call: Call) -> None:
        """A call that a sidecar is sending: it must be able to end before its lease does."""
        claimed = self._claimed_at.get((call.workflow, call.key, call.action, call.attempt))
        if claimed is None:
            self._complain(f"{call.idempotency_key}: sent without a claim")
        elif self._clock.now() - claimed > LEASE_MARGIN:
            self._complain(f"{call.idempotency_key}: sent too late to end before its lease")
        service = self._definition(call.definition).by_name[call.key.step].service
        self._pace.sent(service, call.path, self._clock.now())

    def astray(self, call: Call) -> None:
        """A call was sent where its sidecar's catalogue does not let it go."""
        self._complain(
            f"{call.workflow} {call.key} was called at {call.path!r}, which is elsewhere"
        )

    def called(self, call: Call) -> None:
        """A call that came in at a service: was it its time, is it the same as ever?"""
        row = self._tables.rows.get(call.workflow)
        name = call.idempotency_key
        if row is None:
            self._complain(f"{name}: called for a workflow that does not exist")
            return
        body = self._bodies.setdefault(name, call.body)
        if body != call.body:
            self._complain(f"{name}: called with another body than before")
        if call.action is not Action.EXECUTE:
            return
        self._in_turn(row.workflow, call)
        definition = self._definition(call.definition)
        defined = definition.by_name[call.key.step]
        if not _ready(definition, defined, row):
            self._complain(f"{name}: called before {', '.join(defined.after)} had passed")
        if defined.input is not None:
            before = {one: row.workflow.steps.get(StepKey(one)) for one in defined.after}
            marks = {
                one: mark((step.origin if step else None) or call.workflow, one)
                for one, step in before.items()
            }
            for wrong in misread(json.loads(call.body), marks, call.key.index):
                self._complain(f"{name}: called with {wrong}")

    def _in_turn(self, workflow: Workflow, call: Call) -> None:
        """A call of a step that takes turns comes from one that has a place, or is late."""
        step = workflow.steps[call.key]
        turn = turn_of(workflow, step)
        if turn is None or not step.leased or step.execute.attempt != call.attempt:
            return
        self.seen["called_in_turn"] += 1
        if all(one.who != (workflow.id, call.key) for one in self._tables.placed(turn)):
            self._complain(f"{call.idempotency_key}: called without a place of {turn.key}")


def _ready(definition: Definition, defined: StepDefinition, row: Row) -> bool:
    """Whether those before a step had passed, as far as the tables ever knew."""
    succeeded = {key.step for key in row.succeeded if key.index == NO_INDEX}
    if defined.join is Join.ANY and succeeded & set(defined.after):
        return True
    for name in defined.after:
        step = row.workflow.steps.get(StepKey(name))
        skipped = step is not None and step.status is StepStatus.SKIPPED
        optional = definition.by_name[name].optional
        if name not in succeeded and not skipped and not optional:
            return False
    return True


def _one_way(
    definition: Definition, before: Workflow, after: Workflow, now: datetime
) -> Iterator[str]:
    """Revisions rise, ends are ends."""
    moved = after.last_seq != before.last_seq
    if after.revision < before.revision or (moved and after.revision == before.revision):
        yield f"revision {before.revision} became {after.revision}"
    if after.last_seq < before.last_seq:
        yield f"last_seq {before.last_seq} became {after.last_seq}"
    by_parent = after.parent is not None and before.status is WorkflowStatus.COMPLETED
    if before.status in WORKFLOW_ENDS and not by_parent:
        same = before.status is after.status and before.ended_at == after.ended_at
        if not same or any(
            step.status is not before.steps[key].status for key, step in after.steps.items()
        ):
            yield f"{before.status} is an end, and yet it became {after.status}"
    pivots = [before.steps.get(StepKey(name)) for name in definition.pivots]
    passed = any(one is not None and one.status is StepStatus.SUCCEEDED for one in pivots)
    if passed and after.turning_back and not before.turning_back:
        yield "turned back although its pivot had succeeded"
    timed_out = after.reason is Reason.TIMED_OUT and before.reason is None
    if timed_out and not (after.deadline_at and after.deadline_at <= now):
        yield f"timed out before its deadline {after.deadline_at}"
    if before.turning_back and not after.turning_back:
        yield "turned forward again"


def _run_rises(was: Run, now: Run) -> Iterator[str]:
    for name in ("attempt", "tries", "closed", "answered"):
        anew = name == "tries" and now.tries == 0  # a person wanted it
        # A 202 that came after the end of its lease takes that end back.
        reopened = now.closed == now.attempt - 1 == was.closed - 1 and name in ("closed", "tries")
        if getattr(now, name) < getattr(was, name) and not anew and not reopened:
            yield f"{name} fell from {getattr(was, name)} to {getattr(now, name)}"
    if now.attempt > was.attempt + 1:
        yield f"attempt {was.attempt} became {now.attempt}"
    if now.attempt > was.attempt and now.closed < was.attempt:
        yield f"attempt {now.attempt} began while {was.attempt} was under way"
    if now.tries > was.tries + 1:
        yield f"tries {was.tries} became {now.tries}"
