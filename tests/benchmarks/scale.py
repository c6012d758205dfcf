"""What a step costs when much is stored: `make bench-scale`, or `python -m tests.benchmarks.scale`.

One cluster, the same load again and again, while more and more workflows stand in its tables:
first a thousand that have ended, then a million, then a hundred thousand open ones beside them.
Each rate is shown with its ratio to the first, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import uvloop

from tests.benchmarks import filling
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.measure import Figures, Load, measure
from tests.benchmarks.saga import COMPLETED


@dataclass(frozen=True, slots=True)
class Stage:
    """So many workflows in the tables."""

    ended: int
    waiting: int


async def run(stages: list[Stage], queue: str, load: Load, repeats: int) -> None:
    """Measure stage after stage."""
    rates: list[float] = []
    ended = waiting = 0
    async with Cluster(queue, naive=False) as cluster:
        await measure(cluster, COMPLETED, load)  # something to clone, and warm caches
        for stage in stages:
            filling.add_ended(cluster.dsn, ended, stage.ended - ended)
            filling.add_waiting(cluster.dsn, waiting, stage.waiting - waiting)
            ended, waiting = stage.ended, stage.waiting
            figures = [await measure(cluster, COMPLETED, load) for _ in range(repeats)]
            rates.append(statistics.median(one.sagas_per_second for one in figures))
            show(stage, figures, rates[-1] / rates[0])


def show(stage: Stage, figures: list[Figures], ratio: float) -> None:
    """Print one row of a Markdown table."""
    rates = sorted(one.sagas_per_second for one in figures)
    postgres = statistics.median(one.cpu["postgres"] for one in figures)
    foreign = max(one.foreign_cores for one in figures)
    print(
        f"| {stage.ended:,} | {stage.waiting:,} | {statistics.median(rates):.0f}"
        f" [{rates[0]:.0f}..{rates[-1]:.0f}] | {ratio:.2f} | {postgres:.2f} | {foreign:.2f} |",
        flush=True,
    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--queue", choices=["postgres", "kafka"], default="postgres")
    parser.add_argument("--ended", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    stages = [Stage(1_000, 0), Stage(options.ended, 0), Stage(options.ended, options.waiting)]
    load = Load(options.concurrency, warm_up_s=2.0, span_s=options.seconds)
    print("| ended | open | sagas/s | to the first | PostgreSQL CPU ms | foreign cores |")
    print("|---|---|---|---|---|---|")
    uvloop.run(run(stages, options.queue, load, options.repeats))


if __name__ == "__main__":
    main()
