"""The faces of a sidecar whose store, committer and machine are real, over the twins in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.api.rest.face import Face
from tests.unit.engine.whole import Whole


@dataclass
class Overseen(Whole):
    """A sidecar that commits, and neither claims nor leads unless it is told to."""

    def face(self) -> Face:
        """What an application is built on."""
        agent = self.agent
        return Face(
            agent.commands,
            agent.verbs,
            agent.tasks,
            agent.queries,
            agent.waiting,
            "default",
            oversight=agent.oversight,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Overseen]:
        """The parts that faces need, until the end of the block."""
        await self.store.open()
        await self.agent.waiting.open()
        await self.agent.committer.start()
        try:
            yield self
        finally:
            await self.agent.committer.stop()
            await self.agent.waiting.close()
