"""The ports of one sidecar, with the faults that lie between it and the world.

What a sidecar asks of the store, a service or the election is done outside of it: once sent, a
request is carried out even if the sidecar dies the moment after. Only the answer can find
nobody at home.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sidecar.adapters.elections.memory import Booth, MemoryTerm
from sidecar.adapters.queues.memory import MemoryBroker, MemoryQueue
from sidecar.adapters.services.memory import MemoryService, outcome
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.errors import QueueUnavailable, StaleEpoch, StoreConflict, StoreUnavailable
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.ports.queue import Delivery, Doorbell, QueueCapabilities, Refused
from sidecar.ports.records import Lease, SidecarRecord
from sidecar.ports.service import Call
from sidecar.ports.store import Batch, BatchResult, Epoch
from sidecar.saga.outcomes import Outcome, OutcomeKind
from tests.simulation.faults import Fault, Faults
from tests.simulation.loop import SimLoop
from tests.simulation.offering import is_elsewhere

START = datetime(2030, 1, 1, tzinfo=UTC)
NAMESPACE = "default"


class SimClock:
    """The loop's time, as a clock that is wrong by `skew` seconds sees it."""

    def __init__(self, loop: SimLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self._skew = skew

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time() + self._skew)

    def monotonic(self) -> float:
        return self._loop.time()


class Watch(Protocol):
    """Who looks over the store's shoulder."""

    seen: Counter[str]

    def fenced(self, batch: Batch) -> None:
        """A batch took effect."""
        ...

    def applied(self, batch: Batch, result: BatchResult) -> None:
        """This is what became of it."""
        ...

    def sent(self, call: Call) -> None:
        """A sidecar is sending a call."""
        ...

    def astray(self, call: Call) -> None:
        """It is sending it to a place that is none of its service's."""
        ...

    def listed(self, leases: Sequence[Lease]) -> None:
        """The store says that these leases are over."""
        ...

    def minted(self, epoch: Epoch) -> None:
        """A term begins under this epoch."""
        ...


class StoreSide:
    """A connection to the store: slow, and lossy in both directions."""

    def __init__(
        self,
        store: MemoryStore,
        loop: SimLoop,
        faults: Faults,
        watch: Watch,
    ) -> None:
        self._store = store
        self._loop = loop
        self._faults = faults
        self._watch = watch

    async def open(self) -> None:
        """Others use the same store: it stays open."""

    async def close(self) -> None:
        """Others use the same store: it stays open."""

    async def commit(self, batch: Batch) -> BatchResult:
        faults = self._faults
        if faults.strikes(Fault.CONFLICT):
            await asyncio.sleep(faults.latency(0.002))
            raise StoreConflict("deadlock")
        if faults.strikes(Fault.COMMIT_LOST):
            await asyncio.sleep(faults.latency(0.05))
            raise StoreUnavailable("the connection was lost before the commit")
        answer_lost = faults.strikes(Fault.ANSWER_LOST)
        result: BatchResult = await asyncio.shield(self._loop.spawn(self._carry_out(batch)))
        if answer_lost:
            raise StoreUnavailable("the connection was lost after the commit")
        return result

    async def _carry_out(self, batch: Batch) -> BatchResult:
        await self._travel()
        try:
            result = await self._store.commit(batch)
        except StaleEpoch:
            self._watch.seen["stale_epoch"] += 1
            raise
        self._watch.fenced(batch)
        self._watch.applied(batch, result)
        await asyncio.sleep(self._faults.latency(0.001))
        return result

    async def ended_leases(
        self, namespace: str, unseen_for: timedelta, limit: int
    ) -> Sequence[Lease]:
        found = await self._store.ended_leases(namespace, unseen_for, limit)
        self._watch.listed(found)
        await asyncio.sleep(self._faults.latency(0.001))
        return found

    async def mint_epoch(self, namespace: str, holder: str) -> Epoch:
        if self._faults.strikes(Fault.QUERY_LOST):
            raise StoreUnavailable("the connection was lost")
        epoch: Epoch = await asyncio.shield(self._loop.spawn(self._mint(namespace, holder)))
        return epoch

    async def _mint(self, namespace: str, holder: str) -> Epoch:
        await asyncio.sleep(self._faults.latency(0.001))
        epoch = await self._store.mint_epoch(namespace, holder)
        self._watch.minted(epoch)
        return epoch

    # A start asks for these again until it is answered, and a leader a little later: nothing is
    # lost here, so that the faults of everything else stay where they were.

    async def get_catalogue(self, *names: str) -> StoredCatalogue | None:
        return await self._store.get_catalogue(*names)

    async def publish_catalogue(self, *given: Any) -> StoredCatalogue:
        return await self._store.publish_catalogue(*given)

    async def list_sidecars(
        self, namespace: str, seen_within: timedelta | None = None
    ) -> Sequence[SidecarRecord]:
        return await self._store.list_sidecars(namespace, seen_within)

    async def live_versions(self, *given: Any) -> Mapping[str, frozenset[int | None]]:
        return await self._store.live_versions(*given)

    async def _travel(self) -> None:
        await asyncio.sleep(self._faults.latency(0.002))
        if self._faults.strikes(Fault.STORE_SLOW):
            end = self._loop.time() + self._faults.random.uniform(0.5, 20.0)
            while self._loop.time() < end and not self._faults.healed:  # noqa: ASYNC110 - a flag
                await asyncio.sleep(0.25)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """All the other questions: each may be lost, and takes its time."""
        ask = getattr(self._store, name)

        async def asked(*args: Any, **more: Any) -> Any:
            if self._faults.strikes(Fault.QUERY_LOST):
                raise StoreUnavailable("the connection was lost")
            return await asyncio.shield(self._loop.spawn(self._question(ask, args, more)))

        return asked

    async def _question(
        self, ask: Callable[..., Awaitable[Any]], args: tuple[Any, ...], more: dict[str, Any]
    ) -> Any:
        await asyncio.sleep(self._faults.latency(0.001))
        return await ask(*args, **more)


class QueueSide(MemoryQueue):
    """A queue that loses, repeats, delays and reorders, and whose acks get lost."""

    def __init__(
        self, broker: MemoryBroker, loop: SimLoop, faults: Faults, *, service: str
    ) -> None:
        super().__init__(broker, namespace=NAMESPACE, service=service)
        self._loop = loop
        self._faults = faults

    @property
    def capabilities(self) -> QueueCapabilities:
        return QueueCapabilities()

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        faults = self._faults
        bells = list(doorbells)
        if len(bells) > 1 and faults.strikes(Fault.BELL_ORDER):
            faults.random.shuffle(bells)
        await asyncio.sleep(faults.latency(0.001))
        self._broker.check()
        for bell in bells:
            if faults.strikes(Fault.BELL_LOST):
                continue
            if faults.strikes(Fault.BELL_TWICE):
                self._later(bell)
            if faults.strikes(Fault.BELL_LATE):
                self._later(bell)
            else:
                self._broker.put(NAMESPACE, bell.service, bell)

    def _later(self, bell: Doorbell) -> None:
        delay = self._faults.random.choice((0.01, 0.3, 3.0, 30.0)) * self._faults.random.random()
        self._loop.call_later(delay, self._put, bell, context=self._loop.outside())

    def _put(self, bell: Doorbell) -> None:
        try:
            self._broker.put(NAMESPACE, bell.service, bell)
        except QueueUnavailable:
            self._faults.happened(Fault.BELL_LOST)

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        if self._faults.strikes(Fault.ACK_LOST):
            raise QueueUnavailable("the ack was lost")
        await super().ack(deliveries)


class ServiceSide:
    """The way from a sidecar to its service."""

    def __init__(
        self,
        service: MemoryService,
        loop: SimLoop,
        faults: Faults,
        watch: Watch,
        is_down: Callable[[], bool],
        *,
        life: str,
    ) -> None:
        self._life = life
        self._watch = watch
        self._service = service
        self._loop = loop
        self._faults = faults
        self._is_down = is_down

    async def open(self) -> None:
        """The service is a process of its own."""

    async def close(self) -> None:
        """The service is a process of its own."""

    async def ready(self) -> bool:
        await asyncio.sleep(self._faults.latency(0.002))
        return not self._is_down()

    async def call(self, call: Call) -> Outcome:
        self._watch.sent(call)
        if is_elsewhere(call.path, call.action, self._life):
            self._watch.astray(call)
        await asyncio.sleep(self._faults.latency(0.002))
        if self._is_down() or self._faults.strikes(Fault.NOT_SENT):
            return outcome(OutcomeKind.NOT_SENT, "connection refused", code="not_connected")
        answer: Outcome = await asyncio.shield(self._loop.spawn(self._service.call(call)))
        return answer


class ElectionSide:
    """A candidate whose place in the line dies with it."""

    def __init__(self, booth: Booth, loop: SimLoop) -> None:
        self._booth = booth
        self._loop = loop
        self._standing: asyncio.Task[MemoryTerm] | None = None
        self._term: MemoryTerm | None = None

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        self.vanish()

    async def campaign(self) -> MemoryTerm:
        self._term = None
        self._standing = self._loop.spawn(self._booth.next_term())
        try:
            self._term = await asyncio.shield(self._standing)
        except asyncio.CancelledError:
            self.vanish()
            raise
        return self._term

    def vanish(self) -> None:
        """Leave the line, or end the term: what the backend does when the session is gone."""
        standing, term = self._standing, self._term
        self._standing = self._term = None
        if term is not None:
            self._booth.vacate(term)
        elif standing is not None:
            if standing.done() and not standing.cancelled():
                self._booth.vacate(standing.result())
            standing.cancel()
