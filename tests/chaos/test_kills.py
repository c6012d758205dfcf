"""Sidecars die at every named place, and everywhere on a way there and back; no work is lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest

from sidecar.engine.failpoints import Site
from tests.chaos.book import Fact
from tests.chaos.deaths import GOING, ONLY_WITH_MESSAGES, Deaths, telling
from tests.chaos.definitions import RETRY, ROLLED_BACK, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.rotations import PATIENT, ROTATIONS, UNKNOWN_PIVOT, Business
from tests.chaos.sidecars import FAILPOINTS
from tests.chaos.world import World
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(300)]

QUICK = {"heartbeat": "300ms", "silent_after": "1s"}
LIMITED = {**QUICK, "rate_limits": {"/open": {"limit": 1000, "per": "1s"}}}
"""Nobody has to wait, and who opens has to ask."""
WITH_DOORBELLS = (
    *sorted(ONLY_WITH_MESSAGES),
    Site.BEFORE_CLAIM,
    Site.AFTER_CLAIM,
    Site.AFTER_COMMIT,
    Site.AFTER_COMMIT_OF_CLAIMS,
    Site.BEFORE_CALL,
    Site.AFTER_CALL,
    Site.AFTER_SETTLE,
    Site.BEFORE_RING,
    Site.AFTER_RING,
    Site.AFTER_RING_AGAIN,
    Site.DRAIN_LEFT_QUEUE,
)

LENGTH = 4
LONG: dict[str, Any] = {
    "name": "long",
    "steps": [
        *(
            step(f"s{n}", "payments", [f"s{n - 1}"] if n else (), retry=PATIENT)
            for n in range(LENGTH)
        ),
        step("turn", "payments", [f"s{LENGTH - 1}"], retry=PATIENT),
    ],
}
POISON: dict[str, Any] = {
    "name": "poison",
    "steps": [step("open", "payments", (), retry={**RETRY, "max_attempts": 3})],
}


@pytest.mark.fault(1, 2, 5, 7)
def test_a_death_at_any_site_costs_nothing(postgres_server: PostgresServer) -> None:
    with World(seed=11, postgres=postgres_server, definitions=ROTATIONS, settings=LIMITED) as world:
        _die_at_all(world, [site for site in Site if site not in ONLY_WITH_MESSAGES])


@pytest.mark.kafka
@pytest.mark.fault(2, 3, 4, 5)
def test_a_death_while_doorbells_are_handled_costs_nothing(
    postgres_server: PostgresServer, kafka_server: KafkaServer
) -> None:
    with World(
        seed=12,
        queue="kafka",
        postgres=postgres_server,
        kafka=kafka_server,
        definitions=ROTATIONS,
        settings=QUICK,
    ) as world:
        _die_at_all(world, WITH_DOORBELLS)


def _die_at_all(world: World, sites: Sequence[Site]) -> None:
    with closing(Business(world, world.seed)) as business:
        deaths = Deaths(world, business, sites)
        with telling(deaths):
            deaths.run()
    with telling(deaths):
        world.quiesce(within_s=60)
        happened = {"completed": 50, "rolled_back": 50, "repeated": 1, "cause:unknown": 10}
        fired = {f"site:{site}": 1 for site in sites}
        least = {**happened, **fired, "exits": len(sites)}
        world.verify(Expectations(at_least=least, also_legal_for=UNKNOWN_PIVOT))


@pytest.mark.fault(1, 7, 8)
def test_a_chain_survives_a_death_at_each_step_there_and_back(
    postgres_server: PostgresServer,
) -> None:
    """Every step and every undoing of one workflow kills who has just got its answer."""
    # The first pass of a new life is what the last one died of.
    lives = [(Site.AFTER_CALL, 1), *[(Site.AFTER_CALL, 2)] * LENGTH]
    lives += [(Site.AFTER_COMPENSATE_CALL, 1), *[(Site.AFTER_COMPENSATE_CALL, 2)] * LENGTH]
    with World(seed=13, postgres=postgres_server, definitions=[LONG], settings=QUICK) as world:
        victim = world.sidecars["payments-1"]
        world.kill9(victim.name)
        workflow = world.start(Order("long", {"turn": "refuse"}), at="inventory-1")
        for life, (site, nth) in enumerate(lives):
            world.restart(victim.name, environment={FAILPOINTS: f"{site}:kill9@{nth}"})
            _wait_for_death(world, victim.name, f"life {life} ends at {site}@{nth}")
        world.restart(victim.name)
        world.quiesce(within_s=30)
        world.verify(Expectations(at_least={"rolled_back": 1, "exits": len(lives)}))
        again = [
            (one.step, one.action)
            for one in world.ledger.entries()
            if one.fact is Fact.REPEATED and one.workflow == workflow
        ]
        # The first refusal was lost, and unknown sticks: what refused is undone like the others.
        way = [*(f"s{n}" for n in range(LENGTH)), "turn"]
        there = [(name, "execute") for name in way]
        assert again == [*there, *((name, "compensate") for name in reversed(way))]


@pytest.mark.fault(10)
def test_a_step_that_kills_whoever_handles_it_is_given_up(postgres_server: PostgresServer) -> None:
    """Its tries are counted before it is handled, so it kills three times and no more."""
    with World(seed=14, postgres=postgres_server, definitions=[POISON], settings=QUICK) as world:
        victim = world.sidecars["payments-1"]
        world.kill9(victim.name)
        # It is never called at all, and turns back as one whose outcome is unknown.
        assert Order("poison", {"open": "fail"}).ends == ROLLED_BACK
        world.start(Order("poison", {"open": "fail"}), at="inventory-1")
        for life in range(3):
            world.restart(victim.name, environment={FAILPOINTS: f"{Site.BEFORE_CALL}:kill9@1+"})
            _wait_for_death(world, victim.name, f"life {life} ends")
        world.restart(victim.name, environment={FAILPOINTS: f"{Site.BEFORE_CALL}:kill9@1+"})
        world.quiesce(within_s=30)
        least = {"rolled_back": 1, "exits": 3, "barred": 1, "cause:unknown": 3}
        world.verify(Expectations(at_least=least))
        assert victim.alive
        assert {one.action for one in world.ledger.entries()} == {"compensate"}


def _wait_for_death(world: World, name: str, what: str) -> None:
    """Return when a sidecar has ended, and the world has taken note."""
    sidecar = world.sidecars[name]
    world.wait_until(
        lambda: not sidecar.alive and not sidecar.wanted, within_s=45, what=f"{what}: {name}"
    )


@pytest.mark.fault(5)
def test_a_bug_at_any_site_kills_nobody_and_costs_nothing(postgres_server: PostgresServer) -> None:
    sites = [site for site in Site if site not in GOING | ONLY_WITH_MESSAGES]
    bugs = ",".join(f"{site}:raise@2,{site}:raise@5" for site in sites)
    with World(
        seed=15,
        postgres=postgres_server,
        definitions=ROTATIONS,
        settings=LIMITED,
    ) as world:
        for name in world.sidecars:
            world.kill9(name)
            world.restart(name, environment={FAILPOINTS: bugs})
        with closing(Business(world, world.seed)) as business:
            for _ in range(3):
                business.portion()
        world.quiesce(within_s=60)
        least = {"started": 40, "completed": 15}
        legal = Expectations(at_least=least, also_legal_for=UNKNOWN_PIVOT, exits=frozenset())
        world.verify(legal)
        fired = {
            line["failpoint"].partition(":")[0]
            for one in world.sidecars.values()
            for line in one.said("failpoint_fires")
        }
        busy = {Site.BEFORE_COMMIT, Site.AFTER_COMMIT, Site.AFTER_CLAIM, Site.AFTER_CALL}
        assert busy | {Site.BEFORE_SETTLE, Site.BEFORE_RING, Site.HEARTBEAT} <= fired
        assert len(fired) >= 20
