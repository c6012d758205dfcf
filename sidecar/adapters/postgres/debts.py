"""What is owed, on PostgreSQL: off one partial index, whose rows are those that owe anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import load
from sidecar.ports.debts import Debt, DebtPlace, DebtTotal, DebtTotals
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId

SQL = load(__file__)


class PostgresDebts:
    """See `sidecar.ports.debts.Debts`."""

    readers: Reading
    vital: Reading

    async def debt_totals(self, namespace: str, older_than: timedelta, most: int) -> DebtTotals:
        """Count what is owed, at most so many of the oldest."""
        found = await self.readers.rows(
            SQL["debt_totals"], namespace=namespace, older_than=older_than, most=most
        )
        totals = tuple(
            DebtTotal(
                DefinitionRef(namespace, row["definition"], row["version"]),
                row["step"],
                row["service"],
                row["failed"],
                row["count"],
                row["overdue"],
                row["oldest"],
            )
            for row in found
        )
        return DebtTotals(totals, more=sum(one.count for one in totals) >= most)

    async def list_debts(
        self, namespace: str, service: str | None, after: DebtPlace | None, limit: int
    ) -> Sequence[Debt]:
        """Return what is owed, the oldest first."""
        found = await self.readers.rows(
            SQL["list_debts"],
            namespace=namespace,
            service=service,
            since=after and after.since,
            workflow=after and after.workflow,
            step=after and after.key.step,
            idx=after and after.key.index,
            limit=limit,
        )
        return [_debt(namespace, row) for row in found]

    async def central_rollbacks(
        self, namespace: str, after: WorkflowId | None, limit: int
    ) -> Sequence[WorkflowId]:
        """Return the open rollbacks of `central` definitions, by their ids."""
        found = await self.vital.rows(
            SQL["central_rollbacks"], namespace=namespace, after=after, limit=limit
        )
        return [WorkflowId(row["id"]) for row in found]


def _debt(namespace: str, row: dict[str, Any]) -> Debt:
    key = StepKey(row["step"], row["idx"])
    return Debt(
        DebtPlace(row["owes_since"], WorkflowId(row["id"]), key),
        DefinitionRef(namespace, row["definition"], row["version"]),
        WorkflowStatus(row["workflow_status"]),
        row["service"],
        StepStatus(row["status"]),
        row["comp_tries"],
        row["due_at"],
        row["error"],
    )
