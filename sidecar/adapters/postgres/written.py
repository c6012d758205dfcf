"""What a batch has decided to write, before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sidecar.adapters.postgres import rows
from sidecar.ports.store import Batch, Claimed
from sidecar.saga.changes import Changes
from sidecar.saga.definition import JsonText
from sidecar.saga.states import CLAIMABLE, Action, StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

Key = tuple[WorkflowId, StepKey]

NOT_READ = JsonText("")
"""The input of a step that was claimed on the fly and gets the workflow's, which is still to be
read."""

_BODIES = (
    "input",
    "output",
    "error",
    "compensation_input",
    "compensation_output",
    "compensation_error",
)


@dataclass(slots=True)
class Written:
    """What the batch has decided to write: workflows, their steps, their history.

    `new` are the workflows, `fresh` the steps that have no row yet. `claimed` are steps that
    are written as claimed at once; `wanted` are compensations to claim after the write, since
    that takes bodies that nobody has read.
    """

    after: dict[WorkflowId, Workflow] = field(default_factory=dict)
    steps: dict[Key, Step] = field(default_factory=dict)
    new: set[WorkflowId] = field(default_factory=set)
    fresh: set[Key] = field(default_factory=set)
    succeeded: set[Key] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    claimed: dict[Key, Claimed] = field(default_factory=dict)
    wanted: list[Key] = field(default_factory=list)

    def begin(self, changes: Changes) -> None:
        """Keep a new workflow."""
        self.new.add(changes.workflow.id)
        self.add(changes, before=())

    def add(self, changes: Changes, before: Iterable[StepKey]) -> None:
        """Keep the result of one decision; `before` are the steps that have rows."""
        workflow = changes.workflow
        self.after[workflow.id] = workflow
        for step in changes.steps:
            key = (workflow.id, step.key)
            if step.key not in before:
                self.fresh.add(key)
            earlier = self.steps.get(key)
            self.steps[key] = _with_bodies_of(earlier, step) if earlier else step
        for event in changes.events:
            self.events.append(rows.event_record(workflow, event))
            if event.step is not None and event.after == StepStatus.SUCCEEDED:
                self.succeeded.add((workflow.id, StepKey(event.step, event.index)))

    def claim_next(self, batch: Batch, changes: Changes, now: datetime) -> None:
        """Claim one step that a transition queued for the batch's own service.

        To be called once all decisions are made: what one of them queued, a later one may
        have taken away.
        """
        workflow = self.after.get(changes.workflow.id)
        if workflow is None or workflow.paused:
            return
        undoing: Key | None = None
        for queued in changes.queued:
            key = (workflow.id, queued.key)
            step = self.steps[key]
            mine = step.service == batch.service and step.status in CLAIMABLE
            if not mine or step.leased or step.due_at is None or step.due_at > now:
                continue
            if step.action is Action.EXECUTE:
                self._claim(batch, workflow, step, now)
                return
            undoing = undoing or key
        if undoing is not None:
            self.wanted.append(undoing)

    def without_input(self) -> list[WorkflowId]:
        """The workflows whose input some claim still lacks."""
        return [known for (known, _), one in self.claimed.items() if one.input == NOT_READ]

    def statements(self, batch: Batch) -> Iterator[tuple[str, str]]:
        """The writing statements that are needed, by name, with their records."""
        new = [rows.new_workflow_record(self.after[known]) for known in self.new]
        moved = [
            rows.moved_workflow_record(workflow)
            for known, workflow in self.after.items()
            if known not in self.new
        ]
        inserts: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        for key, step in self.steps.items():
            record = rows.step_record(
                self.after[key[0]],
                step,
                succeeded=key in self.succeeded,
                holder=batch if key in self.claimed else None,
            )
            (inserts if key in self.fresh else updates).append(record)
        for name, records in (
            ("insert_workflows", new),
            ("update_workflows", moved),
            ("insert_steps", inserts),
            ("update_steps", updates),
            ("insert_events", self.events),
        ):
            if records:
                yield name, rows.packed(records)

    def _claim(self, batch: Batch, workflow: Workflow, step: Step, now: datetime) -> None:
        run = replace(
            step.execute,
            attempt=step.execute.attempt + 1,
            started_at=step.execute.started_at or now,
            claimed_at=now,
        )
        lease = now + batch.lease_margin + timedelta(milliseconds=step.call_ms)
        key = (workflow.id, step.key)
        self.steps[key] = replace(step, status=StepStatus.RUNNING, lease_until=lease, execute=run)
        self.claimed[key] = Claimed(
            workflow=workflow.id,
            definition=workflow.definition,
            key=step.key,
            action=Action.EXECUTE,
            attempt=run.attempt,
            tries=run.tries,
            call_ms=step.call_ms,
            claimed_at=now,
            input=step.input if step.input is not None else NOT_READ,
            reason=workflow.reason,
            trace=workflow.trace,
        )


def _with_bodies_of(earlier: Step, later: Step) -> Step:
    """Keep bodies that an earlier decision of the same batch wrote."""
    kept = {name: getattr(earlier, name) for name in _BODIES if getattr(later, name) is None}
    return replace(later, **kept)
