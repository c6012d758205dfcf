"""The sidecars' sessions as PostgreSQL sees them, to be found and ended.

The election has a session with a name of its own: whoever looks for ours looks for every name
that begins like theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.world import World


def sessions(world: World, which: str = "true") -> list[int]:
    """The processes of our sessions of which this condition is true."""
    with world.connect() as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"  # noqa: S608
            f" AND application_name LIKE 'goconductor%' AND {which} ORDER BY pid".encode()
        ).fetchall()
    return [pid for (pid,) in rows]


def end(world: World, pids: Sequence[int]) -> int:
    """End these sessions; how many were still there."""
    with world.connect() as connection:
        told = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS one (pid)", (list(pids),)
        ).fetchall()
    return sum(done for (done,) in told)
