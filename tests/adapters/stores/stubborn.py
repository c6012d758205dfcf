"""A sidecar that does as the engine does: the same batch again, until it is durable."""

from __future__ import annotations

import asyncio

from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import StoreConflict, StoreUnavailable
from sidecar.ports.store import Batch, BatchResult, Missing, Transition, TransitionResult
from sidecar.saga.definition import Definition
from sidecar.saga.states import WAIT_RETURNS, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import Player, call, done, settle, start_of

JOIN = (call("a"), call("b", after=[]), call("c", after=["a", "b"]))


class Stubborn(Player):
    """A sidecar that does as the engine does: the same batch again, until it is durable."""

    troubles = 0

    def __init__(self, store: PostgresStore, durable: asyncio.Event | None = None) -> None:
        super().__init__(store)
        self.durable = durable or asyncio.Event()

    async def persist(self, batch: Batch) -> BatchResult:
        """Commit a batch, whatever happens to the connections, and tell that it is durable."""
        while True:
            try:
                result = await self.store.commit(batch)
            except (StoreUnavailable, StoreConflict):
                self.troubles += 1
                await asyncio.sleep(0)
            else:
                self.durable.set()
                return result

    async def insist(self, member: Transition) -> TransitionResult:
        """Offer a transition until its workflow is not locked any more."""
        while True:
            result = await self.persist(self.batch(transitions=[member]))
            if result.transitions[0] is not Missing.LOCKED:
                return result.transitions[0]

    async def run_sagas(self, definition: Definition, count: int) -> list[WorkflowId]:
        """Run workflows one after the other to their end."""
        ended = []
        for _ in range(count):
            start = start_of(definition)
            result = await self.persist(self.batch(starts=[start]))
            assert result.starts[0].workflow == start.id
            while await self.status_at_last(start.id) not in WAIT_RETURNS:
                for one in (await self.persist(self.batch(due=2))).claimed:
                    await self.insist(settle(one, done(f'{{"by":"{one.key}"}}')))
            ended.append(start.id)
        return ended

    async def status_at_last(self, workflow: WorkflowId) -> WorkflowStatus:
        """Ask for a status until there is an answer."""
        while True:
            try:
                return (await self.store.statuses([workflow]))[workflow]
            except StoreUnavailable:
                await asyncio.sleep(0)
