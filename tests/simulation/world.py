"""The world: sidecars with the real engine, services, clients, and the one who breaks them.

Two phases. First everything may fail, and nothing may ever be wrong. Then all heals, and
everything must come to its end within ten minutes of virtual time.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

from sidecar.adapters.elections.memory import Booth
from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.notices_memory import MemoryNotices, NoticeHub
from sidecar.adapters.queues.memory import MemoryBroker
from sidecar.adapters.services.memory import MemoryService
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.adapters.memory.tables import MemoryTables
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.engine.identity import Identity
from sidecar.errors import Conflict, GoConductorError
from sidecar.ports.store import Store
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import Workflow, WorkflowId
from tests.simulation.checkers import Checkers, Verdict, at_rest, unrest
from tests.simulation.faults import Fault, Faults
from tests.simulation.listening import listening
from tests.simulation.loop import LIFE, Deadlock, Endless, Life, SimLoop
from tests.simulation.sides import (
    NAMESPACE,
    ElectionSide,
    QueueSide,
    ServiceSide,
    SimClock,
    StoreSide,
)
from tests.simulation.workload import SERVICES, Answers, document

REST_WITHIN_S = 600.0
STOP_WITHIN_S = 90.0


class NodeDied(Exception):
    """The sidecar died before it answered."""


@lru_cache(maxsize=512)
def _compiled(text: JsonText, namespace: str, name: str, version: int) -> Definition:
    return compile_stored(text, namespace, name, version)


@dataclass(slots=True)
class Report:
    """What became of one seed."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    digest: int = 0
    steps: int = 0
    seconds: float = 0.0


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
                world.service, world.loop, world.faults, lambda: self.service in world.down
            ),
            election=self.election,
            clock=clock,
            entropy=entropy,
            telemetry=self.telemetry,
        )
        settings = Settings(concurrency=world.draw.choice((1, 2, 8)), drain_s=5.0)
        self.agent = Agent(self.identity, ports, settings)
        self.inside(self.agent.start())

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


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, loop: SimLoop, *, telling: bool) -> None:
        self.loop = loop
        self.outside = loop.outside()
        self.report = Report(seed)
        self.telling = telling
        self.draw = random.Random(f"world {seed}")
        self.faults = Faults(seed)
        self.clock = SimClock(loop)
        self.tables = MemoryTables()
        self.store = MemoryStore(
            compile_document=_compiled,
            render=render,
            clock=self.clock,
            tables=self.tables,
            locked=self._locked,
            on_commit=self._committed,
        )
        self.broker = MemoryBroker(visibility_s=15.0)
        self.booth = Booth()
        self.hub = NoticeHub()
        self.down: set[str] = set()
        self.checkers = Checkers(self.tables, self.store.definition, self.clock, self.complain)
        self.answers = Answers(seed, self.faults, self.checkers.called)
        self.service = MemoryService(self.answers)
        self.nodes: list[Node] = []
        self.accepted: dict[int, WorkflowId] = {}
        self.cancelled: dict[WorkflowId, bool] = {}
        self.asked_once: set[int] = set()
        self._told: dict[WorkflowId, int] = {}

    # -- telling --------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Write a line of the story."""
        if self.telling:
            self.report.story.append(f"{self.loop.time():9.3f}  {text}")

    def complain(self, text: str) -> None:
        """Something is wrong: say so and end the run."""
        self.report.wrong.append(f"at {self.loop.time():.3f} s: {text}")
        self.tell(f"WRONG {text}")
        self.loop.stop()

    def _locked(self, _: WorkflowId) -> bool:
        return self.faults.strikes(Fault.LOCKED)

    def _committed(self, changed: Any) -> None:
        changed = cast("list[Workflow]", changed)
        for workflow in changed:
            known = self._told.get(workflow.id, 0)
            history = self.tables.rows[workflow.id].history
            for event in history[known:]:
                line = (
                    f"{workflow.id[-6:]} {event.seq} {event.kind} {event.step or ''} "
                    f"{event.before}->{event.after} {event.cause} {event.attempt or ''}"
                )
                self.loop.note(line)
                self.tell(line)
            self._told[workflow.id] = len(history)
        self.checkers.committed(changed)

    # -- the run --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Both phases, and the verdict."""
        await self.store.open()
        await self.service.open()
        names = await self._register()
        for number, service in enumerate(SERVICES):
            for replica in range(self.draw.choice((1, 1, 2))):
                self.nodes.append(Node(self, number * 10 + replica, service))
        span = self.draw.uniform(15.0, 60.0)
        clients = [
            self.loop.spawn(self._client(number, names, span))
            for number in range(self.draw.randint(3, 6))
        ]
        breaking = self.loop.spawn(self._break())
        await asyncio.sleep(span)
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
        self._heal()
        await self._rest(clients)
        await self._leave()
        await asyncio.sleep(60.0)  # what was sent late arrives late
        self._judge()

    async def _register(self) -> list[str]:
        names = [f"flow{number}" for number in range(self.draw.choice((1, 2)))]
        for name in names:
            text = json.dumps(document(self.draw, name)).encode()
            parsed = parse_definition(text, "json")
            await self.store.put_definition(
                NAMESPACE, parsed.name, parsed.document, parsed.digest
            )
        return names

    async def _client(self, number: int, names: list[str], span: float) -> None:
        draw = random.Random(f"client {self.report.seed} {number}")
        await asyncio.sleep(draw.uniform(0.0, span * 0.6))
        key = f"key-{number}" if draw.random() < 0.7 else None
        name = draw.choice(names)
        cancels = draw.random() < 0.25
        while number not in self.accepted:
            node = self._some_node()
            if node is not None:
                try:
                    started = await node.request(
                        node.agent.commands.start(
                            NAMESPACE,
                            name,
                            input={"client": number},
                            start_key=key,
                            labels={"client": str(number)},
                        )
                    )
                    self.accepted[number] = started.id
                    break
                except (GoConductorError, NodeDied, TimeoutError) as error:
                    self.tell(f"client {number}: start failed: {error!r}")
                    if key is None:
                        self.asked_once.add(number)
                        return
            await asyncio.sleep(draw.uniform(0.1, 3.0))
        if cancels:
            await asyncio.sleep(draw.expovariate(1.0))
            await self._cancel(self.accepted[number], draw)

    async def _cancel(self, workflow: WorkflowId, draw: random.Random) -> None:
        while workflow not in self.cancelled:
            node = self._some_node()
            if node is not None:
                try:
                    await node.request(node.agent.commands.cancel(NAMESPACE, workflow))
                    self.cancelled[workflow] = True
                except Conflict:
                    self.cancelled[workflow] = False
                except (GoConductorError, NodeDied, TimeoutError) as error:
                    self.tell(f"{workflow[-6:]}: cancel failed: {error!r}")
            await asyncio.sleep(draw.uniform(0.1, 3.0))

    def _some_node(self) -> Node | None:
        up = [node for node in self.nodes if node.up]
        return self.draw.choice(up) if up else None

    # -- breaking -------------------------------------------------------------------------------

    async def _break(self) -> None:
        strikes: dict[Fault, Callable[[], None]] = {
            Fault.CRASH: self._crash,
            Fault.STOPPED: self._stop_one,
            Fault.DRAINED: self._drain_one,
            Fault.BROKER_CUT: self._cut_broker,
            Fault.BROKER_PURGED: self.broker.purge,
            Fault.SERVICE_DOWN: self._take_service_down,
            Fault.DEPOSED: self.booth.depose,
            Fault.TWO_LEADERS: self.booth.grant_again,
        }
        known = [kind for kind in strikes if self.faults.knows(kind)]
        if not known:
            return
        pause = self.faults.random.choice((2.0, 5.0, 12.0))
        while True:
            await asyncio.sleep(self.faults.random.expovariate(1.0 / pause))
            kind = self.faults.random.choice(known)
            self.tell(f"FAULT {kind}")
            self.faults.happened(kind)
            strikes[kind]()

    def _later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(delay, action, *args, context=self.outside)

    def _crash(self) -> None:
        node = self._some_node()
        if node is not None:
            self.tell(f"node {node.life.number} dies")
            node.die()
            self._later(self.faults.random.uniform(0.1, 25.0), self._reboot, node)

    def _reboot(self, node: Node) -> None:
        if not node.life.alive:
            node.boot()

    def _stop_one(self) -> None:
        node = self._some_node()
        if node is not None:
            self.tell(f"node {node.life.number} stands still")
            node.life.stopped = True
            self._later(self.faults.random.uniform(0.5, 45.0), self.loop.resume, node.life)

    def _drain_one(self) -> None:
        node = self._some_node()
        if node is not None:
            self.tell(f"node {node.life.number} drains")
            node.busy = True
            self.loop.spawn(self._drain(node))

    async def _drain(self, node: Node) -> None:
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await node.request(node.agent.stop())
        except NodeDied:
            pass
        except TimeoutError:
            if not node.life.stopped:
                self.complain(f"node {node.life.number} does not stop")
        node.life.alive = False
        node.busy = False
        node.die()
        if not self.faults.healed:
            await asyncio.sleep(self.faults.random.uniform(0.0, 5.0))
        self._reboot(node)

    def _cut_broker(self) -> None:
        self.broker.cut()
        self._later(self.faults.random.uniform(0.5, 15.0), self.broker.restore)

    def _take_service_down(self) -> None:
        service = self.faults.random.choice(SERVICES)
        self.down.add(service)
        self._later(self.faults.random.uniform(0.5, 20.0), self.down.discard, service)

    # -- healing and judging --------------------------------------------------------------------

    def _heal(self) -> None:
        self.tell("-- all heals --")
        self.faults.healed = True
        self.broker.restore()
        self.down.clear()
        for node in self.nodes:
            if node.life.stopped and node.life.alive:
                self.loop.resume(node.life)
            if not node.busy:
                self._reboot(node)

    async def _rest(self, clients: list[asyncio.Task[None]]) -> None:
        for _ in range(int(REST_WITHIN_S)):
            if all(one.done() for one in clients) and at_rest(self.tables):
                for one in clients:
                    one.result()
                return
            await asyncio.sleep(1.0)
        for text in unrest(self.tables):
            self.complain(text)
        if not self.report.wrong:
            self.complain("some client was never answered")

    async def _leave(self) -> None:
        """Some sidecars go in good order, the others just die."""
        for node in self.nodes:
            if node.busy:
                continue
            if self.draw.random() < 0.3:
                node.busy = True
                try:
                    async with asyncio.timeout(STOP_WITHIN_S):
                        await node.request(node.agent.stop())
                except TimeoutError:
                    self.complain(f"node {node.life.number} does not stop")
            node.die()

    def _judge(self) -> None:
        verdict = Verdict(self.tables, self.store.definition, self.service, self.answers)
        for text in verdict.wrong():
            self.complain(text)
        rows = self.tables.rows
        mine = Counter(row.workflow.labels.get("client") for row in rows.values())
        for number, workflow in self.accepted.items():
            if workflow not in rows:
                self.complain(f"client {number}: {workflow} was accepted and is lost")
        for client, count in mine.items():
            if count > 1:
                self.complain(f"client {client} asked once and got {count} workflows")
        for workflow, undone in self.cancelled.items():
            status = rows[workflow].workflow.status
            if undone and status is WorkflowStatus.COMPLETED:
                self.complain(f"{workflow}: was cancelled, and completed all the same")
        for row in rows.values():
            self.report.ends[row.workflow.status] += 1


def simulate(seed: int, *, telling: bool = False) -> Report:
    """Run one seed in a world of its own, and report."""
    loop = SimLoop(seed)
    world = World(seed, loop, telling=telling)
    report = world.report
    collecting = gc.isenabled()
    gc.disable()

    def failed(_: Any, context: dict[str, Any]) -> None:
        if "never retrieved" not in context.get("message", ""):
            report.wrong.append(f"{context.get('message')}: {context.get('exception')!r}")

    loop.set_exception_handler(failed)
    try:
        with listening(world.tell if telling else None, world.complain):
            main = loop.spawn(world.run())
            main.add_done_callback(lambda _: loop.stop())
            try:
                loop.run_forever()
                if main.done() and not report.wrong:
                    main.result()
            except (Deadlock, Endless) as error:
                report.wrong.append(f"{type(error).__name__}: {error}")
            loop.abandon()
    finally:
        loop.close()
        if collecting:
            gc.enable()
    report.fired, report.seen = world.faults.fired, world.checkers.seen
    report.digest, report.steps, report.seconds = loop.digest, loop.steps, loop.time()
    return report
