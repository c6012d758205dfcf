"""The service is away: killed, answering 503, frozen, late, or not to be found by its name.

Nothing may be undone because of it and no try may be spent; others are not held up; and when it
is back it is not overrun. `payments` is a process of its own here, so that it can be away alone.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.definitions import DEFINITIONS, RETRY, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.ledger import Ledger
from tests.chaos.looking import ends, statuses, tries, workflows
from tests.chaos.sidecars import SHORT_TIMES
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.postgres,
    pytest.mark.timeout(240),
]

OPEN = 200
WITHIN_S = 90.0
WELL = (Order("chain"), Order("diamond"), Order("pivot"))
STUBBORN = {**RETRY, "max_attempts": 100}
MORE = (
    {
        "name": "stubborn",
        "steps": [
            step("charge", "payments", (), retry=STUBBORN),
            step("ship", "shipping", ("charge",), retry=STUBBORN),
        ],
    },
    {
        "name": "delivery",
        "steps": [
            step("reserve", "inventory", ()),
            step("ship", "shipping", ("reserve",)),
        ],
    },
)


def gate(world: World, name: str = "payments-1") -> tuple[float | None, bool | None, str | None]:
    """How the metric and `/readyz` of a sidecar describe its gate."""
    told = world.sidecars[name].readiness()
    metric = world.sidecars[name].metric("goconductor_gate_open")
    return metric, told.get("gate"), told.get("gate_reason")


def wait_closed(world: World, *reasons: str, name: str = "payments-1") -> None:
    """Return when a sidecar says in both places that its gate is closed, and why."""
    world.wait_until(
        lambda: (
            gate(world, name) in {(0.0, False, reason) for reason in reasons}
            and not world.sidecars[name].ready()
        ),
        within_s=WITHIN_S,
        what=f"{name} says that its gate is closed: {reasons}",
    )


def undone(world: World) -> int:
    """How many requests there were to undo something."""
    return sum(one.action == "compensate" for one in world.ledger.entries())


def requests_for_charges(entries_from: int, world: World) -> float:
    """How many requests each charge took, among those that first came after so many entries."""
    entries = world.ledger.entries()
    known = {one.key for one in entries[:entries_from]}
    asked = Counter(
        one.key
        for one in entries[entries_from:]
        if one.step == "charge" and one.key not in known and one.fault is None
    )
    assert len(asked) >= OPEN, f"seed {world.seed}: only {len(asked)} charges had waited"
    return asked.total() / len(asked)


@pytest.mark.fault(14, 19, 20, 21)
def test_a_service_that_is_away_costs_nothing_but_time(postgres_server: PostgresServer) -> None:
    with World(
        seed=51, postgres=postgres_server, apart=("payments",), definitions=(*DEFINITIONS, *MORE)
    ) as world:
        payments = world.ledger.of("payments")
        world.run_load(20, WELL)
        world.quiesce(within_s=WITHIN_S)
        connections_are_refused(world, payments)
        everything_is_answered_503(world, payments)
        nothing_is_answered_at_all(world, payments)
        assert undone(world) == 0, f"seed {world.seed}: something was undone"
        least = {"completed": 20 + 2 * OPEN + 60, "fault:unavailable": 10, "repeated": 10}
        world.verify(Expectations(at_least=least))


def connections_are_refused(world: World, payments: Ledger) -> None:
    before, spent = len(world.ledger.entries()), tries(world, "charge")
    payments.kill()
    world.run_load(OPEN, WELL)
    wait_closed(world, "not_ready")
    all_wait(world)
    assert tries(world, "charge") == spent, f"seed {world.seed}: tries were spent"
    payments.restart()
    world.quiesce(within_s=WITHIN_S)
    assert requests_for_charges(before, world) <= 1.2


def all_wait(world: World) -> None:
    """Return when all that can be done without payments is done, and the rest waits unclaimed."""

    def waits() -> bool:
        charges = statuses(world, "charge")
        reserves = statuses(world, "reserve", "diamond")
        waiting = charges["queued"] + charges["retrying"]
        return waiting == OPEN and charges["running"] == 0 and set(reserves) == {"succeeded"}

    world.wait_until(waits, within_s=WITHIN_S, what="everything waits for the payments")


def everything_is_answered_503(world: World, payments: Ledger) -> None:
    before, spent = len(world.ledger.entries()), tries(world, "charge")
    payments.fault(Rule(Kind.UNAVAILABLE))
    world.run_load(OPEN, WELL)
    wait_closed(world, "turned_away")
    turned_away = payments.fired()[Kind.UNAVAILABLE]
    world.wait_until(  # each trial is one request
        lambda: payments.fired()[Kind.UNAVAILABLE] >= turned_away + 3,
        within_s=WITHIN_S,
        what="three trials are turned away",
    )
    all_wait(world)
    assert tries(world, "charge") == spent, f"seed {world.seed}: tries were spent"
    # What was in flight when the gate closed, and after that one trial at a time.
    turned_away = payments.fired()[Kind.UNAVAILABLE]
    assert turned_away <= SHORT_TIMES["concurrency"] + 10 + 20, f"seed {world.seed}: {turned_away}"
    payments.fault()
    world.quiesce(within_s=WITHIN_S)
    assert requests_for_charges(before, world) <= 1.2


def nothing_is_answered_at_all(world: World, payments: Ledger) -> None:
    """A frozen service holds the slots of its own sidecar, and nobody else's."""
    payments.freeze()
    world.run_load(30, [Order("stubborn")])
    world.run_load(30, [Order("delivery")])
    world.wait_until(
        lambda: ends(world, "delivery") == {"completed": 30},
        within_s=WITHIN_S,
        what="what needs no payment is delivered",
    )
    assert ends(world, "stubborn")["completed"] == 0
    world.wait_until(
        lambda: world.tally()["cause:unknown"] >= 30, within_s=WITHIN_S, what="calls time out"
    )
    payments.go_on()
    world.quiesce(within_s=WITHIN_S)
    assert ends(world, "stubborn") == {"completed": 30}


@pytest.mark.fault(19, 66, 68)
def test_services_and_sidecars_that_come_and_go_in_any_order(
    postgres_server: PostgresServer,
) -> None:
    with World(seed=52, postgres=postgres_server, apart=("payments",)) as world:
        payments = world.ledger.of("payments")
        the_service_goes_before_its_sidecar(world, payments)
        the_sidecar_is_there_long_before_its_service(world, payments)
        the_sidecar_goes_before_its_service(world, payments)
        the_name_of_the_service_is_not_found(world)
        assert undone(world) == 0, f"seed {world.seed}: something was undone"
        least = {"completed": 60 + 30 + 60 + 20, "terminations": 4, "restarts": 4}
        world.verify(Expectations(at_least=least))


def the_service_goes_before_its_sidecar(world: World, payments: Ledger) -> None:
    """Both get their signal at once, and the service is quicker."""
    load = world.begin_load(60, WELL)
    world.wait_ended(5)
    payments.kill()
    assert world.terminate("payments-1") == 0
    load.result()


def the_sidecar_is_there_long_before_its_service(world: World, payments: Ledger) -> None:
    world.restart("payments-1")
    wait_closed(world, "starting")
    before, spent = workflows(world), tries(world, "charge")
    for _ in range(30):
        assert world.start(WELL[0], at="payments-1") is not None
    assert workflows(world) == before + 30
    wait_closed(world, "starting")
    assert tries(world, "charge") == spent, f"seed {world.seed}: tries were spent"
    payments.restart()
    world.quiesce(within_s=WITHIN_S)
    world.wait_until(
        lambda: gate(world) == (1.0, True, "ready"), within_s=WITHIN_S, what="the gate is open"
    )


def the_sidecar_goes_before_its_service(world: World, payments: Ledger) -> None:
    already = ended_well(world)
    load = world.begin_load(60, WELL)
    world.wait_until(
        lambda: ended_well(world) >= already + 5, within_s=WITHIN_S, what="work is under way"
    )
    assert world.terminate("payments-1") == 0
    payments.kill()
    load.result()
    payments.restart()
    world.restart("payments-1")
    world.quiesce(within_s=WITHIN_S)


def ended_well(world: World) -> int:
    """How many workflows have completed."""
    return sum(ends(world, one.definition)["completed"] for one in WELL)


def the_name_of_the_service_is_not_found(world: World) -> None:
    """A name that ends so is in no DNS; the resolver is told to ask once and not for long."""
    assert world.terminate("shipping-1") == 0
    lost = {
        "GOCONDUCTOR_SERVICE_URL": "http://does-not-exist.invalid:80",
        "RES_OPTIONS": "attempts:1 timeout:1",
    }
    world.restart("shipping-1", environment=lost)
    wait_closed(world, "starting", name="shipping-1")
    spent = tries(world, "ship")
    world.run_load(20, WELL)
    world.wait_until(
        lambda: statuses(world, "ship")["queued"] == 20,
        within_s=WITHIN_S,
        what="everything waits to be shipped",
    )
    wait_closed(world, "starting", name="shipping-1")
    assert tries(world, "ship") == spent, f"seed {world.seed}: tries were spent"
    assert world.terminate("shipping-1") == 0
    world.restart("shipping-1")
    world.quiesce(within_s=WITHIN_S)
