"""A whole sidecar over the twins in memory, and twins that fail as they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from sidecar.adapters.elections.memory import Booth, MemoryElection, MemoryTerm
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.saga.states import WorkflowStatus
from tests.conformance.store_play import call
from tests.unit.engine.parts import ME, SOON, Parts


class TrickyElection(MemoryElection):
    """A candidate that may fail in a way that nobody has thought of."""

    def __init__(self, booth: Booth) -> None:
        super().__init__(booth)
        self.bugs = 0

    async def campaign(self) -> MemoryTerm:
        if self.bugs:
            self.bugs -= 1
            raise ValueError("a bug")
        return await super().campaign()


@dataclass
class Whole(Parts):
    """An agent over parts that fail as they are told."""

    settings: Settings = field(
        default_factory=lambda: Settings(look=SOON, heartbeat_s=0.001, drain_s=5.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.booth = Booth()
        self.election = TrickyElection(self.booth)
        ports = Ports(
            store=self.store,
            queue=self.queue,
            notices=self.notices,
            service=self.service,
            election=self.election,
            clock=self.clock,
            entropy=self.entropy,
            telemetry=self.telemetry,
        )
        self.agent = Agent(ME, ports, self.settings)

    async def runs_a_workflow(self) -> None:
        """Fails by a time-out unless the agent takes what nobody rings for."""
        workflow = await self.start(await self.define(call("charge")))
        await self.until_completed(workflow)

    async def until_completed(self, workflow: Any) -> None:
        """Look until a workflow has ended well."""
        await self.until_status(workflow, WorkflowStatus.COMPLETED)

    async def until_status(self, workflow: Any, status: WorkflowStatus) -> None:
        """Look until a workflow stands there."""
        while (await self.see(workflow)).status is not status:  # noqa: ASYNC110  (the twin tells nobody)
            await asyncio.sleep(0)
