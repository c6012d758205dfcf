"""Where the time of a saga goes, by process and by layer: `python -m tests.benchmarks.layers`.

CPU by process comes from /proc. A sampler (py-spy) looks at what holds Python's lock in each
sidecar, and the sidecars' CPU is shared out by its samples: each counts for the innermost of our
own files on its stack. What PostgreSQL spends within statements it counts itself
(pg_stat_statements); the rest is parsing, planning, commits, notices and the way back. Both cost
something, so the rate of this run is below that of one that is only measured.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psycopg
import uvloop

from tests.benchmarks import machine
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.idle import EXTENSION
from tests.benchmarks.markdown import LAYERS, section, write_into
from tests.benchmarks.measure import Figures, Load, measure
from tests.benchmarks.saga import VARIANTS

SAMPLES_PER_S = 250
_OWN = re.compile(r"\(sidecar/([^:)]+)")
_REST = "event loop, sockets and the rest"
_LAYERS = (
    ("api/", "REST API"),
    ("saga/", "core: deciding"),
    ("definitions/", "core: deciding"),
    ("adapters/postgres/sql.py", "psycopg: sending statements, reading rows"),
    ("adapters/postgres/reading.py", "psycopg: sending statements, reading rows"),
    ("adapters/postgres/notices.py", "notices: saying and hearing"),
    ("adapters/queues/", "notices: saying and hearing"),
    ("adapters/postgres/", "store: deciding on kept states, records, rows"),
    ("adapters/stores/", "store: deciding on kept states, records, rows"),
    ("adapters/http_", "HTTP client"),
    ("adapters/services/", "HTTP client"),
    ("adapters/telemetry/", "metrics"),
    ("engine/", "engine: batches, calls, doorbells, waiting"),
)
_STATEMENTS = (
    ("pg_notify", "notices"),
    ("Transitions that were decided", "settling, and claims beside it"),
    ("starting AS MATERIALIZED", "starting, and claims beside it"),
    ("chosen AS", "claiming"),
    ("Whole workflows", "reading for the answer"),
)
"""By what a statement says; the first that fits."""


@dataclass(frozen=True, slots=True)
class Layers:
    """One run; milliseconds of CPU per saga, and statements per saga."""

    figures: Figures
    sidecars: Counter[str]
    postgres: dict[str, tuple[float, float]]
    """By purpose of a statement: how many a saga, and their milliseconds of execution."""


async def look(queue: str, concurrency: int, seconds: float) -> Layers:
    """Measure the completed saga and share out what it took."""
    settings = {"shared_preload_libraries": EXTENSION}
    completed = next(one for one in VARIANTS if not one.undone)
    async with Cluster(queue, naive=False, postgres_settings=settings) as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE EXTENSION {EXTENSION}")
            await measure(cluster, completed, Load(concurrency, 1.0, 1.0))
            before = await _sagas(cluster)
            connection.execute("SELECT pg_stat_statements_reset()")
            with tempfile.TemporaryDirectory() as folder:
                pids = cluster.pids("sidecars")
                samplers = [_sampler(pid, seconds, Path(folder, str(pid))) for pid in pids]
                figures = await measure(cluster, completed, Load(concurrency, 0.5, seconds))
                for sampler in samplers:
                    await asyncio.to_thread(sampler.wait)
                samples = _samples(Path(folder))
            statements = _statements(connection, await _sagas(cluster) - before)
    whole = sum(samples.values())
    cpu = figures.cpu["sidecars"]
    return Layers(
        figures,
        Counter({layer: cpu * count / whole for layer, count in samples.items()}),
        statements,
    )


async def _sagas(cluster: Cluster) -> int:
    return sum((await cluster.calls()).values()) // len(VARIANTS[0].steps)


def _sampler(pid: int, seconds: float, file: Path) -> subprocess.Popen[bytes]:
    command = [Path(sys.executable).with_name("py-spy"), "record", "--gil", "--format", "raw"]
    options = ["--pid", pid, "--duration", round(seconds), "--rate", SAMPLES_PER_S]
    return subprocess.Popen(
        [str(one) for one in (*command, *options, "--output", file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _samples(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for file in folder.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            found[layer_of(stack)] += int(count)
    return found


def layer_of(stack: str) -> str:
    """The layer of the innermost of our frames; frames are `name (file:line)`, joined by `;`."""
    for path in reversed(_OWN.findall(stack)):
        for beginning, layer in _LAYERS:
            if path.startswith(beginning):
                return layer
    return _REST


def _statements(connection: psycopg.Connection, sagas: int) -> dict[str, tuple[float, float]]:
    """What was asked by purpose, per saga; what no saga asks for is left out."""
    found: dict[str, tuple[float, float]] = {}
    rows = connection.execute("SELECT query, calls, total_exec_time FROM pg_stat_statements")
    for query, calls, milliseconds in rows:
        purpose = _purpose(query)
        if purpose is not None:
            count, spent = found.get(purpose, (0.0, 0.0))
            found[purpose] = (count + calls / sagas, spent + milliseconds / sagas)
    return found


def _purpose(query: str) -> str | None:
    for sign, purpose in _STATEMENTS:
        if sign in query:
            return purpose
    return None


def told(runs: list[Layers], command: str) -> str:
    """The tables."""
    facts = machine.facts(command)
    head = ["", *(f"{one.figures.concurrency} in flight" for one in runs)]
    layers = [name for name, _ in sum((one.sidecars for one in runs), Counter()).most_common()]
    purposes = sorted({name for one in runs for name in one.postgres})
    rows = [
        ["sagas/s", *(f"{one.figures.sagas_per_second:.0f}" for one in runs)],
        ["p50 ms", *(f"{one.figures.p50:.1f}" for one in runs)],
        *(
            [f"CPU ms per saga: {kind}", *(f"{one.figures.cpu[kind]:.2f}" for one in runs)]
            for kind in runs[0].figures.cpu
        ),
        *([f"sidecars: {name}", *(f"{one.sidecars[name]:.3f}" for one in runs)] for name in layers),
        *([f"PostgreSQL: {name}", *(_asked(one, name) for one in runs)] for name in purposes),
        ["PostgreSQL: the rest", *(f"{_rest(one):.3f}" for one in runs)],
        ["foreign cores", *(f"{one.figures.foreign_cores:.2f}" for one in runs)],
    ]
    return section(facts, head, rows)


def _asked(one: Layers, purpose: str) -> str:
    count, milliseconds = one.postgres.get(purpose, (0.0, 0.0))
    return f"{milliseconds:.3f} in {count:.2f} statements"


def _rest(one: Layers) -> float:
    return one.figures.cpu["postgres"] - sum(spent for _, spent in one.postgres.values())


def main() -> None:
    """Parse the command line, measure, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.layers", description=__doc__)
    parser.add_argument("--queue", choices=["postgres", "kafka"], default="postgres")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--write", type=Path, help="a page with markers named `layers`")
    options = parser.parse_args()
    runs = [uvloop.run(look(options.queue, number, options.seconds)) for number in (1, 64)]
    text = told(runs, shlex.join(["python", "-m", "tests.benchmarks.layers", *sys.argv[1:]]))
    if options.write:
        write_into(options.write, text, LAYERS)
    else:
        print(text)


if __name__ == "__main__":
    main()
