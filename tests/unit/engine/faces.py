"""Twins for tests of what clients see: a store in a dict, decided by the real machine.

Only what commands and queries use is here; whether a store keeps its promises is the business
of the conformance suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from msgspec.structs import replace

from sidecar.api.rest.face import Face
from sidecar.api.rest.hosts import Hosts
from sidecar.definitions import render
from sidecar.engine.bulk import Bulk
from sidecar.engine.callbacks import Attempt, Tokens
from sidecar.engine.commands import Commands
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.debt import DebtBook
from sidecar.engine.group_commit import Committer
from sidecar.engine.oversight import Oversight
from sidecar.engine.queries import Queries
from sidecar.engine.rerunning import Reruns
from sidecar.engine.services import Services
from sidecar.engine.slots import Slots
from sidecar.engine.tasks import Tasks
from sidecar.engine.verbs import Verbs
from sidecar.engine.versioning import Versioning
from sidecar.engine.waiting import WaitHub
from sidecar.errors import GoConductorError
from sidecar.ports.notices import Notices
from sidecar.ports.records import Holder, WorkflowFilter
from sidecar.ports.store import (
    KeyReused,
    Missing,
    Moved,
    Outdated,
    Start,
    Started,
    Store,
    Transition,
)
from sidecar.ports.telemetry import Telemetry
from sidecar.ports.versions import StoredDefinition
from sidecar.saga.changes import Changes, HistoryEvent
from sidecar.saga.definition import JsonText
from sidecar.saga.events import step_of
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId
from tests.unit.engine.stand_ins import CountingEntropy, Facts, LocalNotices, TickingClock

DOCUMENT = b"""
name: order
steps:
  - name: charge
    service: payments
    execute: /charges
    compensate: /refunds
  - name: ship
    service: shipping
    execute: /shipments
    compensate: none
"""

LANGUAGE = b"""
name: language
steps:
  - name: reserve
    service: inventory
    execute: /reservations
    compensate: /reservations/cancel
    for_each: "${input.lines}"
    max_parallel: 2
  - name: approve
    wait: { signal: approved, timeout: 1h }
  - name: ship
    service: shipping
    execute: /shipments
    compensate: none
"""


async def until(fact: Callable[[], object]) -> None:
    """Let everybody else run until `fact` holds."""
    while not fact():  # noqa: ASYNC110 - the fact is a plain value of a twin, not an event
        await asyncio.sleep(0)


@dataclass
class DictStore:
    """The part of a store that faces use. `broken` is raised by everything."""

    clock: TickingClock
    notices: LocalNotices
    definitions: dict[tuple[str, str], list[StoredDefinition]] = field(default_factory=dict)
    workflows: dict[WorkflowId, Workflow] = field(default_factory=dict)
    history: dict[WorkflowId, list[HistoryEvent]] = field(default_factory=dict)
    hashes: dict[WorkflowId, str] = field(default_factory=dict)
    broken: GoConductorError | None = None
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    compiled: CompiledDefinitions | None = None
    promised: set[StepKey] = field(default_factory=set)
    holders: dict[str, list[InLine]] = field(default_factory=dict)

    def _enter(self, what: str) -> None:
        self.asked.append(what)
        if self.broken is not None:
            raise self.broken

    async def put_definition(
        self, namespace: str, name: str, document: JsonText, digest: str
    ) -> tuple[StoredDefinition, bool]:
        self._enter("put_definition")
        versions = self.definitions.setdefault((namespace, name), [])
        for known in versions:
            if known.hash == digest:
                versions.remove(known)
                versions.append(known)
                return known, False
        stored = StoredDefinition(
            namespace, name, len(versions) + 1, digest, document, self.clock.now()
        )
        versions.append(stored)
        return stored, True

    async def get_definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> StoredDefinition | None:
        self._enter("get_definition")
        if self.gate is not None:
            await self.gate.wait()
        versions = self.definitions.get((namespace, name), [])
        if version is None:
            return versions[-1] if versions else None
        return next((one for one in versions if one.version == version), None)

    async def list_definitions(
        self, namespace: str, after: str | None, limit: int
    ) -> Sequence[StoredDefinition]:
        self._enter("list_definitions")
        names = sorted(name for space, name in self.definitions if space == namespace)
        wanted = [name for name in names if after is None or name > after][:limit]
        return [self.definitions[namespace, name][-1] for name in wanted]

    async def get_workflow(self, namespace: str, workflow: WorkflowId) -> Workflow | None:
        self._enter("get_workflow")
        found = self.workflows.get(workflow)
        return found if found and found.definition.namespace == namespace else None

    async def list_workflows(self, namespace: str, wanted: WorkflowFilter) -> Sequence[Workflow]:
        self._enter("list_workflows")
        found = [
            one
            for one in sorted(self.workflows.values(), key=lambda one: one.id, reverse=True)
            if one.definition.namespace == namespace
            and (not wanted.status or one.status in wanted.status)
            and wanted.definition in (None, one.definition.name)
            and wanted.labels.items() <= one.labels.items()
            and (wanted.after is None or one.id < wanted.after)
        ]
        return [replace(one, steps={}, input=None, output=None) for one in found[: wanted.limit]]

    async def list_items(
        self, workflow: WorkflowId, step: str, after_index: int, limit: int
    ) -> Sequence[Step]:
        self._enter("list_items")
        found = self.workflows[workflow]
        keys = sorted(key for key in found.elements if key.step == step and key.index > after_index)
        return [
            found.steps.get(key) or Step(key, "", input=found.elements[key]) for key in keys[:limit]
        ]

    async def is_current(
        self, workflow: WorkflowId, step: StepKey, action: Action, attempt: int
    ) -> bool:
        self._enter("is_current")
        found = self.workflows[workflow].steps[step]
        return found.leased and (found.action, found.run.attempt) == (action, attempt)

    async def promised_steps(self, workflow: WorkflowId) -> set[StepKey]:
        self._enter("promised_steps")
        return self.promised

    async def turn_holders(self, turn: TurnKey) -> Sequence[Holder]:
        self._enter("turn_holders")
        found = [(one, self.workflows[one.workflow]) for one in self.holders[turn.key]]
        return [Holder(who, workflow.status, workflow.paused) for who, workflow in found]

    async def list_events(
        self, workflow: WorkflowId, after_seq: int, limit: int
    ) -> Sequence[HistoryEvent]:
        self._enter("list_events")
        return [one for one in self.history[workflow] if one.seq > after_seq][:limit]

    async def statuses(
        self, workflows: Sequence[WorkflowId]
    ) -> Mapping[WorkflowId, WorkflowStatus]:
        self._enter("statuses")
        return {one: self.workflows[one].status for one in workflows if one in self.workflows}

    async def submit(
        self, member: Start | Transition, *, within: float | None = None
    ) -> Started | KeyReused | Outdated | Moved | Missing:
        """Stand in for the committer."""
        self._enter("submit")
        if isinstance(member, Start):
            return self._start(member)
        workflow = self.workflows.get(member.workflow)
        if workflow is None:
            return Missing.UNKNOWN
        assert self.compiled is not None
        definition = await self.compiled.get(workflow.definition)
        key = step_of(member.event)
        if key is not None and key.step not in definition.by_name:
            return Missing.UNKNOWN
        changes = advance(definition, workflow, member.event, now=self.clock.now(), render=render)
        self.write(changes)
        return Moved(changes)

    def _start(self, member: Start) -> Started | KeyReused | Outdated:
        for one in self.workflows.values():
            same = one.definition.name == member.definition.name
            if same and member.start_key is not None and one.start_key == member.start_key:
                if self.hashes[one.id] != member.input_hash:
                    return KeyReused(one.id)
                return Started(one.id, one.status, existed=True)
        definition = member.definition
        known = self.definitions.get((definition.namespace, definition.name), ())
        if member.latest and len(known) > definition.version:
            return Outdated()
        new = NewWorkflow(member.id, member.input, member.labels, member.start_key, member.trace)
        now, actor = self.clock.now(), member.actor
        changes = start(member.definition, new, now=now, render=render, actor=actor)
        self.hashes[member.id] = member.input_hash
        self.write(changes)
        return Started(member.id, changes.workflow.status, changes=changes)

    def write(self, changes: Changes) -> None:
        """Keep what a transition writes, and announce its end."""
        workflow = changes.workflow
        steps = {key: replace(step, stored=True) for key, step in workflow.steps.items()}
        self.workflows[workflow.id] = replace(workflow, steps=steps)
        self.history.setdefault(workflow.id, []).extend(changes.events)
        if changes.ended:
            self.notices.announce(ended=[workflow.id])

    def claim(self, workflow: WorkflowId, key: StepKey, action: Action = Action.EXECUTE) -> Attempt:
        """Claim a step, as a sidecar of its service would."""
        found = self.workflows[workflow]
        step, now = found.steps[key], self.clock.now()
        run = replace(
            step.run,
            attempt=step.run.attempt + 1,
            claimed_at=now,
            started_at=step.run.started_at or now,
        )
        fields = {"compensate" if action is Action.COMPENSATE else "execute": run}
        if action is Action.EXECUTE:
            fields["status"] = StepStatus.RUNNING
        held = replace(step, lease_until=now + timedelta(minutes=1), due_at=None, **fields)
        self.workflows[workflow] = replace(found, steps={**found.steps, key: held})
        return Attempt(workflow, key, action, run.attempt)

    def put(self, workflow: Workflow, **values: Any) -> None:
        """Change a workflow behind everybody's back, and announce it."""
        self.workflows[workflow.id] = replace(workflow, **values)
        self.notices.announce(ended=[workflow.id])


class Faces:
    """The application layer over the twins."""

    def __init__(self, *, look_every: float = 60.0, max_waiters: int = 100) -> None:
        self.clock, self.entropy, self.facts = TickingClock(), CountingEntropy(), Facts()
        self.notices = LocalNotices()
        self.store = DictStore(self.clock, self.notices)
        store = cast("Store", self.store)
        self.compiled = self.store.compiled = CompiledDefinitions(store)
        self.queries = Queries(store, self.compiled, self.clock)
        self.commands = Commands(
            store,
            cast("Committer", self.store),
            self.compiled,
            self.entropy,
            Slots(0),
            "payments",
            may_claim=lambda: False,
        )
        self.verbs = Verbs(cast("Committer", self.store), self.queries, self.entropy)
        self.oversight = Oversight(
            Versioning(store, self.compiled),
            DebtBook(store, self.compiled, self.clock),
            Bulk(store, self.verbs, "one", self.entropy, cast("Telemetry", self.facts)),
            Reruns(self.commands, self.queries),
            Services(store, timedelta(seconds=20)),
        )
        self.tokens = Tokens(b"key", "http://sidecar")
        self.tasks = Tasks(
            store,
            cast("Committer", self.store),
            self.entropy,
            "default",
            lambda: self.tokens,
            self.compiled.get,
        )
        self.hub = WaitHub(
            store,
            cast("Notices", self.notices),
            cast("Telemetry", self.facts),
            look_every=look_every,
            max_waiters=max_waiters,
        )

    def face(self, hosts: Hosts | None = None) -> Face:
        """What an application is built on."""
        return Face(
            self.commands,
            self.verbs,
            self.tasks,
            self.queries,
            self.hub,
            "default",
            hosts,
            oversight=self.oversight,
        )

    async def register(self, document: bytes = DOCUMENT) -> None:
        """Register a definition."""
        await self.commands.register_definition("default", document, "application/yaml")

    async def start(self, definition: str = "order", **values: Any) -> Workflow:
        """Start a workflow."""
        started = await self.commands.start("default", definition, **values)
        return self.store.workflows[WorkflowId(started.id)]
