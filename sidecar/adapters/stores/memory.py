"""The store's twin in memory: for tests, and for the simulator.

It keeps the same promises as the database, and one more: every state is checked against
`sidecar.saga.invariants` before it is committed. A commit works on rows of its own and puts
them into the tables in one stroke, without an await in between, so it is all or nothing.

Nothing is ever locked here of itself. `locked` lets a simulator say which workflows another
transaction holds at the moment; `on_commit` lets it look at what every commit changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from sidecar.adapters.memory.checks import check_batch
from sidecar.adapters.memory.claims import Claims
from sidecar.adapters.memory.deciding import advanced
from sidecar.adapters.memory.outbox import Outbox
from sidecar.adapters.memory.queries import MemoryQueries
from sidecar.adapters.memory.tables import MemoryTables, Row, StartKey
from sidecar.errors import IllegalTransition, RenderError, StoreDataError
from sidecar.ports.clock import Clock
from sidecar.ports.reruns import both_sides, goes_on
from sidecar.ports.store import (
    Batch,
    BatchResult,
    KeyReused,
    Missing,
    Moved,
    Outdated,
    Retired,
    Start,
    Started,
    StartResult,
    Transition,
    TransitionResult,
)
from sidecar.ports.versions import VersionState
from sidecar.saga import machine
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.definition import Definition, JsonText, Render
from sidecar.saga.events import step_of
from sidecar.saga.invariants import violations
from sidecar.saga.machine import NewWorkflow
from sidecar.saga.turns import limit_of
from sidecar.saga.workflow import DefinitionRef, StepKey, Workflow, WorkflowId

Compile = Callable[[JsonText, str, str, int], Definition]
Key = tuple[WorkflowId, StepKey]


class MemoryStore(MemoryQueries):
    """See `sidecar.ports.store.Store`. Stores with the same `tables` are handles on one world."""

    def __init__(
        self,
        *,
        compile_document: Compile,
        render: Render,
        clock: Clock,
        tables: MemoryTables | None = None,
        locked: Callable[[WorkflowId], bool] = frozenset[WorkflowId]().__contains__,
        on_commit: Callable[[Sequence[Workflow]], None] | None = None,
    ) -> None:
        super().__init__(tables if tables is not None else MemoryTables(), clock)
        self.locked = locked
        self.on_commit = on_commit
        self.render = render
        self._compile = compile_document
        self._definitions: dict[DefinitionRef, Definition] = {}

    async def commit(self, batch: Batch) -> BatchResult:
        """Do all of `batch`, or nothing."""
        # Other tasks get their turn, as they do while a database works; nothing has begun yet.
        await asyncio.sleep(0)
        self.check_open()
        work = _Transaction(self, batch)
        result = work.run()
        changed = work.changed()
        for workflow in changed:
            wrong = work.violations(workflow)
            if wrong:
                raise AssertionError(f"workflow {workflow.id}: {'; '.join(wrong)}")
        work.write()
        if self.on_commit is not None and changed:
            self.on_commit(changed)
        return result

    def definition(self, ref: DefinitionRef) -> Definition:
        """Return a stored version of a definition, compiled. Raises `StoreDataError`."""
        found = self._definitions.get(ref)
        if found is None:
            stored = self.tables.definition(ref)
            if stored is None:
                raise StoreDataError(f"there is no definition {ref.name} version {ref.version}")
            found = self._definitions[ref] = self._compile(stored.document, *ref)
        return found


class _Transaction:
    """One batch at work, on rows that nobody else sees until `write`."""

    def __init__(self, store: MemoryStore, batch: Batch) -> None:
        self._store = store
        self._tables = store.tables
        self._batch = batch
        self._now: datetime = store.clock.now()
        self._rows: dict[WorkflowId, Row] = {}
        self._start_keys: dict[tuple[str, str, str], StartKey] = {}
        self._claims = Claims(self._tables, self._rows, batch, self._now, store.locked)
        self._outbox = Outbox(store.definition, store.render, self._now, self._tables, self._rows)

    def run(self) -> BatchResult:
        """Decide everything; write nothing."""
        batch = self._batch
        check_batch(batch)
        if batch.epoch is not None:
            self._store.check_epoch(batch.namespace, batch.epoch)
        # A ticket that has claims was committed before: it gets them again, and no more.
        repeated = self._claims.found_of_ticket()
        starts = tuple(self._start(one) for one in batch.starts)
        transitions = tuple(self._transition(one) for one in batch.transitions)
        self._outbox.forget(batch.transitions, transitions)
        keys = batch.claim_keys.keys if batch.claim_keys else ()
        refused = {key: why for key in keys if (why := self._claims.key(key, repeated=repeated))}
        if batch.claim_due is not None and not repeated:
            self._claims.due(batch.claim_due.limit)
        return BatchResult(
            now=self._now,
            starts=starts,
            transitions=transitions,
            claimed=tuple(self._claims.claimed.values()),
            children=tuple(self._outbox.children),
            refused_keys=refused,
        )

    def changed(self) -> list[Workflow]:
        """The workflows that will be written."""
        return [row.workflow for row in self._rows.values()]

    def violations(self, workflow: Workflow) -> list[str]:
        """What is wrong with a workflow that will be written, and with the places it shares."""
        definition = self._store.definition(workflow.definition)
        wrong = violations(definition, workflow)
        if definition.concurrency is not None or definition.steps_take_turns:
            wrong += [*self._outbox.misplaced(definition, workflow), *self._outbox.crowded()]
        return wrong

    def write(self) -> None:
        """Make it all visible."""
        for known, row in self._rows.items():
            self._tables.put(row)
            if self._store.definition(row.workflow.definition).central:
                self._tables.central[known] = None
        self._tables.start_keys.update(self._start_keys)
        self._outbox.write(self._tables)

    def _row(self, workflow: WorkflowId) -> Row | None:
        return self._rows.get(workflow) or self._tables.rows.get(workflow)

    # -- starts and transitions ---------------------------------------------------------------

    def _start(self, start: Start) -> StartResult:
        existing = self._row(start.id)
        if existing is not None:
            return Started(start.id, existing.workflow.status)
        wanted = start.definition
        ref = DefinitionRef(wanted.namespace, wanted.name, wanted.version)
        stored = self._tables.definition(ref)
        name = (ref.namespace, ref.name, start.start_key or "")
        if start.start_key is not None:
            taken = self._start_keys.get(name) or self._tables.start_keys.get(name)
            if taken is not None:
                return self._again(start, taken)
        if start.latest and self._tables.latest(ref.namespace, ref.name) != stored:
            return Outdated()
        old = self._row(start.rerun.of) if start.rerun else None
        going_on = goes_on(start, old.workflow if old else None)
        if stored is None or (stored.state is VersionState.RETIRED and not going_on):
            return Outdated() if start.latest else Retired()
        try:
            new = self._new(start)
        except IllegalTransition as error:
            return error
        if start.start_key is not None:
            self._start_keys[name] = StartKey(start.id, start.input_hash)
        known, render = self._store.definition(ref), self._store.render
        changes = machine.start(known, new, now=self._now, render=render, actor=start.actor)
        row = self._rows[start.id] = Row.begun(changes, known)
        self._outbox.send(changes)
        if start.claim_next:
            self._claims.next(row, changes)
        return Started(start.id, changes.workflow.status, changes=changes)

    def _new(self, start: Start) -> NewWorkflow:
        """What it is begun with; the workflow that is run again by it is told, if it is there."""
        row = self._row(start.rerun.of) if start.rerun else None
        if start.rerun is None or row is None:
            return start.new
        event, new = both_sides(start, row.workflow, row.succeeded)
        definition = self._store.definition(row.workflow.definition)
        changes = advanced(definition, row, event, now=self._now, render=self._store.render)
        self._rows[start.rerun.of] = row.moved(changes)
        return new

    def _again(self, start: Start, taken: StartKey) -> StartResult:
        row = self._row(taken.workflow)
        if taken.input_hash != start.input_hash or row is None:
            return KeyReused(taken.workflow)
        return Started(taken.workflow, row.workflow.status, existed=True)

    def _transition(self, transition: Transition) -> TransitionResult:
        row = self._row(transition.workflow)
        if row is None:
            return Missing.UNKNOWN
        if not transition.wait and self._store.locked(transition.workflow):
            return Missing.LOCKED
        definition = self._store.definition(row.workflow.definition)
        key = step_of(transition.event)
        if key is not None and key.step not in definition.by_name:
            return Missing.UNKNOWN
        turn = transition.turn
        if turn is not None and not self._outbox.has_place(
            turn, limit_of(definition, row.workflow, turn)
        ):
            return Moved(Changes(row.workflow, Verdict.IGNORED))
        try:
            changes = advanced(
                definition, row, transition.event, now=self._now, render=self._store.render
            )
        except (IllegalTransition, RenderError) as error:
            return error
        if changes.writes:
            row = self._rows[transition.workflow] = row.moved(changes)
            self._outbox.send(changes)
        if transition.claim_next:
            self._claims.next(row, changes)
        return Moved(changes)
