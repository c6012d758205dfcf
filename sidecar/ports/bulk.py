"""Verbs over many workflows: a job, the workflows that it chose, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from sidecar.saga.definition import JsonText
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId

if TYPE_CHECKING:
    from sidecar.ports.store import Epoch


class BulkStatus(StrEnum):
    """Whether a job goes on."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Somebody has stopped it: those that had no turn get none."""


class BulkResult(StrEnum):
    """What became of one workflow of a job."""

    DONE = "done"
    REFUSED = "refused"
    """The verb is not legal for it; nothing has changed."""
    FAILED = "failed"
    """Something went wrong that should not; it may be tried again."""


@dataclass(frozen=True, slots=True)
class BulkFilter:
    """Which workflows a job chooses, those that were started first coming first."""

    status: frozenset[WorkflowStatus] = frozenset()
    definition: str | None = None
    version: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created_before: datetime | None = None
    created_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewBulkJob:
    """A job to be begun: `written` is its filter as it is to be shown, `limit` the most it takes.

    `arguments` is an object with what the verb needs.
    """

    id: str
    namespace: str
    verb: str
    arguments: JsonText
    filter: BulkFilter
    written: JsonText
    actor: str
    holder: str
    limit: int


@dataclass(frozen=True, slots=True)
class BulkJob:
    """A job: it chose `selected` workflows, with `more` not all that it could have.

    `done`, `refused` and `failed` of them had their turn. `holder` is the sidecar at work on it,
    `moved_at` when it last got on.
    """

    id: str
    namespace: str
    verb: str
    arguments: JsonText
    filter: JsonText
    actor: str
    status: BulkStatus
    selected: int
    more: bool
    done: int
    refused: int
    failed: int
    holder: str
    moved_at: datetime
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BulkMember:
    """One workflow of a job, counted from 1; `result` is None until it had its turn."""

    number: int
    workflow: WorkflowId
    result: BulkResult | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What a filter finds: how many up to a limit, whether there are more, and the first."""

    count: int
    more: bool
    first: tuple[WorkflowId, ...]


class BulkJobs(Protocol):
    """The part of the store that is about bulk jobs."""

    async def select_bulk(
        self, namespace: str, wanted: BulkFilter, limit: int, show: int
    ) -> Selection:
        """Tell what a filter would find; nothing is kept."""
        ...

    async def begin_bulk(self, job: NewBulkJob) -> BulkJob:
        """Choose the workflows and keep the job; one without any is done at once."""
        ...

    async def get_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Return a job."""
        ...

    async def list_bulk(self, namespace: str, before: str | None, limit: int) -> Sequence[BulkJob]:
        """Return jobs, the newest first."""
        ...

    async def bulk_members(
        self, job: str, after: int, limit: int, result: BulkResult | None = None
    ) -> Sequence[BulkMember]:
        """Return the workflows of a job in their order, all or those with this result."""
        ...

    async def stop_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Stop a job that is running; return it as it is then."""
        ...

    async def take_bulk(self, job: str, holder: str, quiet_for: timedelta) -> BulkJob | None:
        """Take over a running job that is one's own or has not got on for so long; else None."""
        ...

    async def next_bulk(self, job: str, holder: str, limit: int) -> Sequence[BulkMember] | None:
        """Return those whose turn is next; None unless the job is running and `holder`'s."""
        ...

    async def record_bulk(
        self, job: str, holder: str, results: Sequence[BulkMember]
    ) -> BulkStatus | None:
        """Keep what became of some; None unless the job is `holder`'s. The last ends the job."""
        ...

    async def quiet_bulk(self, namespace: str, quiet_for: timedelta, limit: int) -> Sequence[str]:
        """Return running jobs that have not got on for so long."""
        ...

    async def forget_bulk(
        self, namespace: str, ended_for: timedelta, epoch: Epoch, limit: int
    ) -> int:
        """Delete jobs that ended so long ago, at most so many members; return how many of those."""
        ...
