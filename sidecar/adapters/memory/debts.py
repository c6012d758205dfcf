"""What is owed, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from sidecar.adapters.memory.handle import MemoryHandle
from sidecar.ports.debts import Debt, DebtPlace, DebtTotal, DebtTotals
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, WorkflowId

_NOTHING_LEFT = (StepStatus.PENDING, StepStatus.CANCELLED, StepStatus.COMPENSATED)
_OPEN = (WorkflowStatus.ROLLING_BACK, WorkflowStatus.ERROR)


class MemoryDebts(MemoryHandle):
    """See `sidecar.ports.debts.Debts`."""

    async def debt_totals(self, namespace: str, older_than: timedelta, most: int) -> DebtTotals:
        """Count what is owed, at most so many of the oldest."""
        self.check_open()
        found = self._debts(namespace)[:most]
        before = self.clock.now() - older_than
        kinds: dict[tuple[DefinitionRef, str, str, bool], list[DebtPlace]] = {}
        for one in found:
            failed = one.status is StepStatus.COMPENSATION_FAILED
            kind = (one.definition, one.place.key.step, one.service, failed)
            kinds.setdefault(kind, []).append(one.place)
        totals = tuple(
            DebtTotal(
                *kind,
                len(places),
                sum(one.since <= before for one in places),
                min(one.since for one in places),
            )
            for kind, places in kinds.items()
        )
        return DebtTotals(totals, more=len(found) >= most)

    async def list_debts(
        self, namespace: str, service: str | None, after: DebtPlace | None, limit: int
    ) -> Sequence[Debt]:
        """Return what is owed, the oldest first."""
        self.check_open()
        wanted = [
            one
            for one in self._debts(namespace)
            if service in (None, one.service) and (after is None or one.place > after)
        ]
        return wanted[:limit]

    async def central_rollbacks(
        self, namespace: str, after: WorkflowId | None, limit: int
    ) -> Sequence[WorkflowId]:
        """Return the open rollbacks of `central` definitions, by their ids."""
        self.check_open()
        found = sorted(
            known
            for known in self.tables.central
            if (row := self.tables.rows[known]).namespace == namespace
            and row.workflow.status in _OPEN
            and (after is None or known > after)
        )
        return found[:limit]

    def _debts(self, namespace: str) -> list[Debt]:
        found = (debt for known in self.tables.owing for debt in self._of(known))
        mine = [debt for debt in found if debt.definition.namespace == namespace]
        return sorted(mine, key=lambda one: one.place)

    def _of(self, known: WorkflowId) -> Iterator[Debt]:
        workflow = self.tables.rows[known].workflow
        for step in workflow.steps.values():
            owed = step.may_have_effect and step.status not in _NOTHING_LEFT
            if workflow.owes_since is not None and owed and step.fan is None:
                yield Debt(
                    DebtPlace(workflow.owes_since, known, step.key),
                    workflow.definition,
                    workflow.status,
                    step.service,
                    step.status,
                    step.compensate.tries,
                    step.due_at,
                    step.compensation_error or step.error,
                )
