"""What a batch has decided to write, before it is written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sidecar.adapters.postgres import rows
from sidecar.ports.store import Batch, Claimed, Start
from sidecar.saga.changes import Changes
from sidecar.saga.definition import JsonText
from sidecar.saga.states import CLAIMABLE, Action, StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

Key = tuple[WorkflowId, StepKey]

NOT_READ = JsonText("")
"""The input of a step that was claimed on the fly and gets the workflow's, which is still to be
read."""


@dataclass(slots=True)
class Written:
    """What the batch has decided to write, workflow by workflow."""

    before: dict[WorkflowId, Workflow] = field(default_factory=dict)
    after: dict[WorkflowId, Workflow] = field(default_factory=dict)
    steps: dict[WorkflowId, dict[StepKey, Step]] = field(default_factory=dict)
    new: set[WorkflowId] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)

    def add(self, changes: Changes) -> None:
        """Keep the result of one decision."""
        workflow = changes.workflow
        self.after[workflow.id] = workflow
        steps = self.steps.setdefault(workflow.id, {})
        for step in changes.steps:
            earlier = steps.get(step.key)
            steps[step.key] = merged(earlier, step) if earlier else step
        self.events += [rows.event_record(workflow, event) for event in changes.events]


def merged(earlier: Step, later: Step) -> Step:
    """Keep bodies that an earlier decision of the same batch wrote."""
    names = (
        "input", "output", "error",
        "compensation_input", "compensation_output", "compensation_error",
    )  # fmt: skip
    kept = {name: getattr(later, name) or getattr(earlier, name) for name in names}
    return replace(later, **kept)


def claim_next(written: Written, batch: Batch, changes: Changes, now: datetime) -> None:
    """Claim one step that a transition queued for the own service, in the same write."""
    workflow = changes.workflow
    steps = written.steps[workflow.id]
    for queued in changes.queued:
        current = steps[queued.key]
        mine = current.service == batch.service and current.status in CLAIMABLE
        due = current.due_at is not None and current.due_at <= now
        if not mine or not due or current.leased or current.action is Action.COMPENSATE:
            continue
        run = replace(
            current.execute,
            attempt=current.execute.attempt + 1,
            started_at=current.execute.started_at or now,
            claimed_at=now,
        )
        lease = now + batch.lease_margin + timedelta(milliseconds=current.call_ms)
        held = replace(current, status=StepStatus.RUNNING, lease_until=lease, execute=run)
        steps[queued.key] = held
        written.claimed.append(
            Claimed(
                workflow=workflow.id,
                definition=workflow.definition,
                key=held.key,
                action=Action.EXECUTE,
                attempt=run.attempt,
                tries=run.tries,
                call_ms=held.call_ms,
                claimed_at=now,
                input=held.input or workflow.input or NOT_READ,
                trace=workflow.trace,
            )
        )
        return


def grouped(records: list[dict[str, Any]]) -> dict[WorkflowId, list[Step]]:
    """Return steps by workflow."""
    found: dict[WorkflowId, list[Step]] = {}
    for record in records:
        found.setdefault(WorkflowId(record["workflow_id"]), []).append(rows.step_of(record))
    return found


def packed_keys(starts: list[Start], namespace: str) -> str:
    """Return start keys as records."""
    records = [
        {
            "namespace": namespace,
            "definition": one.definition.name,
            "start_key": one.start_key,
            "workflow_id": one.id,
            "input_hash": one.input_hash,
        }
        for one in starts
    ]
    return rows.packed(records)


def key_records(keys: list[Key]) -> str:
    """Return step keys as records."""
    return rows.packed(
        [{"workflow_id": known, "step": key.step, "idx": key.index} for known, key in keys]
    )
