"""Lets workflows and steps begin that wait for their turn, when there is a place for them.

A place is given back in the transaction that ends what has it, and taken in another one, which
counts the places under a lock of their key. So however many sidecars try, there are never more at
a time than the definition says; and what nobody tries, because a sidecar died in between, a leader
finds.

One looker asks for many keys by one statement, however many places were given back at once, and
those for whom there is a place are admitted together: they share a transaction. One that cannot be
admitted is put off, and the next is tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

import structlog

from sidecar.engine.backing_off import BackingOff
from sidecar.engine.group_commit import Committer
from sidecar.errors import GoConductorError, StoreConflict, StoreDataError, StoreUnavailable
from sidecar.ports.clock import Clock
from sidecar.ports.store import Store, Transition
from sidecar.saga.changes import Changes
from sidecar.saga.events import Admitted, CancelRequested
from sidecar.saga.turns import InLine, Standing, TurnKey
from sidecar.saga.workflow import WorkflowId

log = structlog.get_logger("sidecar.turns")

ADMIT_WITHIN_S = 2.0
"""Only a batch that fails gives anybody up: a slow store costs nobody his turn."""
LOOK_MOST = 200
"""How many keys are asked for at once, and how many are admitted at once."""
ROUNDS_MOST = 5
"""How many rounds of admissions may be under way: somebody may stand still in one of them."""
PUT_OFF_S = 2.0
PUT_OFF_MAX_S = 30.0
"""How long one that could not be admitted stands before nobody: at first, and at last."""
ASK_AGAIN_S = 0.1
ASK_AGAIN_MAX_S = 2.0


class Turns:
    """Looks, after each commit of this sidecar, whether somebody can begin."""

    def __init__(self, store: Store, committer: Committer, clock: Clock) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._wanted: dict[TurnKey, None] = {}
        self._under_way: set[TurnKey] = set()
        self._again: set[TurnKey] = set()
        self._looker: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(ROUNDS_MOST)
        self._stuck: BackingOff[WorkflowId] = BackingOff(PUT_OFF_S, PUT_OFF_MAX_S, most=LOOK_MOST)

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to look at, and nobody is being admitted."""
        return not self._rounds and (self._looker is None or self._looker.done())

    def follow(self, changes: Iterable[Changes]) -> None:
        """Look at the keys for which somebody waits now, or has given a place back."""
        for one in changes:
            for stand in one.turns:
                if stand.freed or stand.standing is Standing.WAITS:
                    self.look(stand.turn)

    def look(self, turn: TurnKey) -> None:
        """Admit whoever has a place of this key, soon; one look at a time."""
        if turn in self._under_way:
            self._again.add(turn)
            return
        self._wanted[turn] = None
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Leave what is under way to the leader."""
        self._wanted.clear()
        self._again.clear()
        tasks = [*self._rounds, *([self._looker] if self._looker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Take what is wanted, so much at a time, until nothing is."""
        while self._wanted:
            await self._room.acquire()
            turns = list(islice(self._wanted, LOOK_MOST))
            for turn in turns:
                del self._wanted[turn]
            self._under_way.update(turns)
            lines = await self._lines(turns)
            for turn in turns:
                if turn not in lines:
                    self._release(turn)
            task = asyncio.create_task(self._admit(lines))
            self._rounds.add(task)
            task.add_done_callback(self._admitted)

    async def _lines(self, turns: Sequence[TurnKey]) -> dict[TurnKey, list[InLine]]:
        """Return who can begin, by their keys; what found no room is looked at again."""
        pause = ASK_AGAIN_S
        while True:
            stuck = self._stuck.waiting(self._clock.monotonic())
            try:
                found = await self._store.next_turns(turns, LOOK_MOST, without=stuck)
            except (StoreUnavailable, StoreConflict) as error:
                log.warning("turns_unknown", keys=len(turns), error=error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, ASK_AGAIN_MAX_S)
            except Exception:
                log.exception("turns_left_to_the_leader", keys=len(turns))
                return {}
            else:
                return self._by_key(turns, found)

    def _by_key(
        self, turns: Sequence[TurnKey], found: Sequence[tuple[TurnKey, InLine]]
    ) -> dict[TurnKey, list[InLine]]:
        lines: dict[TurnKey, list[InLine]] = {}
        for turn, one in found:
            lines.setdefault(turn, []).append(one)
        if len(found) >= LOOK_MOST:
            self._again.update(turns[turns.index(found[-1][0]) :])
        return lines

    async def _admit(self, lines: dict[TurnKey, list[InLine]]) -> None:
        """Admit all of a round. What it tells has no key in it: those are the business's."""
        found = await asyncio.gather(*(self._admit_line(*line) for line in lines.items()))
        errors = [error for each in found for error in each]
        if errors:
            log.warning("turns_put_off", waiting=len(errors), error=repr(errors[0]))

    async def _admit_line(self, turn: TurnKey, line: Sequence[InLine]) -> list[Exception]:
        """Admit those of one key, in their order; return why some could not be."""
        found = await asyncio.gather(*(self._admit_one(one, turn) for one in line))
        errors = [error for error in found if error is not None]
        if errors:
            self._again.add(turn)  # there is a place for somebody else
        self._release(turn)
        return errors

    async def _admit_one(self, one: InLine, turn: TurnKey) -> Exception | None:
        """Admit one; what can never begin is turned back, so that it stands before nobody."""
        workflow = one.workflow
        try:
            try:
                await self._submit(Transition(workflow, Admitted(one.step), turn=turn))
            except StoreDataError as error:
                log.error("turn_cannot_be_taken", workflow=workflow, error=error.message)  # noqa: TRY400
                reason = f"it cannot begin: {error.message}"
                await self._submit(Transition(workflow, CancelRequested(reason, "turns")))
                self._again.add(turn)
        except Exception as error:
            self._stuck.put_off(workflow, self._clock.monotonic())
            if not isinstance(error, GoConductorError):
                log.exception("turn_cannot_be_taken", workflow=workflow)
            return error
        self._stuck.forget(workflow)
        return None

    async def _submit(self, member: Transition) -> None:
        await self._committer.submit(member, within=ADMIT_WITHIN_S)

    def _release(self, turn: TurnKey) -> None:
        """Let it be looked at again; that is done if it was wanted meanwhile."""
        self._under_way.discard(turn)
        if turn in self._again:
            self._again.discard(turn)
            self.look(turn)

    def _admitted(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        self._room.release()
