"""Doorbells that come again, come too early, speak of nothing, or are lost with their topics.

The broker itself is well here; last PostgreSQL is not. Looks are rare, so that doorbells carry
the work, and each test shows by the sidecars' counters that they did.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.chaos.definitions import SERVICES, Order
from tests.chaos.expectations import Expectations
from tests.chaos.looking import workflows
from tests.chaos.meters import Meter, begin_test, harvest
from tests.chaos.sessions import end_sessions, strike
from tests.chaos.sidecars import FAILPOINTS
from tests.chaos.topics import Topics, doorbell
from tests.chaos.world import World
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

SEED = 5061
_CHAIN = Order("chain")
_SELDOM = {"look": {"min": "1500ms", "max": "3s"}}
_GARBAGE: tuple[bytes | None, ...] = (
    None,
    b"",
    b"null",
    b"\xff\xfe\x00",
    b"[" * 2_000,
    b'{"v":1,"w":"',
    b'{"v":2,"w":"00000000-0000-0000-0000-000000000000","s":"charge"}',
    b'{"v":1,"w":"\'; DROP TABLE steps; --","s":"charge"}',
    b'{"v":1,"w":"00000000-0000-0000-0000-000000000000","s":"Charge\\u0000"}',
    b'{"v":1,"w":"00000000-0000-0000-0000-000000000000","s":"charge","i":1e999}',
    b'{"v":1,"s":"' + b"x" * 4_000 + b'"}',
)


@pytest.fixture(scope="module")
def world(postgres_server: PostgresServer, kafka_server: KafkaServer) -> Iterator[World]:
    """One world for all tests here; each adds its load, its harm, and its verdict on the whole."""
    with World(
        seed=SEED,
        queue="kafka",
        postgres=postgres_server,
        kafka=kafka_server,
        settings=_SELDOM,
        proxied={"payments-1": ("store",)},
    ) as opened:
        yield opened


@pytest.fixture
def topics(world: World, kafka_server: KafkaServer) -> Topics:
    """The topics, with a member on each of them."""
    found = Topics(kafka_server.bootstrap_servers, world.topic_prefix)
    _wait_heard(world, found)
    begin_test(world)
    return found


@pytest.mark.fault(3, 50)
def test_doorbells_that_come_again_have_no_effect(world: World, topics: Topics) -> None:
    draw = random.Random(SEED)
    _ring_again_in_mid_run(world, topics, draw, least=300)
    world.quiesce(within_s=60)
    _wait_acknowledged(world, topics)

    at_rest = _effects(world)
    claims, heard = _total(world, "claims"), _total(world, "heard")
    again = sum(
        topics.put(service, draw.sample(old, len(old)))
        for service in SERVICES
        if (old := [one.value for one in topics.rung(service)])
    )
    _wait_acknowledged(world, topics)
    assert _total(world, "heard") >= heard + again, f"seed {SEED}"
    assert _total(world, "claims") == claims, f"seed {SEED}"
    assert _effects(world) == at_rest, f"seed {SEED}"

    harvest(world)
    for name in world.sidecars:
        assert world.terminate(name) == 0
    played = {service: topics.rewind(service) for service in SERVICES}
    assert min(played.values()) > 0
    for name in world.sidecars:
        world.restart(name)
    world.wait_ready()
    _wait_acknowledged(world, topics)
    for service, number in played.items():
        meter = Meter(world.sidecars[f"{service}-1"])
        assert (meter.heard >= number, meter.claims) == (True, 0), f"seed {SEED}: {service}"
    assert _effects(world) == at_rest, f"seed {SEED}"
    world.verify(
        Expectations(
            at_least={
                "terminations": 3,
                "completed": 20,
                "rolled_back": 10,
                "bells:payments-1:claimed": 10,
                "bells:inventory-1:claimed": 10,
                "bells:shipping-1:claimed": 10,
                "bells:not_claimable": 200,
            }
        )
    )


@pytest.mark.fault(61)
def test_garbage_is_refused_and_nothing_waits_for_it(world: World, topics: Topics) -> None:
    draw = random.Random(SEED)
    claimed = {name: Meter(one).claims for name, one in world.sidecars.items()}
    refused = {name: _undecodable(world, name) for name in world.sidecars}
    put = dict.fromkeys(SERVICES, 0)
    load = world.begin_load(120, parallel=2)
    while not load.done() or min(put.values()) < 50:
        for service in SERVICES:
            put[service] += topics.put(service, draw.choices(_GARBAGE, k=25))
    load.result()
    world.quiesce(within_s=60)
    _wait_acknowledged(world, topics)
    for service, number in put.items():
        name = f"{service}-1"
        assert _undecodable(world, name) - refused[name] >= number, f"seed {SEED}: {service}"
        assert Meter(world.sidecars[name]).claims - claimed[name] >= 10, f"seed {SEED}: {service}"
    world.verify(Expectations(at_least={"started": 120}))


@pytest.mark.fault(71)
def test_a_doorbell_may_come_before_there_is_anything_to_do(world: World, topics: Topics) -> None:
    """The only doorbells for `reserve` are those rung here, before `charge` is committed."""
    inventory, store = world.sidecars["inventory-1"], world.proxy("payments-1", "store")
    with _ringing_nobody(world, "payments-1"):
        _wait_heard(world, topics)
        claimed, given_up = Meter(inventory).claims, _given_up(world)
        store.delay(up_s=0.1)

        def early() -> bool:
            """One more; a busy machine may commit after the doorbell was given up."""
            workflow = world.start(_CHAIN, at="inventory-1")
            assert workflow is not None
            topics.put("inventory", [doorbell(workflow, "reserve")])
            return Meter(inventory).claims - claimed >= 5

        world.wait_until(early, within_s=60, what="5 claims came by a doorbell that was early")
        world.quiesce(within_s=60)
        store.heal()
        assert Meter(world.sidecars["payments-1"]).lost >= 5, f"seed {SEED}"

    nobody = [doorbell(str(uuid.uuid4()), "charge") for _ in range(30)]
    nothing = [doorbell(world.rows().workflows[0].id, "no_such_step")]
    for service in SERVICES:
        topics.put(service, nobody + nothing)
    _wait_acknowledged(world, topics)
    assert _given_up(world) - given_up >= 3 * 31, f"seed {SEED}"
    world.verify(Expectations(at_least={"proxy:payments-1:store:delayed": 5, "started": 5}))


@pytest.mark.fault(57)
def test_topics_deleted_in_mid_run_are_made_again(world: World, topics: Topics) -> None:
    for _ in range(2):
        before = workflows(world)
        load = world.begin_load(60, parallel=3)
        world.wait_ended(before + 20)
        topics.delete()
        load.result()
        world.quiesce(within_s=90)
        _wait_heard(world, topics)
    claimed = {name: Meter(one).claims for name, one in world.sidecars.items()}
    world.run_load(30)
    world.quiesce(within_s=60)
    for name, one in world.sidecars.items():
        assert Meter(one).claims - claimed[name] >= 5, f"seed {SEED}: {name}"
    harvest(world)
    found = world.verify(Expectations(at_least={"started": 150}))
    assert found["rebuilt:member:topic_missing"] + found["rebuilt:member:topic_made_again"] >= 3


@pytest.mark.fault(33)
def test_sessions_that_end_every_two_seconds(world: World, topics: Topics) -> None:
    """Doorbells are received, rung and acknowledged between transactions that break."""
    draw = random.Random(SEED)
    claimed = {name: Meter(one).claims for name, one in world.sidecars.items()}
    strike(world, lambda: end_sessions(world, draw, 3), times=3, every_s=2.0)
    world.quiesce(within_s=60)
    _wait_acknowledged(world, topics)
    for name, one in world.sidecars.items():
        assert Meter(one).claims - claimed[name] >= 30, f"seed {SEED}: {name}"
    least = {"started": 60, "completed": 30, "rolled_back": 15, "sessions_ended": 9}
    world.verify(Expectations(at_least=least))


def _ring_again_in_mid_run(
    world: World, topics: Topics, draw: random.Random, *, least: int
) -> None:
    """Ring what was rung, twice and in any order, while more is being started."""
    again = 0

    def enough() -> bool:
        nonlocal again
        load = world.begin_load(60, parallel=2)
        while not load.done():
            for service in SERVICES:
                old = [one.value for one in topics.rung(service)] * 2
                draw.shuffle(old)
                number = topics.put(service, old[:200])
                again += 0 if load.done() else number
        load.result()
        return again >= least

    world.wait_until(enough, within_s=60, what=f"{least} doorbells came again in mid-run")


@contextmanager
def _ringing_nobody(world: World, name: str) -> Iterator[None]:
    """Let all doorbells of a sidecar be lost meanwhile."""
    for environment in ({FAILPOINTS: "before_ring:raise@1+"}, None):
        harvest(world, name)
        assert world.terminate(name) == 0
        world.restart(name, environment=environment)
        world.wait_ready()
        if environment is not None:
            yield


def _wait_heard(world: World, topics: Topics) -> None:
    """Return when every sidecar receives what is rung; proven by garbage, which claims nothing."""
    world.wait_until(topics.there, within_s=60, what="all topics are there")
    for service in SERVICES:
        name, before = f"{service}-1", _undecodable(world, f"{service}-1")
        topics.put(service, [b""] * 12)
        world.wait_until(
            lambda name=name, least=before + 12: _undecodable(world, name) >= least,
            within_s=60,
            what=f"{name} hears doorbells",
        )


def _wait_acknowledged(world: World, topics: Topics) -> None:
    for service in SERVICES:
        world.wait_until(
            lambda service=service: topics.lag(service) == 0,
            within_s=60,
            what=f"all doorbells of {service} are acknowledged",
        )


def _effects(world: World) -> Sequence[Any]:
    """All that a claim or a call would change."""
    rows = world.rows()
    return rows.workflows, rows.steps, rows.events, world.ledger.entries()


def _total(world: World, what: str) -> int:
    return sum(getattr(Meter(one), what) for one in world.sidecars.values())


def _undecodable(world: World, name: str) -> int:
    return Meter(world.sidecars[name]).total("doorbells_received_total", result="undecodable")


def _given_up(world: World) -> int:
    meters = (Meter(one) for one in world.sidecars.values())
    return sum(one.total("doorbells_received_total", result="given_up") for one in meters)
