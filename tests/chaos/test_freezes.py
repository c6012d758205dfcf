"""Sidecars stand still and go on later, with an answer in hand or as a leader that is none."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from sidecar.adapters.elections.postgres import ElectionTimes
from sidecar.engine.failpoints import Site
from tests.chaos.definitions import Order
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.rotations import ROTATIONS, UNKNOWN_PIVOT
from tests.chaos.sidecars import FAILPOINTS, Sidecar
from tests.chaos.test_kills import QUICK
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(240)]

BEYOND_LEASE_S = 2.5
"""A call's time and the margin are 1.5 s here."""

FROZEN_AT = (Site.AFTER_CLAIM, Site.AFTER_CALL, Site.BEFORE_SETTLE, Site.AFTER_COMPENSATE_CALL)
TURNED = tuple(Order(f"rotation{n}", {"close": "refuse"}) for n in range(3))
HASTY = Order("hasty", {"hold": "fail"})


def _freeze_at(world: World, name: str, site: Site) -> None:
    """Let a sidecar stand still at a site; return when it does."""
    world.terminate(name)
    world.restart(name, environment={FAILPOINTS: f"{site}:stop@1"})
    world.wait_until(world.sidecars[name].ready, within_s=40, what=f"{name} is back")


def _wait_frozen(world: World, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Return when all of these stand still; do something `meanwhile`, again and again."""

    def frozen(sidecar: Sidecar) -> bool:
        if not sidecar.frozen:
            meanwhile()
        return sidecar.frozen

    for name in names:
        sidecar = world.sidecars[name]
        world.wait_until(lambda it=sidecar: frozen(it), within_s=45, what=f"{name} stands still")
        world.counts["stops"] += 1


@pytest.mark.fault(6)
def test_what_a_frozen_sidecar_brings_back_comes_too_late(postgres_server: PostgresServer) -> None:
    """Two stand still at the same place; others do their work; both wake up with theirs."""
    with World(
        seed=21, replicas=2, postgres=postgres_server, definitions=ROTATIONS, settings=QUICK
    ) as world:
        world.wait_until(lambda: world.leader() is not None, within_s=30, what="somebody leads")
        # A leader that stands still is another test's, and takes longer to be replaced.
        leader = world.leader()
        names = [
            next(name for name in (f"{service}-1", f"{service}-2") if name != leader)
            for service in ("payments", "shipping")
        ]
        orders = itertools.cycle((*TURNED, Order("rotation0")))
        for turn, site in enumerate(FROZEN_AT, 1):
            for name in names:
                _freeze_at(world, name, site)
            for _ in range(24):  # asked of one that will not stand still
                world.start(next(orders), at=leader)
            # The other replica may have taken all of it: then there is more to do.
            _wait_frozen(world, *names, meanwhile=lambda: world.start(next(orders), at=leader))
            world.quiesce(within_s=60)
            late = world.tally()["late_answer"] + len(names)
            for name in names:
                world.cont(name)
            world.wait_until(
                lambda least=late: world.tally()["late_answer"] >= least,
                within_s=30,
                what=f"what was held since {site} is late",
            )
            assert world.tally()["stops"] == turn * len(names)
        world.quiesce(within_s=30)
        least = {"late_answer": 8, "cause:unknown": 8, "stops": 8, "started": 96}
        world.verify(Expectations(at_least={**least, "rolled_back": 40}, exits=frozenset()))


@pytest.mark.fault(6)
def test_two_stand_still_in_the_middle_of_their_calls(postgres_server: PostgresServer) -> None:
    names = ("payments-1", "inventory-2")
    with World(
        seed=22, replicas=2, postgres=postgres_server, definitions=ROTATIONS, settings=QUICK
    ) as world:
        world.ledger.fault(Rule(Kind.SLOW, ms=300, probability=0.5))
        for turn in range(3):
            load = world.begin_load(30, parallel=8)
            world.wait_ended(30 * turn + 5)
            for name in names:
                world.stop(name)
            frozen_at = time.monotonic()
            load.result()
            # How long it stands is what this is about: longer than any lease of its calls.
            world.wait_until(
                lambda since=frozen_at: time.monotonic() > since + BEYOND_LEASE_S,
                within_s=30,
                what="their leases are over",
            )
            for name in names:
                world.cont(name)
            world.quiesce(within_s=60)
        least = {"stops": 6, "fault:slow": 20, "cause:unknown": 1, "completed": 30}
        legal = Expectations(at_least=least, also_legal_for=UNKNOWN_PIVOT, exits=frozenset())
        world.verify(legal)


def _let_lead(world: World, name: str) -> None:
    """Kill whoever else leads until this one does."""

    def leads() -> bool:
        leader = world.leader()
        if leader not in (None, name):
            world.kill9(leader)
        return leader == name

    world.wait_until(leads, within_s=60, what=f"{name} leads")


@pytest.mark.fault(42)
def test_a_leader_that_was_replaced_in_the_middle_of_a_duty_is_refused(
    postgres_server: PostgresServer,
) -> None:
    """It has decided, and stands still before it commits; its session goes, another one leads."""
    zombie = "payments-1"
    with World(
        seed=23,
        postgres=postgres_server,
        supervise=True,
        definitions=ROTATIONS,
        settings=QUICK,
        environment={zombie: {FAILPOINTS: f"{Site.BEFORE_DUTY_COMMIT}:stop@1"}},
    ) as world:
        _let_lead(world, zombie)
        world.start(HASTY, at="inventory-1")
        _wait_frozen(world, zombie)
        with world.connect() as connection:
            gone = connection.execute(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d"
                " ON d.oid = l.database AND d.datname = current_database()"
                " WHERE l.locktype = 'advisory'"
            ).fetchall()
        assert gone == [(True,)]
        others = ("inventory-1", "shipping-1")
        world.wait_until(
            lambda: any(world.sidecars[one].leads() for one in others),
            within_s=30,
            what="another leads",
        )
        world.cont(zombie)
        world.quiesce(within_s=30)
        log = world.sidecars[zombie].said
        world.wait_until(
            lambda: "stale_epoch" in [line["code"] for line in log("leadership_interrupted")],
            within_s=20,
            what="its write is refused",
        )
        least = {"stops": 1, "rolled_back": 1, "epochs": 2, "cause:deadline_passed": 1}
        world.verify(Expectations(at_least=least))


@pytest.mark.fault(42, 43)
def test_a_leader_that_stands_still_is_replaced_and_leads_no_more(
    postgres_server: PostgresServer,
) -> None:
    """For three times the time to live of its term; the server ends its session meanwhile."""
    ttl_s = ElectionTimes().ttl_s
    with World(seed=24, postgres=postgres_server, definitions=ROTATIONS, settings=QUICK) as world:
        world.wait_until(lambda: world.leader() is not None, within_s=30, what="somebody leads")
        zombie = str(world.leader())
        others = [one for name, one in world.sidecars.items() if name != zombie]
        world.stop(zombie)
        stopped_at = time.monotonic()
        number = world.start(HASTY, at=others[0].name)
        assert number is not None
        world.wait_until(
            lambda: any(one.leads() for one in others),
            within_s=2 * ttl_s + 10,
            what="another one leads",
        )
        world.wait_until(
            lambda: time.monotonic() > stopped_at + 3 * ttl_s,
            within_s=3 * ttl_s + 10,
            what="its term is long over",
        )
        world.cont(zombie)
        world.run_load(20)
        world.quiesce(within_s=60)
        world.wait_until(
            lambda: not world.sidecars[zombie].leads(), within_s=20, what="it leads no more"
        )
        least = {"stops": 1, "rolled_back": 1, "epochs": 2, "completed": 5}
        legal = Expectations(at_least=least, also_legal_for=UNKNOWN_PIVOT, exits=frozenset())
        world.verify(legal)
