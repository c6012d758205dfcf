"""What an item of a fan-out costs when there are many: `python -m tests.benchmarks.items`.

One item is settled at a time, in fan-outs of ten to ten thousand items of which ten are called at
a time: forward, and on the way back. Beside them stand the fan-outs measured before, and a thousand
other workflows. Statements and rows are counted by the server; time is the median.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.definitions import compile_stored, render
from sidecar.ports.store import Claimed
from sidecar.saga.definition import Definition
from tests.benchmarks import machine
from tests.benchmarks.markdown import section
from tests.benchmarks.metering import Cost, metered
from tests.conformance.store_language import fan, lines
from tests.conformance.store_play import Player, call, done, refused, register, settle, start_of
from tests.servers.postgres import PostgresServer

AT_ONCE = 10
BESIDE = 1_000
SIZES = (10, 100, 1_000, 10_000)
_HEAD = (
    "items", "way", "statements", "rows read", "rows written", "us", "to 10 items",
    "start ms", "turning back ms",
)  # fmt: skip


@dataclass(slots=True)
class Measured:
    """What settling one item cost, in fan-outs of one size; and what their ends cost."""

    forward: list[Cost] = field(default_factory=list)
    back: list[Cost] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    turn_s: list[float] = field(default_factory=list)


class Bench(Player):
    """A sidecar that does nothing else meanwhile."""

    async def held(self, limit: int = AT_ONCE) -> list[Claimed]:
        """Claim without looking at what came of it."""
        return list((await self.store.commit(self.batch(due=limit))).claimed)

    async def settle_all(self, claims: Sequence[Claimed]) -> None:
        """Settle some claims in one batch."""
        members = [settle(one, done('{"ok":true}')) for one in claims]
        await self.store.commit(self.batch(transitions=members))

    async def go_through(self, size: int, samples: int) -> list[Cost]:
        """Settle all items, some of those in the middle one by one."""
        costs: list[Cost] = []
        seen = 0
        while seen < size:
            claims = await self.held()
            seen += len(claims)
            if len(costs) < samples and (seen >= size // 2 or size <= AT_ONCE):
                for one in claims:
                    with metered() as cost:
                        await self.settle_all([one])
                    costs.append(cost)
            else:
                await self.settle_all(claims)
        return costs


async def measure(player: Bench, definition: Definition, size: int, samples: int) -> Measured:
    """Run fan-outs of this size, forward and back, until there are so many samples."""
    found = Measured()
    while len(found.back) < samples:
        start = start_of(definition, body=lines(*range(size)))
        began = time.perf_counter()
        await player.store.commit(player.batch(starts=[start]))
        found.start_s.append(time.perf_counter() - began)
        found.forward += await player.go_through(size, samples)
        (last,) = await player.held()
        began = time.perf_counter()
        await player.store.commit(player.batch(transitions=[settle(last, refused())]))
        found.turn_s.append(time.perf_counter() - began)
        found.back += await player.go_through(size, samples)
    return found


def told(found: dict[int, Measured], command: str) -> str:
    """The table."""
    rows = []
    ways: tuple[tuple[str, Callable[[Measured], list[Cost]]], ...] = (
        ("forward", lambda one: one.forward),
        ("back", lambda one: one.back),
    )
    for way, costs_of in ways:
        first = statistics.median(one.seconds for one in costs_of(next(iter(found.values()))))
        for size, measured in found.items():
            costs = costs_of(measured)
            middle = statistics.median(one.seconds for one in costs)
            rows.append(
                (
                    f"{size:,}",
                    way,
                    f"{statistics.median(one.statements for one in costs):.0f}",
                    f"{statistics.median(one.rows for one in costs):.0f}",
                    f"{statistics.median(sum(one.written.values()) for one in costs):.0f}",
                    f"{middle * 1e6:.0f}",
                    f"x {middle / first:.2f}",
                    f"{statistics.median(measured.start_s) * 1e3:.1f}",
                    f"{statistics.median(measured.turn_s) * 1e3:.1f}",
                )
            )
    return section(machine.facts(command), _HEAD, rows)


async def run(sizes: Sequence[int], samples: int) -> dict[int, Measured]:
    """Measure size after size on one server."""
    with PostgresServer(fsync=True) as server:
        dsn = server.create_database("items")
        await migrate(dsn)
        store = PostgresStore(dsn, compile_document=compile_stored, render=render)
        await store.open()
        try:
            player = Bench(store)
            definition = await register(store, fan("each", AT_ONCE), call("last"))
            await _fill(store, dsn)
            await measure(player, definition, AT_ONCE, samples)  # warm caches and plans
            return {size: await measure(player, definition, size, samples) for size in sizes}
        finally:
            await store.close()


async def _fill(store: PostgresStore, dsn: str) -> None:
    """Let other workflows with fan-outs stand beside those measured, open and not due here."""
    other = Bench(store, "inventory")
    each = fan("each", AT_ONCE) | {"service": "inventory"}
    definition = await register(store, each, name="other")
    for _ in range(BESIDE // 100):
        starts = [start_of(definition, body=lines(*range(20))) for _ in range(100)]
        await store.commit(other.batch(starts=starts))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("ANALYZE")


def main() -> None:
    """Parse the command line, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.items", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    found = asyncio.run(run(options.sizes, options.samples))
    print(told(found, shlex.join(["python", "-m", "tests.benchmarks.items", *sys.argv[1:]])))


if __name__ == "__main__":
    main()
