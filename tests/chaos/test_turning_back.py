"""Workflows that turn back at bad moments: what cannot be undone, siblings, cancels, deadlines."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.definitions import DEFINITIONS, ROLLED_BACK, SERVICES, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.looking import reasons
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

WITHIN_S = 60.0
GRAPHS = 4
STEPS = 8
CANCELS = 200
MOST_LOADS = 5
DEADLINES_MS = (200, 600, 1000, 1400, 1800, 2200)


def graph(number: int, seed: int) -> dict[str, Any]:
    """A drawn graph without cycles: each step comes after up to three of those before it."""
    draw = random.Random(f"graph {seed} {number}")
    names = [f"step{one}" for one in range(STEPS)]
    return {
        "name": f"graph{number}",
        "steps": [
            step(
                name,
                draw.choice(SERVICES),
                draw.sample(names[:place], draw.randint(0, min(3, place))),
            )
            for place, name in enumerate(names)
        ],
    }


def refused_somewhere(seed: int) -> Iterator[Order]:
    """Each graph, refused by each of its steps."""
    for number in range(GRAPHS):
        for place in range(STEPS):
            yield Order(f"graph{number}", {f"step{place}": "refuse"})


@pytest.mark.fault(22)
def test_what_cannot_be_undone_holds_up_only_what_it_depended_on(
    postgres_server: PostgresServer,
) -> None:
    hopeless = (
        Order("chain", {"ship": "refuse", "reserve": "refuse_undo"}),
        Order("chain", {"ship": "refuse", "charge": "refuse_undo"}),
        Order("diamond", {"pack": "refuse", "charge": "refuse_undo"}),
        Order("diamond", {"ship": "refuse", "reserve": "refuse_undo"}),
        Order("diamond", {"ship": "refuse", "pack": "refuse_undo"}),
    )
    with World(seed=61, postgres=postgres_server) as world:
        world.run_load(20, hopeless)
        world.quiesce(within_s=WITHIN_S)
        # The tenth failure is logged as an error; the eleventh request comes through.
        world.ledger.fault(
            Rule(Kind.FAIL_BEFORE, action="compensate", step="reserve", per_key=10),
            Rule(Kind.FAIL_AFTER, action="compensate", step="charge", per_key=10),
        )
        world.run_load(6, [Order("diamond", {"pack": "refuse"})])
        world.quiesce(within_s=WITHIN_S)
        least = {"error": 20, "rolled_back": 6, "fault:fail_before": 60, "fault:fail_after": 60}
        world.verify(Expectations(at_least={**least, "repeated": 60}))
        siblings = sum(
            one.applied and (one.step, one.action) == ("reserve", "compensate")
            for one in world.ledger.entries()
        )
        assert siblings >= 4, f"seed {world.seed}: no sibling was undone"
        for name in ("payments-1", "inventory-1"):
            assert "compensation_keeps_failing" in world.sidecars[name].tail(10_000), name


@pytest.mark.fault(23, 26)
def test_graphs_are_undone_in_order_whatever_is_under_way(postgres_server: PostgresServer) -> None:
    """Steps end in a drawn order; some answers come after the refusal, some not at all."""
    definitions = (*DEFINITIONS, *(graph(one, 62) for one in range(GRAPHS)))
    with World(seed=62, postgres=postgres_server, definitions=definitions) as world:
        slow = (
            Rule(Kind.SLOW, step="reserve", action="execute", ms=300, times=10, per_key=1),
            Rule(Kind.SLOW, step="reserve", action="execute", ms=1_500, times=5, per_key=1),
            Rule(Kind.ACT_THEN_HANG, step="reserve", action="execute", times=5, per_key=1),
            *(
                Rule(Kind.SLOW, action=action, ms=ms, probability=0.25, seed=62, per_key=1)
                for action in ("execute", "compensate")
                for ms in (30, 150, 400)
            ),
        )
        world.ledger.fault(*slow)
        world.run_load(40, [Order("diamond", {"charge": "refuse"})])
        world.quiesce(within_s=WITHIN_S)
        beside = [
            one
            for one in world.ledger.entries()
            if (one.step, one.action) == ("reserve", "compensate") and one.applied
        ]
        assert len(beside) >= 10, f"seed {world.seed}: no sibling was under way"
        world.run_load(GRAPHS * STEPS * 2, tuple(refused_somewhere(62)), parallel=16)
        world.run_load(GRAPHS * 3, [Order(f"graph{one}") for one in range(GRAPHS)])
        world.quiesce(within_s=WITHIN_S)
        least = {"rolled_back": 40 + 2 * GRAPHS * STEPS, "completed": 3 * GRAPHS}
        least |= {"fault:slow": 100, "fault:act_then_hang": 5}
        world.verify(Expectations(at_least=least))


@pytest.mark.fault(24)
def test_a_cancel_and_the_end_never_both_win(postgres_server: PostgresServer) -> None:
    """Cancels come anywhere between the start and the end, to any sidecar, some of them twice."""
    draw = random.Random("cancels 63")
    mix = (Order("chain"), Order("diamond"), Order("pivot"), Order("chain", {"ship": "refuse"}))
    with World(seed=63, postgres=postgres_server) as world:
        world.ledger.fault(Rule(Kind.SLOW, action="execute", ms=250, probability=0.5, seed=63))
        waiting: list[str] = []
        for number in range(CANCELS):
            workflow = world.start(mix[number % len(mix)])
            assert workflow is not None
            waiting.append(workflow)
            newest = draw.random() < 0.4
            if newest or len(waiting) > 20:
                cancelled = waiting.pop(-1 if newest else draw.randrange(len(waiting)))
                for _ in range(draw.choice((1, 1, 2))):
                    world.cancel(cancelled, at=draw.choice(list(world.sidecars)))
        for cancelled in waiting:
            world.cancel(cancelled, at=draw.choice(list(world.sidecars)))
        world.quiesce(within_s=WITHIN_S)
        least = {"started": CANCELS, "cancels:202": 40, "cancels:409": 40}
        least |= {"completed": 20, "rolled_back": 40}
        world.verify(Expectations(at_least=least, also_legal=ROLLED_BACK))
        assert reasons(world)["cancelled"] >= 20, f"seed {world.seed}: no cancel won"


@pytest.mark.fault(25)
def test_a_deadline_and_an_answer_never_both_win(postgres_server: PostgresServer) -> None:
    """Answers come around the deadlines; what was done by then is undone, or nothing is."""
    chain = DEFINITIONS[0]["steps"]
    timed = [{"name": f"within_{ms}", "timeout": f"{ms}ms", "steps": chain} for ms in DEADLINES_MS]
    with World(seed=64, postgres=postgres_server, definitions=(*DEFINITIONS, *timed)) as world:
        world.ledger.fault(
            *(
                Rule(Kind.SLOW, action="execute", ms=ms, probability=0.3, seed=64, per_key=1)
                for ms in (100, 300, 600, 900)
            )
        )
        # How many are in time depends on the machine: enough of both kinds is what is wanted.
        for _ in range(MOST_LOADS):
            world.run_load(120, [Order(one["name"]) for one in timed], parallel=16)
            world.quiesce(within_s=WITHIN_S)
            if reasons(world)["timed_out"] >= 20:
                break
        legal = {one["name"]: ROLLED_BACK for one in timed}
        least = {"started": 120, "completed": 20, "rolled_back": 20, "fault:slow": 60}
        world.verify(Expectations(at_least=least, also_legal_for=legal))
        assert reasons(world)["timed_out"] >= 20, f"seed {world.seed}: no deadline won"
