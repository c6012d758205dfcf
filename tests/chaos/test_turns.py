"""Sidecars die with places that others wait for: nobody gets in beside them, and none is lost.

With one place, the service's own book says who was inside: calls of one workflow stand together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest

from sidecar.engine.failpoints import Site
from tests.chaos.book import Entry
from tests.chaos.definitions import Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.rotations import PATIENT
from tests.chaos.sidecars import FAILPOINTS
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(180)]

QUICK = {"heartbeat": "300ms", "silent_after": "1s"}
TURNS = {
    "name": "turns",
    "steps": [
        step("open", "inventory", (), retry=PATIENT),
        step("pay", "payments", ("open",), retry=PATIENT, concurrency={"key": "one for all"}),
    ],
}
LIVES = (
    Site.BEFORE_CALL,
    Site.AFTER_CALL,
    Site.AFTER_COMMIT_OF_CLAIMS,
    Site.AFTER_SETTLE,
    Site.AFTER_COMMIT,
    Site.BEFORE_COMMIT,
)
EACH_LIFE = 6


@pytest.mark.fault(1, 5, 73)
def test_who_dies_with_a_place_keeps_it_until_its_step_is_over(
    postgres_server: PostgresServer,
) -> None:
    with World(
        seed=21, replicas=2, postgres=postgres_server, definitions=[TURNS], settings=QUICK
    ) as world:
        victims = ["payments-1", "payments-2"]
        for life, site in enumerate(LIVES):
            for name in victims:
                world.kill9(name)
                world.restart(name, environment={FAILPOINTS: f"{site}:kill9@2"})
            world.run_load(EACH_LIFE, [Order("turns"), Order("turns", {"pay": "refuse"})])
            world.wait_until(
                lambda: any(_has_died(world, name) for name in victims),
                within_s=45,
                what=f"life {life} ends at {site}",
            )
        for name in victims:
            world.kill9(name)
            world.restart(name)
        world.quiesce(within_s=60)
        least = {"completed": 6, "rolled_back": 6, "exits": len(LIVES)}
        world.verify(Expectations(at_least=least))
        calls = [
            one
            for one in world.ledger.entries()
            if (one.step, one.action) == ("pay", "execute") and one.status is not None
        ]
        assert _visits(calls) == {one.workflow: 1 for one in calls}
        with world.connect() as connection:
            assert connection.execute("SELECT * FROM goconductor.turns").fetchall() == []


def _has_died(world: World, name: str) -> bool:
    """Whether a sidecar has ended by itself, and the world has taken note."""
    sidecar = world.sidecars[name]
    return not sidecar.alive and not sidecar.wanted


def _visits(calls: Sequence[Entry]) -> dict[str, int]:
    """How often each workflow came in, with others between its calls."""
    visits: dict[str, int] = {}
    for workflow, _ in groupby(calls, key=lambda one: one.workflow):
        visits[workflow] = visits.get(workflow, 0) + 1
    return visits
