"""The world: sidecars with the real engine, services, clients, and the one who breaks them.

Two phases. First everything may fail, and nothing may ever be wrong. Then all heals, and
everything must come to its end within ten minutes of virtual time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

from sidecar.adapters.elections.memory import Booth
from sidecar.adapters.memory.tables import MemoryTables
from sidecar.adapters.notices_memory import NoticeHub
from sidecar.adapters.queues.memory import MemoryBroker
from sidecar.adapters.services.memory import MemoryService
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.engine.rerunning import LABEL
from sidecar.errors import Conflict, GoConductorError
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import Workflow, WorkflowId
from tests.simulation.breaking import STOP_WITHIN_S, Breaker
from tests.simulation.checkers import Checkers
from tests.simulation.faults import Fault, Faults
from tests.simulation.language import child, lines
from tests.simulation.listening import listening
from tests.simulation.loop import Deadlock, Endless, SimLoop
from tests.simulation.node import Node, NodeDied
from tests.simulation.offering import Offering
from tests.simulation.pace import Pace
from tests.simulation.sides import NAMESPACE, SimClock
from tests.simulation.talk import Talk
from tests.simulation.urgency import give_priorities
from tests.simulation.verdict import Verdict, at_rest, unrest
from tests.simulation.workload import SERVICES, Answers, document

SETTLING_S = 6.0
"""After the world has healed, what was tried before is tried again within so many seconds."""
REST_WITHIN_S = 600.0


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
        self.beat_s = self.draw.choice((2.0, 5.0))
        self.silent_after = timedelta(seconds=4 * self.beat_s)
        self.pace = Pace(seed, self.complain)
        self.checkers = Checkers(
            self.tables,
            self.store.definition,
            self.clock,
            self.silent_after,
            self.complain,
            self.pace,
        )
        self.talk = Talk(self)
        self.answers = Answers(seed, self.faults, self.checkers.called, self.talk.will_call_back)
        self.service = MemoryService(self.answers)
        self.offering = Offering(seed)
        self.nodes: list[Node] = []
        self.breaker = Breaker(self)
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
            for replica in range(self.draw.choice((1, 2))):
                self.nodes.append(Node(self, number * 10 + replica, service))
        span = self.draw.uniform(15.0, 60.0)
        clients = [
            self.loop.spawn(self._client(number, names, span))
            for number in range(self.draw.randint(3, 6))
        ]
        breaking = self.loop.spawn(self.breaker.run())
        await asyncio.sleep(span)
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
        self._heal()
        await asyncio.sleep(SETTLING_S)
        await self._rest(clients)
        await self._leave()
        await asyncio.sleep(60.0)  # what was sent late arrives late
        self._judge()

    async def _register(self) -> list[str]:
        names = [f"flow{number}" for number in range(self.draw.choice((1, 2)))]
        documents = [child(self.draw, SERVICES), *(document(self.draw, name) for name in names)]
        if give_priorities(self.report.seed, documents):
            self.checkers.seen["priorities"] += 1
        for one in documents:
            for step in one["steps"]:
                if "workflow" in step:
                    step["version"] = 1  # as a registration pins it
            self.offering.name_actions(one)
            parsed = parse_definition(json.dumps(one).encode(), "json")
            await self.store.put_definition(NAMESPACE, parsed.name, parsed.document, parsed.digest)
        return names

    async def _client(self, number: int, names: list[str], span: float) -> None:
        draw = random.Random(f"client {self.report.seed} {number}")
        await asyncio.sleep(draw.uniform(0.0, span * 0.6))
        key = f"key-{number}" if draw.random() < 0.7 else None
        name = draw.choice(names)
        cancels = draw.random() < 0.25
        body = {"client": number, "lines": lines(draw)}
        while number not in self.accepted:
            node = self.some_node()
            if node is not None:
                try:
                    started = await node.request(
                        node.agent.commands.start(
                            NAMESPACE,
                            name,
                            input=body,
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
        talking = self.loop.spawn(self.talk.about(self.accepted[number], draw))
        if cancels:
            await asyncio.sleep(draw.expovariate(1.0))
            await self._cancel(self.accepted[number], draw)
        await talking

    async def _cancel(self, workflow: WorkflowId, draw: random.Random) -> None:
        while workflow not in self.cancelled:
            node = self.some_node()
            if node is not None:
                try:
                    await node.request(node.agent.verbs.cancel(NAMESPACE, workflow))
                    self.cancelled[workflow] = True
                except Conflict:
                    self.cancelled[workflow] = False
                except (GoConductorError, NodeDied, TimeoutError) as error:
                    self.tell(f"{workflow[-6:]}: cancel failed: {error!r}")
            await asyncio.sleep(draw.uniform(0.1, 3.0))

    def some_node(self) -> Node | None:
        """Return a node that can be talked to, if there is one."""
        up = [node for node in self.nodes if node.up]
        return self.draw.choice(up) if up else None

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
                self.breaker.reboot(node)

    async def _rest(self, clients: list[asyncio.Task[None]]) -> None:
        for _ in range(int(REST_WITHIN_S)):
            if all(one.done() for one in clients) and at_rest(self.tables):
                for one in clients:
                    one.result()
                return
            await asyncio.sleep(1.0)
            await self.talk.look_again()
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
        mine = Counter(
            row.workflow.labels.get("client")
            for row in rows.values()
            if LABEL not in row.workflow.labels
        )
        for number, workflow in self.accepted.items():
            if workflow not in rows:
                self.complain(f"client {number}: {workflow} was accepted and is lost")
        for client, count in mine.items():
            if client is not None and count > 1:
                self.complain(f"client {client} asked once and got {count} workflows")
        for workflow, undone in self.cancelled.items():
            status = rows[workflow].workflow.status
            if undone and status is WorkflowStatus.COMPLETED:
                self.complain(f"{workflow}: was cancelled, and completed all the same")
        for row in rows.values():
            self.report.ends[row.workflow.status] += 1
            if row.workflow.reason is not None:
                self.checkers.seen[row.workflow.reason] += 1


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
                if main.done() and not report.wrong and (error := main.exception()) is not None:
                    report.wrong.append(f"the run ended with {error!r}")
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
