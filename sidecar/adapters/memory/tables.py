"""The data of the store in memory, and what one row of it looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.ports.bulk import BulkJob, BulkMember
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.ports.records import SidecarRecord
from sidecar.ports.store import Batch, Claimed, LetterId, Missing
from sidecar.ports.versions import StoredDefinition, VersionState
from sidecar.saga.changes import Changes, HistoryEvent, Letter
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.pacing import Meter
from sidecar.saga.priority import rank
from sidecar.saga.states import CLAIMABLE, OPEN, Action, StepStatus
from sidecar.saga.turns import InLine, Stand, Standing, TurnKey
from sidecar.saga.workflow import NO_INDEX, DefinitionRef, Run, Step, StepKey, Workflow, WorkflowId

RateScope = tuple[str, str, str]
"""What a rate limit is counted for: a namespace, a service, a path."""

BODIES = (
    "input",
    "output",
    "error",
    "compensation_input",
    "compensation_output",
    "compensation_error",
)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who claimed a step, and in which batch."""

    incarnation: str
    ticket: int


class Row(Struct, frozen=True):
    """One workflow with all that is kept about it.

    `holders` names the last claimer of each step; `succeeded` the steps whose `execute` did.
    `priorities` are those of its steps that have one.
    """

    workflow: Workflow
    history: tuple[HistoryEvent, ...] = ()
    holders: Mapping[StepKey, Holder] = msgspec.field(default_factory=dict)
    succeeded: frozenset[StepKey] = frozenset()
    priorities: Mapping[str, int] = msgspec.field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The namespace of the workflow."""
        return self.workflow.definition.namespace

    @property
    def open(self) -> bool:
        """Whether some step is still on its way."""
        return any(step.status in OPEN for step in self.workflow.steps.values())

    @classmethod
    def begun(cls, changes: Changes, definition: Definition) -> Row:
        """The row of a new workflow."""
        return cls(
            replace(changes.workflow, elements=_elements(changes)),
            history=changes.events,
            succeeded=_succeeded(changes),
            priorities=definition.priorities,
        )

    def rank(self, step: Step) -> datetime:
        """Where a step that has a time stands among those that are due."""
        if step.due_at is None:
            raise AssertionError(f"{self.workflow.id} {step.key} is never due")
        return rank(step.due_at, self.priorities.get(step.key.step, 0))

    def moved(self, changes: Changes) -> Row:
        """The row after a transition: bodies that the machine did not set stay as they were."""
        new, old = changes.workflow, self.workflow
        steps = dict(old.steps)
        for step in changes.steps:
            steps[step.key] = _with_bodies(step, old.steps.get(step.key))
        holders = dict(self.holders)
        for step in changes.steps:
            if step.awaiting:
                holders.pop(step.key, None)  # it is the service's now
        kept = replace(
            new,
            steps=steps,
            elements={**old.elements, **_elements(changes)},
            partial=False,
            labels=old.labels,
            start_key=old.start_key,
            input=new.input if new.input is not None else old.input,
            output=new.output if new.output is not None else old.output,
            error=new.error if new.error is not None else old.error,
        )
        return replace(
            self,
            workflow=kept,
            history=self.history + changes.events,
            holders=holders,
            succeeded=self.succeeded | _succeeded(changes),
        )

    def claimable(self, step: Step) -> bool:
        """Whether the step may be claimed once it is due."""
        return step.status in CLAIMABLE and not step.leased and not self.workflow.paused

    def why_not(self, step: Step, batch: Batch, now: datetime) -> Missing | None:
        """Why `batch` cannot claim the step; None if it can."""
        mine = self.namespace == batch.namespace and step.service == batch.service
        if not mine or not self.claimable(step):
            return Missing.NOT_CLAIMABLE
        if step.due_at is None or step.due_at > now:
            return Missing.NOT_DUE
        return None

    def claimed(self, key: StepKey, holder: Holder, now: datetime, margin: timedelta) -> Row:
        """The row after a claim: the next attempt begins, under a lease."""
        step = self.workflow.steps[key]
        lease_until = now + timedelta(milliseconds=step.call_ms) + margin
        match step.action:
            case Action.COMPENSATE:
                held = replace(step, compensate=_next_attempt(step.compensate, now))
            case Action.STATUS:
                held = replace(step, execute=_next_attempt(step.execute, now))
            case _:
                run = _next_attempt(step.execute, now)
                held = replace(step, status=StepStatus.RUNNING, execute=run)
        steps = {**self.workflow.steps, key: replace(held, lease_until=lease_until)}
        return replace(
            self,
            workflow=replace(self.workflow, steps=steps),
            holders={**self.holders, key: holder},
        )

    def claim_of(self, key: StepKey) -> Claimed:
        """What the claimer of a step is told."""
        workflow = self.workflow
        step = workflow.steps[key]
        body = step.input if step.input is not None else workflow.input
        if body is None or step.run.claimed_at is None:
            raise AssertionError(f"{workflow.id} {key} is not claimed")
        return Claimed(
            workflow=workflow.id,
            definition=workflow.definition,
            key=key,
            action=step.action,
            attempt=step.run.attempt,
            tries=step.run.tries,
            call_ms=step.call_ms,
            claimed_at=step.run.claimed_at,
            input=body,
            output=step.output,
            succeeded=key in self.succeeded,
            compensation_input=step.compensation_input,
            reason=workflow.reason,
            trace=workflow.trace,
            origin=step.origin,
        )


@dataclass(frozen=True, slots=True)
class StartKey:
    """Who has a start key, and with which input."""

    workflow: WorkflowId
    input_hash: str


class Promise(NamedTuple):
    """The turn that a step was promised, of what, for which try, and until when that is kept.

    In microseconds since 1970.
    """

    scope: RateScope
    moment: int
    tries: int
    granted: bool
    kept_until: int


@dataclass(slots=True)
class BulkTables:
    """The bulk jobs, and their members in their order."""

    jobs: dict[str, BulkJob] = field(default_factory=dict)
    members: dict[str, list[BulkMember]] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryTables:
    """All the data; handles on the same tables see the same world."""

    rows: dict[WorkflowId, Row] = field(default_factory=dict)
    open: dict[WorkflowId, None] = field(default_factory=dict)
    owing: dict[WorkflowId, None] = field(default_factory=dict)
    central: dict[WorkflowId, None] = field(default_factory=dict)
    bulk: BulkTables = field(default_factory=BulkTables)
    start_keys: dict[tuple[str, str, str], StartKey] = field(default_factory=dict)
    definitions: dict[tuple[str, str], list[StoredDefinition]] = field(default_factory=dict)
    deleted: set[tuple[str, str, int]] = field(default_factory=set)
    registrations: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """The versions of each definition in the order in which they were last registered."""
    retired_at: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    catalogues: dict[tuple[str, str], dict[int, StoredCatalogue]] = field(default_factory=dict)
    """By service the versions of its catalogue, the one published last at the end."""
    sidecars: dict[str, SidecarRecord] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)
    keys: dict[tuple[str, str], bytes] = field(default_factory=dict)
    turns: dict[TurnKey, dict[InLine, Stand]] = field(default_factory=dict)
    letters: dict[LetterId, tuple[datetime, Letter]] = field(default_factory=dict)
    meters: dict[RateScope, Meter] = field(default_factory=dict)
    promises: dict[tuple[WorkflowId, StepKey, Action], Promise] = field(default_factory=dict)

    def put(self, row: Row) -> None:
        """Write one row, and keep the index of those with open steps."""
        known = row.workflow.id
        self.rows[known] = row
        if row.open:
            self.open[known] = None
        else:
            self.open.pop(known, None)
        if row.workflow.owes_since is not None:
            self.owing[known] = None
        else:
            self.owing.pop(known, None)

    def waiting_for(self, turn: TurnKey) -> list[Stand]:
        """Those that wait for their turn, the most urgent and then the oldest first."""
        waiting = self._standing(turn, Standing.WAITS)
        return sorted(waiting, key=lambda one: (-one.priority, *_since(one)))

    def placed(self, turn: TurnKey) -> list[Stand]:
        """Those that have a place, those first that have had it for longest."""
        return sorted(self._standing(turn, Standing.HAS_PLACE), key=_since)

    def _standing(self, turn: TurnKey, standing: Standing) -> Iterator[Stand]:
        return (one for one in self.turns.get(turn, {}).values() if one.standing is standing)

    def versions(self, namespace: str, name: str) -> list[StoredDefinition]:
        """The versions of a definition that were not deleted, in their order."""
        found = self.definitions.get((namespace, name), ())
        return [one for one in found if (namespace, name, one.version) not in self.deleted]

    def registered(self, stored: StoredDefinition) -> None:
        """Note that a version was registered, again or for the first time."""
        order = self.registrations.setdefault((stored.namespace, stored.name), [])
        if stored.version in order:
            order.remove(stored.version)
        order.append(stored.version)

    def definition(self, ref: DefinitionRef) -> StoredDefinition | None:
        """Return one version of a definition."""
        versions = self.definitions.get((ref.namespace, ref.name), [])
        known = 1 <= ref.version <= len(versions) and ref not in self.deleted
        return versions[ref.version - 1] if known else None

    def latest(self, namespace: str, name: str) -> StoredDefinition | None:
        """Return the one registered last that may be started, or else the one registered last."""
        versions = self.versions(namespace, name)
        fit = [one for one in versions if one.state is not VersionState.RETIRED]
        order = self.registrations.get((namespace, name), [])
        return max(fit or versions, key=lambda one: order.index(one.version), default=None)

    def open_steps(self, namespace: str) -> Iterator[tuple[Row, Step]]:
        """Walk through the steps that are on their way."""
        for known in self.open:
            row = self.rows[known]
            if row.namespace == namespace:
                for step in row.workflow.steps.values():
                    if step.status in OPEN:
                        yield row, step


def _since(one: Stand) -> tuple[datetime, WorkflowId, int]:
    """By what the elder of two is told; items of one step that wait alike come by their index."""
    return one.since, one.who.workflow, one.who.step.index if one.who.step else NO_INDEX


def without_bodies(workflow: Workflow) -> Workflow:
    """The workflow as a list shows it."""
    bare = replace(workflow, steps={}, elements={}, signals=(), heard=frozenset())
    return replace(bare, input=None, output=None, error=None)


def without_items(workflow: Workflow) -> Workflow:
    """The workflow as it is shown: the items of its fan-outs come by pages."""
    steps = {key: step for key, step in workflow.steps.items() if not step.is_item}
    partial = any(step.fan is not None for step in steps.values())
    bare = replace(workflow, steps=steps, elements={}, signals=(), heard=frozenset())
    return replace(bare, partial=partial)


def _succeeded(changes: Changes) -> frozenset[StepKey]:
    return frozenset(
        StepKey(event.step, event.index)
        for event in changes.events
        if event.step is not None and event.after == StepStatus.SUCCEEDED
    )


def _elements(changes: Changes) -> dict[StepKey, JsonText]:
    found: dict[StepKey, JsonText] = {}
    for new in changes.items:
        for index, raw in enumerate(msgspec.json.decode(new.elements, type=list[msgspec.Raw])):
            found[StepKey(new.step, index)] = JsonText(bytes(raw).decode())
    return found


def _next_attempt(run: Run, now: datetime) -> Run:
    return replace(run, attempt=run.attempt + 1, started_at=run.started_at or now, claimed_at=now)


def _with_bodies(step: Step, earlier: Step | None) -> Step:
    if earlier is None:
        return step
    kept = {name: getattr(earlier, name) for name in BODIES if getattr(step, name) is None}
    return replace(step, **kept)
