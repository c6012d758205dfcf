"""The sessions that sidecars have in PostgreSQL, found and ended while workflows are started.

The election has a session with a name of its own: whoever looks for ours looks for every name
that begins like theirs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from tests.chaos.world import World


def strike(world: World, harm: Callable[[], None], *, times: int, every_s: float) -> None:
    """Do harm so many times while workflows are started without a pause."""
    for _ in range(times):
        due = time.monotonic() + every_s
        while time.monotonic() < due:
            world.run_load(1)
        load = world.begin_load(16, parallel=4)
        harm()
        load.result()


def end_sessions(world: World, draw: random.Random, most: int) -> None:
    """End some of the sidecars' sessions, the election's among them."""
    found = sessions(world)
    world.counts["sessions_ended"] += end(world, draw.sample(found, min(most, len(found))))


def sessions(world: World, which: str = "true") -> list[int]:
    """The sidecars' sessions of which a condition on `pg_stat_activity` is true."""
    with world.connect() as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"  # noqa: S608
            f" AND application_name LIKE 'goconductor%' AND {which} ORDER BY pid".encode()
        ).fetchall()
    return [pid for (pid,) in rows]


def end(world: World, pids: Sequence[int]) -> int:
    """End these sessions; how many there were still."""
    with world.connect() as connection:
        told = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS one (pid)", (list(pids),)
        ).fetchall()
    return sum(done for (done,) in told)
