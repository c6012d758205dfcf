"""PostgreSQL's disk is full until it panics: nothing is lost, and nothing is done twice for it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.chaos.expectations import Expectations
from tests.chaos.world import World
from tests.servers.disks import SmallDisk
from tests.servers.postgres import PostgresServer
from tests.servers.processes import server_user

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(180)]

MEGABYTES = 192
WITHIN_S = 60.0


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """One that cannot be had fails the test: it is part of the proof."""
    with SmallDisk(MEGABYTES, server_user("postgres")) as made:
        yield made


@pytest.mark.fault(33, 35)
def test_a_full_disk_costs_time_and_nothing_else(disk: SmallDisk) -> None:
    small = {"min_wal_size": "2MB", "max_wal_size": "16MB"}
    with (
        PostgresServer(
            data=disk.folder / "data", settings=small, options=["--wal-segsize=1"]
        ) as server,
        World(seed=35, postgres=server) as world,
    ):
        load = world.begin_load(300, parallel=8, insist_s=120)
        world.wait_ended(20)
        world.counts["bytes_filled"] += disk.fill()
        world.wait_until(lambda: panicked(world, disk), within_s=60, what="PostgreSQL panics")
        world.wait_until(
            lambda: not any(one.ready() for one in world.sidecars.values()),
            within_s=30,
            what="nobody is ready",
        )
        assert all(one.alive for one in world.sidecars.values())
        assert not load.done()
        disk.free()
        server.restart()
        world.wait_ready()
        load.result()
        world.quiesce(within_s=WITHIN_S)
        least = {"started": 300, "completed": 100, "rolled_back": 50, "bytes_filled": 1}
        seen = world.verify(Expectations(at_least={**least, "panics": 1}))
        assert seen["doubtful"] == 0


def panicked(world: World, disk: SmallDisk) -> bool:
    """Use up what PostgreSQL had put aside of its log, until it gives itself up."""
    server = world.postgres
    if not server.alive and server.said("PANIC:"):
        world.counts["panics"] += 1
        return True
    try:
        with psycopg.connect(server.dsn, autocommit=True, connect_timeout=2) as connection:
            connection.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 100000))")
            connection.execute("SELECT pg_switch_wal()")
    except psycopg.Error:
        disk.fill()  # what a crash has freed
    return False
