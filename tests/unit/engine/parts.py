"""The parts of a sidecar over the twins in memory, and twins that fail as they are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.notices_memory import MemoryNotices, NoticeHub
from sidecar.adapters.queues.memory import MemoryBroker, MemoryQueue
from sidecar.adapters.services.memory import MemoryService
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.definitions import compile_stored, render
from sidecar.engine.calling import Caller, CallingPorts
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.gate import Gate, GateTimes
from sidecar.engine.group_commit import CommitLimits, Committer
from sidecar.engine.identity import Identity
from sidecar.engine.limiting import Limiter
from sidecar.engine.receiving import LookInterval, Receiver
from sidecar.engine.ringing import Ringer
from sidecar.engine.slots import Slots
from sidecar.ports.queue import Delivery, Doorbell, QueueCapabilities, Refused
from sidecar.ports.rates import RateAnswer, RateAsk
from sidecar.ports.records import SidecarBeat
from sidecar.ports.store import Batch, BatchResult, Claimed, Epoch, Started
from sidecar.ports.telemetry import Metric
from sidecar.ports.versions import StoredDefinition
from sidecar.saga.definition import Definition
from sidecar.saga.pacing import RateLimit
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId
from tests.conformance.store_play import Player, register, start_of
from tests.unit.engine.faces import until

MARGIN = timedelta(seconds=5)
SOON = LookInterval(first_s=0.001, last_s=0.002)
NEVER = LookInterval(first_s=3600, last_s=3600)
ME = Identity("default", "payments", "me", "here", "1.0")


class Faults:
    """What goes wrong next, by the name of what is asked; `held` questions wait to be let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.next: defaultdict[str, list[Exception]] = defaultdict(list)
        self.held: dict[str, asyncio.Event] = {}

    async def meet(self, what: str) -> None:
        """Note the question, wait while it is held, and raise the next fault there is for it."""
        self.asked.append(what)
        if what in self.held:
            await self.held[what].wait()
        if self.next[what]:
            raise self.next[what].pop(0)

    def hold(self, what: str) -> None:
        """Let nobody pass who asks for `what`."""
        self.held[what] = asyncio.Event()

    def let_go(self, what: str) -> None:
        """Let everybody pass again."""
        self.held.pop(what).set()

    async def until_asked(self, what: str, times: int = 1) -> None:
        """Wait until it was asked for so often."""
        await until(lambda: self.asked.count(what) >= times)


class TrickyStore(MemoryStore):
    """A store in memory that fails as it is told, and remembers its batches."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(compile_document=compile_stored, render=render, clock=clock)
        self.faults = Faults()
        self.batches: list[Batch] = []
        self.tries_asked: list[int] = []

    async def commit(self, batch: Batch) -> BatchResult:
        self.batches.append(batch)
        await self.faults.meet("commit")
        result = await super().commit(batch)
        await self.faults.meet("committed")
        return result

    async def ask_rates(
        self, namespace: str, service: str, asks: Sequence[RateAsk]
    ) -> Sequence[RateAnswer]:
        await self.faults.meet("ask_rates")
        self.tries_asked += [one.tries for one in asks]
        answers = await super().ask_rates(namespace, service, asks)
        await self.faults.meet("rates_asked")
        return answers

    async def get_definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> StoredDefinition | None:
        await self.faults.meet("get_definition")
        return await super().get_definition(namespace, name, version)

    async def beat(self, beat: SidecarBeat) -> None:
        await self.faults.meet("beat")
        await super().beat(beat)

    async def leave(self, incarnation: str) -> None:
        await self.faults.meet("leave")
        await super().leave(incarnation)

    async def mint_epoch(self, namespace: str, holder: str) -> Epoch:
        await self.faults.meet("mint_epoch")
        return await super().mint_epoch(namespace, holder)


class TrickyQueue(MemoryQueue):
    """A queue in memory that fails as it is told, and remembers what it was asked."""

    def __init__(self, broker: MemoryBroker, *, same_store: bool = False) -> None:
        super().__init__(broker, namespace=ME.namespace, service=ME.service)
        self.faults = Faults()
        self.same_store = same_store
        self.published: list[Doorbell] = []
        self.waits: list[float] = []
        self.acked: list[Delivery | Refused] = []

    @property
    def capabilities(self) -> QueueCapabilities:
        return QueueCapabilities(same_store=self.same_store)

    async def open(self) -> None:
        await self.faults.meet("open")
        await super().open()

    async def pause(self) -> None:
        await self.faults.meet("pause")
        await super().pause()

    async def resume(self) -> None:
        await self.faults.meet("resume")
        await super().resume()

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        await self.faults.meet("publish")
        await super().publish(doorbells)
        self.published.extend(doorbells)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        self.waits.append(wait)
        await self.faults.meet("receive")
        return await super().receive(limit, wait)

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        await self.faults.meet("ack")
        await super().ack(deliveries)
        self.acked.extend(deliveries)


@dataclass
class Parts:
    """The parts of one sidecar of `payments`, none of them started."""

    look: LookInterval = NEVER
    concurrency: int = 4
    same_store: bool = False
    may_take_more: bool = True
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)
    claimed: list[Claimed] = field(default_factory=list)
    recorded: list[WorkflowId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(7, self.clock)
        self.telemetry = MemoryTelemetry()
        self.store = TrickyStore(self.clock)
        self.broker = MemoryBroker()
        self.queue = TrickyQueue(self.broker, same_store=self.same_store)
        self.notices = MemoryNotices(NoticeHub(), namespace=ME.namespace, service=ME.service)
        self.service = MemoryService()
        self.slots = Slots(self.concurrency)
        self.compiled = CompiledDefinitions(self.store)
        times = {"clock": self.clock, "entropy": self.entropy, "telemetry": self.telemetry}
        self.gate = Gate(self.service, times=GateTimes(first_pause=0, check=3600), **times)
        self.committer = Committer(
            self.store, ME, CommitLimits(lease_margin=MARGIN), after=self._after, **times
        )
        self.limiter = Limiter(self.store, ME, self.rate_limits, self.clock, self.telemetry)
        self.caller = Caller(
            CallingPorts(self.service, **times),
            self.committer,
            self.slots,
            self.compiled.get,
            self.limiter,
            lease_margin=MARGIN,
            record=lambda workflow, _outcome: self.recorded.append(workflow),
            may_take_more=lambda: self.may_take_more,
            callback_url=lambda claimed: f"http://sidecar/{claimed.attempt}",
        )
        self.receiver = Receiver(
            self.queue,
            self.slots,
            self.committer,
            gate=self.gate,
            entropy=self.entropy,
            telemetry=self.telemetry,
            look=self.look,
        )
        self.rung_for: list[tuple[WorkflowId, StepKey]] = []
        self.ringer = Ringer(
            ME.service,
            self.queue,
            self.notices,
            self.telemetry,
            lambda workflow, key: self.rung_for.append((workflow, key)),
        )
        self.player = Player(self.store, ME.service, incarnation="another")

    async def open(self) -> None:
        """Open the ports, and start what commits."""
        await self.store.open()
        await self.notices.open()
        await self.queue.open()
        await self.committer.start()

    async def open_gate(self) -> None:
        """Let calls through."""
        await self.gate.start()
        await self.gate.wait_open()

    async def close(self) -> None:
        """Stop whatever was started."""
        self.service.is_ready = False
        for part in (self.receiver, self.caller, self.committer, self.ringer, self.gate):
            await part.stop()
        await self.notices.close()
        await self.store.close()

    def _after(self, _batch: Batch, result: BatchResult, _began: float) -> None:
        """Take a slot for each claim, as the caller does."""
        self.claimed.extend(result.claimed)
        self.slots.take(len(result.claimed))

    def settle_all(self) -> None:
        """Give back the slots of all that was claimed so far."""
        self.slots.give_back(self.slots.used)

    # -- what is there to do --------------------------------------------------------------------

    async def define(self, *steps: dict[str, Any], **more: Any) -> Definition:
        """Register the definition `order`."""
        return await register(self.store, *steps, **more)

    async def start(self, definition: Definition, **more: Any) -> WorkflowId:
        """Start a workflow behind this sidecar's back."""
        one = start_of(definition, **more)
        (started,) = (await self.player.store.commit(self.player.batch(starts=[one]))).starts
        assert isinstance(started, Started)
        return started.workflow

    def put(self, workflow: WorkflowId, step: str, service: str = ME.service) -> None:
        """Ring for a step."""
        self.broker.put(ME.namespace, service, Doorbell(workflow, StepKey(step), service))

    async def see(self, workflow: WorkflowId) -> Workflow:
        """Return a workflow, which must exist."""
        found = await self.store.get_workflow(ME.namespace, workflow)
        assert found is not None
        return found

    async def step(self, workflow: WorkflowId, name: str) -> Step:
        """Return a step, which must have a row."""
        return (await self.see(workflow)).steps[StepKey(name)]

    def count(self, metric: Metric, *labels: str) -> int:
        """Return a counter's value for these labels."""
        return self.telemetry.counts[metric.name, labels]


async def turns(count: int = 50) -> None:
    """Let everybody else run for a while: for what must not happen."""
    for _ in range(count):
        await asyncio.sleep(0)
