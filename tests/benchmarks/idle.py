"""What a sidecar costs that has nothing to do: `python -m tests.benchmarks.idle`.

Three sidecars with an open gate and no workflow, watched for a while after they have come to
rest: statements a second (as PostgreSQL counts them), CPU, memory and connections, for each
sidecar; one of them leads.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psycopg
import uvloop

from tests.benchmarks import machine
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.markdown import IDLE, section, write_into
from tests.benchmarks.saga import SERVICES

REST_S = 15.0
"""Until looks and duties have backed off as far as they do."""
EXTENSION = "pg_stat_statements"


@dataclass(frozen=True, slots=True)
class Rest:
    """One sidecar; CPU in percent of one core, memory in MiB."""

    statements_per_second: float
    cpu_percent: float
    mebibytes: float
    connections: int


@dataclass(frozen=True, slots=True)
class Idle:
    """A cluster; one of its sidecars leads."""

    queue: str
    sidecars: list[Rest]
    asked: dict[str, float]
    """How often each statement was executed, in a second, by all sidecars together."""


async def watch(queue: str, seconds: float) -> Idle:
    """Watch a cluster that has nothing to do."""
    settings = {"shared_preload_libraries": EXTENSION}
    async with Cluster(queue, naive=False, apart=True, postgres_settings=settings) as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE EXTENSION {EXTENSION}")
            await asyncio.sleep(REST_S)
            before, spent = _statements(connection), cluster.spent()
            await asyncio.sleep(seconds)
            after, more = _statements(connection), cluster.spent().since(spent)
            held, memory = _connections(connection), cluster.memory()
        asked, together = Counter[str](), Counter[str]()
        for (role, text), calls in (after - before).items():
            asked[role] += calls
            together[text] += calls
        sidecars = [
            Rest(
                asked[name] / seconds,
                more.by_kind[name] / seconds * 100,
                memory[name],
                held[name],
            )
            for name in (f"sidecar-{number}" for number in range(len(SERVICES)))
        ]
        return Idle(queue, sidecars, {text: calls / seconds for text, calls in together.items()})


def _statements(connection: psycopg.Connection) -> Counter[tuple[str, str]]:
    """How often each role of a sidecar has executed each statement so far."""
    found = connection.execute(
        "SELECT r.rolname, s.query, sum(s.calls) FROM pg_stat_statements s"
        " JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname LIKE 'sidecar-%'"
        " GROUP BY r.rolname, s.query"
    ).fetchall()
    return Counter({(role, text): int(calls) for role, text, calls in found})


def _connections(connection: psycopg.Connection) -> Counter[str]:
    """How many connections each role has."""
    found = connection.execute(
        "SELECT usename FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ).fetchall()
    return Counter(role for (role,) in found)


def told(found: Sequence[Idle], command: str) -> str:
    """The table."""
    facts = machine.facts(command)
    head = ("queue", "", "statements/s", "CPU %", "MiB", "connections")
    rows = [
        (
            one.queue,
            which,
            f"{of(each.statements_per_second for each in one.sidecars):.2f}",
            f"{of(each.cpu_percent for each in one.sidecars):.2f}",
            f"{of(each.mebibytes for each in one.sidecars):.1f}",
            f"{of(each.connections for each in one.sidecars):.1f}",
        )
        for one in found
        for which, of in (("mean", fmean), ("most", max))
    ]
    return section(facts, head, rows)


def main() -> None:
    """Parse the command line, watch, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.idle", description=__doc__)
    parser.add_argument("--queue", action="append", choices=["postgres", "kafka"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--statements", action="store_true", help="show what was asked how often")
    parser.add_argument("--write", type=Path, help=f"a page with markers named `{IDLE}`")
    options = parser.parse_args()
    found = [
        uvloop.run(watch(queue, options.seconds))
        for queue in options.queue or ["postgres", "kafka"]
    ]
    text = told(found, shlex.join(["python", "-m", "tests.benchmarks.idle", *sys.argv[1:]]))
    print(text)
    if options.write:
        write_into(options.write, text, IDLE)
    if options.statements:
        for one in found:
            show(one)


def show(one: Idle) -> None:
    """Print the statements, the most frequent first."""
    for text, rate in sorted(one.asked.items(), key=lambda item: -item[1]):
        if rate:
            print(f"  {rate:6.3f}/s  {' '.join(text.split())[:80]}", flush=True)


if __name__ == "__main__":
    main()
