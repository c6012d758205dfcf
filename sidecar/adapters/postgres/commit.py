"""One batch as one transaction, in as few round trips as its members allow.

    1  BEGIN, fence, start keys, workflow locks, steps, clock     one round trip
    -  decide, in Python                                          (again, if steps are taken away)
    2  writes, claims, COMMIT                                     one round trip

A batch that only claims needs the second alone. Definitions that are not in the cache, and
bodies for rendering, take one more each.

Lock order: epoch, start keys, workflow rows, step rows of transitions that take steps away,
step rows of claims (never waited for).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sidecar.adapters.postgres.claims import Claims
from sidecar.adapters.postgres.compiled import CompiledDefinitions
from sidecar.adapters.postgres.locked import LockedWorkflows
from sidecar.adapters.postgres.sql import Connection, Cursor, load, send
from sidecar.adapters.postgres.starts import Starts
from sidecar.adapters.postgres.written import Written
from sidecar.errors import IllegalTransition, RenderError, StaleEpoch
from sidecar.ports.store import (
    Batch,
    BatchResult,
    Missing,
    Moved,
    StartResult,
    Transition,
    TransitionResult,
)
from sidecar.saga.definition import Render
from sidecar.saga.events import Answered, LeaseEnded
from sidecar.saga.machine import advance
from sidecar.saga.workflow import Workflow, WorkflowId

SQL = load(__file__)

_LONG_AGO = datetime.fromtimestamp(0, UTC)


class Transaction:
    """The work of one batch on one connection; `repeated` after a commit in doubt."""

    def __init__(
        self,
        connection: Connection,
        batch: Batch,
        definitions: CompiledDefinitions,
        render: Render,
        *,
        repeated: bool,
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._render = render
        self._definitions = definitions
        self._now = _LONG_AGO
        self._written = Written()
        self._starts = Starts(batch, self._written)
        self._locked = LockedWorkflows(connection, batch.transitions, definitions)
        self._claims = Claims(connection, batch, repeated=repeated)

    async def run(self) -> BatchResult:
        """Do it, up to and with the COMMIT.

        Raises the driver's errors, `StaleEpoch` and `StoreDataError`; the transaction is then
        still open, or gone with its connection.
        """
        batch = self._batch
        starts: tuple[StartResult, ...] = ()
        transitions: tuple[TransitionResult, ...] = ()
        decides = bool(batch.starts or batch.transitions or batch.epoch)
        async with self._connection.pipeline() as pipeline:
            await self._send("begin")
            if decides:
                starts, transitions = await self._decide()
            for name, records in self._written.statements(batch):
                await self._send(name, records=records)
            await self._claims.ask(self._written.wanted)
            inputs = await self._ask_inputs()
            clock = None if decides else await self._send("now")
            await self._send("commit")
            await pipeline.sync()
            now = await _time(clock) if clock else self._now
            await self._fill_inputs(inputs)
            claims, refused = await self._claims.hear()
        return BatchResult(
            now=now,
            starts=starts,
            transitions=transitions,
            claimed=(*self._written.claimed.values(), *claims),
            refused_keys=refused,
        )

    async def _send(self, name: str, **values: object) -> Cursor:
        return await send(self._connection, SQL[name], **values)

    # -- deciding -----------------------------------------------------------------------------

    async def _decide(self) -> tuple[tuple[StartResult, ...], tuple[TransitionResult, ...]]:
        batch = self._batch
        fence = None
        if batch.epoch is not None:
            values = {"namespace": batch.namespace, "epoch": batch.epoch.number}
            fence = await self._send("fence", **values)
        await self._starts.ask(self._connection)
        await self._locked.ask()
        self._now = await _time(await self._send("now"))
        if batch.epoch is not None and fence is not None and await fence.fetchone() is None:
            raise StaleEpoch(f"epoch {batch.epoch.number} is no longer in force")
        await self._starts.hear()
        for start in batch.starts:
            self._definitions.keep(start.definition)
        starts = self._starts.decide(self._now, self._render)
        await self._locked.hear()
        return starts, await self._transitions()

    async def _transitions(self) -> tuple[TransitionResult, ...]:
        results = self._advance_all()
        members = self._batch.transitions
        taking = {
            one.workflow
            for one, result in zip(members, results, strict=True)
            if isinstance(result, Moved) and result.changes.takes_away
        }
        if taking:
            await self._locked.lock_steps(sorted(taking))
            self._now = await _time(await self._send("now"))
            results = self._advance_all()
        moved = [
            (one, result.changes)
            for one, result in zip(members, results, strict=True)
            if isinstance(result, Moved) and result.changes.writes
        ]
        for one, changes in moved:
            self._written.add(changes, before=self._locked.workflows[one.workflow].steps)
        for one, changes in moved:
            if one.claim_next:
                self._written.claim_next(self._batch, changes, self._now)
        return tuple(results)

    def _advance_all(self) -> list[TransitionResult]:
        present = dict(self._locked.workflows)
        return [self._advance(one, present) for one in self._batch.transitions]

    def _advance(self, one: Transition, present: dict[WorkflowId, Workflow]) -> TransitionResult:
        workflow, event = present.get(one.workflow), one.event
        if workflow is None:
            held = one.workflow in self._locked.elsewhere
            return Missing.LOCKED if held else Missing.UNKNOWN
        definition = self._locked.definition(workflow)
        if isinstance(event, Answered | LeaseEnded) and event.step.step not in definition.by_name:
            return Missing.UNKNOWN
        try:
            changes = advance(definition, workflow, event, now=self._now, render=self._render)
        except (IllegalTransition, RenderError) as error:
            return error
        present[one.workflow] = changes.workflow
        return Moved(changes)

    # -- inputs of steps claimed on the fly -----------------------------------------------------

    async def _ask_inputs(self) -> Cursor | None:
        ids = self._written.without_input()
        return await self._send("inputs", ids=ids) if ids else None

    async def _fill_inputs(self, cursor: Cursor | None) -> None:
        lacking = set(self._written.without_input())
        if cursor is None:
            return
        inputs = {WorkflowId(row["id"]): row["input"] for row in await cursor.fetchall()}
        for key, one in self._written.claimed.items():
            if one.workflow in lacking and not one.input:
                self._written.claimed[key] = replace(one, input=inputs[one.workflow])


async def _time(clock: Cursor) -> datetime:
    row = await clock.fetchone()
    if row is None:
        raise AssertionError("the clock does not answer")
    moment: datetime = row["now"]
    return moment
