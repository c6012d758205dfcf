"""Sidecars are told to go: with calls under way, with clients that wait, with little time."""

from __future__ import annotations

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.request import Request, urlopen

import pytest

from tests.chaos.definitions import Order
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.rotations import ROTATIONS, UNKNOWN_PIVOT
from tests.chaos.test_kills import QUICK
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.mark.fault(67)
def test_a_grace_period_that_is_cut_costs_nothing(postgres_server: PostgresServer) -> None:
    """SIGKILL comes up to half a second after SIGTERM, to one after the other, and to all."""
    draw = random.Random(31)
    with World(seed=31, postgres=postgres_server, definitions=ROTATIONS, settings=QUICK) as world:
        world.ledger.fault(Rule(Kind.SLOW, ms=700, probability=0.3))
        cut = 0
        for _ in range(4):
            world.begin_load(24, parallel=4)
            for name in world.sidecars:
                cut += world.terminate(name, within_s=draw.uniform(0, 0.5)) == -signal.SIGKILL
                world.restart(name)
            world.wait_ready()
        world.quiesce(within_s=60)
        assert cut >= 3
        least = {"terminations": 12, "completed": 30, "repeated": 1}
        world.verify(Expectations(at_least=least, also_legal_for=UNKNOWN_PIVOT))


@pytest.mark.fault(66)
def test_calls_that_end_in_time_are_settled_before_a_sidecar_goes(
    postgres_server: PostgresServer,
) -> None:
    with World(seed=32, postgres=postgres_server, definitions=ROTATIONS) as world:
        world.ledger.fault(Rule(Kind.SLOW, ms=600, step="open"))
        world.run_load(8, [Order("rotation0")])
        opening = Order("rotation0").definition
        # A call that waits in its service is not in the ledger yet: the tables tell.
        world.wait_until(
            lambda: sum(one.leased for one in world.rows().steps) == 8,
            within_s=20,
            what=f"8 calls of {opening} are under way",
        )
        assert world.terminate("payments-1") == 0
        at_its_end = [one for one in world.rows().steps if one.step == "open"]
        assert {one.status for one in at_its_end} == {"succeeded"}
        world.restart("payments-1")
        world.quiesce(within_s=30)
        happened = world.verify(Expectations(at_least={"completed": 8, "terminations": 1}))
        assert not happened["repeated"]
        assert {one.attempt for one in world.rows().steps} == {1}


@pytest.mark.fault(66)
def test_a_service_that_goes_before_its_sidecar_turns_nothing_back(
    postgres_server: PostgresServer,
) -> None:
    with World(seed=33, postgres=postgres_server, definitions=ROTATIONS) as world:
        load = world.begin_load(40, [Order(f"rotation{n}") for n in range(3)])
        world.wait_ended(5)
        world.ledger.kill()
        load.result()
        assert world.terminate("payments-1") == 0
        assert world.terminate("shipping-1", within_s=0.2) in (0, -signal.SIGKILL)
        world.ledger.restart()
        for name in ("payments-1", "shipping-1"):
            world.restart(name)
        world.quiesce(within_s=60)
        happened = world.verify(Expectations(at_least={"completed": 40, "terminations": 2}))
        assert not happened["rolled_back"]


@pytest.mark.fault(70)
def test_streams_and_waits_end_when_their_sidecar_goes(postgres_server: PostgresServer) -> None:
    """Each with what is known, and long before the drain has to end: 5 s."""
    with World(seed=34, postgres=postgres_server, definitions=ROTATIONS) as world:
        workflow = str(world.start(Order("rotation1", {"close": "fail"})))
        address = world.sidecars["payments-1"].api
        place = f"{address}/v1/workflows/{workflow}"
        stream = Request(f"{place}/events", headers={"Accept": "text/event-stream"})  # noqa: S310
        wait = Request(f"{place}?wait=30s")  # noqa: S310
        with ThreadPoolExecutor(4) as pool, urlopen(stream, timeout=40) as history:  # noqa: S310
            assert history.readline().startswith(b"id: ")
            rest = pool.submit(history.read)
            waits = [pool.submit(_read, wait) for _ in range(2)]
            world.wait_until(
                lambda: world.sidecars["payments-1"].ready() and not rest.done(),
                within_s=10,
                what="all wait",
            )
            assert world.terminate("payments-1", within_s=10) == 0
            assert b"data: " in rest.result(timeout=5)
            told = [one.result(timeout=5) for one in waits]
        assert all(workflow.encode() in one for one in told), told
        world.restart("payments-1")
        world.cancel(workflow, at="inventory-1")
        world.quiesce(within_s=60)
        least = {"rolled_back": 1, "terminations": 1, "cancels:202": 1}
        world.verify(Expectations(at_least=least))


def _read(request: Request) -> bytes:
    try:
        with urlopen(request, timeout=40) as answer:  # noqa: S310
            text: bytes = answer.read()
            return text
    except (OSError, HTTPException) as error:
        return repr(error).encode()


@pytest.mark.fault(9)
def test_a_hundred_starts_with_one_key_are_one_workflow(postgres_server: PostgresServer) -> None:
    """At three sidecars, of which one is killed meanwhile; whoever is in doubt asks again."""
    with World(
        seed=35, postgres=postgres_server, supervise=True, definitions=ROTATIONS, settings=QUICK
    ) as world:
        names = list(world.sidecars)
        with ThreadPoolExecutor(100) as pool:
            for number in range(1000, 1005):
                asked = [
                    pool.submit(world.start, Order("rotation0"), number, at=names[one % 3])
                    for one in range(100)
                ]
                world.wait_until(
                    lambda it=asked: any(one.done() for one in it), within_s=30, what="one is told"
                )
                world.kill9(names[number % 3])
                assert len({one.result() for one in asked} - {None}) == 1
        world.quiesce(within_s=60)
        world.verify(Expectations(at_least={"completed": 5, "started": 5, "kills": 5}))
        assert len(world.rows().workflows) == 5
