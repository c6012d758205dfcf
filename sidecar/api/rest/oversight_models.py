"""What requests and answers look like of what people oversee beyond the single workflow."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from sidecar.api.rest.models import Body, DefinitionLine
from sidecar.saga.states import StepStatus, WorkflowStatus


class VersionBody(DefinitionLine):
    """One version of a definition, and how many of its workflows have not ended."""

    open_workflows: int = Field(description="Counted up to 1000.")
    open_workflows_more: bool


class VersionPage(Body):
    """A page of the versions of a definition, newest first."""

    versions: list[VersionBody]
    next_cursor: str | None


class DeletedBody(Body):
    """A version that is gone; its number is never given again."""

    name: str
    version: int
    state: Literal["deleted"]


class ServiceDebtBody(Body):
    """What one service owes, or with null children; `overdue` and `failed` are parts of `owed`."""

    service: str | None
    owed: int
    overdue: int = Field(description="Owed for longer than `older_than`.")
    failed: int = Field(description="Could not be undone: a person must act.")
    oldest_at: datetime
    oldest_age_s: float


class DebtEntryBody(Body):
    """One effect that is owed its undoing."""

    workflow: str
    definition: str
    version: int
    workflow_status: WorkflowStatus
    step: str
    index: int | None
    service: str | None
    status: StepStatus
    since: datetime
    age_s: float
    tries: int
    next_attempt_at: datetime | None
    error: JsonValue


class DebtBody(Body):
    """What is owed: by service, and a page of it one by one, the oldest first."""

    older_than_s: float
    services: list[ServiceDebtBody]
    more: bool = Field(description="There is more than was counted.")
    entries: list[DebtEntryBody]
    next_cursor: str | None


ANSWERS: tuple[type[BaseModel], ...] = (VersionPage, DeletedBody, DebtBody)
