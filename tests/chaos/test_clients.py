"""The way between clients and the sidecars' APIs is harmed: starts, waits and callbacks are lost.

A client that was told nothing says the same again, a start with its start key. Each sidecar's API
has a proxy before it; services call back the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from urllib.request import Request, urlopen

import pytest

from tests.chaos.asking import ask
from tests.chaos.definitions import DEFINITIONS, MIX, RETRY, SERVICES, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.looking import status, workflows
from tests.chaos.proxy import FaultProxy
from tests.chaos.rows import ENDS
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(120)]

WITHIN_S = 60.0
EACH = 6
FIRST_NUMBER = 10_000
NAMES = [f"{service}-1" for service in SERVICES]
CHAIN = Order("chain")
OPEN = {
    "name": "open",
    "steps": [
        step("charge", "payments", ()),
        step("ship", "shipping", ("charge",), retry={**RETRY, "max_attempts": 1000}),
    ],
}
FOR_LONG = Order("open", {"ship": "fail"})
"""Goes on until it is cancelled."""
PROMISED = {
    "name": "promised",
    "steps": [
        step("book", "payments", (), timeout="20s"),
        step("ship", "shipping", ("book",)),
    ],
}
MIXED = (*MIX, Order("chain", {"charge": "later", "ship": "later"}, weight=6))
HARMS: tuple[tuple[str, Callable[[FaultProxy], object]], ...] = (
    *(("cut", lambda way, size=size: way.cut_after(up=size)) for size in (0, 1, 60, 150, 200, 260)),
    *(("cut", lambda way, size=size: way.cut_after(down=size)) for size in (0, 1, 12, 50, 120)),
    ("reset", lambda way: way.reset()),
    ("reset_new", lambda way: (way.reset_new(), way.reset())),
    ("refusing", lambda way: (way.refuse(), way.reset())),
    ("swallowed", lambda way: way.swallow(up=True, down=False)),
    ("swallowed", lambda way: way.swallow(up=False, down=True)),
    ("delayed", lambda way: way.delay(up_s=0.1, down_s=0.1)),
    ("throttled", lambda way: way.throttle(up=2_000, down=2_000)),
)
STRIKES = {"refusing": len(NAMES)}


@pytest.mark.fault(9, 70)
def test_whoever_is_told_nothing_asks_again(postgres_server: PostgresServer) -> None:
    with (
        World(
            seed=970,
            postgres=postgres_server,
            proxied=dict.fromkeys(NAMES, ("api",)),
            definitions=(*DEFINITIONS, OPEN, PROMISED),
        ) as world,
        ThreadPoolExecutor(2 * EACH) as pool,
    ):
        for harm, hurt in HARMS:
            ask_through(world, pool, harm, hurt)
        start_what_nobody_is_told_of(world)
        start_again_before_the_first_arrives(world, pool)
        call_back_and_hear_nothing(world)
        go_although_clients_are_half_open(world, pool)
        world.quiesce(within_s=WITHIN_S)
        least = {"started": 200, "completed": 100, "rolled_back": 20, "terminations": 1}
        least |= {"called_back": 30, "fault:callback_again": 3, "untold": EACH, "overtaken": EACH}
        least |= {f"proxy:{harm}": 3 for harm, _ in HARMS}
        world.verify(Expectations(at_least=least))


# -- harm -------------------------------------------------------------------------------------


def ask_through(
    world: World, pool: ThreadPoolExecutor, harm: str, hurt: Callable[[FaultProxy], object]
) -> None:
    """Start, wait and call back under a harm until it has struck; nobody is told a wrong end."""
    ways = doors(world)
    struck = felt(ways, harm)
    world.ledger.fault(Rule(Kind.SLOW, step="ship", ms=300))
    ours = world.run_load(EACH, [CHAIN])
    waiting = [pool.submit(told_end, world, one) for one in ours]
    load = world.begin_load(2 * EACH, MIXED, parallel=4)

    def strikes() -> bool:
        for way in ways:
            hurt(way)
        return felt(ways, harm) >= struck + STRIKES.get(harm, EACH)

    world.wait_until(strikes, within_s=WITHIN_S, what=f"{harm} strikes")
    for way in ways:
        way.heal()
    load.result()
    told = [one.result() for one in waiting]
    assert told == [status(world, one) for one in ours] == ["completed"] * EACH, harm


def start_what_nobody_is_told_of(world: World) -> None:
    """The answers to starts are swallowed: the workflows are there, and are found by their keys."""
    before, accepted = workflows(world), world.tally()["started"]
    for way in doors(world):
        way.swallow(up=False, down=True)
    load = world.begin_load(EACH, parallel=EACH)
    world.wait_until(
        lambda: workflows(world) == before + EACH, within_s=WITHIN_S, what="all are started"
    )
    world.counts["untold"] += EACH - (world.tally()["started"] - accepted)
    for way in doors(world):
        way.heal()
    load.result()
    assert workflows(world) == before + EACH


def start_again_before_the_first_arrives(world: World, pool: ThreadPoolExecutor) -> None:
    """Requests are held, their repeats pass; what arrives last is told of the same workflow."""
    numbers = range(FIRST_NUMBER, FIRST_NUMBER + EACH)
    ways = doors(world)
    held = felt(ways, "held")
    for way in ways:
        way.hold(up=True, down=False)
    first = [pool.submit(world.start, CHAIN, number) for number in numbers]
    world.wait_until(
        lambda: felt(ways, "held") >= held + EACH, within_s=WITHIN_S, what="starts are held"
    )
    for way in ways:
        way.pass_new()
    again = [world.start(CHAIN, number) for number in numbers]
    world.counts["overtaken"] += sum(not one.done() for one in first)
    for way in ways:
        way.release()
    assert [one.result() for one in first] == again
    for way in ways:
        way.heal()


def call_back_and_hear_nothing(world: World) -> None:
    """Callbacks are taken and nobody is told: they come again, perhaps to another sidecar."""
    ways = doors(world)
    world.quiesce(within_s=WITHIN_S)
    world.ledger.fault(Rule(Kind.SLOW, step="book", ms=1000))
    world.run_load(2 * EACH, [Order("promised", {"book": "later"})])
    world.wait_until(
        lambda: world.held("payments-1") == 2 * EACH,
        within_s=WITHIN_S,
        what="bookings are under way",
    )
    swallowed = felt(ways, "swallowed")
    for way in ways:
        way.swallow(up=False, down=True)
    world.wait_until(
        lambda: felt(ways, "swallowed") >= swallowed + EACH // 2,
        within_s=WITHIN_S,
        what="answers to callbacks are swallowed",
    )
    for way in ways:
        way.heal()
    world.quiesce(within_s=WITHIN_S)


def go_although_clients_are_half_open(world: World, pool: ThreadPoolExecutor) -> None:
    """No word passes any more between a sidecar and those who wait, and it goes in time."""
    sidecar, way = world.sidecars["payments-1"], world.proxy("payments-1", "api")
    ours = [str(world.start(FOR_LONG, at="inventory-1")) for _ in range(3)]
    places = [f"{sidecar.api}/v1/workflows/{one}" for one in ours]
    waiting = [pool.submit(read, Request(f"{one}?wait=40s")) for one in places]  # noqa: S310
    world.wait_until(
        lambda: way.connections >= len(waiting), within_s=WITHIN_S, what="clients wait"
    )
    for one in places:
        events = Request(f"{one}/events", headers={"Accept": "text/event-stream"})  # noqa: S310
        stream = urlopen(events, timeout=60)  # noqa: S310
        assert stream.readline().startswith(b"id: ")
        waiting.append(pool.submit(rest, stream))
    way.swallow()
    assert world.terminate("payments-1", within_s=10) == 0
    assert not any(one.done() for one in waiting)
    way.heal()
    assert all(one.result() for one in waiting)
    world.restart("payments-1")
    world.wait_ready()
    for one in ours:
        assert world.cancel(one) == 202
        assert told_end(world, one) == "rolled_back"


# -- clients ----------------------------------------------------------------------------------


def told_end(world: World, workflow: str) -> str:
    """The end that a client is told who asks one sidecar after the other until it is told one."""
    addresses = itertools.cycle([one.api for one in world.sidecars.values()])
    ends: list[str] = []

    def told() -> bool:
        code, view = ask(next(addresses), f"/v1/workflows/{workflow}?wait=3s")
        if code == 200 and view["status"] in ENDS:
            ends.append(view["status"])
        return bool(ends)

    world.wait_until(told, within_s=WITHIN_S, what=f"the end of {workflow} is told")
    return ends[0]


def read(request: Request) -> str:
    """What is answered, or why nothing is."""
    try:
        return rest(urlopen(request, timeout=60))  # noqa: S310
    except (OSError, HTTPException) as error:
        return repr(error)


def rest(answer: HTTPResponse) -> str:
    """All that still comes, or why nothing more does."""
    try:
        with answer:
            return repr(answer.read())
    except (OSError, HTTPException) as error:
        return repr(error)


def doors(world: World) -> Sequence[FaultProxy]:
    """The ways to all APIs."""
    return [world.proxy(name, "api") for name in NAMES]


def felt(ways: Sequence[FaultProxy], harm: str) -> int:
    """How often a harm has struck on any of these ways."""
    return sum(way.counts[harm] for way in ways)
