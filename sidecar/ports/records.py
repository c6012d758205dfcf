"""What the store tells beside its batches: workflows, sidecars, and what a leader may heal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sidecar.ports.queue import Doorbell
from sidecar.saga.changes import Letter
from sidecar.saga.states import Action, WorkflowStatus
from sidecar.saga.turns import InLine
from sidecar.saga.workflow import StepKey, WorkflowId


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows to list, newest first. `after` is the id that ended the last page."""

    status: frozenset[WorkflowStatus] = frozenset()
    definition: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    after: WorkflowId | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class SidecarBeat:
    """What a sidecar says of itself every 5 seconds.

    `catalogue` is the version of its catalogue; None: it offers none.
    """

    incarnation: str
    namespace: str
    service: str
    version: str
    host: str
    ready: bool
    draining: bool = False
    catalogue: int | None = None


@dataclass(frozen=True, slots=True)
class SidecarRecord:
    """A sidecar as the store knows it."""

    beat: SidecarBeat
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class LeaderWork:
    """Which questions of the leader would find anything."""

    ended_leases: bool
    due_timers: bool
    waiting_letters: bool
    free_turns: bool
    overdue_workflows: bool
    ringable_steps: bool
    central_rollbacks: bool = False
    debts: bool = False
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """An attempt whose lease the leader should end."""

    workflow: WorkflowId
    key: StepKey
    action: Action
    attempt: int
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Ringable:
    """A step that has been claimable for a while and that nobody has claimed.

    `rank` puts it in order among the others: `due_at`, or earlier by its priority.
    """

    doorbell: Doorbell
    due_at: datetime
    rank: datetime


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter that waits to be brought; its sender, the revision and the recipient name it."""

    sender: WorkflowId
    revision: int
    letter: Letter


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a place that others may wait for, and how its workflow stands."""

    who: InLine
    status: WorkflowStatus
    paused: bool
