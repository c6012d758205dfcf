"""The broker itself is harmed, or the way to it: it dies, is away, stands still, forgets.

Doorbells are lost then, and nothing else: sidecars look into PostgreSQL meanwhile, keep their size,
and take to the broker again when it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.expectations import Expectations
from tests.chaos.looking import workflows
from tests.chaos.meters import Meter, begin_test, harvest, resident_bytes
from tests.chaos.proxy import FaultProxy
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.timeout(480),
]

SEED = 5660
_LOOKS = {"look": {"min": "500ms", "max": "1s"}}
_GROWN_MOST = 16 * 1024 * 1024
_FILES_MORE_MOST = 48
"""Each of 32 slots may keep a connection to the service."""


@pytest.fixture(scope="module")
def world(postgres_server: PostgresServer) -> Iterator[World]:
    """One world for all tests here, with a broker of its own behind a proxy."""
    with World(
        seed=SEED, queue="kafka", postgres=postgres_server, proxy_kafka=True, settings=_LOOKS
    ) as opened:
        yield opened


@pytest.fixture
def way(world: World) -> FaultProxy:
    """The way to the broker, in order; every sidecar is heard and hears by it."""
    found = world.proxy("kafka", "broker")
    if world.kafka is not None and not world.kafka.alive:  # the test before did not come so far
        world.kafka.restart()
    _use_doorbells(world)
    begin_test(world)
    return found


@pytest.mark.fault(56)
def test_a_broker_that_dies_again_and_again(world: World, way: FaultProxy) -> None:
    assert world.kafka is not None
    for _ in range(2):
        before = workflows(world)
        load = world.begin_load(40, parallel=2)
        world.wait_ended(before + 10)
        world.kafka.kill()
        world.run_load(10)
        world.kafka.restart()
        load.result()
        world.quiesce(within_s=60)
    _use_doorbells(world)
    world.verify(Expectations(at_least={"started": 100}))


@pytest.mark.fault(56)
def test_a_broker_that_is_away_for_long(world: World, way: FaultProxy) -> None:
    """For longer than a publisher waits, and until every member was given up."""
    assert world.kafka is not None
    sidecars = world.sidecars.values()
    before = {name: _replaced(one) for name, one in _meters(world).items()}
    world.kafka.kill()
    lost = {one.name: Meter(one).lost for one in sidecars}
    sizes: dict[str, tuple[int, int]] = {}
    for number in range(2):
        world.run_load(40)
        world.quiesce(within_s=60)
        for one in sidecars:
            world.wait_until(
                lambda one=one: Meter(one).lost > lost[one.name],
                within_s=60,
                what=f"{one.name} gives doorbells up",
            )
            lost[one.name] = Meter(one).lost
        if number == 0:
            sizes = {one.name: (resident_bytes(one), one.open_files) for one in sidecars}
    world.wait_until(
        lambda: all(_replaced(one) > before[name] for name, one in _meters(world).items()),
        within_s=60,
        what="all members are given up",
    )
    for one in sidecars:
        memory, files = sizes[one.name]
        assert resident_bytes(one) - memory < _GROWN_MOST, f"seed {SEED}: {one.name}"
        assert one.open_files - files <= _FILES_MORE_MOST, f"seed {SEED}: {one.name}"
    world.kafka.restart()
    _use_doorbells(world)
    harvest(world)
    world.verify(Expectations(at_least={f"lost:{one.name}": 3 for one in sidecars}))


@pytest.mark.fault(56)
def test_sidecars_that_start_without_a_broker(world: World, way: FaultProxy) -> None:
    for name in world.sidecars:
        assert world.terminate(name) == 0
    way.refuse()
    way.reset()
    for name in world.sidecars:
        world.restart(name)
    world.wait_ready()
    world.run_load(40)
    world.quiesce(within_s=60)
    for name, one in world.sidecars.items():
        meter = Meter(one)
        assert (meter.heard, meter.total("looks_total", found="some") > 0) == (0, True), name
    way.heal()
    _use_doorbells(world)
    world.verify(Expectations(at_least={"proxy:kafka:broker:refusing": 1, "started": 40}))


@pytest.mark.fault(60)
def test_a_consumer_that_looks_connected_is_replaced(world: World, way: FaultProxy) -> None:
    """The broker hears every word, its answers go nowhere, and no connection breaks."""
    before = {name: _replaced(one) for name, one in _meters(world).items()}
    way.swallow(up=False)
    world.run_load(20)
    world.quiesce(within_s=60)
    world.wait_until(
        lambda: all(_replaced(one) > before[name] for name, one in _meters(world).items()),
        within_s=60,
        what="all members are replaced",
    )
    way.heal()
    _use_doorbells(world)
    world.verify(Expectations(at_least={"proxy:kafka:broker:swallowed": 10}))


@pytest.mark.fault(56, 60)
def test_a_bad_way_to_the_broker(world: World, way: FaultProxy) -> None:
    harms: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "delayed": (lambda: way.delay(up_s=0.3, down_s=0.3), way.heal),
        "throttled": (lambda: way.throttle(up=4_000, down=4_000), way.throttle),
        "cut": (lambda: way.cut_after(up=3_000, down=3_000), way.heal),
        "reset": (way.reset, way.heal),
        "reset_new": (lambda: (way.reset_new(), way.reset()), way.heal),
        "held": (way.hold, way.release),
        "swallowed": (way.swallow, way.heal),
    }
    for harm, (hurt, mend) in harms.items():
        fired = way.counts[harm]
        load = world.begin_load(30, parallel=2)
        hurt()
        load.result()
        world.quiesce(within_s=60)
        world.wait_until(
            lambda harm=harm, fired=fired: way.counts[harm] > fired,
            within_s=30,
            what=f"{harm} was felt",
        )
        mend()
        world.quiesce(within_s=60)
        _use_doorbells(world, after=harm)
    world.verify(Expectations(at_least={f"proxy:kafka:broker:{harm}": 1 for harm in harms}))


def _use_doorbells(world: World, *, after: str = "all is well") -> None:
    """Return once every sidecar claims by doorbells: they all came back, whatever was."""
    before = {name: one.claims for name, one in _meters(world).items()}

    def claimed() -> bool:
        world.run_load(8)
        world.quiesce(within_s=60)
        return all(one.claims > before[name] for name, one in _meters(world).items())

    world.wait_until(claimed, within_s=150, what=f"doorbells are used again after: {after}")


def _meters(world: World) -> dict[str, Meter]:
    return {name: Meter(one) for name, one in world.sidecars.items()}


def _replaced(meter: Meter) -> int:
    return meter.total("queue_rebuilds_total", part="member")
