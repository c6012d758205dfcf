"""One batch as one transaction, in as few round trips as its members allow.

    1  fence, start keys, clock, workflow locks, steps        (one round trip)
    -  decide, in Python                                      (again, if steps are taken away)
    2  writes, claims, COMMIT                                 (one round trip)

Lock order: start keys, workflow rows waited for, workflow rows not waited for, step rows of
transitions that take steps away, step rows of claims (never waited for).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from sidecar.adapters.postgres import rows
from sidecar.adapters.postgres.sql import load
from sidecar.adapters.postgres.written import (
    NOT_READ,
    Key,
    Written,
    claim_next,
    grouped,
    key_records,
    packed_keys,
)
from sidecar.errors import IllegalTransition, RenderError, StaleEpoch
from sidecar.ports.store import (
    Batch,
    BatchResult,
    Claimed,
    KeyReused,
    Missing,
    Moved,
    Start,
    Started,
    StartResult,
    TransitionResult,
)
from sidecar.saga.definition import Definition, Render
from sidecar.saga.machine import NewWorkflow, advance
from sidecar.saga.machine import start as begin
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId

SQL = load(__file__)

Cursor = psycopg.AsyncCursor[dict[str, Any]]
Connection = psycopg.AsyncConnection[Any]


class Transaction:
    """The work of one batch on one connection; `repeated` after a commit in doubt."""

    def __init__(
        self,
        connection: Connection,
        batch: Batch,
        definitions: dict[DefinitionRef, Definition],
        render: Render,
        load_definition: Callable[[Connection, DefinitionRef], Any],
        *,
        repeated: bool,
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._definitions = definitions
        self._render = render
        self._load_definition = load_definition
        self._repeated = repeated
        self._written = Written()
        self._now: datetime | None = None
        self._locked: dict[WorkflowId, Workflow] = {}
        self._existing: set[WorkflowId] = set()

    async def run(self) -> BatchResult:
        """Do it, up to and with the COMMIT. Raises the driver's errors and `StaleEpoch`."""
        batch = self._batch
        async with self._connection.pipeline():
            starts = await self._starts() if batch.starts else ()
            transitions = await self._transitions() if batch.transitions else ()
            if not (batch.starts or batch.transitions) and batch.epoch:
                await self._fence()
            await self._write()
            claims, refusals = await self._claims()
            await self._connection.commit()
        claimed = [*self._written.claimed, *claims]
        now = self._now or (claimed[0].claimed_at if claimed else None)
        return BatchResult(
            now=now or datetime.fromtimestamp(0, UTC),
            starts=tuple(starts),
            transitions=tuple(transitions),
            claimed=tuple(claimed),
            refused_keys=refusals,
        )

    async def _execute(self, statement: str, /, **values: Any) -> Cursor:
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(SQL[statement], values)
        return cursor

    async def _fence(self) -> None:
        epoch = self._batch.epoch
        if epoch is None:
            return
        namespace = self._batch.namespace
        cursor = await self._execute("fence", namespace=namespace, epoch=epoch.number)
        if await cursor.fetchone() is None:
            raise StaleEpoch(f"epoch {epoch.number} is no longer in force")

    async def _clock(self) -> datetime:
        if self._now is None:
            row = await (await self._execute("now")).fetchone()
            self._now = row["now"] if row else None
        assert self._now is not None
        return self._now

    # -- starts -------------------------------------------------------------------------------

    async def _starts(self) -> list[StartResult]:
        keyed = [one for one in self._batch.starts if one.start_key is not None]
        holders: dict[tuple[str, str], dict[str, Any]] = {}
        if keyed:
            keys = packed_keys(keyed, self._batch.namespace)
            await self._execute("reserve_start_keys", keys=keys)
            cursor = await self._execute("read_start_keys", keys=keys)
            for row in await cursor.fetchall():
                holders[row["definition"], row["start_key"]] = row
        known: dict[str, str] = {}
        if self._repeated:
            cursor = await self._execute("known_workflows", ids=[s.id for s in self._batch.starts])
            known = {row["id"]: row["status"] for row in await cursor.fetchall()}
        now = await self._clock()
        return [self._start(one, holders, known, now) for one in self._batch.starts]

    def _start(
        self,
        start: Start,
        holders: dict[tuple[str, str], dict[str, Any]],
        known: dict[str, str],
        now: datetime,
    ) -> StartResult:
        holder = holders.get((start.definition.name, start.start_key or ""))
        if holder is not None and holder["workflow_id"] != start.id:
            owner = WorkflowId(holder["workflow_id"])
            if holder["input_hash"] != start.input_hash:
                return KeyReused(owner)
            status = WorkflowStatus(holder["status"] or WorkflowStatus.IN_PROGRESS)
            return Started(owner, status, existed=True)
        if start.id in known:
            return Started(start.id, WorkflowStatus(known[start.id]))
        definition = start.definition
        ref = DefinitionRef(definition.namespace, definition.name, definition.version)
        self._definitions.setdefault(ref, definition)
        new = NewWorkflow(start.id, start.input, start.labels, start.start_key, start.trace)
        changes = begin(definition, new, now=now, render=self._render, actor=start.actor)
        self._written.new.add(start.id)
        self._written.add(changes)
        return Started(start.id, changes.workflow.status, changes=changes)

    # -- transitions --------------------------------------------------------------------------

    async def _transitions(self) -> list[TransitionResult]:
        await self._load()
        now = await self._clock()
        originals = dict(self._locked)
        results = self._decide(originals, now)
        taking = {
            one.workflow
            for one, result in zip(self._batch.transitions, results, strict=True)
            if isinstance(result, Moved) and result.changes.takes_away
        }
        if taking:
            await self._execute("lock_steps", ids=list(taking))
            steps = await self._read_steps(taking)
            for workflow in taking:
                found = {step.key: step for step in steps.get(workflow, ())}
                originals[workflow] = replace(originals[workflow], steps=found)
            await self._read_bodies(originals, taking)
            results = self._decide(originals, now)
        self._keep(originals, results, now)
        await self._fill_inputs()
        return results

    async def _fill_inputs(self) -> None:
        """Give steps claimed on the fly the workflow's input, where they have none of their own."""
        wanted = [one.workflow for one in self._written.claimed if one.input == NOT_READ]
        if wanted:
            cursor = await self._execute("read_inputs", ids=wanted)
            inputs = {row["id"]: row["input"] for row in await cursor.fetchall()}
            self._written.claimed = [
                replace(one, input=inputs[one.workflow]) if one.input == NOT_READ else one
                for one in self._written.claimed
            ]

    async def _load(self) -> None:
        """Lock the workflows, waited-for ones first, and read their steps."""
        wait = sorted({one.workflow for one in self._batch.transitions if one.wait})
        skip = sorted({one.workflow for one in self._batch.transitions} - set(wait))
        await self._fence()
        clock = await self._execute("now")
        waited = await self._execute("wait_for_workflows", ids=wait) if wait else None
        skipping = await self._execute("lock_workflows", ids=skip) if skip else None
        reading = await self._execute("read_steps", ids=wait + skip)
        row = await clock.fetchone()
        self._now = row["now"] if row else None
        found = [
            record for cursor in (waited, skipping) if cursor for record in await cursor.fetchall()
        ]
        if wait:
            # A lock that was waited for was granted after the clock was read.
            self._now = None
            await self._clock()
        steps = grouped(await reading.fetchall())
        for record in found:
            known = WorkflowId(record["id"])
            self._locked[known] = rows.workflow_of(record, steps.get(known, ()))
        for ref in {workflow.definition for workflow in self._locked.values()}:
            if ref not in self._definitions:
                self._definitions[ref] = await self._load_definition(self._connection, ref)
        unlocked = set(wait + skip) - set(self._locked)
        if unlocked:
            cursor = await self._execute("which_exist", ids=list(unlocked))
            self._existing = {WorkflowId(record["id"]) for record in await cursor.fetchall()}
        await self._read_bodies(self._locked, self._locked)

    async def _read_steps(self, ids: Iterable[WorkflowId]) -> dict[WorkflowId, list[Step]]:
        cursor = await self._execute("read_steps", ids=list(ids))
        return grouped(await cursor.fetchall())

    async def _read_bodies(
        self, workflows: dict[WorkflowId, Workflow], ids: Iterable[WorkflowId]
    ) -> None:
        wanted = [one for one in ids if self._renders(workflows[one])]
        if not wanted:
            return
        cursor = await self._execute("read_bodies", ids=wanted)
        for row in await cursor.fetchall():
            known = WorkflowId(row["id"])
            workflow = workflows[known]
            steps = dict(workflow.steps)
            key = StepKey(row["step"], row["idx"]) if row["step"] else None
            if key in steps:
                steps[key] = replace(steps[key], output=row["output"])
            workflows[known] = replace(workflow, steps=steps, input=row["input"])

    def _renders(self, workflow: Workflow) -> bool:
        definition = self._definitions[workflow.definition]
        templates = [step.input for step in definition.steps]
        templates += [step.compensation.input for step in definition.steps if step.compensation]
        return any(template is not None and not template.constant for template in templates)

    def _decide(
        self, originals: dict[WorkflowId, Workflow], now: datetime
    ) -> list[TransitionResult]:
        present = dict(originals)
        results: list[TransitionResult] = []
        for one in self._batch.transitions:
            workflow = present.get(one.workflow)
            if workflow is None:
                known = one.workflow in self._existing
                results.append(Missing.LOCKED if known else Missing.UNKNOWN)
                continue
            try:
                definition = self._definitions[workflow.definition]
                changes = advance(definition, workflow, one.event, now=now, render=self._render)
            except (IllegalTransition, RenderError) as error:
                results.append(error)
            else:
                present[one.workflow] = changes.workflow
                results.append(Moved(changes))
        return results

    def _keep(
        self,
        originals: dict[WorkflowId, Workflow],
        results: list[TransitionResult],
        now: datetime,
    ) -> None:
        for one, result in zip(self._batch.transitions, results, strict=True):
            if not isinstance(result, Moved) or not result.changes.writes:
                continue
            self._written.before[one.workflow] = originals[one.workflow]
            self._written.add(result.changes)
            if one.claim_next:
                claim_next(self._written, self._batch, result.changes, now)

    # -- writing and claiming ---------------------------------------------------------------------

    async def _write(self) -> None:
        written = self._written
        owner, ticket = self._batch.incarnation, self._batch.ticket
        inserts: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        for known, steps in written.steps.items():
            workflow = written.after[known]
            before = written.before[known].steps if known in written.before else {}
            for step in steps.values():
                record = rows.step_record(workflow, step, owner, ticket)
                (updates if step.key in before else inserts).append(record)
        workflows = {known: rows.workflow_record(one) for known, one in written.after.items()}
        new = [record for known, record in workflows.items() if known in written.new]
        old = [record for known, record in workflows.items() if known not in written.new]
        for name, records in (
            ("insert_workflows", new),
            ("update_workflows", old),
            ("insert_steps", inserts),
            ("update_steps", updates),
            ("insert_events", written.events),
        ):
            if records:
                await self._execute(name, records=rows.packed(records))

    async def _claims(self) -> tuple[list[Claimed], dict[Key, Missing]]:
        batch = self._batch
        values = {
            "namespace": batch.namespace,
            "service": batch.service,
            "owner": batch.incarnation,
            "ticket": batch.ticket,
            "margin_ms": round(batch.lease_margin.total_seconds() * 1000),
        }
        cursors = []
        if self._repeated:
            own = {"owner": batch.incarnation, "ticket": batch.ticket}
            cursors.append(await self._execute("claims_of_ticket", **own))
        wanted = list(batch.claim_keys.keys) if batch.claim_keys else []
        if wanted:
            cursors.append(await self._execute("claim_keys", keys=key_records(wanted), **values))
        if batch.claim_due:
            limit = batch.claim_due.limit
            cursors.append(await self._execute("claim_due", limit=limit, **values))
        found = {}
        for cursor in cursors:
            for row in await cursor.fetchall():
                one = rows.claimed_of(row)
                found[one.workflow, one.key] = one
        refused = [key for key in wanted if key not in found]
        return list(found.values()), await self._refusals(refused) if refused else {}

    async def _refusals(self, keys: list[Key]) -> dict[Key, Missing]:
        names = {"namespace": self._batch.namespace, "service": self._batch.service}
        cursor = await self._execute("why_not_claimed", keys=key_records(keys), **names)
        refusals = {}
        for row in await cursor.fetchall():
            key = (WorkflowId(row["workflow_id"]), StepKey(row["step"], row["idx"]))
            if not row["known"]:
                refusals[key] = Missing.UNKNOWN
            elif not row["claimable"]:
                refusals[key] = Missing.NOT_CLAIMABLE
            else:
                refusals[key] = Missing.LOCKED if row["due"] else Missing.NOT_DUE
        return refusals
