"""The 3-step saga over three services: `make bench`, or `python -m tests.benchmarks`.

For each queue and each concurrency: how many sagas a second, how long one takes, what it costs
in CPU by process; and the same without group commit, so that the ratio comes from one run on one
machine. The stub answers at once and counts its calls; PostgreSQL runs with fsync on. The table
with repeats, other systems and sagas that are rolled back is `python -m tests.benchmarks.table`.
"""

from __future__ import annotations

import argparse
import itertools

import uvloop

from tests.benchmarks.cluster import Cluster
from tests.benchmarks.measure import Figures, Load, measure
from tests.benchmarks.saga import COMPLETED

CONCURRENCIES = (1, 64, 256)
QUEUES = ("postgres", "kafka")
WARM_UP_S = 1.0
SPAN_S = 3.0


async def run(queues: list[str], concurrencies: list[int]) -> None:
    """Measure every cell."""
    naive: dict[tuple[str, int], float] = {}
    for queue, mode in itertools.product(queues, ("naive", "group commit")):
        async with Cluster(queue, naive=mode == "naive") as cluster:
            for concurrency in concurrencies:
                figures = await measure(
                    cluster, COMPLETED, Load(concurrency, warm_up_s=WARM_UP_S, span_s=SPAN_S)
                )
                rate = naive.setdefault((queue, concurrency), figures.sagas_per_second)
                show(queue, mode, figures, figures.sagas_per_second / rate)


def show(queue: str, mode: str, figures: Figures, ratio: float) -> None:
    """Print one line, with the ratio to the naive mode of the same run."""
    cpu = "  ".join(f"{name} {value:.2f}" for name, value in figures.cpu.items())
    rate = figures.sagas_per_second
    print(
        f"{queue:9} {mode:13} {figures.concurrency:4} in flight  "
        f"{rate:7.0f} sagas/s  {rate * len(COMPLETED.steps):7.0f} steps/s  "
        f"p50 {figures.p50:7.1f} ms  p99 {figures.p99:7.1f} ms  x{ratio:4.1f}  "
        f"CPU ms/saga: {cpu}  foreign cores {figures.foreign_cores:.2f}",
        flush=True,
    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--queue", action="append", choices=QUEUES)
    parser.add_argument("--concurrency", action="append", type=int, choices=CONCURRENCIES)
    options = parser.parse_args()
    uvloop.run(run(options.queue or list(QUEUES), options.concurrency or list(CONCURRENCIES)))


if __name__ == "__main__":
    main()
