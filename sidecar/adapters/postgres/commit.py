"""One batch under the locks of its workflows.

    1  BEGIN, fence, start keys, workflow locks, steps            one statement each
    2  the clock                                                  one statement
    -  decide, in Python                                          (again, if steps are taken away)
    3  writes and claims                                          one statement
    4  COMMIT

Definitions that are not in the cache, and bodies for rendering, take one more each. What goes
straight ahead does not come this way: see `sidecar.adapters.postgres.quick`.

There is no pipeline in it. A server that waits for more of a pipeline, and after a pipeline of
psycopg's, has no time limit running: it would never end the session of a sidecar that was frozen
there, with all its locks. After a statement of its own `idle_in_transaction_session_timeout`
counts, wherever we stand still. The clock is asked last: it is the time of the decision.

Lock order: epoch, start keys, keys of turns (never waited for), workflow rows, step rows of
transitions that take steps away, step rows of claims (never waited for).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sidecar.adapters.postgres.compiled import CompiledDefinitions
from sidecar.adapters.postgres.locked import LockedWorkflows
from sidecar.adapters.postgres.sql import Connection, Cursor, load, send
from sidecar.adapters.postgres.starts import Starts
from sidecar.adapters.postgres.writing import Answer, write
from sidecar.adapters.postgres.written import Written
from sidecar.errors import (
    IllegalTransition,
    IncompleteState,
    RenderError,
    StaleEpoch,
    StoreDataError,
)
from sidecar.ports.store import (
    Batch,
    Missing,
    Moved,
    Started,
    StartResult,
    Transition,
    TransitionResult,
)
from sidecar.saga import machine
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.children import MOST_AT_ONCE
from sidecar.saga.definition import Render
from sidecar.saga.events import step_of
from sidecar.saga.turns import Stand, Standing, TurnKey, limit_of
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
        self._repeated = repeated
        self._now = _LONG_AGO
        self._incomplete: set[WorkflowId] = set()
        self._taken: dict[TurnKey, int] = {}
        self._full: set[TurnKey] = set()
        self.written = Written()
        self.starts: tuple[StartResult, ...] = ()
        self.transitions: tuple[TransitionResult, ...] = ()
        reruns = [one.rerun.of for one in batch.starts if one.rerun is not None]
        self._locked = LockedWorkflows(connection, batch.transitions, reruns, definitions)
        self._starting = Starts(batch, self.written, self._locked)

    async def run(self) -> Answer:
        """Do it, up to and with the COMMIT; `starts` and `transitions` are then decided.

        Raises the driver's errors, `StaleEpoch` and `StoreDataError`; the transaction is then
        still open, or gone with its connection.
        """
        await self._decide(await self._ask())
        await self._starting.hand_over(self._connection)
        answer = await write(self._connection, self._batch, self.written, repeated=self._repeated)
        if answer.lost:
            raise AssertionError(f"workflows moved under their locks: {sorted(answer.lost)}")
        await self._send("commit")
        return answer

    async def _send(self, name: str, **values: object) -> Cursor:
        return await send(self._connection, SQL[name], **values)

    # -- deciding -----------------------------------------------------------------------------

    async def _ask(self) -> Cursor | None:
        batch = self._batch
        await self._send("begin")
        fence = None
        if batch.epoch is not None:
            values = {"namespace": batch.namespace, "epoch": batch.epoch.number}
            fence = await self._send("fence", **values)
        await self._starting.ask(self._connection)
        await self._locked.ask()
        return fence

    async def _decide(self, fence: Cursor | None) -> None:
        batch = self._batch
        if batch.epoch is not None and fence is not None and await fence.fetchone() is None:
            raise StaleEpoch(f"epoch {batch.epoch.number} is no longer in force")
        await self._starting.hear()
        await self._locked.hear()
        self._now = await _time(await self._send("now"))
        for start in batch.starts:
            self._definitions.keep(start.definition)
        self.starts = self._starting.decide(self._now, self._render)
        await self._starting.release_keys(self._connection)
        self.transitions = await self._transitions()

    async def _transitions(self) -> tuple[TransitionResult, ...]:
        results = await self._advanced()
        members = self._batch.transitions
        taking = {
            one.workflow
            for one, result in zip(members, results, strict=True)
            if isinstance(result, Moved) and result.changes.takes_away
        }
        if taking:
            await self._locked.lock_steps(sorted(taking))
            self._now = await _time(await self._send("now"))
            results = await self._advanced()
        moved = [
            (one, result.changes)
            for one, result in zip(members, results, strict=True)
            if isinstance(result, Moved) and result.changes.writes
        ]
        for one, changes in moved:
            workflow = self._locked.workflows[one.workflow]
            self.written.add(changes, workflow, self._locked.definition(workflow))
        await self._start_children(
            [changes for _, changes in moved]
            + [one.changes for one in self.starts if isinstance(one, Started) and one.changes]
        )
        for one, result in zip(members, results, strict=True):
            if one.letter is not None and result is not Missing.LOCKED:
                self.written.brings(one.letter)
        for one, changes in moved:
            if one.claim_next:
                self.written.claim_next(self._batch, changes, self._now)
        for start, begun in zip(self._batch.starts, self.starts, strict=True):
            if start.claim_next and isinstance(begun, Started) and begun.changes is not None:
                self.written.claim_next(self._batch, begun.changes, self._now)
        return tuple(results)

    async def _start_children(self, parents: list[Changes]) -> None:
        """Start the children that were decided on, and theirs."""
        waiting = list(parents)
        while waiting:
            for child in waiting.pop().children:
                if len(self.written.children) >= MOST_AT_ONCE:
                    # A batch that does not get to its end in time would be offered for ever.
                    raise StoreDataError(f"more than {MOST_AT_ONCE} children would start at once")
                definition = await self._definitions.get(self._connection, child.definition)
                begun = machine.start(
                    definition,
                    machine.child_of(child),
                    now=self._now,
                    render=self._render,
                    actor="parent",
                )
                self.written.begin_child(begun, definition)
                waiting.append(begun)

    async def _advanced(self) -> list[TransitionResult]:
        """Decide; read the whole of those workflows for which the machine needs it, and again."""
        while True:
            self._incomplete.clear()
            results = self._advance_all()
            if not self._incomplete:
                return results
            await self._locked.read_whole(sorted(self._incomplete))

    def _advance_all(self) -> list[TransitionResult]:
        present = dict(self._locked.workflows)
        self._taken = dict(self._locked.taken)
        self._full = set()
        return [self._advance(one, present) for one in self._batch.transitions]

    def _advance(self, one: Transition, present: dict[WorkflowId, Workflow]) -> TransitionResult:
        workflow, event = present.get(one.workflow), one.event
        if workflow is None:
            held = one.workflow in self._locked.elsewhere
            return Missing.LOCKED if held else Missing.UNKNOWN
        definition = self._locked.definition(workflow)
        key = step_of(event)
        if key is not None and key.step not in definition.by_name:
            return Missing.UNKNOWN
        turn = one.turn
        if turn in self._locked.turns_elsewhere:
            return Missing.LOCKED
        if turn and not self._has_place(turn, limit_of(definition, workflow, turn)):
            return Moved(Changes(workflow, Verdict.IGNORED))
        try:
            changes = machine.advance(
                definition, workflow, event, now=self._now, render=self._render
            )
        except (IllegalTransition, RenderError) as error:
            return error
        except IncompleteState:
            self._incomplete.add(one.workflow)
            return Missing.LOCKED
        present[one.workflow] = changes.workflow
        self._count(changes.turns)
        return Moved(changes)

    def _has_place(self, turn: TurnKey, limit: int) -> bool:
        """Whether there is a place for one more; who finds none is overtaken by nobody."""
        if turn in self._full or self._taken.get(turn, 0) >= limit:
            self._full.add(turn)
            return False
        return True

    def _count(self, stands: Sequence[Stand]) -> None:
        """Count the places that this transaction takes, and those that steps give back in it.

        A workflow that gave its place back before may say so once more at its end.
        """
        for one in stands:
            if one.standing is Standing.HAS_PLACE:
                self._taken[one.turn] = self._taken.get(one.turn, 0) + 1
            elif one.freed and one.who.step is not None and one.turn in self._taken:
                self._taken[one.turn] -= 1


async def _time(clock: Cursor) -> datetime:
    row = await clock.fetchone()
    if row is None:
        raise AssertionError("the clock does not answer")
    moment: datetime = row["now"]
    return moment
