"""Lets workflows and steps begin that wait for their turn, when there is a place for them.

A place is given back in the transaction that ends what has it, and taken in another one, which
counts the places under a lock of their key. So however many sidecars try, there are never more at
a time than the definition says; and what nobody tries, because a sidecar died in between, a leader
finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from sidecar.engine.group_commit import Committer
from sidecar.errors import GoConductorError, StoreDataError
from sidecar.ports.store import Store, Transition
from sidecar.saga.changes import Changes
from sidecar.saga.events import Admitted, CancelRequested
from sidecar.saga.turns import InLine, Standing, TurnKey

log = structlog.get_logger("sidecar.turns")

ADMIT_WITHIN_S = 10.0


class Turns:
    """Looks, after each commit of this sidecar, whether somebody can begin."""

    def __init__(self, store: Store, committer: Committer) -> None:
        self._store = store
        self._committer = committer
        self._looking: dict[TurnKey, asyncio.Task[None]] = {}
        self._again: set[TurnKey] = set()

    def follow(self, changes: Iterable[Changes]) -> None:
        """Look at the keys for which somebody waits now, or has given a place back."""
        for one in changes:
            for stand in one.turns:
                if stand.freed or stand.standing is Standing.WAITS:
                    self.look(stand.turn)

    def look(self, turn: TurnKey) -> None:
        """Admit whoever has a place of this key, soon; one look at a time."""
        if turn in self._looking:
            self._again.add(turn)
            return
        task = asyncio.create_task(self._admit(turn))
        self._looking[turn] = task
        task.add_done_callback(lambda _: self._ended(turn))

    async def stop(self) -> None:
        """Leave what is under way to the leader."""
        self._again.clear()
        tasks = list(self._looking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, turn: TurnKey) -> None:
        del self._looking[turn]
        if turn in self._again:
            self._again.discard(turn)
            self.look(turn)

    async def _admit(self, turn: TurnKey) -> None:
        try:
            waiting = await self._store.next_turns(turn)
            for one in waiting:
                await self._admit_one(one, turn)
        except GoConductorError as error:
            log.warning("turn_left_to_the_leader", key=turn.key, error=error.message)
        except Exception:
            log.exception("turn_left_to_the_leader", key=turn.key)

    async def _admit_one(self, one: InLine, turn: TurnKey) -> None:
        """Admit one; what can never begin is turned back, so that it stands before nobody."""
        workflow = one.workflow
        admission = Transition(workflow, Admitted(one.step), turn=turn)
        try:
            await self._committer.submit(admission, within=ADMIT_WITHIN_S)
        except StoreDataError as error:
            log.error("turn_cannot_be_taken", workflow=workflow, error=error.message)  # noqa: TRY400
            back = CancelRequested(reason=f"it cannot begin: {error.message}", actor="turns")
            await self._committer.submit(Transition(workflow, back), within=ADMIT_WITHIN_S)
