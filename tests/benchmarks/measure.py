"""One measurement: so many sagas in flight, a window of time, and a proof of every call.

Each worker asks for one saga after the other on a connection of its own. The window opens with
the first answer after the warm-up and closes with the first one after its span, both longer for
who is slow, so that neither the rise nor the fall of the load is measured; nothing sleeps.
Before, every ingress must have answered some sagas soon: servers that say they are ready may
still get ready, as the consumers of a queue join for seconds. Afterwards every saga that was
asked for has been answered, and the stub must have been called exactly as the sagas demand,
warm-up included, or there is no measurement.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.benchmarks.client import Client
from tests.benchmarks.costs import DRIVER, Spent
from tests.benchmarks.saga import Variant
from tests.benchmarks.system import System

ANSWERED_WITHIN_S = 60.0
SOON_S = 0.5
SOON_IN_A_ROW = 3
WARM_UP_ROUNDS = 2
"""Answers to each worker before the window opens: they all begin at once, and spread out."""
ROUNDS = 4
"""Answers to each worker within the window, lest one wave more or less decide about it."""


class MeasurementError(Exception):
    """A saga did not end as it must, or not by exactly its calls."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard and how long a system is asked."""

    concurrency: int
    warm_up_s: float
    span_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement; times in milliseconds, CPU in milliseconds per saga, memory in MiB."""

    system: str
    variant: str
    concurrency: int
    sagas_per_second: float
    p50: float
    p99: float
    cpu: dict[str, float]
    memory: dict[str, float]
    foreign_cores: float

    @property
    def cpu_of_all(self) -> float:
        """The CPU of the system, its servers and the stub; the driver is not part of it."""
        return sum(value for kind, value in self.cpu.items() if kind != DRIVER)


@dataclass(slots=True)
class _Window:
    """Collects the sagas that ended within it."""

    system: System
    load: Load
    began: float = field(default_factory=time.perf_counter)
    before: int = 0
    opened: tuple[float, Spent] | None = None
    closed: tuple[float, Spent] | None = None
    took: list[float] = field(default_factory=list)

    def note(self, ended: float, took: float) -> None:
        """Take one answer into account, which may open or close the window."""
        workers = self.load.concurrency
        if self.opened is None:
            self.before += 1
            warm = ended - self.began >= self.load.warm_up_s
            if warm and self.before >= WARM_UP_ROUNDS * workers:
                self.opened = (ended, self.system.spent())
        elif self.closed is None:
            self.took.append(took)
            over = ended - self.opened[0] >= self.load.span_s
            if over and len(self.took) >= ROUNDS * workers:
                self.closed = (ended, self.system.spent())


async def measure(system: System, variant: Variant, load: Load) -> Figures:
    """Measure one cell, and verify that every call was made exactly once."""
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            await _settle(system, variant)
        before = await system.calls()
        window = _Window(system, load)
        async with asyncio.timeout(load.warm_up_s + load.span_s + ANSWERED_WITHIN_S):
            sagas = await _drive(system, variant, window)
    except TimeoutError as late:
        raise MeasurementError(f"{system.name}: sagas are not answered in time") from late
    made = Counter(await system.calls())
    made.subtract(before)
    expected = dict.fromkeys(variant.calls, sagas)
    if {path: calls for path, calls in made.items() if calls} != expected:
        raise MeasurementError(f"{system.name}: {sagas} sagas made these calls: {dict(made)}")
    return _figures(system, variant, window)


async def _settle(system: System, variant: Variant) -> None:
    """Return when each ingress has answered several sagas in a row soon."""

    async def settle(port: int) -> None:
        client = Client(port)
        in_a_row = 0
        try:
            while in_a_row < SOON_IN_A_ROW:
                _, took = await _one_saga(system, variant, client, order=0)
                in_a_row = in_a_row + 1 if took <= SOON_S else 0
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for port in system.ports:
            group.create_task(settle(port))


async def _drive(system: System, variant: Variant, window: _Window) -> int:
    """Run sagas until the window is closed and all are answered; return how many they were."""
    orders = itertools.count()
    answered = 0

    async def worker(number: int) -> None:
        nonlocal answered
        client = Client(system.ports[number % len(system.ports)])
        try:
            while window.closed is None:
                window.note(*await _one_saga(system, variant, client, order=next(orders)))
                answered += 1
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for number in range(window.load.concurrency):
            group.create_task(worker(number))
    return answered


async def _one_saga(
    system: System, variant: Variant, client: Client, *, order: int
) -> tuple[float, float]:
    """Run one saga to its end; return when it was answered, and after how long."""
    path, body = system.question(variant, order)
    began = time.perf_counter()
    status, answer = await client.request("POST", path, body)
    ended = time.perf_counter()
    if not system.ended_well(variant, status, answer):
        raise MeasurementError(f"{system.name}: a saga ended so: {status} {answer}")
    return ended, ended - began


def _figures(system: System, variant: Variant, window: _Window) -> Figures:
    if window.opened is None or window.closed is None:
        raise MeasurementError(f"{system.name}: the window never closed")
    wall = window.closed[0] - window.opened[0]
    spent = window.closed[1].since(window.opened[1])
    times = sorted(window.took)
    return Figures(
        system=system.name,
        variant=variant.name,
        concurrency=window.load.concurrency,
        sagas_per_second=len(times) / wall,
        p50=statistics.median(times) * 1000,
        p99=times[int(len(times) * 0.99)] * 1000,
        cpu={kind: used / len(times) * 1000 for kind, used in spent.by_kind.items()},
        memory=system.memory(),
        foreign_cores=spent.foreign / wall,
    )
