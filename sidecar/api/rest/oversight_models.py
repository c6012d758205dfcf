"""What requests and answers look like of what people oversee beyond the single workflow."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, JsonValue

from sidecar.api.rest.models import Body, DefinitionLine
from sidecar.engine.bulk import MOST
from sidecar.ports.bulk import BulkResult, BulkStatus
from sidecar.saga.states import StepStatus, WorkflowStatus

Moment = Annotated[AwareDatetime, Field(strict=False)]
"""A time with its offset, as text of RFC 3339."""


Version = Annotated[int, Field(ge=1, lt=2**31)]


class VersionBody(DefinitionLine):
    """One version of a definition, and how many of its workflows have not ended."""

    current: bool = Field(description="A start without a version takes this one.")
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


class SidecarBody(Body):
    """A sidecar that lives; `catalogue` is the version that it has, null if it offers nothing."""

    incarnation: str
    host: str
    version: str
    ready: bool
    draining: bool
    catalogue: int | None
    started_at: datetime
    seen_at: datetime


class ServiceBody(Body):
    """A service with its live sidecars, and the catalogue in force: the one published last."""

    service: str
    catalogue: int | None
    differs: bool = Field(description="Its live sidecars do not have the same catalogue.")
    actions: dict[str, JsonValue]
    sidecars: list[SidecarBody]


class ServicePage(Body):
    """A page of services, by name."""

    services: list[ServiceBody]
    next_cursor: str | None


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


class BulkFilterBody(Body):
    """Which workflows; all that is given must fit, and something must be."""

    status: list[Annotated[WorkflowStatus, Field(strict=False)]] = Field(default_factory=list)
    definition: str | None = None
    version: int | None = Field(default=None, ge=1, lt=2**31)
    labels: dict[str, str] = Field(default_factory=dict, description="All of them.")
    created_before: Moment | None = None
    created_after: Moment | None = None


class BulkBody(Body):
    """A verb over many workflows; `signal` and `payload` belong to the verb `signal`."""

    verb: Literal["cancel", "pause", "resume", "retry", "terminate", "signal"]
    filter: BulkFilterBody
    dry_run: bool = Field(default=False, description="Tell what it would choose; change nothing.")
    reason: str = Field(default="", description="Stands in every history; at most 1000 characters.")
    signal: str | None = Field(default=None, min_length=1, max_length=255)
    payload: Any = None
    limit: int = Field(default=MOST, ge=1, le=MOST, description="The oldest come first.")


class RerunBody(Body):
    """How a workflow is to be run again; the body may be left out."""

    version: Version | Literal["latest"] | None = Field(
        default=None, description="Left out: the version that the workflow has run."
    )
    start_key: str | None = Field(
        default=None, description="Repeated with the same key, it is the same new workflow."
    )
    reason: str = Field(default="", description="Stands in the history; at most 1000 characters.")


class SelectionBody(Body):
    """What a job would choose."""

    selected: int
    more: bool = Field(description="There are more than `limit`.")
    first: list[str] = Field(description="The first of their ids.")


class JobBody(Body):
    """A bulk job; `open` of its workflows had no turn yet."""

    id: str
    verb: str
    arguments: dict[str, JsonValue]
    filter: dict[str, JsonValue]
    actor: str
    status: BulkStatus
    selected: int
    more: bool = Field(description="It could have chosen more than `limit`.")
    open: int
    done: int
    refused: int = Field(description="The verb is not legal for them; they have not changed.")
    failed: int
    moved_at: datetime = Field(description="When it last got on.")
    created_at: datetime
    ended_at: datetime | None


class MemberBody(Body):
    """What became of one workflow; `result` is null until it had its turn."""

    id: str
    result: BulkResult | None
    detail: str | None


class JobPage(JobBody):
    """A bulk job, and a page of its workflows in their order."""

    workflows: list[MemberBody]
    next_cursor: str | None


class JobList(Body):
    """A page of bulk jobs, newest first."""

    jobs: list[JobBody]
    next_cursor: str | None


ANSWERS: tuple[type[BaseModel], ...] = (
    VersionPage,
    DeletedBody,
    ServicePage,
    DebtBody,
    SelectionBody,
    JobBody,
    JobPage,
    JobList,
)
