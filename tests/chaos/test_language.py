"""Everything that the language has, while sidecars die, freeze, and lose their sessions."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing

import pytest

from sidecar.engine.failpoints import Site
from tests.chaos.deaths import Deaths, telling
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.language import CAN_BE_CANCELLED, LANGUAGE, OFFERED, RATES, Talk
from tests.chaos.sidecars import FAILPOINTS, Sidecar
from tests.chaos.test_kills import QUICK
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(300)]

SITES = (
    Site.AFTER_COMMIT_OF_SETTLEMENTS,
    Site.AFTER_CALL,
    Site.AFTER_COMPENSATE_CALL,
    Site.BEFORE_SETTLE,
    Site.AFTER_SETTLE,
    Site.BEFORE_VERB,
    Site.AFTER_VERB,
    Site.BEFORE_CALLBACK,
    Site.AFTER_CALLBACK,
    Site.BEFORE_DUTY_COMMIT,
    Site.AFTER_DUTY_COMMIT,
    Site.AFTER_TIMERS,
    Site.AFTER_LETTERS,
    Site.AFTER_TURNS,
    Site.AFTER_REVIEWS,
)
"""Where what the language has is decided, kept, told and taken up again.

What is passed on the way to a call is so by plain calls alike, and has its deaths under them.
"""

ANYWHERE = (
    Site.BEFORE_COMMIT,
    Site.AFTER_COMMIT,
    Site.AFTER_COMMIT_OF_SETTLEMENTS,
    Site.AFTER_CALLBACK,
)
SETTINGS = {**QUICK, **OFFERED}
LATEST = 25
DEATHS = 3
STUMBLES = Rule(Kind.FAIL_AFTER, probability=0.05, per_key=1, seed=8)
HAPPENED = {
    "children": 30,
    "family:completed": 5,
    "family:rolled_back": 5,
    "fan:completed": 3,
    "fan:rolled_back": 3,
    "parcels:completed": 2,
    "parcels:rolled_back": 3,
    "turn:completed": 2,
    "turn:rolled_back": 2,
    "counter:completed": 2,
    "counter:rolled_back": 2,
    "signalled:completed": 2,
    "choice:completed": 2,
    "forgotten:rolled_back": 2,
    "items": 50,
    "tolerated": 5,
    "skipped": 3,
    "taken_on": 30,
    "called_back": 30,
    "signals:before": 1,
    "signals:after": 1,
    "cause:parent_turned_back": 10,
    "cause:its_turn": 20,
    "crowds": 5,
    "metered:completed": 3,
    "metered:rolled_back": 2,
    "cause:mended": 1,
    "cause:skipped": 1,
    "cause:resolved": 2,
}
"""Every construct, often enough."""


def judged(world: World, talk: Talk, **least: int) -> None:
    """Let it come to rest, and judge it."""
    world.quiesce(within_s=60, meanwhile=talk.resume_all)
    happened = {**HAPPENED, **least}
    world.verify(
        Expectations(at_least=happened, also_legal_for=CAN_BE_CANCELLED, rates=RATES),
    )


@pytest.mark.fault(1, 5, 7, 28)
def test_a_death_anywhere_in_the_language_costs_nothing(postgres_server: PostgresServer) -> None:
    """At its first pass, and then anywhere in the middle."""
    with World(seed=81, postgres=postgres_server, definitions=LANGUAGE, settings=SETTINGS) as world:
        world.ledger.fault(STUMBLES)
        with closing(Talk(world, world.seed)) as talk:
            deaths = Deaths(world, talk, SITES)
            with telling(deaths):
                deaths.run()
            die_anywhere(world, talk)
        fired = {"cause:held": 3, **{f"site:{site}": 1 for site in SITES}}
        with telling(deaths):
            judged(world, talk, **fired, repeated=5, exits=len(SITES) + DEATHS)


def die_anywhere(world: World, talk: Talk) -> None:
    """Let one after the other die in some pass of a site, while all of it goes on."""
    draw = random.Random(f"anywhere {world.seed}")
    names = list(world.sidecars)
    for number in range(DEATHS):
        name = names[number % len(names)]
        at = f"{draw.choice(ANYWHERE)}:kill9@{draw.randint(1, LATEST)}"
        world.terminate(name, within_s=0)
        world.restart(name, environment={FAILPOINTS: at})
        world.wait_until(
            lambda one=world.sidecars[name]: _is_dead(one, talk),
            within_s=45,
            what=f"{name} dies at {at}",
        )
        world.restart(name)
    world.wait_ready()


def _is_dead(sidecar: Sidecar, talk: Talk) -> bool:
    """Whether it has died, and the world has taken note; meanwhile there is always work."""
    talk.keep_busy()
    return not sidecar.alive and not sidecar.wanted


@pytest.mark.fault(6)
def test_whoever_stands_still_brings_nothing_back(postgres_server: PostgresServer) -> None:
    """Beyond every lease, one after the other, the leader among them."""
    with World(seed=82, postgres=postgres_server, definitions=LANGUAGE, settings=SETTINGS) as world:
        world.ledger.fault(STUMBLES)
        with closing(Talk(world, world.seed)) as talk:
            for name in (*world.sidecars, str(world.leader() or "payments-1")):
                talk.portion()
                world.stop(name)
                since = time.monotonic()
                world.wait_until(
                    lambda since=since: time.monotonic() > since + 3.0,
                    within_s=30,
                    what="its leases are over",
                )
                world.cont(name)
        judged(world, talk, stops=4)


@pytest.mark.fault(33)
def test_sessions_that_end_every_second_cost_time_alone(postgres_server: PostgresServer) -> None:
    with World(seed=83, postgres=postgres_server, definitions=LANGUAGE, settings=SETTINGS) as world:
        world.ledger.fault(STUMBLES)
        with closing(Talk(world, world.seed)) as talk:
            for second in range(8):
                if second % 2 == 0:
                    talk.portion()
                world.counts["sessions_ended"] += end_sessions(world)
                threading.Event().wait(1.0)
        judged(world, talk, sessions_ended=20)


def end_sessions(world: World) -> int:
    """End those of all sidecars; how many there were."""
    with world.connect() as connection:
        found = connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE application_name = 'goconductor' AND datname = current_database()"
        ).fetchall()
    return sum(ended for (ended,) in found)
