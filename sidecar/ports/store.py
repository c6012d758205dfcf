"""The store: the only truth.

The engine hands it **batches**: whatever starts, transitions and claims have gathered while the
last commit was under way; each is one transaction, all or nothing. Decisions are not the store's:
it loads the workflows under their locks, passes each to `advance`, and writes what comes back.

Lock order everywhere: keys of turns, workflow rows by id, then step rows; rows of a claim last,
never waited for. Whoever meets a locked row gets `Locked` for that member and offers it again.
Every operation of a batch may be repeated after a commit in doubt: a start carries an id made
by its client, a transition is fenced by its attempt, a signal by its id, a claim by its `ticket`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from sidecar.errors import IllegalTransition
from sidecar.ports.bulk import BulkJobs
from sidecar.ports.catalogues import Catalogues
from sidecar.ports.debts import Debts
from sidecar.ports.rates import Rates
from sidecar.ports.records import (
    LeaderWork,
    Lease,
    Ringable,
    StoredLetter,
    WorkflowFilter,
)
from sidecar.ports.sidecars import Sidecars
from sidecar.ports.turns import Lines
from sidecar.ports.versions import Versions
from sidecar.saga.changes import Changes, HistoryEvent
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.events import Event
from sidecar.saga.machine import NewWorkflow
from sidecar.saga.states import Action, Reason, WorkflowStatus
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId

# -- members of a batch ---------------------------------------------------------------------


class Rerun(Struct, frozen=True):
    """Which workflow is run again, and why; its history tells of it in the same transaction."""

    of: WorkflowId
    reason: str = ""


class Start(Struct, frozen=True):
    """A new workflow. The store stamps `created_at` and the deadline by its own clock.

    `input_hash` is the SHA-256 (hex) of the canonical input; with `start_key` it decides
    between "the same start again" and "another start under the same key". `latest`: only if no
    later version of the definition may be started when it is written, else the answer is
    `Outdated`; without it a version that is retired by then is answered by `Retired`.
    `claim_next`: as with a transition, if a slot is kept free for it.
    """

    id: WorkflowId
    definition: Definition
    input: JsonText
    input_hash: str
    start_key: str | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    trace: str | None = None
    actor: str = "api"
    latest: bool = False
    claim_next: bool = False
    rerun: Rerun | None = None

    @property
    def new(self) -> NewWorkflow:
        """What the machine begins it with."""
        return NewWorkflow(
            self.id,
            self.input,
            self.labels,
            self.start_key,
            self.trace,
            rerun_of=self.rerun.of if self.rerun else None,
        )


class LetterId(NamedTuple):
    """Names a letter: who sent it, at which revision, and to whom."""

    sender: WorkflowId
    revision: int
    to: WorkflowId


class Transition(Struct, frozen=True):
    """An event for a workflow that exists.

    `claim_next`: if the transition makes a step of `Batch.service` claimable at once, claim
    one such step in the same transaction (the settled call's slot is free for it). `wait`:
    wait for the workflow's lock instead of answering `Locked`. `letter`: the event was kept as
    a letter, which is forgotten together with what it brings about, if that is anything. `turn`:
    the event admits the workflow, or a step of it, if there is a place among those of this key;
    else the verdict is `ignored`. Whether there is one that only this batch gives back is up to a
    store: those who wait are looked for again when it is done.
    """

    workflow: WorkflowId
    event: Event
    claim_next: bool = False
    wait: bool = False
    letter: LetterId | None = None
    turn: TurnKey | None = None


class ClaimKeys(Struct, frozen=True):
    """Claim these steps of `Batch.service`, if they are claimable: doorbells, local retries."""

    keys: tuple[tuple[WorkflowId, StepKey], ...]


class ClaimDue(Struct, frozen=True):
    """Claim up to `limit` steps of `Batch.service` that are claimable, the longest due first.

    What the same batch makes claimable may be left to the next.
    """

    limit: int


class Epoch(Struct, frozen=True):
    """A leader's fence: the batch is refused with `StaleEpoch` unless this is still in force."""

    number: int


class Batch(Struct, frozen=True):
    """One transaction. `ticket` is unique in the life of `incarnation` and names its claims.

    `lease_margin` is added to a step's `call_ms` to make its lease.
    """

    namespace: str
    service: str
    incarnation: str
    ticket: int
    lease_margin: timedelta
    starts: tuple[Start, ...] = ()
    transitions: tuple[Transition, ...] = ()
    claim_keys: ClaimKeys | None = None
    claim_due: ClaimDue | None = None
    epoch: Epoch | None = None


# -- what became of them --------------------------------------------------------------------


class Started(Struct, frozen=True):
    """`existed`: this start key had started this workflow before, with the same input."""

    workflow: WorkflowId
    status: WorkflowStatus
    existed: bool = False
    changes: Changes | None = None


class KeyReused(Struct, frozen=True):
    """The start key belongs to a workflow with another input; nothing was written."""

    workflow: WorkflowId


class Outdated(Struct, frozen=True):
    """It is not the latest version of the definition that may be started; nothing was written."""


class Retired(Struct, frozen=True):
    """The version must not be started any more; nothing was written."""


class Missing(StrEnum):
    """Why nothing could be done for a member."""

    LOCKED = "locked"
    """Another transaction holds the row: offer it again."""
    UNKNOWN = "unknown"
    """No such workflow, or no such step."""
    NOT_CLAIMABLE = "not_claimable"
    """Nothing to do: it is running, ended, paused, or not of this service."""
    NOT_DUE = "not_due"
    """Its time has not come; whoever polls finds it when it has."""


class Claimed(Struct, frozen=True):
    """A step that this incarnation holds until `lease_until` (by the store's clock).

    `input` is what `execute` gets. For `compensate`, `input`, `output` and `succeeded` are
    those of what is being undone, and `compensation_input` the rendered body, if the step
    renders its own. `origin` is the workflow whose id stands in its key, if that is not its own.
    """

    workflow: WorkflowId
    definition: DefinitionRef
    key: StepKey
    action: Action
    attempt: int
    tries: int
    call_ms: int
    claimed_at: datetime
    input: JsonText
    output: JsonText | None = None
    succeeded: bool = False
    compensation_input: JsonText | None = None
    reason: Reason | None = None
    trace: str | None = None
    origin: WorkflowId | None = None


class Moved(Struct, frozen=True):
    """A transition was decided, and what it wrote is durable."""

    changes: Changes


TransitionResult = Moved | Missing | Exception
"""An exception is `IllegalTransition` or `RenderError`: that member wrote nothing."""

StartResult = Started | KeyReused | Outdated | Retired | IllegalTransition
"""An exception says why a workflow cannot be run again; nothing was written."""


class BatchResult(Struct, frozen=True):
    """What became of each member, in the order of the batch.

    `claimed` holds every claim of the batch, whichever member asked for it. `children` are the
    workflows that were started by what it decided. `refused_keys` says for each key of
    `claim_keys` that was not claimed why not. `now` is the store's clock.
    """

    now: datetime
    starts: tuple[StartResult, ...] = ()
    transitions: tuple[TransitionResult, ...] = ()
    claimed: tuple[Claimed, ...] = ()
    children: tuple[Changes, ...] = ()
    refused_keys: Mapping[tuple[WorkflowId, StepKey], Missing] = msgspec.field(default_factory=dict)


class Store(Versions, Catalogues, Debts, BulkJobs, Sidecars, Rates, Lines, Protocol):
    """PostgreSQL, or its twin in memory. Raises only the `StoreError` family.

    `StoreUnavailable` and `StoreConflict` mean: try the same batch again.
    `StoreDataError` means: some member's data cannot be written; split the batch.
    """

    async def open(self) -> None:
        """Connect, and check the schema. Raises `SchemaMismatch`, `StoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Let go of all connections; harmless when repeated."""
        ...

    async def commit(self, batch: Batch) -> BatchResult:
        """Do all of `batch` in one transaction.

        A workflow may be named by several transitions; they are decided in their order.
        Raises `StaleEpoch` when the batch carries an epoch that is no longer in force.
        """
        ...

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers."""
        ...

    # definitions: see `Versions`

    async def get_key(self, namespace: str, name: str, suggested: bytes) -> bytes:
        """Return a key that all sidecars of a namespace share; the first suggestion is kept."""
        ...

    # queries: a workflow comes with its steps and all bodies, but without the items of fan-outs,
    # their elements, and the signals that are kept (their history tells of them)

    async def get_workflow(self, namespace: str, workflow: WorkflowId) -> Workflow | None:
        """Return one workflow."""
        ...

    async def list_items(
        self, workflow: WorkflowId, step: str, after_index: int, limit: int
    ) -> Sequence[Step]:
        """Return the items of a fan-out with their bodies, by their index.

        Those that had no turn yet are `pending`. Where there is no input (as yet, or because it
        could not be rendered) the element stands in its place.
        """
        ...

    async def is_current(
        self, workflow: WorkflowId, step: StepKey, action: Action, attempt: int
    ) -> bool:
        """Whether this is the newest attempt of its step and action, and has not ended."""
        ...

    async def list_workflows(self, namespace: str, wanted: WorkflowFilter) -> Sequence[Workflow]:
        """Return workflows without their steps and bodies, newest first."""
        ...

    async def list_events(
        self, workflow: WorkflowId, after_seq: int, limit: int
    ) -> Sequence[HistoryEvent]:
        """Return a workflow's history in its order."""
        ...

    async def statuses(
        self, workflows: Sequence[WorkflowId]
    ) -> Mapping[WorkflowId, WorkflowStatus]:
        """Return the statuses of those that exist, in one query."""
        ...

    # the leader

    async def mint_epoch(self, namespace: str, holder: str) -> Epoch:
        """Begin a term: return the next epoch; all earlier ones are void from now on."""
        ...

    async def leader_work(
        self, namespace: str, unseen_for: timedelta, due_for: timedelta | None
    ) -> LeaderWork:
        """Tell which of the leader's questions would find anything, in one round trip.

        Without `due_for` that for steps to ring is left out, and told to find nothing.
        """
        ...

    async def ended_leases(
        self, namespace: str, unseen_for: timedelta, limit: int
    ) -> Sequence[Lease]:
        """Return leases that have ended, and those of sidecars unseen for so long or gone."""
        ...

    async def due_timers(self, namespace: str, limit: int) -> Sequence[tuple[WorkflowId, StepKey]]:
        """Return steps that have waited long enough, those first that did so for longest."""
        ...

    async def waiting_letters(
        self, namespace: str, older_than: timedelta, limit: int
    ) -> Sequence[StoredLetter]:
        """Return letters that nobody has brought for so long, the oldest first."""
        ...

    async def overdue_workflows(self, namespace: str, limit: int) -> Sequence[WorkflowId]:
        """Return workflows in progress whose deadline has passed."""
        ...

    async def ringable_steps(
        self,
        namespace: str,
        unseen_for: timedelta,
        due_for: timedelta,
        limit: int,
        after: Mapping[str, Ringable] | None = None,
    ) -> Sequence[Ringable]:
        """Return steps claimable for `due_for`, the longest due first; of each service a page.

        A page has up to `limit` steps, so that no service's steps hide another's. `after` names
        for a service the step that ended its last page; a service left out begins anew. Only
        services with a ready sidecar count that was seen within `unseen_for`: ringing for others
        is noise.
        """
        ...
