"""The workflows that a batch's transitions speak of, under their row locks.

Lock order: keys of turns (never waited for), workflow rows that are waited for, workflow rows
that are not, and then, for those alone from which steps are taken away, their open step rows.
What is decided on is read after the last of these locks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from sidecar.adapters.postgres import records, rows
from sidecar.adapters.postgres.compiled import CompiledDefinitions
from sidecar.adapters.postgres.items import all_items, some_items
from sidecar.adapters.postgres.sql import Connection, Cursor, load, send
from sidecar.ports.store import Transition
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.events import SignalSent, step_of
from sidecar.saga.partial import fans_of
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import DefinitionRef, Signal, Step, StepKey, Workflow, WorkflowId

SQL = load(__file__)


class LockedWorkflows:
    """What has been locked and read so far.

    `workflows` holds those whose lock was got, with their steps; `elsewhere` those that exist
    and that somebody else holds. Those of `reruns` are waited for; `succeeded` are their steps that
    did, if they were terminated. `turns_elsewhere` are the keys of turns that somebody else has
    locked.
    """

    def __init__(
        self,
        connection: Connection,
        transitions: Sequence[Transition],
        reruns: Sequence[WorkflowId],
        definitions: CompiledDefinitions,
    ) -> None:
        self._spoken: dict[WorkflowId, list[StepKey]] = {}
        for one in transitions:
            key = step_of(one.event)
            self._spoken.setdefault(one.workflow, []).extend(() if key is None else (key,))
        for known in reruns:
            self._spoken.setdefault(known, [])
        named = set(self._spoken)
        self._reruns = frozenset(reruns)
        self._hearing = {one.workflow for one in transitions if _has_id(one)}
        self._wait = sorted({one.workflow for one in transitions if one.wait} | set(reruns))
        self._skip = sorted(named - set(self._wait))
        self._connection = connection
        self._compiled = definitions
        self._definitions: dict[DefinitionRef, Definition] = {}
        turns = {one.turn for one in transitions if one.turn is not None}
        self._turns = [records.turn_record(turn) for turn in sorted(turns)]
        self.taken: dict[TurnKey, int] = {}
        self.turns_elsewhere: set[TurnKey] = set()
        self._locks: list[Cursor] = []
        self._steps: Cursor | None = None
        self._whole: set[WorkflowId] = set()
        self.workflows: dict[WorkflowId, Workflow] = {}
        self.elsewhere: set[WorkflowId] = set()
        self.succeeded: dict[WorkflowId, frozenset[StepKey]] = {}

    async def ask(self) -> None:
        """Send for the locks, and for the steps behind them."""
        if self._turns:
            await self._lock_turns()
        for name, ids in (("wait", self._wait), ("skip_locked", self._skip)):
            if ids:
                self._locks.append(await send(self._connection, SQL[name], ids=ids))
        if self._locks:
            self._steps = await self._ask_steps(self._wait + self._skip)

    async def hear(self) -> None:
        """Take the answers in; read what else is needed to decide."""
        steps = await self._hear_steps(self._steps)
        signalled: list[WorkflowId] = []
        for cursor in self._locks:
            for row in await cursor.fetchall():
                known = WorkflowId(row["id"])
                self.workflows[known] = rows.workflow_of(row, steps.get(known, ()))
                if row["kept_signals"]:
                    signalled.append(known)
        for workflow in self.workflows.values():
            if workflow.definition not in self._definitions:
                found = await self._compiled.get(self._connection, workflow.definition)
                self._definitions[workflow.definition] = found
        unlocked = [one for one in self._wait + self._skip if one not in self.workflows]
        if unlocked:
            cursor = await send(self._connection, SQL["which_exist"], ids=unlocked)
            self.elsewhere = {WorkflowId(row["id"]) for row in await cursor.fetchall()}
        if self._turns:
            await self._count_turns()
        if signalled:
            await self._read_signals(signalled)
        await self._read_heard(sorted(self._hearing & self.workflows.keys()))
        await self._read_bodies(self.workflows)
        await self._read_items(self.workflows)
        await self._read_results()

    async def lock_steps(self, ids: list[WorkflowId]) -> None:
        """Lock the open steps of these workflows too, and read all of their steps again."""
        await send(self._connection, SQL["lock_steps"], ids=ids)
        asked = await self._ask_steps(ids)
        steps = await self._hear_steps(asked)
        for known in ids:
            found = {step.key: step for step in steps.get(known, ())}
            self.workflows[known] = replace(self.workflows[known], steps=found)
        await self._read_bodies(ids)
        await self._read_items(ids)

    async def read_whole(self, ids: Collection[WorkflowId]) -> None:
        """Read all items of these workflows; they are locked already."""
        self._whole |= set(ids)
        await self._read_items(ids)

    def definition(self, workflow: Workflow) -> Definition:
        """Return the definition of a locked workflow."""
        return self._definitions[workflow.definition]

    async def _ask_steps(self, ids: list[WorkflowId]) -> Cursor:
        return await send(self._connection, SQL["steps"], ids=ids)

    async def _hear_steps(self, cursor: Cursor | None) -> dict[WorkflowId, list[Step]]:
        found: dict[WorkflowId, list[Step]] = {}
        for row in await cursor.fetchall() if cursor else ():
            found.setdefault(WorkflowId(row["workflow_id"]), []).append(rows.step_of(row))
        return found

    async def _read_items(self, ids: Iterable[WorkflowId]) -> None:
        """Read the items of fan-outs: those that the batch needs, or all once it needed all."""
        found = [self.workflows[known] for known in ids if fans_of(self.workflows[known])]
        partly = [one for one in found if one.id not in self._whole]
        if partly:
            items = await some_items(self._connection, partly, self._spoken, self._definitions)
            for one in partly:
                self.workflows[one.id] = items.added_to(one, partial=True)
        wholly = [one for one in found if one.id in self._whole]
        if wholly:
            items = await all_items(self._connection, [one.id for one in wholly])
            for one in wholly:
                self.workflows[one.id] = items.added_to(one, partial=False)

    async def _read_results(self) -> None:
        """Read all there is of workflows that were terminated and are run again."""
        ids = [
            known
            for known in sorted(self._reruns & self.workflows.keys())
            if self.workflows[known].status is WorkflowStatus.TERMINATED
        ]
        if not ids:
            return
        await self.read_whole(ids)
        cursor = await send(self._connection, SQL["results"], ids=ids)
        for row in await cursor.fetchall():
            workflow = self.workflows[WorkflowId(row["workflow_id"])]
            key = StepKey(row["step"], row["idx"])
            bodies = {name: row[name] for name in ("input", "output", "error")}
            steps = {**workflow.steps, key: replace(workflow.steps[key], **bodies)}
            self.workflows[workflow.id] = replace(workflow, steps=steps)
            if row["succeeded"]:
                known = self.succeeded.get(workflow.id, frozenset())
                self.succeeded[workflow.id] = known | {key}

    async def _lock_turns(self) -> None:
        cursor = await send(self._connection, SQL["lock_turns"], turns=records.packed(self._turns))
        self.turns_elsewhere = {rows.turn_key_of(row) for row in await cursor.fetchall()}

    async def _count_turns(self) -> None:
        cursor = await send(self._connection, SQL["taken_turns"], turns=records.packed(self._turns))
        for row in await cursor.fetchall():
            self.taken[rows.turn_key_of(row)] = row["taken"]

    async def _read_signals(self, ids: list[WorkflowId]) -> None:
        found: dict[WorkflowId, list[Signal]] = {}
        cursor = await send(self._connection, SQL["signals"], ids=ids)
        for row in await cursor.fetchall():
            found.setdefault(WorkflowId(row["workflow_id"]), []).append(rows.signal_of(row))
        for known, signals in found.items():
            self.workflows[known] = replace(self.workflows[known], signals=tuple(signals))

    async def _read_heard(self, ids: list[WorkflowId]) -> None:
        if not ids:
            return
        found: dict[WorkflowId, set[str]] = {}
        cursor = await send(self._connection, SQL["heard"], ids=ids)
        for row in await cursor.fetchall():
            found.setdefault(WorkflowId(row["workflow_id"]), set()).add(row["id"])
        for known, heard in found.items():
            self.workflows[known] = replace(self.workflows[known], heard=frozenset(heard))

    async def _read_bodies(self, ids: Iterable[WorkflowId]) -> None:
        """Read inputs and outputs where the definition renders something from them."""
        wanted = [one for one in ids if self.definition(self.workflows[one]).renders]
        if not wanted:
            return
        inputs = await send(self._connection, SQL["inputs"], ids=wanted)
        outputs = await send(self._connection, SQL["outputs"], ids=wanted)
        found: dict[WorkflowId, dict[StepKey, JsonText]] = {}
        for row in await outputs.fetchall():
            key = StepKey(row["step"], row["idx"])
            found.setdefault(WorkflowId(row["workflow_id"]), {})[key] = row["output"]
        for row in await inputs.fetchall():
            known = WorkflowId(row["id"])
            workflow = self.workflows[known]
            outputs_of = found.get(known, {})
            steps = {
                key: replace(step, output=outputs_of.get(key))
                for key, step in workflow.steps.items()
            }
            self.workflows[known] = replace(workflow, steps=steps, input=row["input"])


def _has_id(transition: Transition) -> bool:
    """Whether it must be known which signals came before."""
    return isinstance(transition.event, SignalSent) and bool(transition.event.id)
