"""A definition changes while its workflows are under way: each goes by that which it began with."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from tests.chaos.asking import ask
from tests.chaos.definitions import DEFINITIONS, MIX, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.test_kills import QUICK
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(120)]

THERE = DEFINITIONS[0]
BACK: dict[str, Any] = {
    "name": THERE["name"],
    "steps": [
        step("ship", "shipping", ()),
        step("reserve", "inventory", ("ship",)),
        step("charge", "payments", ("reserve",)),
    ],
}
"""The same steps the other way round: whoever went on by it would be out of order at once."""
ORDERS = [one for one in MIX if one.definition == THERE["name"]]
CHANGES = 6


def test_what_is_under_way_goes_on_by_its_own_version(postgres_server: PostgresServer) -> None:
    with World(
        seed=37, postgres=postgres_server, definitions=[THERE], supervise=True, settings=QUICK
    ) as world:
        world.ledger.fault(Rule(Kind.SLOW, ms=200, probability=0.5))
        changed_at, names = [], list(world.sidecars)
        for number in range(CHANGES):
            load = world.begin_load(12, ORDERS, parallel=4)
            world.wait_ended(9 * number)
            register(world, names[number % len(names)], (BACK, THERE)[number % 2])
            changed_at.append(time.time())
            world.kill9(names[number % len(names)])
            load.result()
        world.quiesce(within_s=60)
        world.verify(Expectations(at_least={"kills": CHANGES, "repeated": 1, "fault:slow": 20}))
        came_to = Counter((one.version, one.status) for one in world.rows().workflows)
        assert set(came_to) == {(v, end) for v in (1, 2) for end in ("completed", "rolled_back")}
        assert min(came_to.values()) >= 5
        assert under_way(world, changed_at) >= CHANGES


def register(world: World, name: str, definition: dict[str, Any]) -> None:
    address = world.sidecars[name].api
    world.wait_until(
        lambda: ask(address, "/v1/definitions", definition)[0] in (200, 201),
        within_s=30,
        what="the other version is the latest",
    )


def under_way(world: World, moments: Sequence[float]) -> int:
    """How many workflows had begun and not ended at one of these moments."""
    times = defaultdict(list)
    for event in world.rows().events:
        times[event.workflow].append(event.time)
    return sum(any(min(own) < at < max(own) for at in moments) for own in times.values())
