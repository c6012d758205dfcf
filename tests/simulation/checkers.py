"""What must hold: after every commit, at every call, and when all is at rest.

The checkers trust the tables and the services' ledger alone. They compare each committed state
with the one before it, so that a step back is seen even if a later one hides it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from sidecar.adapters.services.memory import MemoryService
from sidecar.adapters.memory.tables import MemoryTables
from sidecar.ports.service import Call
from sidecar.ports.store import Batch, Lease
from sidecar.saga.definition import Definition
from sidecar.saga.states import (
    OPEN,
    WAIT_RETURNS,
    WORKFLOW_ENDS,
    Action,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.workflow import DefinitionRef, Run, Step, StepKey, Workflow, WorkflowId
from tests.simulation.sides import NAMESPACE, SimClock
from tests.simulation.workload import Answers, Fate, mark

SILENT_AFTER = timedelta(seconds=20)


class Checkers:
    """All of them; `complain` is told what is wrong."""

    def __init__(
        self,
        tables: MemoryTables,
        definition: Callable[[DefinitionRef], Definition],
        clock: SimClock,
        complain: Callable[[str], None],
    ) -> None:
        self._tables = tables
        self._definition = definition
        self._clock = clock
        self._complain = complain
        self._before: dict[WorkflowId, Workflow] = {}
        self._told: dict[WorkflowId, int] = {}
        self._bodies: dict[str, str] = {}
        self._listed: set[tuple[WorkflowId, StepKey, Action, int]] = set()
        self.seen: Counter[str] = Counter()

    # -- after every commit ---------------------------------------------------------------------

    def committed(self, changed: Sequence[Workflow]) -> None:
        """Compare each workflow with what it was before."""
        for after in changed:
            before = self._before.get(after.id)
            wrong = [*self._history(after)]
            if before is not None:
                wrong += [*_one_way(before, after), *self._attempts(before, after)]
            self._before[after.id] = after
            for text in wrong:
                self._complain(f"{after.id}: {text}")

    def fenced(self, batch: Batch) -> None:
        """A batch that took effect must have carried the epoch in force, if any."""
        epoch = batch.epoch
        if epoch is not None and epoch.number != self._tables.epochs.get(NAMESPACE):
            self._complain(f"a write under the void epoch {epoch.number} was accepted")

    def _history(self, after: Workflow) -> Iterator[str]:
        history = self._tables.rows[after.id].history
        known = self._told.get(after.id, 0)
        for number, event in enumerate(history[known:], start=known + 1):
            if event.seq != number:
                yield f"event {number} of the history has number {event.seq}"
            if event.kind == "late_answer" or event.cause == "released":
                self.seen[event.kind if event.kind == "late_answer" else "released"] += 1
        if after.last_seq != len(history):
            yield f"last_seq {after.last_seq}, but {len(history)} events"
        self._told[after.id] = len(history)

    def _attempts(self, before: Workflow, after: Workflow) -> Iterator[str]:
        definition = self._definition(after.definition)
        for key, step in after.steps.items():
            earlier = before.steps.get(key)
            if earlier is None or earlier is step:
                continue
            for was, now in (
                (earlier.execute, step.execute),
                (earlier.compensate, step.compensate),
            ):
                yield from (f"{key}: {text}" for text in _run_rises(was, now))
            if earlier.may_have_effect and not step.may_have_effect:
                yield f"{key}: forgot that it may have had an effect"
            yield from self._lease(after.id, earlier, step)
            most = definition.by_name[key.step].retry.max_attempts
            past = definition.past_pivot(key.step) or definition.by_name[key.step].pivot
            if most is not None and step.execute.tries > most and not past:
                yield f"{key}: {step.execute.tries} tries, {most} allowed"

    def listed(self, leases: Sequence[Lease]) -> None:
        """The store says that these leases are over: they must be, or their holder silent."""
        now = self._clock.now()
        for lease in leases:
            owner = self._tables.rows[lease.workflow].holders[lease.key].incarnation
            sidecar = self._tables.sidecars.get(owner)
            silent = sidecar is None or sidecar.seen_at <= now - SILENT_AFTER
            if not (lease.lease_until <= now or silent or owner in self._tables.gone):
                self._complain(f"{lease}: listed as ended before its time")
            self._listed.add((lease.workflow, lease.key, lease.action, lease.attempt))

    def _lease(self, workflow: WorkflowId, earlier: Step, step: Step) -> Iterator[str]:
        was, now = earlier.run, step.run
        same = earlier.action is step.action and now.attempt == was.attempt
        if not same or now.closed <= was.closed or now.answered > was.answered:
            return
        self.seen["lease_ended"] += 1
        if (workflow, step.key, step.action, now.attempt) not in self._listed:
            yield f"{step.key}: its lease was ended, and nobody had said that it was over"

    # -- at every call --------------------------------------------------------------------------

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
        if call.action is Action.COMPENSATE:
            return
        definition = self._definition(call.definition)
        defined = definition.by_name[call.key.step]
        for before in defined.after:
            if not any(key.step == before for key in row.succeeded):
                self._complain(f"{name}: called before {before} was done")
        if defined.input is not None:
            wanted = {one: mark(call.workflow, one) for one in defined.after}
            if json.loads(call.body) != wanted:
                self._complain(f"{name}: called with {call.body}")


def _one_way(before: Workflow, after: Workflow) -> Iterator[str]:
    """Revisions rise, ends are ends."""
    moved = after.last_seq != before.last_seq
    if after.revision < before.revision or (moved and after.revision == before.revision):
        yield f"revision {before.revision} became {after.revision}"
    if after.last_seq < before.last_seq:
        yield f"last_seq {before.last_seq} became {after.last_seq}"
    if before.status in WORKFLOW_ENDS:
        same = before.status is after.status and before.ended_at == after.ended_at
        if not same or any(
            step.status is not before.steps[key].status for key, step in after.steps.items()
        ):
            yield f"{before.status} is an end, and yet it became {after.status}"
    if before.turning_back and not after.turning_back:
        yield "turned forward again"


def _run_rises(was: Run, now: Run) -> Iterator[str]:
    for name in ("attempt", "tries", "closed", "answered"):
        if getattr(now, name) < getattr(was, name):
            yield f"{name} fell from {getattr(was, name)} to {getattr(now, name)}"
    if now.attempt > was.attempt + 1:
        yield f"attempt {was.attempt} became {now.attempt}"
    if now.attempt > was.attempt and now.closed < was.attempt:
        yield f"attempt {now.attempt} began while {was.attempt} was under way"
    if now.tries > was.tries + 1:
        yield f"tries {was.tries} became {now.tries}"


# -- at the end -----------------------------------------------------------------------------------


def at_rest(tables: MemoryTables) -> bool:
    """Whether nothing is under way any more."""
    return all(
        row.workflow.status in WAIT_RETURNS and not row.open for row in tables.rows.values()
    )


def unrest(tables: MemoryTables) -> Iterator[str]:
    """Say what has not come to an end."""
    for row in tables.rows.values():
        workflow = row.workflow
        if workflow.status not in WAIT_RETURNS or row.open:
            steps = {
                str(key): f"{step.status} due {step.due_at} lease {step.lease_until}"
                for key, step in workflow.steps.items()
                if step.status in OPEN
            }
            yield f"{workflow.id}: never ended: {workflow.status}, {steps}"


class Verdict:
    """Holds the ledger of the services against what the tables say happened."""

    def __init__(
        self,
        tables: MemoryTables,
        definition: Callable[[DefinitionRef], Definition],
        service: MemoryService,
        answers: Answers,
    ) -> None:
        self._tables = tables
        self._definition = definition
        self._service = service
        self._answers = answers
        self._effects: dict[WorkflowId, list[tuple[str, Action]]] = {}
        for workflow, key, action in service.effects:
            self._effects.setdefault(workflow, []).append((key.step, action))

    def wrong(self) -> Iterator[str]:
        """Say everything that is wrong at the end."""
        for name, entry in self._service.ledger.items():
            if entry.effects > 1:
                yield f"{name}: had its effect {entry.effects} times"
        for row in self._tables.rows.values():
            workflow = row.workflow
            definition = self._definition(workflow.definition)
            effects = self._effects.get(workflow.id, [])
            match workflow.status:
                case WorkflowStatus.COMPLETED:
                    found = self._completed(definition, effects)
                case WorkflowStatus.ROLLED_BACK:
                    found = self._rolled_back(definition, effects)
                case _:
                    found = self._broken(definition, workflow)
            yield from (f"{workflow.id}: {text}" for text in found)
            order = _order(definition, effects)
            yield from (f"{workflow.id}: {text}" for text in order)

    def _completed(
        self, definition: Definition, effects: list[tuple[str, Action]]
    ) -> Iterator[str]:
        for step in definition.steps:
            if effects.count((step.name, Action.EXECUTE)) != 1:
                yield f"completed, but {step.name} did not have its effect once"
            if (step.name, Action.COMPENSATE) in effects:
                yield f"completed, and yet {step.name} was undone"

    def _rolled_back(
        self, definition: Definition, effects: list[tuple[str, Action]]
    ) -> Iterator[str]:
        for step in definition.steps:
            if step.no_effect or (step.name, Action.EXECUTE) not in effects:
                continue
            done = effects.index((step.name, Action.EXECUTE))
            if (step.name, Action.COMPENSATE) not in effects[done:]:
                yield f"rolled back, but {step.name} was done and not undone after it"

    def _broken(self, definition: Definition, workflow: Workflow) -> Iterator[str]:
        """`error` is right only where something was made so that it cannot be undone or done."""
        for key, step in workflow.steps.items():
            fate = self._answers.fate(workflow.id, key)
            hopeless = definition.by_name[key.step].compensation is None
            if step.status is StepStatus.COMPENSATION_FAILED and (fate is Fate.CURSED or hopeless):
                return
            past = definition.past_pivot(key.step) or definition.by_name[key.step].pivot
            if step.status is StepStatus.FAILED and past:
                return
        yield f"{workflow.status} without a reason"


def _order(definition: Definition, effects: list[tuple[str, Action]]) -> Iterator[str]:
    at = {effect: number for number, effect in reversed(list(enumerate(effects)))}
    for step in definition.steps:
        done = at.get((step.name, Action.EXECUTE))
        undone = at.get((step.name, Action.COMPENSATE))
        for name in definition.descendants[step.name]:
            later = at.get((name, Action.COMPENSATE))
            if undone is not None and later is not None and undone < later:
                yield f"{step.name} was undone before {name}"
            after = at.get((name, Action.EXECUTE))
            if after is not None and (done is None or after < done):
                yield f"{name} was done before {step.name}"
