"""The chaos room itself: it is quiet where all is well, and speaks where something is wrong."""

from __future__ import annotations

import pytest

from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.report import ChaosError
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(120)]


def test_without_faults_every_workflow_ends_as_it_must(postgres_server: PostgresServer) -> None:
    with World(seed=1, postgres=postgres_server) as world:
        world.run_load(60)
        world.quiesce(within_s=30)
        world.verify(Expectations(at_least={"started": 60, "completed": 20, "rolled_back": 10}))


def test_a_killed_sidecar_costs_nothing(postgres_server: PostgresServer) -> None:
    with World(seed=2, postgres=postgres_server, supervise=True) as world:
        load = world.begin_load(60, parallel=4)
        world.wait_ended(10)
        world.kill9("payments-1")
        load.result()
        world.quiesce(within_s=30)
        least = {"started": 60, "completed": 20, "rolled_back": 10, "kills": 1, "restarts": 1}
        world.verify(Expectations(at_least=least))


def test_one_sidecar_says_that_it_leads(postgres_server: PostgresServer) -> None:
    with World(seed=4, postgres=postgres_server) as world:
        world.wait_until(lambda: world.leader() is not None, within_s=30, what="somebody leads")
        assert [one.leads() for one in world.sidecars.values()].count(True) == 1


def test_a_service_that_forgets_keys_is_found_out(postgres_server: PostgresServer) -> None:
    with World(seed=3, postgres=postgres_server, honours_keys=False) as world:
        world.ledger.fault(Rule(Kind.FAIL_AFTER, action="execute", times=3))
        world.run_load(12)
        world.quiesce(within_s=30)
        with pytest.raises(ChaosError, match=r"seed 3: violated\n\[.*had its effect 2 times"):
            world.verify(Expectations())
        legal = Expectations(at_least={"fault:fail_after": 3}, keys_honoured=False)
        world.verify(legal)
        with pytest.raises(ChaosError, match="it proves nothing"):
            world.verify(Expectations(at_least={"kills": 1}, keys_honoured=False))
