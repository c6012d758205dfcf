"""A store whose commits fail when they speak of what is poisoned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.adapters.stores.memory import MemoryStore
from sidecar.ports.store import Batch, BatchResult
from sidecar.saga.workflow import WorkflowId

BUG = SystemError("a bug in some library")

Poison = Callable[[Batch], Exception | None]


class PoisonedStore(MemoryStore):
    """Raises what `poison` says of a batch; `hold` keeps commits waiting."""

    poison: Poison | None = None
    hold: asyncio.Event | None = None
    commits = 0

    async def commit(self, batch: Batch) -> BatchResult:
        """Commit, unless the batch is poisoned."""
        self.commits += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.poison is not None and (error := self.poison(batch)) is not None:
            raise error
        return await super().commit(batch)


def names(workflow: WorkflowId, error: Exception) -> Poison:
    """A poison in whatever speaks of one workflow."""

    def poison(batch: Batch) -> Exception | None:
        keys = batch.claim_keys.keys if batch.claim_keys else ()
        spoken_of = (
            *(one.id for one in batch.starts),
            *(one.workflow for one in batch.transitions),
            *(known for known, _ in keys),
        )
        return error if workflow in spoken_of else None

    return poison
