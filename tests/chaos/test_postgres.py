"""PostgreSQL loses sessions, is killed, is slow: workflows cost time by it and nothing else."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from tests.chaos.asking import ask
from tests.chaos.book import Entry, Fact
from tests.chaos.definitions import DEFINITIONS, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.sessions import end, end_sessions, sessions, strike
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(180)]

PATIENT = {
    "name": "patient",
    "steps": [
        step("charge", "payments", (), timeout="20s"),
        step("ship", "shipping", ("charge",), timeout="20s"),
    ],
}
"""Its leases outlast any restart of a server here."""
IN_FLIGHT = 8
LISTENING = """(query LIKE '%LISTEN "%' OR query LIKE '%A round trip%')"""
"""What a listening session has said last: that it listens, or that it is alive."""
WITHIN_S = 60.0


@pytest.mark.fault(31, 33, 40)
def test_sessions_and_servers_that_die_cost_time_and_nothing_else() -> None:
    with World(seed=33, definitions=(*DEFINITIONS, PATIENT)) as world:
        draw = random.Random(world.seed)
        strike(world, lambda: end_listeners(world), times=3, every_s=0.5)
        strike(world, lambda: end_sessions(world, draw, 3), times=3, every_s=2.0)
        strike(world, lambda: end_sessions(world, draw, 1), times=12, every_s=0.1)
        world.quiesce(within_s=WITHIN_S)
        for die in (world.postgres.kill, world.postgres.end_at_once):
            for for_long in (False, True):
                harm = functools.partial(die_and_come_back, world, die, for_long=for_long)
                strike(world, harm, times=1, every_s=0.3)
        world.quiesce(within_s=WITHIN_S)
        keep_answers_through_a_death(world)
        hold_a_row(world)
        world.quiesce(within_s=WITHIN_S)
        least = {"started": 250, "completed": 90, "rolled_back": 45}
        harm = {"listeners_ended": 9, "listeners_mended": 9, "sessions_ended": 15}
        harm |= {"servers_killed": 5, "fault:slow": IN_FLIGHT + 1, "rows_held": 1}
        world.verify(Expectations(at_least={**least, **harm}))


@pytest.mark.fault(34)
def test_slow_answers_to_clients_silence_no_sidecar(postgres_server: PostgresServer) -> None:
    """Twelve clients wait for a table that is locked; every sidecar goes on beating and leading."""
    with World(seed=34, postgres=postgres_server) as world:
        world.wait_until(lambda: world.leader() is not None, within_s=20, what="somebody leads")
        leader, epochs = world.leader(), world.tally()["epochs"]
        with world.connect() as holder, holder.transaction():
            holder.execute("LOCK TABLE goconductor.definitions IN ACCESS EXCLUSIVE MODE")
            ends_at = time.monotonic() + 9.0  # several silence spans, and the server's patience
            clients = [ask_until(one.api, ends_at) for one in world.sidecars.values()] * 4
            threads = [threading.Thread(target=one) for one in clients]
            for thread in threads:
                thread.start()
            while time.monotonic() < ends_at:
                world.wait_until(
                    lambda: all(one.ready() for one in world.sidecars.values()),
                    within_s=5,
                    what="all are ready although clients wait",
                )
                world.counts["looks"] += 1
                world.counts["most_waiting"] = max(world.counts["most_waiting"], waiting(world))
            for thread in threads:
                thread.join()
        assert [one.count("heartbeat_failed") for one in world.sidecars.values()] == [0, 0, 0]
        assert (world.leader(), world.tally()["epochs"]) == (leader, epochs)
        world.run_load(12)
        world.quiesce(within_s=30)
        seen = world.verify(Expectations(at_least={"started": 12, "looks": 5, "most_waiting": 9}))
        assert seen["cause:lease_ended"] == 0


# -- harm -------------------------------------------------------------------------------------


def end_listeners(world: World) -> None:
    """End all listening sessions, and see each sidecar listen again."""
    mended = {name: one.count("notices_interrupted") for name, one in world.sidecars.items()}
    listening = sessions(world, LISTENING)
    world.counts["listeners_ended"] += end(world, listening)
    world.run_load(4)
    world.wait_until(
        lambda: len(sessions(world, LISTENING)) == len(world.sidecars),
        within_s=30,
        what="every sidecar listens again",
    )
    world.counts["listeners_mended"] += sum(
        one.count("notices_interrupted") > mended[name] for name, one in world.sidecars.items()
    )


def die_and_come_back(world: World, die: Callable[[], None], *, for_long: bool) -> None:
    """Let PostgreSQL die and come back: at once, or when starts and answers have piled up."""
    die()
    assert not world.postgres.alive
    world.counts["servers_killed"] += 1
    if for_long:
        world.wait_until(
            lambda: not any(one.ready() for one in world.sidecars.values()),
            within_s=30,
            what="nobody is ready without PostgreSQL",
        )
    world.postgres.restart()


def keep_answers_through_a_death(world: World) -> None:
    """Calls are answered while PostgreSQL is dead: none of them is made again."""
    world.run_load(1, [Order("patient")])  # the sidecars have read the definition
    world.quiesce(within_s=WITHIN_S)
    world.ledger.fault(Rule(Kind.SLOW, path="/charge", ms=4000, times=IN_FLIGHT))
    ours = world.run_load(IN_FLIGHT, [Order("patient")])
    world.wait_until(
        lambda: world.held("payments-1") == IN_FLIGHT, within_s=20, what="calls in flight"
    )
    world.postgres.kill()
    world.counts["servers_killed"] += 1
    before = acted(world, ours)
    world.wait_until(
        lambda: acted(world, ours) == IN_FLIGHT, within_s=20, what="all calls answered"
    )
    assert before == 0, "the calls were answered before PostgreSQL died: it proves nothing"
    world.postgres.restart()
    world.quiesce(within_s=WITHIN_S)
    made = {one.workflow: one.attempt for one in calls(world, ours, "charge")}
    rows = [one for one in world.rows().steps if one.workflow in ours and one.step == "charge"]
    assert {one.workflow: one.attempt for one in rows} == made
    assert {one.status for one in rows} == {"succeeded"}
    facts = [one.fact for one in world.ledger.entries() if one.workflow in ours]
    assert facts == [Fact.APPLIED] * (2 * IN_FLIGHT)


def hold_a_row(world: World) -> None:
    """Somebody holds the row of one workflow for long: all others go on."""
    world.ledger.fault(Rule(Kind.SLOW, path="/reserve", ms=500, times=1))
    held = world.start(Order("chain"))
    world.wait_until(lambda: world.held("inventory-1") == 1, within_s=20, what="a call in flight")
    with world.connect() as holder, holder.transaction():
        holder.execute("SELECT 1 FROM goconductor.workflows WHERE id = %s FOR UPDATE", (held,))
        world.wait_until(
            lambda: acted(world, [held], "reserve") == 1,
            within_s=20,
            what="the call of the held workflow is answered",
        )
        others = [one for _ in range(3) for one in world.run_load(20)]
        world.wait_until(
            lambda: all(ended(world, one) for one in others), within_s=20, what="all others end"
        )
        assert not ended(world, held)
        world.counts["rows_held"] += 1


# -- facts ------------------------------------------------------------------------------------


def waiting(world: World) -> int:
    """How many sessions wait for a lock."""
    return len(sessions(world, "wait_event_type = 'Lock'"))


def ended(world: World, workflow: str) -> bool:
    with world.connect() as connection:
        row = connection.execute(
            "SELECT ended_at IS NOT NULL FROM goconductor.workflows WHERE id = %s", (workflow,)
        ).fetchone()
    return row is not None and bool(row[0])


def acted(world: World, workflows: Sequence[str | None], step: str = "charge") -> int:
    """How many of these workflows' calls have had their effect."""
    return sum(one.applied for one in calls(world, workflows, step))


def calls(world: World, workflows: Sequence[str | None], step: str) -> list[Entry]:
    return [one for one in world.ledger.entries() if one.workflow in workflows and one.step == step]


def ask_until(address: str, ends_at: float) -> Callable[[], None]:
    """A client that asks for the definitions, again and again, whatever it is told."""

    def client() -> None:
        while time.monotonic() < ends_at:
            ask(address, "/v1/definitions")

    return client
