"""The whole table: every system, both variants, every concurrency, on fresh servers each time.

`make bench-peers`, or `python -m tests.benchmarks.table` with options for parts of it. What is
done again is done after everything else was done once, so that a busy moment of the machine
does not fall on one system alone. A saga that ends wrongly, or takes other calls than it must,
ends the run without a table. `--write` puts the table between the markers of a page.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from tests.benchmarks import machine
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.markdown import MEASURED, page_with, table, write_into
from tests.benchmarks.measure import Figures, Load, measure
from tests.benchmarks.peers.dbos import Dbos
from tests.benchmarks.peers.floor import Floor
from tests.benchmarks.peers.restate import Restate
from tests.benchmarks.saga import VARIANTS, Variant
from tests.benchmarks.system import System

SYSTEMS: dict[str, Callable[[], System]] = {
    "postgres-naive": lambda: Cluster("postgres", naive=True),
    "postgres": lambda: Cluster("postgres", naive=False),
    "postgres-one-service": lambda: Cluster("postgres", naive=False, one_service=True),
    "kafka-naive": lambda: Cluster("kafka", naive=True),
    "kafka": lambda: Cluster("kafka", naive=False),
    "dbos": Dbos,
    "restate-python": lambda: Restate("python"),
    "restate-node": lambda: Restate("node"),
    "floor": Floor,
}
CONCURRENCIES = (1, 64, 256)


async def run(options: argparse.Namespace) -> list[Figures]:
    """Measure every cell as often as asked for."""
    figures: list[Figures] = []
    for turn, name in itertools.product(range(options.repeats), options.system):
        async with SYSTEMS[name]() as system:
            for load, variant in _cells(options):
                one = await measure(system, variant, load)
                figures.append(one)
                _report(turn, one)
    return figures


def _cells(options: argparse.Namespace) -> Iterator[tuple[Load, Variant]]:
    for concurrency, variant in itertools.product(options.concurrency, VARIANTS):
        yield Load(concurrency, options.warm_up, options.seconds), variant


def _report(turn: int, one: Figures) -> None:
    """Say on the error stream how far it is."""
    print(
        f"{turn + 1}: {one.system:15} {one.variant:12} {one.concurrency:4} in flight"
        f" {one.sagas_per_second:8.0f} sagas/s  p50 {one.p50:7.1f} ms  p99 {one.p99:7.1f} ms"
        f"  CPU {one.cpu_of_all:6.2f} ms/saga  foreign {one.foreign_cores:.2f} cores",
        file=sys.stderr,
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.table", description=__doc__)
    parser.add_argument("--system", action="append", choices=SYSTEMS)
    parser.add_argument("--concurrency", action="append", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each cell")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before, in each cell")
    parser.add_argument("--write", type=Path, help="a page with markers named `measured`")
    options = parser.parse_args()
    options.system = options.system or list(SYSTEMS)
    options.concurrency = options.concurrency or list(CONCURRENCIES)
    if options.write:
        page_with(options.write.read_text(encoding="utf-8"), "")  # refused now, not at the end
    return options


def main() -> None:
    """Parse the command line, measure, and write."""
    options = _options()
    command = shlex.join(["python", "-m", "tests.benchmarks.table", *sys.argv[1:]])
    facts = machine.facts(command)
    figures = uvloop.run(run(options))
    titles = {name: SYSTEMS[name]().title for name in options.system}
    text = table(facts, titles, figures)
    if options.write:
        write_into(options.write, text, MEASURED)
    else:
        print(text)


if __name__ == "__main__":
    main()
