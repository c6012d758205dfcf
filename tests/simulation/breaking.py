"""The one who breaks things: sidecars, the broker, services, elections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.faults import Fault
from tests.simulation.node import Node, NodeDied
from tests.simulation.workload import SERVICES

if TYPE_CHECKING:
    from tests.simulation.world import World

STOP_WITHIN_S = 90.0
"""A sidecar that is asked to go is gone after so many seconds."""


class Breaker:
    """Strikes at random moments, with the faults that the seed knows."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self) -> None:
        """Break something now and then, for ever."""
        strikes: dict[Fault, Callable[[], None]] = {
            Fault.CRASH: self._crash,
            Fault.STOPPED: self._stop_one,
            Fault.DRAINED: self._drain_one,
            Fault.BROKER_CUT: self._cut_broker,
            Fault.BROKER_PURGED: self._world.broker.purge,
            Fault.SERVICE_DOWN: self._take_service_down,
            Fault.DEPOSED: self._world.booth.depose,
            Fault.TWO_LEADERS: self._world.booth.grant_again,
        }
        known = [kind for kind in strikes if self._world.faults.knows(kind)]
        if not known:
            return
        pause = self._world.faults.random.choice((2.0, 5.0, 12.0))
        while True:
            await asyncio.sleep(self._world.faults.random.expovariate(1.0 / pause))
            kind = self._world.faults.random.choice(known)
            self._world.tell(f"FAULT {kind}")
            self._world.faults.happened(kind)
            strikes[kind]()

    def _later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        self._world.loop.call_later(delay, action, *args, context=self._world.outside)

    def _crash(self) -> None:
        node = self._world.some_node()
        if node is not None:
            self._world.tell(f"node {node.life.number} dies")
            node.die()
            self._later(self._world.faults.random.uniform(0.1, 25.0), self.reboot, node)

    def reboot(self, node: Node) -> None:
        """Give a dead node another life."""
        if not node.life.alive:
            node.boot()

    def _stop_one(self) -> None:
        node = self._world.some_node()
        if node is not None:
            self._world.tell(f"node {node.life.number} stands still")
            node.life.stopped = True
            self._later(
                self._world.faults.random.uniform(0.5, 45.0), self._world.loop.resume, node.life
            )

    def _drain_one(self) -> None:
        node = self._world.some_node()
        if node is not None:
            self._world.tell(f"node {node.life.number} drains")
            node.busy = True
            self._world.loop.spawn(self._drain(node))

    async def _drain(self, node: Node) -> None:
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await node.request(node.agent.stop())
        except NodeDied:
            pass
        except TimeoutError:
            if not node.life.stopped:
                self._world.complain(f"node {node.life.number} does not stop")
        node.life.alive = False
        node.busy = False
        node.die()
        if not self._world.faults.healed:
            await asyncio.sleep(self._world.faults.random.uniform(0.0, 5.0))
        self.reboot(node)

    def _cut_broker(self) -> None:
        self._world.broker.cut()
        self._later(self._world.faults.random.uniform(0.5, 15.0), self._world.broker.restore)

    def _take_service_down(self) -> None:
        service = self._world.faults.random.choice(SERVICES)
        self._world.down.add(service)
        self._later(self._world.faults.random.uniform(0.5, 20.0), self._world.down.discard, service)
