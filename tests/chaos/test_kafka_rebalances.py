"""Partitions change hands while steps are under way: members come, go, die, freeze and are full.

Looks are rare: what the doorbells do not bring comes late. The long test has a sidecar with all
slots taken by long calls, which asks for nothing: it is longer busy than the group waits for one
that does not ask (a minute), and its call longer than the group waits for one that is silent (ten
seconds). The short one has members that go and come in good order.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.definitions import DEFINITIONS, SERVICES, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.meters import Meter, harvest
from tests.chaos.sidecars import FAILPOINTS
from tests.chaos.topics import Topics
from tests.chaos.world import World
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.timeout(280),
]

SEED = 5153
_SELDOM = {"look": {"min": "2s", "max": "4s"}}
_LONG = {"name": "long", "steps": [step("grind", "shipping", (), timeout="100s")]}
_LONG_MS = 68_000
_WHILE_MS = 3_000
_MOVES = 4
_STOPPED_IN_CLAIM = {FAILPOINTS: "before_claim:stop@3"}


@pytest.mark.soak
@pytest.mark.fault(51, 52, 53)
def test_partitions_change_hands_in_mid_step(
    postgres_server: PostgresServer, kafka_server: KafkaServer
) -> None:
    draw = random.Random(SEED)
    with World(
        seed=SEED,
        queue="kafka",
        replicas=2,
        postgres=postgres_server,
        kafka=kafka_server,
        settings=_SELDOM,
        own={"shipping-1": {"concurrency": 1}},
        definitions=[*DEFINITIONS, _LONG],
    ) as world:
        topics = Topics(kafka_server.bootstrap_servers, world.topic_prefix)
        for service in SERVICES:
            _wait_members(world, topics, service, 2)
        world.ledger.fault(
            Rule(Kind.SLOW, step="grind", ms=_LONG_MS),
            Rule(Kind.SLOW, action="execute", ms=500, probability=0.2, seed=SEED),
        )
        full = world.sidecars["shipping-1"]
        alone = _times_alone(world, "shipping-2")
        world.run_load(12, [Order("long")])
        world.wait_until(
            lambda: Meter(full).total("calls_in_flight") >= 1,
            within_s=60,
            what="shipping-1 is full",
        )
        for _ in range(_MOVES):
            _come_and_go(world, topics, draw.choice(("payments-2", "inventory-2")))
        _die_with_doorbells_in_hand(world, topics, "inventory-2")
        _freeze_beyond_the_session(world, topics, "payments-2")
        world.wait_until(
            lambda: _times_alone(world, "shipping-2") > alone,
            within_s=120,
            what="others are given the partitions of the member that does not ask",
        )
        world.quiesce(within_s=120)
        heard = Meter(full).heard
        _wait_members(world, topics, "shipping", 2)
        world.wait_until(
            lambda: bool(world.run_load(8)) and Meter(full).heard > heard,
            within_s=60,
            what="shipping-1 is heard again",
        )
        world.quiesce(within_s=60)
        harvest(world)
        long_calls = [one.attempt for one in world.rows().steps if one.step == "grind"]
        assert long_calls == [1] * 12, f"seed {SEED}"
        least = {f"bells:{name}:claimed": 1 for name in world.sidecars}
        least |= {"fault:slow": 20, "terminations": _MOVES, "kills": 1}
        world.verify(Expectations(at_least=least))


@pytest.mark.fault(51, 52)
def test_a_member_goes_and_comes_in_mid_step(
    postgres_server: PostgresServer, kafka_server: KafkaServer
) -> None:
    few = {"concurrency": 4}
    with World(
        seed=SEED + 1,
        queue="kafka",
        replicas=2,
        postgres=postgres_server,
        kafka=kafka_server,
        settings=_SELDOM,
        own={"shipping-1": few, "shipping-2": few},
        definitions=[*DEFINITIONS, _LONG],
    ) as world:
        topics = Topics(kafka_server.bootstrap_servers, world.topic_prefix)
        _wait_members(world, topics, "shipping", 2)
        world.ledger.fault(Rule(Kind.SLOW, step="grind", ms=_WHILE_MS))
        load = world.begin_load(40, parallel=2)
        _go_in_mid_step(world, topics)
        _come_in_mid_step(world, topics)
        load.result()
        world.quiesce(within_s=60)
        harvest(world, "shipping-1", "shipping-2")
        long_calls = [one.attempt for one in world.rows().steps if one.step == "grind"]
        assert long_calls == [1] * 20, f"seed {world.seed}"
        least = {"moved_in_mid_step": 2, "unclaimed": 1, "fault:slow": 20, "completed": 30}
        least |= {"bells:shipping-1:claimed": 8, "bells:shipping-2:claimed": 4}
        world.verify(Expectations(at_least={**least, "terminations": 1, "restarts": 1}))


def _go_in_mid_step(world: World, topics: Topics) -> None:
    """Both are in the middle of steps when the other is given the partitions of the one."""
    world.run_load(8, [Order("long")])
    world.wait_until(
        lambda: min(world.held("shipping-1"), world.held("shipping-2")) >= 1,
        within_s=30,
        what="both are in the middle of steps",
    )
    harvest(world, "shipping-2")
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(world.terminate, "shipping-2")
        _wait_members(world, topics, "shipping", 1)
        world.counts["moved_in_mid_step"] += min(1, world.held("shipping-1"))
        _no_doorbell_was_skipped(world, topics, "shipping")
        assert going.result() == 0, f"seed {world.seed}"


def _come_in_mid_step(world: World, topics: Topics) -> None:
    """One alone has more in hand than it has slots for; of that the other is given a part."""
    world.run_load(12, [Order("long")])
    world.restart("shipping-2")
    _wait_members(world, topics, "shipping", 2)
    world.counts["moved_in_mid_step"] += min(1, world.held("shipping-1"))
    world.counts["unclaimed"] += _no_doorbell_was_skipped(world, topics, "shipping")
    world.wait_until(
        lambda: world.held("shipping-2") >= 1, within_s=30, what="shipping-2 has a part in it"
    )


def _come_and_go(world: World, topics: Topics, name: str) -> None:
    """A member leaves in good order while steps are under way, and comes back."""
    service = world.sidecars[name].service
    load = world.begin_load(30, parallel=2)
    world.wait_until(
        lambda: Meter(world.sidecars[name]).claims > 0, within_s=60, what=f"{name} claims"
    )
    harvest(world, name)
    assert world.terminate(name) == 0, f"seed {SEED}: {name}"
    _wait_members(world, topics, service, 1)
    world.restart(name)
    load.result()
    _wait_members(world, topics, service, 2)


def _die_with_doorbells_in_hand(world: World, topics: Topics, name: str) -> None:
    """What a dead member had received and not claimed was not acknowledged."""
    service = world.sidecars[name].service
    harvest(world, name)
    world.terminate(name)
    world.restart(name, environment=_STOPPED_IN_CLAIM)
    world.wait_ready()
    _wait_members(world, topics, service, 2)
    load = world.begin_load(60, parallel=2)
    world.wait_until(lambda: _is_stopped(world, name), within_s=60, what=f"{name} stops")
    _no_doorbell_was_skipped(world, topics, service)
    world.kill9(name)
    _no_doorbell_was_skipped(world, topics, service)
    load.result()
    world.restart(name)
    _wait_members(world, topics, service, 2)


def _freeze_beyond_the_session(world: World, topics: Topics, name: str) -> None:
    """One that wakes up with old doorbells in hand, whose partitions others have by now."""
    service = world.sidecars[name].service
    harvest(world, name)
    world.terminate(name)
    world.restart(name, environment=_STOPPED_IN_CLAIM)
    world.wait_ready()
    _wait_members(world, topics, service, 2)
    load = world.begin_load(60, parallel=2)
    world.wait_until(lambda: _is_stopped(world, name), within_s=60, what=f"{name} stops")
    _wait_members(world, topics, service, 1)
    _no_doorbell_was_skipped(world, topics, service)
    world.cont(name)
    load.result()
    _wait_members(world, topics, service, 2)


def _no_doorbell_was_skipped(world: World, topics: Topics, service: str) -> int:
    """A step that was never claimed has its doorbell beyond what the group has committed.

    Returns of how many steps that was seen.
    """
    committed = topics.committed(service)
    rung = topics.rung(service)
    unclaimed = {
        (one.workflow, one.step)
        for one in world.rows().steps
        if one.status == "queued" and one.attempt == 0
    }
    skipped = [one for one in rung if one.offset < committed[one.partition]]
    assert sum(committed.values()) > 0
    assert not unclaimed & {one.names for one in skipped}, f"seed {SEED}: {service}"
    return len(unclaimed & {one.names for one in rung})


def _is_stopped(world: World, name: str) -> bool:
    stat = Path(f"/proc/{world.sidecars[name].process.pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] == "T"


def _times_alone(world: World, name: str) -> int:
    """How often a sidecar was given all partitions of its topic, by its log."""
    everything = str(list(range(12)))
    lines = world.sidecars[name].tail(100_000).splitlines()
    return sum("kafka_assigned" in line and everything in line for line in lines)


def _wait_members(world: World, topics: Topics, service: str, number: int) -> None:
    world.wait_until(
        lambda: topics.group(service) == ("Stable", number),
        within_s=90,
        what=f"the group of {service} is stable with {number} members",
    )
