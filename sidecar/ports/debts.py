"""What is owed, over all workflows: `sidecar.saga.debts` says what that is.

A store does not know which steps have nothing to undo: those it tells like any other, and whoever
asks leaves them out by their definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from sidecar.saga.definition import JsonText
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId


@dataclass(frozen=True, slots=True)
class DebtTotal:
    """How much is owed of one step of one version: `overdue` of `count` are older than asked for.

    `failed` says that these could not be undone, and wait for a person.
    """

    definition: DefinitionRef
    step: str
    service: str
    failed: bool
    count: int
    overdue: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class DebtTotals:
    """All there is; with `more` only what was counted of it, the oldest first."""

    totals: tuple[DebtTotal, ...]
    more: bool


class DebtPlace(NamedTuple):
    """Where an entry stands in the list: the oldest come first."""

    since: datetime
    workflow: WorkflowId
    key: StepKey


@dataclass(frozen=True, slots=True)
class Debt:
    """One effect that is owed, since its workflow turned back or was terminated."""

    place: DebtPlace
    definition: DefinitionRef
    workflow_status: WorkflowStatus
    service: str
    status: StepStatus
    tries: int
    due_at: datetime | None
    error: JsonText | None


class Debts(Protocol):
    """The part of the store that is about what is owed."""

    async def debt_totals(self, namespace: str, older_than: timedelta, most: int) -> DebtTotals:
        """Count what is owed, at most so many of the oldest."""
        ...

    async def list_debts(
        self, namespace: str, service: str | None, after: DebtPlace | None, limit: int
    ) -> Sequence[Debt]:
        """Return what is owed, the oldest first."""
        ...

    async def central_rollbacks(
        self, namespace: str, after: WorkflowId | None, limit: int
    ) -> Sequence[WorkflowId]:
        """Return the open rollbacks of `central` definitions, by their ids."""
        ...
