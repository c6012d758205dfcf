"""The way between a sidecar and its service is harmed: requests and answers lost, held, cut.

One world, one harm after the other. `hasty` workflows turn back soon after an unknown outcome;
`stubborn` ones go on trying until they come through, so that only one end is right.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.book import Fact
from tests.chaos.definitions import DEFINITIONS, RETRY, ROLLED_BACK, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.looking import ends, statuses
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

EACH = 8
WITHIN_S = 60.0
HASTY = {**RETRY, "max_attempts": 2}
STUBBORN = {**RETRY, "max_attempts": 100}
REQUEST_CUTS = (0, 1, 17, 64, 150, 300, 450, 550, 600, 650)
ANSWER_CUTS = (0, 1, 9, 13, 17, 40, 70, 100, 120, 130)


def chain(name: str, **reserve: Any) -> dict[str, Any]:
    """A chain whose middle step is of a kind."""
    return {
        "name": name,
        "steps": [
            step("charge", "payments", ()),
            step("reserve", "inventory", ("charge",), **reserve),
            step("ship", "shipping", ("reserve",)),
        ],
    }


MORE = (
    chain("dropped", timeout="300ms", retry=HASTY),
    chain("unheard", timeout="300ms", retry=HASTY),
    chain("overtaken", timeout="300ms", retry=HASTY),
    chain("stubborn", retry=STUBBORN),
)
TURNED_BACK = dict.fromkeys(("dropped", "unheard", "overtaken"), ROLLED_BACK)


@pytest.mark.fault(11, 12, 13)
def test_requests_and_answers_that_are_lost_held_or_cut(postgres_server: PostgresServer) -> None:
    with World(
        seed=41,
        postgres=postgres_server,
        proxied={"inventory-1": ("service",)},
        definitions=(*DEFINITIONS, *MORE),
    ) as world:
        requests_never_arrive(world)
        answers_never_arrive(world)
        executes_arrive_after_their_compensations(world)
        answers_are_slow_to_come(world)
        requests_and_answers_are_cut(world)
        the_way_is_narrow_broken_and_shut(world)
        least = {"completed": 60, "rolled_back": 3 * EACH, "barred": 2 * EACH, "too_late": EACH}
        least |= {"repeated": 2 * EACH, "proxy:swallowed": 4 * EACH, "proxy:held": 2 * EACH}
        least |= {"proxy:delayed": 2 * EACH, "proxy:cut": 2 * len(REQUEST_CUTS + ANSWER_CUTS)}
        least |= {"proxy:throttled": EACH, "proxy:reset": 2, "proxy:reset_new": 2}
        least |= {"proxy:refusing": 1}
        world.verify(Expectations(at_least=least, also_legal_for=TURNED_BACK))


def turning_back(world: World, definition: str) -> None:
    """Start workflows, and return when all of them are about to undo the step in the middle."""
    world.run_load(EACH, [Order(definition)])
    world.wait_until(
        lambda: statuses(world, "reserve", definition)["compensating"] == EACH,
        within_s=WITHIN_S,
        what=f"{definition} workflows turn back",
    )


def facts(world: World, definition: str) -> set[Fact]:
    """What all requests for the middle steps of a definition came to."""
    ours = {row.id for row in world.rows().workflows if row.definition == definition}
    return {
        one.fact for one in world.ledger.entries() if one.workflow in ours and one.step == "reserve"
    }


def requests_never_arrive(world: World) -> None:
    proxy = world.proxy("inventory-1", "service")
    proxy.swallow(up=True, down=False)
    turning_back(world, "dropped")
    assert not facts(world, "dropped"), f"seed {world.seed}: a request was not dropped"
    proxy.heal()
    world.quiesce(within_s=WITHIN_S)
    assert facts(world, "dropped") <= {Fact.BARRED, Fact.REPEATED}
    assert ends(world, "dropped") == {"rolled_back": EACH}


def answers_never_arrive(world: World) -> None:
    """What could not be heard is undone by hasty workflows, and found done by stubborn ones."""
    proxy = world.proxy("inventory-1", "service")
    proxy.swallow(up=False, down=True)
    world.run_load(EACH, [Order("stubborn")])
    turning_back(world, "unheard")
    assert Fact.APPLIED in facts(world, "unheard")
    proxy.heal()
    world.quiesce(within_s=WITHIN_S)
    assert ends(world, "unheard") == {"rolled_back": EACH}
    assert ends(world, "stubborn") == {"completed": EACH}


def executes_arrive_after_their_compensations(world: World) -> None:
    proxy = world.proxy("inventory-1", "service")
    proxy.hold(up=True, down=False)
    turning_back(world, "overtaken")
    proxy.pass_new()
    world.quiesce(within_s=WITHIN_S)
    assert facts(world, "overtaken") == {Fact.BARRED}, f"seed {world.seed}: nothing was overtaken"
    assert ends(world, "overtaken") == {"rolled_back": EACH}
    proxy.release()
    world.wait_until(
        lambda: sum(one.fact is Fact.TOO_LATE for one in world.ledger.entries()) >= EACH,
        within_s=WITHIN_S,
        what="the executes that were held arrive",
    )
    proxy.heal()


def answers_are_slow_to_come(world: World) -> None:
    proxy = world.proxy("inventory-1", "service")
    proxy.delay(up_s=0.15, down_s=0.15)
    world.run_load(20)
    world.quiesce(within_s=WITHIN_S)
    proxy.heal()


def requests_and_answers_are_cut(world: World) -> None:
    """Each cut is in force until it has struck twice; the others wait until it is over."""
    proxy = world.proxy("inventory-1", "service")
    load = world.begin_load(60, [Order("stubborn")], parallel=2)
    for way, sizes in (("up", REQUEST_CUTS), ("down", ANSWER_CUTS)):
        for size in sizes:
            struck = proxy.counts["cut"]
            proxy.cut_after(**{way: size})
            world.wait_until(
                lambda enough=struck + 2: proxy.counts["cut"] >= enough,
                within_s=WITHIN_S,
                what=f"two connections are cut after {size} bytes {way}",
            )
    proxy.heal()
    load.result()
    world.quiesce(within_s=WITHIN_S)
    assert ends(world, "stubborn") == {"completed": EACH + 60}


def the_way_is_narrow_broken_and_shut(world: World) -> None:
    """Bytes trickle, then connections break, then there are none; what was meant comes through."""
    proxy = world.proxy("inventory-1", "service")
    for harm, enough, hurt in (
        ("throttled", EACH, lambda: proxy.throttle(up=4_000, down=4_000)),
        ("reset", 2, lambda: None),
        ("reset_new", 2, proxy.reset_new),
        ("refusing", 1, proxy.refuse),
    ):
        struck = proxy.counts[harm] + enough
        load = world.begin_load(EACH, [Order("stubborn")], parallel=2)
        hurt()

        def strikes(harm: str = harm, struck: int = struck) -> bool:
            if harm != "throttled":
                proxy.reset()
            return proxy.counts[harm] >= struck

        world.wait_until(strikes, within_s=WITHIN_S, what=f"{harm} strikes")
        load.result()
        proxy.heal()
        world.quiesce(within_s=WITHIN_S)
    assert ends(world, "stubborn") == {"completed": 5 * EACH + 60}
