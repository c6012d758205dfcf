"""The claims of one batch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sidecar.adapters.memory.tables import Holder, MemoryTables, Row
from sidecar.ports.store import Batch, Claimed, Missing
from sidecar.saga.changes import Changes
from sidecar.saga.workflow import Step, StepKey, WorkflowId

Key = tuple[WorkflowId, StepKey]


class Claims:
    """What the batch claims, in `rows`, that nobody else sees yet."""

    def __init__(
        self,
        tables: MemoryTables,
        rows: dict[WorkflowId, Row],
        batch: Batch,
        now: datetime,
        locked: Callable[[WorkflowId], bool],
    ) -> None:
        self._tables = tables
        self._rows = rows
        self._batch = batch
        self._now = now
        self._locked = locked
        self._holder = Holder(batch.incarnation, batch.ticket)
        self.claimed: dict[Key, Claimed] = {}

    def found_of_ticket(self) -> bool:
        """Find what an earlier try of the batch had claimed; return whether there is anything."""
        for row, step in self._tables.open_steps(self._batch.namespace):
            if step.leased and row.holders.get(step.key) == self._holder:
                self.claimed[row.workflow.id, step.key] = row.claim_of(step.key)
        return bool(self.claimed)

    def next(self, row: Row, changes: Changes) -> None:
        """Claim one of the steps that were queued; not one that is only rung for."""
        moved = {one.key for one in changes.steps}
        queued = (one for one in changes.queued if one.key in moved)
        free = (one for one in queued if row.why_not(one, self._batch, self._now) is None)
        for step in free:
            self._claim(row, step)
            return

    def key(self, key: Key, *, repeated: bool) -> Missing | None:
        """Claim a step that is named; return why it was not."""
        if key in self.claimed:
            return None
        workflow, step_key = key
        row = self._rows.get(workflow) or self._tables.rows.get(workflow)
        step = row.workflow.steps.get(step_key) if row is not None else None
        if row is None or step is None:
            return Missing.UNKNOWN
        why = row.why_not(step, self._batch, self._now)
        if why is not None:
            return why
        if repeated or self._locked(workflow):
            return Missing.LOCKED
        self._claim(row, step)
        return None

    def due(self, limit: int) -> None:
        """Claim so many of those that are due, by their rank."""
        candidates = {known: self._tables.rows[known] for known in self._tables.open} | self._rows
        found = [
            (row.rank(step), known, step.key)
            for known, row in candidates.items()
            for step in row.workflow.steps.values()
            if row.why_not(step, self._batch, self._now) is None and not self._locked(known)
        ]
        for _, known, step_key in sorted(found)[:limit]:
            row = self._rows.get(known, candidates[known])
            self._claim(row, row.workflow.steps[step_key])

    def _claim(self, row: Row, step: Step) -> None:
        known = row.workflow.id
        row = row.claimed(step.key, self._holder, self._now, self._batch.lease_margin)
        self._rows[known] = row
        self.claimed[known, step.key] = row.claim_of(step.key)
