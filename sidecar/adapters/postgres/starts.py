"""The starts of a batch: who has the start keys, who exists already, and the new workflows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.adapters.postgres import records
from sidecar.adapters.postgres.locked import LockedWorkflows
from sidecar.adapters.postgres.sql import Connection, Cursor, load, send
from sidecar.adapters.postgres.written import Written
from sidecar.errors import IllegalTransition
from sidecar.ports.reruns import both_sides
from sidecar.ports.store import Batch, KeyReused, Outdated, Retired, Start, Started, StartResult
from sidecar.saga import machine
from sidecar.saga.definition import Render
from sidecar.saga.machine import NewWorkflow
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, WorkflowId

SQL = load(__file__)

_Wanted = tuple[DefinitionRef, bool, str]


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who has a start key; `status` is None while its row is not there."""

    workflow: WorkflowId
    input_hash: str
    status: WorkflowStatus | None


class Starts:
    """The starts of one batch, from the question to the decision."""

    def __init__(self, batch: Batch, written: Written, locked: LockedWorkflows) -> None:
        self._batch = batch
        self._written = written
        self._locked = locked
        self._refused: list[WorkflowId] = []
        self._handed_over: list[dict[str, Any]] = []
        self._known: Cursor | None = None
        self._keys: Cursor | None = None
        self._barred: Cursor | None = None
        self._statuses: dict[WorkflowId, WorkflowStatus] = {}
        self._holders: dict[tuple[str, str], _Holder] = {}
        self._unfit: set[_Wanted] = set()

    async def ask(self, connection: Connection) -> None:
        """Send the questions. A start key that is being taken by another batch is waited for."""
        starts = self._batch.starts
        if not starts:
            return
        self._known = await send(connection, SQL["known"], ids=[one.id for one in starts])
        wanted = sorted({_wanted(one) for one in starts})
        found = [_wanted_record(one) for one in wanted]
        self._barred = await send(connection, SQL["unfit"], wanted=records.packed(found))
        keyed = [one for one in starts if one.start_key is not None]
        if keyed:
            keyed.sort(key=lambda one: (one.definition.name, one.start_key))
            keys = records.packed([_key_record(one) for one in keyed])
            await send(connection, SQL["reserve_keys"], keys=keys)
            self._keys = await send(connection, SQL["read_keys"], keys=keys)

    async def hear(self) -> None:
        """Take the answers in."""
        for row in await self._known.fetchall() if self._known else ():
            self._statuses[WorkflowId(row["id"])] = WorkflowStatus(row["status"])
        for row in await self._barred.fetchall() if self._barred else ():
            ref = DefinitionRef(row["namespace"], row["definition"], row["version"])
            self._unfit.add((ref, row["latest"], row["goes_on_from"] or ""))
        for row in await self._keys.fetchall() if self._keys else ():
            status = WorkflowStatus(row["status"]) if row["status"] else None
            holder = _Holder(WorkflowId(row["workflow_id"]), row["input_hash"], status)
            self._holders[row["definition"], row["start_key"]] = holder

    def decide(self, now: datetime, render: Render) -> tuple[StartResult, ...]:
        """Begin those workflows that are new."""
        return tuple(self._decide(one, now, render) for one in self._batch.starts)

    def _decide(self, start: Start, now: datetime, render: Render) -> StartResult:
        status = self._status(start.id)
        if status is not None:
            return Started(start.id, status)
        holder = self._holders.get((start.definition.name, start.start_key or ""))
        if holder is not None and holder.workflow != start.id:
            status = self._status(holder.workflow) or holder.status
            if holder.input_hash != start.input_hash or status is None:
                return KeyReused(holder.workflow)
            return Started(holder.workflow, status, existed=True)
        if _wanted(start) in self._unfit or (start.start_key and not holder):
            return Outdated() if start.latest else Retired()
        try:
            new = self._new(start, now, render)
        except IllegalTransition as error:
            self._refused.append(start.id)
            return error
        changes = machine.start(start.definition, new, now=now, render=render, actor=start.actor)
        self._written.begin(start, changes, quick=False)
        return Started(start.id, changes.workflow.status, changes=changes)

    def _new(self, start: Start, now: datetime, render: Render) -> NewWorkflow:
        """What it is begun with; the workflow that is run again by it is told, if it is there."""
        old = self._locked.workflows.get(start.rerun.of) if start.rerun else None
        if start.rerun is None or old is None:
            return start.new
        event, new = both_sides(start, old, self._locked.succeeded.get(old.id, frozenset()))
        definition = self._locked.definition(old)
        changes = machine.advance(definition, old, event, now=now, render=render)
        self._written.add(changes, old, definition)
        self._locked.workflows[old.id] = changes.workflow
        if changes.workflow.taken_over_by == start.id:
            self._handed_over.append({"id": old.id, "taken_over_by": start.id})
        return new

    async def hand_over(self, connection: Connection) -> None:
        """Write by which workflow that is begun another's debts are owed."""
        if self._handed_over:
            await send(connection, SQL["hand_over"], handed=records.packed(self._handed_over))

    async def release_keys(self, connection: Connection) -> None:
        """Give back the start keys of workflows that are not begun after all."""
        if self._refused:
            await send(connection, SQL["release_keys"], ids=self._refused)

    def _status(self, workflow: WorkflowId) -> WorkflowStatus | None:
        begun = self._written.after.get(workflow)
        return begun.status if begun is not None else self._statuses.get(workflow)


def _ref(start: Start) -> DefinitionRef:
    definition = start.definition
    return DefinitionRef(definition.namespace, definition.name, definition.version)


def _wanted(start: Start) -> _Wanted:
    """What is started: a version, whether as the latest, and from whose results it goes on."""
    goes_on_from = start.rerun.of if start.rerun and not start.latest else ""
    return _ref(start), start.latest, goes_on_from


def _wanted_record(wanted: _Wanted) -> dict[str, Any]:
    ref, latest, goes_on_from = wanted
    return {**_ref_record(ref), "latest": latest, "goes_on_from": goes_on_from or None}


def _ref_record(ref: DefinitionRef) -> dict[str, Any]:
    return {"namespace": ref.namespace, "definition": ref.name, "version": ref.version}


def _key_record(start: Start) -> dict[str, Any]:
    return {
        **_wanted_record(_wanted(start)),
        "start_key": start.start_key,
        "workflow_id": start.id,
        "input_hash": start.input_hash,
    }
