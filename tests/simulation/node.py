"""One place for a sidecar: it boots the real agent there, talks to it, and lets it die."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.notices_memory import MemoryNotices
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.engine.duties import DutyTimes
from sidecar.engine.identity import Identity
from sidecar.errors import StoreUnavailable
from sidecar.ports.store import Store
from tests.simulation.loop import LIFE, Life
from tests.simulation.sides import (
    NAMESPACE,
    ElectionSide,
    QueueSide,
    ServiceSide,
    SimClock,
    StoreSide,
)

if TYPE_CHECKING:
    from tests.simulation.world import World


START_AGAIN_S = 1.0


class NodeDied(Exception):
    """The sidecar died before it answered."""


class Node:
    """One place for a sidecar; each life of it is another incarnation."""

    def __init__(self, world: World, number: int, service: str) -> None:
        self.world = world
        self.number = number
        self.service = service
        self.lives = 0
        self.busy = False
        self.replies: dict[asyncio.Future[Any], None] = {}
        self.boot()

    def boot(self) -> None:
        """Begin a life."""
        world = self.world
        self.lives += 1
        self.life = Life(self.number * 1000 + self.lives)
        self.context = world.loop.outside()
        self.context.run(LIFE.set, self.life)
        skew = world.draw.uniform(-30.0, 30.0)
        clock = SimClock(world.loop, skew)
        entropy = SeededEntropy(world.draw.getrandbits(48), clock)
        self.identity = Identity(NAMESPACE, self.service, entropy.incarnation(), "sim", "1")
        self.queue = QueueSide(world.broker, world.loop, world.faults, service=self.service)
        self.election = ElectionSide(world.booth, world.loop)
        self.notices = MemoryNotices(world.hub, namespace=NAMESPACE, service=self.service)
        self.telemetry = MemoryTelemetry()
        store = StoreSide(world.store, world.loop, world.faults, world.checkers)
        ports = Ports(
            store=cast("Store", store),
            queue=self.queue,
            notices=self.notices,
            service=ServiceSide(
                world.service,
                world.loop,
                world.faults,
                world.checkers,
                lambda: self.service in world.down,
                life=str(self.life.number),
            ),
            election=self.election,
            clock=clock,
            entropy=entropy,
            telemetry=self.telemetry,
        )
        settings = Settings(
            concurrency=world.draw.choice((1, 2, 8)),
            heartbeat_s=world.beat_s,
            drain_s=5.0,
            duties=DutyTimes(silent_after=world.silent_after),
            rate_limits=world.pace.limits,
            catalogue=world.offering.catalogue(self.service, str(self.life.number)),
        )
        self.agent = Agent(self.identity, ports, settings)
        self.inside(self._start())

    async def _start(self) -> None:
        """Start, however often the store does not answer."""
        while True:
            try:
                await self.agent.start()
            except StoreUnavailable:
                await asyncio.sleep(START_AGAIN_S)
            else:
                return

    def inside(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in this life of the node; it ends with it, if need be in mid-air."""
        return self.world.loop.create_task(coro, context=self.context.copy())

    @property
    def up(self) -> bool:
        """Whether it can be talked to."""
        return self.life.alive and not self.life.stopped and not self.busy

    async def request(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Ask this node something. Raises `NodeDied` or what the answer raises."""
        reply: asyncio.Future[Any] = self.world.loop.create_future()
        self.replies[reply] = None
        task = self.inside(coro)

        def answered(done: asyncio.Task[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if reply.done():
                return
            if done.cancelled():
                reply.set_exception(NodeDied())
            elif error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(done.result())

        task.add_done_callback(answered, context=self.world.loop.outside())
        try:
            async with asyncio.timeout(25):
                return await reply
        finally:
            self.replies.pop(reply, None)

    def die(self) -> None:
        """End this life: nothing of it runs any more, and its sessions end some time later."""
        self.life.alive = False
        self.life.held.clear()
        world = self.world
        delay = world.faults.random.choice((0.0, 1.0, 10.0))
        sessions = (self.queue, self.election)
        for reply in list(self.replies):
            if not reply.done():
                reply.set_exception(NodeDied())
        world.hub.leave(NAMESPACE, self.notices)
        world.loop.call_later(delay, world.broker.release, sessions[0], context=world.outside)
        world.loop.call_later(delay, sessions[1].vanish, context=world.outside)
