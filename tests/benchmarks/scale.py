"""What a step costs when much is stored: `make bench-scale`, or `python -m tests.benchmarks.scale`.

Two clusters under the same load, one after the other, again and again: one keeps a thousand
workflows that have ended, in the other's tables stand ever more: a million, then a hundred
thousand open ones beside them. A machine is faster now and slower then, so each measurement is
compared with the one of the small cluster just before it.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.benchmarks import filling, machine
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.markdown import SCALE, section, spread, write_into
from tests.benchmarks.measure import Figures, Load, measure
from tests.benchmarks.saga import COMPLETED

FEW = 1_000


@dataclass(frozen=True, slots=True)
class Stage:
    """So many workflows in the tables of the large cluster."""

    ended: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The small cluster and the large one, measured one after the other."""

    small: Figures
    large: Figures

    @property
    def rate(self) -> float:
        """The rate of the large one by that of the small one."""
        return self.large.sagas_per_second / self.small.sagas_per_second

    @property
    def cpu(self) -> float:
        """The same of PostgreSQL's CPU for a saga."""
        return self.large.cpu["postgres"] / self.small.cpu["postgres"]

    @property
    def foreign(self) -> float:
        """The cores that somebody else used, in the worse of both."""
        return max(self.small.foreign_cores, self.large.foreign_cores)


async def run(
    stages: list[Stage], queue: str, load: Load, repeats: int
) -> list[tuple[Stage, list[Pair]]]:
    """Measure stage after stage."""
    found: list[tuple[Stage, list[Pair]]] = []
    ended = waiting = 0
    async with Cluster(queue, naive=False) as small, Cluster(queue, naive=False) as large:
        for cluster in (small, large):
            await measure(cluster, COMPLETED, load)  # something to clone, and warm caches
        filling.add_ended(small.dsn, 0, FEW)
        for stage in stages:
            filling.add_ended(large.dsn, ended, stage.ended - ended)
            filling.add_waiting(large.dsn, waiting, stage.waiting - waiting)
            ended, waiting = stage.ended, stage.waiting
            await measure(large, COMPLETED, load)  # what was filled in is written to disk meanwhile
            pairs = [
                Pair(await measure(small, COMPLETED, load), await measure(large, COMPLETED, load))
                for _ in range(repeats)
            ]
            found.append((stage, pairs))
    return found


def told(found: list[tuple[Stage, list[Pair]]], command: str) -> str:
    """The table."""
    facts = machine.facts(command)
    head = (
        "ended", "open", "sagas/s", f"sagas/s to {FEW:,}", "PostgreSQL's CPU to it", "foreign cores"
    )  # fmt: skip
    rows = [
        (
            f"{stage.ended:,}",
            f"{stage.waiting:,}",
            spread([one.large.sagas_per_second for one in pairs]),
            spread([one.rate for one in pairs]),
            spread([one.cpu for one in pairs]),
            f"{statistics.median(one.foreign for one in pairs):.2f}",
        )
        for stage, pairs in found
    ]
    return section(facts, head, rows)


def main() -> None:
    """Parse the command line, measure, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--queue", choices=["postgres", "kafka"], default="postgres")
    parser.add_argument("--ended", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--write", type=Path, help=f"a page with markers named `{SCALE}`")
    options = parser.parse_args()
    stages = [Stage(FEW, 0), Stage(options.ended, 0), Stage(options.ended, options.waiting)]
    load = Load(options.concurrency, warm_up_s=2.0, span_s=options.seconds)
    found = uvloop.run(run(stages, options.queue, load, options.repeats))
    text = told(found, shlex.join(["python", "-m", "tests.benchmarks.scale", *sys.argv[1:]]))
    print(text)
    if options.write:
        write_into(options.write, text, SCALE)


if __name__ == "__main__":
    main()
