"""The line between sidecars and PostgreSQL is cut, slow, held, or swallows what is sent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.definitions import SERVICES, Order
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(300)]

SEED = 41
REPLICAS = 2
NAMES = [f"{service}-{number}" for service in SERVICES for number in range(1, REPLICAS + 1)]
QUIET = "payments-1"
"""Looks so rarely that nothing but the tests' own starts is on its writer's line."""
FIRST_NUMBER = 10_000
ENOUGH = 3
ROUNDS = 60
LONGEST = 4_096
"""Bytes; a start's commit takes fewer, either way."""
WITHIN_S = 60.0
STOPS_WITHIN_S = 15.0
GIVES_UP_WITHIN = timedelta(seconds=40)


@pytest.mark.fault(32, 41, 44, 45)
def test_a_line_that_breaks_costs_time_and_nothing_else(postgres_server: PostgresServer) -> None:
    with World(
        seed=SEED,
        replicas=REPLICAS,
        postgres=postgres_server,
        proxied=dict.fromkeys(NAMES, ("store",)),
        own={QUIET: {"look": {"min": "30s", "max": "60s"}}},
    ) as world:
        draw = random.Random(world.seed)
        cut_commits(world, draw)
        cut_anywhere(world, draw)
        be_slow(world, draw)
        swallow_under_calls(world)
        stop_while_nobody_answers(world)
        world.run_load(16)
        world.quiesce(within_s=WITHIN_S)
        least = {"started": 110, "completed": 50, "rolled_back": 30, "epochs": 3}
        commits = {"answer_lost": ENOUGH, "never_arrived": ENOUGH}
        kinds = ("cut", "reset", "delayed", "throttled", "held", "swallowed")
        harm = {f"proxy:{kind}": 1 for kind in kinds} | {"cause:unknown": 1}
        harm |= {"leaders_held": 1, "leaders_cut": 1, "terminations": 1, "fault:slow": 1}
        world.verify(Expectations(at_least={**least, **commits, **harm}))


# -- harm -------------------------------------------------------------------------------------


def cut_commits(world: World, draw: random.Random) -> None:
    """Cut starts' commits until both kinds of doubt have come often enough.

    Where in the bytes the COMMIT stands nobody knows: going down, the search closes in between a
    cut that left nothing and one that came too late, and that is where an answer is lost.
    """
    for number in range(2):
        world.start(Order("chain"), FIRST_NUMBER - 1 - number, at=QUIET)
    low, high = 0, LONGEST
    for number in range(FIRST_NUMBER, FIRST_NUMBER + ROUNDS):
        if min(world.counts["answer_lost"], world.counts["never_arrived"]) >= ENOUGH:
            return
        if number % 4 == 0:
            came = cut_a_commit(world, number, up=draw.randrange(LONGEST))
            world.counts[f"up:{came}"] += 1
        else:
            middle = draw.randint(low, max(low, high - 1))
            came = cut_a_commit(world, number, down=middle)
            world.counts[f"down:{came}"] += 1
            low = middle if came == "never_arrived" else low
            high = middle if came == "passed" else high
            if high - low < 2 or number % 12 == 0:
                low, high = max(0, low - 200), min(LONGEST, high + 200)
        world.counts[came] += 1


def cut_a_commit(world: World, number: int, **after: int) -> str:
    """Start one workflow over a line that is cut after so many bytes, and stays cut for a while.

    Returns `never_arrived` if PostgreSQL knows nothing of it then, `answer_lost` if it does and
    the sidecar does not, and `passed` if nothing was cut before the sidecar knew.
    """
    sidecar, proxy = world.sidecars[QUIET], world.proxy(QUIET, "store")
    failed = sidecar.count("store_unavailable")
    with ThreadPoolExecutor(1) as pool:
        proxy.reset_new()
        proxy.cut_after(**after)
        start = pool.submit(world.start, Order("chain"), number, at=QUIET, insist_s=WITHIN_S)
        try:
            world.wait_until(
                lambda: start.done() or sidecar.count("store_unavailable") > failed,
                within_s=30,
                what=f"a commit cut after {after} bytes",
            )
            passed = start.done()
            world.wait_until(lambda: at_work(world) == 0, within_s=30, what="nothing is at work")
            known = is_known(world, f"{world.seed}-{number}")
        finally:
            proxy.heal()
        assert start.result() is not None, f"a start cut after {after} bytes was never accepted"
    return "passed" if passed else "answer_lost" if known else "never_arrived"


def cut_anywhere(world: World, draw: random.Random) -> None:
    """Cut whole sidecars off at any byte, both ways, under load."""
    for _ in range(8):
        proxy = world.proxy(draw.choice(NAMES), "store")
        cuts = proxy.counts["cut"]
        load = world.begin_load(8, parallel=4)
        proxy.cut_after(**{draw.choice(("up", "down")): draw.randrange(2_000)})
        world.wait_until(
            lambda proxy=proxy, cuts=cuts: proxy.counts["cut"] > cuts, within_s=30, what="a cut"
        )
        proxy.heal()
        load.result()
    for name in draw.sample(NAMES, 3):
        load = world.begin_load(8, parallel=4)
        world.proxy(name, "store").reset()
        load.result()
    world.quiesce(within_s=WITHIN_S)


def be_slow(world: World, draw: random.Random) -> None:
    """Delay, throttle, and hold and release, under load."""
    proxy = world.proxy(draw.choice(NAMES), "store")
    proxy.delay(up_s=0.05, down_s=0.1)
    world.run_load(8)
    proxy.heal()
    proxy.throttle(up=20_000, down=20_000)
    world.run_load(8)
    proxy.heal()
    load = world.begin_load(8)
    proxy.hold()
    lasts(world, 1.5)
    proxy.release()
    load.result()
    world.quiesce(within_s=WITHIN_S)


def swallow_under_calls(world: World) -> None:
    """PostgreSQL is half open for one sidecar with calls in flight: others take its work over.

    Until it has given up by itself what it waits for, leaders are harmed as well.
    """
    name = next(one for one in ("shipping-1", "shipping-2") if one != leader(world))
    sidecar, proxy = world.sidecars[name], world.proxy(name, "store")
    words = ("store_unavailable", "heartbeat_failed")
    before = {one: sidecar.count(one) for one in words}
    world.ledger.fault(Rule(Kind.SLOW, path="/ship", ms=900, times=80))
    load = world.begin_load(24, [Order("chain")])
    world.wait_until(lambda: world.held(name) >= 1, within_s=30, what="calls in flight")
    proxy.swallow()
    swallowed_at = datetime.now(UTC)
    load.result()
    world.wait_until(lambda: not sidecar.ready(), within_s=20, what=f"{name} is not ready")
    world.quiesce(within_s=WITHIN_S)
    hold_the_leader(world)
    cut_the_leader(world)
    world.wait_until(
        lambda: all(sidecar.count(one) > said for one, said in before.items()),
        within_s=40,
        what="its commit and its heartbeat give up by themselves",
    )
    for word, said in before.items():
        given_up_at = datetime.fromisoformat(sidecar.said(word)[said]["timestamp"])
        assert given_up_at - swallowed_at < GIVES_UP_WITHIN, word
    assert not sidecar.ready()
    proxy.heal()
    world.wait_ready()
    world.ledger.fault()
    for _ in range(4):
        assert world.start(Order("chain"), at=name) is not None
    world.quiesce(within_s=WITHIN_S)


def hold_the_leader(world: World) -> None:
    """Nothing comes to the leader or from it: another leads, and when it wakes only one does."""
    old = leader(world)
    epochs = world.tally()["epochs"]
    world.proxy(old, "store").hold()
    load = world.begin_load(8)
    world.wait_until(
        lambda: world.tally()["epochs"] > epochs, within_s=60, what=f"another leads than {old}"
    )
    world.proxy(old, "store").release()
    load.result()
    world.wait_until(lambda: leading(world) == 1, within_s=30, what="one leads")
    world.counts["leaders_held"] += 1
    world.wait_until(world.sidecars[old].ready, within_s=40, what=f"{old} is ready again")


def cut_the_leader(world: World) -> None:
    """The session that holds the lock is ended."""
    leader(world)
    epochs = world.tally()["epochs"]
    with world.connect() as connection:
        told = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchall()
    world.counts["leaders_cut"] += len(told)
    load = world.begin_load(8)
    world.wait_until(lambda: world.tally()["epochs"] > epochs, within_s=30, what="somebody leads")
    load.result()


def stop_while_nobody_answers(world: World) -> None:
    """A sidecar whose PostgreSQL is half open is told to end: it does, in good order and time."""
    name = leader(world)
    load = world.begin_load(16)
    world.proxy(name, "store").swallow()
    world.wait_until(lambda: not world.sidecars[name].ready(), within_s=20, what="is not ready")
    began = time.monotonic()
    assert world.terminate(name) == 0
    assert time.monotonic() - began < STOPS_WITHIN_S
    load.result()
    world.quiesce(within_s=WITHIN_S)
    world.proxy(name, "store").heal()
    world.restart(name)
    world.wait_ready()


# -- facts ------------------------------------------------------------------------------------


def leader(world: World) -> str:
    world.wait_until(lambda: world.leader() is not None, within_s=40, what="somebody leads")
    found = world.leader()
    assert found is not None
    return found


def leading(world: World) -> int:
    return sum(one.leads() for one in world.sidecars.values())


def lasts(world: World, seconds: float) -> None:
    """Return when a fault has lasted for so long."""
    ends_at = time.monotonic() + seconds
    over: Callable[[], bool] = lambda: time.monotonic() >= ends_at  # noqa: E731
    world.wait_until(over, within_s=seconds + 10, what="a fault lasts")


def at_work(world: World) -> int:
    """How many sessions of sidecars are in a statement or a transaction now."""
    return count(
        world,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'goconductor' AND state <> 'idle'",
    )


def is_known(world: World, key: str) -> bool:
    return count(world, "SELECT count(*) FROM goconductor.start_keys WHERE start_key = %s", key) > 0


def count(world: World, question: str, *values: str) -> int:
    with world.connect() as connection:
        row = connection.execute(question.encode(), values).fetchone()
    assert row is not None
    return int(row[0])
