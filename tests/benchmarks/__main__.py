"""The 3-step saga over three services: `make bench`, or `python -m tests.benchmarks`.

For each queue and each concurrency: how many sagas a second, how long one takes, what it costs
in CPU by process; and the same without group commit (every member its own transaction, twenty
connections), so that the ratio comes from one run on one machine. The stub answers at once and
counts its calls; PostgreSQL runs with fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

import uvloop

from tests.benchmarks.client import Client
from tests.benchmarks.cluster import PATHS, Cluster
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

CONCURRENCIES = (1, 64, 256)
WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement; times in milliseconds, CPU in milliseconds per saga."""

    queue: str
    naive: bool
    concurrency: int
    sagas_per_second: float
    p50: float
    p99: float
    cpu: dict[str, float]


async def drive(ports: list[int], count: int, concurrency: int) -> list[float]:
    """Run `count` sagas, so many at a time; return how long each took, in seconds."""
    bodies = itertools.count()
    times: list[float] = []

    async def worker(number: int) -> None:
        client = Client(ports[number % len(ports)])
        while (order := next(bodies)) < count:
            body = json.dumps({"definition": "bench_order", "input": {"order": order}}).encode()
            began = time.perf_counter()
            status, view = await client.request("POST", "/v1/workflows?wait=30s", body)
            times.append(time.perf_counter() - began)
            if status not in (200, 201) or view["status"] != "completed":
                raise RuntimeError(f"a saga did not complete: {status} {view}")
        client.close()

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(worker(number))
    return times


async def measure(cluster: Cluster, queue: str, concurrency: int, *, naive: bool) -> Figures:
    """Measure one cell, and verify that every call was made exactly once."""
    await drive(cluster.ports, WARM_UP, min(concurrency, WARM_UP))
    count = {1: 300, 64: 4000, 256: 6000}[concurrency] // (4 if naive and concurrency > 1 else 1)
    calls, cpu = await cluster.calls(), cluster.cpu_seconds()
    began = time.perf_counter()
    times = await drive(cluster.ports, count, concurrency)
    wall = time.perf_counter() - began
    after, used = await cluster.calls(), cluster.cpu_seconds()
    made = {path: after[path] - calls.get(path, 0) for path in PATHS}
    if set(made.values()) != {count}:
        raise RuntimeError(f"{count} sagas made these calls: {made}")
    times.sort()
    return Figures(
        queue=queue,
        naive=naive,
        concurrency=concurrency,
        sagas_per_second=count / wall,
        p50=statistics.median(times) * 1000,
        p99=times[int(len(times) * 0.99)] * 1000,
        cpu={name: (used[name] - cpu[name]) / count * 1000 for name in used},
    )


async def run(queues: list[str], concurrencies: list[int]) -> list[Figures]:
    """Measure every cell."""
    results: list[Figures] = []
    settings = {"shared_buffers": "512MB"}
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(fsync=True, settings=settings))
        broker = stack.enter_context(KafkaServer()) if "kafka" in queues else None
        for queue, naive in itertools.product(queues, (True, False)):
            kafka = broker.bootstrap_servers if broker and queue == "kafka" else None
            name = f"bench_{queue}_{'naive' if naive else 'group'}"
            async with Cluster(postgres, name, kafka=kafka, naive=naive) as cluster:
                for concurrency in concurrencies:
                    figures = await measure(cluster, queue, concurrency, naive=naive)
                    results.append(figures)
                    show(figures, results)
            postgres.drop_database(name)
    return results


def show(figures: Figures, results: list[Figures]) -> None:
    """Print one line, with the ratio to the naive mode of the same run."""
    naive = next(
        one
        for one in results
        if one.naive and (one.queue, one.concurrency) == (figures.queue, figures.concurrency)
    )
    ratio = figures.sagas_per_second / naive.sagas_per_second
    cpu = "  ".join(f"{name} {value:.2f}" for name, value in figures.cpu.items())
    mode = "naive" if figures.naive else "group commit"
    rate = figures.sagas_per_second
    print(
        f"{figures.queue:9} {mode:13} {figures.concurrency:4} in flight  "
        f"{rate:7.0f} sagas/s  {rate * len(PATHS):7.0f} steps/s  "
        f"p50 {figures.p50:7.1f} ms  p99 {figures.p99:7.1f} ms  x{ratio:4.1f}  "
        f"CPU ms/saga: {cpu}",
        flush=True,
    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--queue", action="append", choices=["postgres", "kafka"])
    parser.add_argument("--concurrency", action="append", type=int, choices=CONCURRENCIES)
    options = parser.parse_args()
    uvloop.run(
        run(options.queue or ["postgres", "kafka"], options.concurrency or list(CONCURRENCIES))
    )


if __name__ == "__main__":
    main()
