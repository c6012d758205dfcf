"""Actions that a sidecar does not offer, not yet or not any more: never lost, and never called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.ports import telemetry as metrics
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, StepKey, WorkflowId
from tests.unit.engine.deployed import DOUBTS, OFFERED, ORDER, REFUSES, Deployed, deployed
from tests.unit.engine.faces import until
from tests.unit.engine.parts import turns

__all__ = ["deployed"]


async def not_called(one: Deployed, workflow: WorkflowId, step: str, attempts: int = 1) -> Step:
    """Wait until so many attempts have come to nothing, each when it was due, or it has failed."""
    while StepKey(step) not in (await one.see(workflow)).steps:
        await turns(1)
    while True:
        seen = await one.step(workflow, step)
        tried = not seen.leased and seen.run.closed >= attempts
        if tried or seen.status is StepStatus.FAILED:
            return seen
        if seen.due_at is not None and not seen.leased:
            one.clock.advance(max(0.0, (seen.due_at - one.clock.now()).total_seconds()))
        await turns(1)


async def test_an_action_that_is_not_offered_here_waits_for_who_offers_it(
    deployed: Deployed,
) -> None:
    await deployed.register()
    await deployed.deploy({"charge": OFFERED["charge"]})
    workflow = await deployed.begin()
    ship = await not_called(deployed, workflow, "ship", attempts=3)
    assert (ship.status, ship.execute.tries, ship.may_have_effect) == (
        StepStatus.RETRYING,
        0,
        False,
    )
    view = await deployed.agent.queries.get("default", workflow)
    error = view.last_error
    assert error is not None
    assert json.loads(error)["code"] == "action_not_offered"
    assert "the catalogue of payments has no action ship; deploy sidecars of payments" in error
    assert [one for one in view.waiting_on if "has no action ship; deploy" in one] != []
    await deployed.deploy(OFFERED)
    deployed.clock.advance(60)
    await deployed.until_status(workflow, WorkflowStatus.COMPLETED)
    assert deployed.called() == [("pay", "PUT", "/charges"), ("ship", "POST", "/shipments")]


async def test_who_does_not_offer_an_action_has_it_less_and_less_often(deployed: Deployed) -> None:
    """However eagerly the definition lets it be tried."""
    eager = {"initial_interval": "10ms", "max_interval": "10ms", "jitter": 0, "max_attempts": 1}
    await deployed.register({**ORDER[1], "retry": eager})
    await deployed.deploy({"charge": OFFERED["charge"]})
    workflow = await deployed.begin()
    assert not deployed.agent.commands._is_begun_here(
        await deployed.agent.compiled.latest("default", "order")
    )
    pauses: list[float] = []
    for times in range(1, 7):
        ship = await not_called(deployed, workflow, "ship", times)
        assert ship.due_at is not None
        pauses.append((ship.due_at - deployed.clock.now()).total_seconds())
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3


async def test_what_nobody_offers_ends_with_its_budget(deployed: Deployed) -> None:
    await deployed.register(ORDER[0], {**ORDER[1], "retry": {"total_budget": "5m"}})
    await deployed.deploy({"charge": OFFERED["charge"]})
    workflow = await deployed.begin()
    ship = await not_called(deployed, workflow, "ship", attempts=100)
    assert 10 < ship.execute.attempt < 100
    await deployed.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert (ship.execute.tries, ship.may_have_effect) == (0, False)
    assert deployed.called() == [("pay", "PUT", "/charges"), ("pay", "DELETE", "/refunds")]


@pytest.mark.parametrize("left", [{}, {"compensate": "none"}])
async def test_an_undoing_that_was_taken_away_is_owed_until_it_is_back(
    deployed: Deployed, left: dict[str, Any]
) -> None:
    deployed.service.script = {("ship", Action.EXECUTE): REFUSES}
    await deployed.register()
    charge = {key: value for key, value in OFFERED["charge"].items() if key != "compensate"}
    await deployed.deploy({**OFFERED, "charge": charge | left})
    workflow = await deployed.begin()
    await deployed.until_status(workflow, WorkflowStatus.ROLLING_BACK)
    pay = await not_called(deployed, workflow, "pay", attempts=2)
    assert pay.compensate.tries == 0
    message = json.loads(pay.compensation_error or "")["message"]
    assert "`goconductor resolve`" in message
    assert ("has `compensate: none` for charge" in message) is bool(left)
    assert ("nothing that undoes charge" in message) is not bool(left)
    view = await deployed.agent.queries.get("default", workflow)
    assert "deploy sidecars of payments" in " ".join(view.waiting_on)
    await deployed.deploy(OFFERED)
    deployed.clock.advance(60)
    await deployed.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert deployed.called()[-1] == ("pay", "DELETE", "/refunds")


async def test_what_was_not_known_to_need_no_undoing_is_not_called(deployed: Deployed) -> None:
    await deployed.deploy({"ship": OFFERED["ship"]})
    pay = {**ORDER[0], "compensate": "from_catalogue"}
    await deployed.register(pay, ORDER[1], allow_missing=True)
    await deployed.deploy({**OFFERED, "charge": {"execute": "/charges", "compensate": "none"}})
    deployed.service.script = {("ship", Action.EXECUTE): REFUSES}
    workflow = await deployed.begin()
    await deployed.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    undone = await deployed.step(workflow, "pay")
    assert undone.status is StepStatus.COMPENSATED
    assert json.loads(undone.compensation_output or "")["code"] == "nothing_to_undo"
    assert deployed.called() == [("pay", "POST", "/charges"), ("ship", "POST", "/shipments")]


async def test_a_question_that_cannot_be_asked_proves_nothing(deployed: Deployed) -> None:
    deployed.service.script = {("pay", Action.EXECUTE): DOUBTS}
    await deployed.register()
    left = {key: value for key, value in OFFERED["charge"].items() if key != "status"}
    await deployed.deploy({**OFFERED, "charge": left})
    workflow = await deployed.begin()
    asked = metrics.ATTEMPTS.name, ("order", "pay", "status", "not_sent")
    await until(lambda: deployed.telemetry.counts[asked] > 0)
    pay = await deployed.step(workflow, "pay")
    assert (pay.status, pay.may_have_effect) == (StepStatus.IN_DOUBT, True)
    await until(lambda: deployed.slots.used == 0)
    assert deployed.called() == [("pay", "PUT", "/charges")]
