"""What a leader does for those who oversee: reviews of rollbacks, and the metrics of debts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.engine.duties import Duties, DutyTimes
from sidecar.ports import telemetry as metrics
from sidecar.ports.store import Claimed, Epoch
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import call, refused, register
from tests.unit.engine.overseen import Overseen
from tests.unit.engine.parts import ME


class Led(Overseen):
    """A sidecar whose duties are done by hand."""

    async def lead(self) -> Epoch:
        await self.store.open()
        self.duties = Duties(
            self.store,
            self.agent.ringer,
            ME,
            DutyTimes(),
            spread=lambda changes: None,
            look=lambda key: None,
            clock=self.clock,
            entropy=self.entropy,
            telemetry=self.telemetry,
        )
        return await self.store.mint_epoch("default", "me")

    async def turned_back(self, mode: str = "central") -> WorkflowId:
        """A workflow that owes the undoing of its first step."""
        player = self.player
        steps = (call("one"), call("two"))
        definition = await register(self.store, *steps, compensation={"mode": mode})
        workflow = await player.start(definition)
        for step, outcome in (("one", None), ("two", refused())):
            claimed = await player.claim_key(workflow, step)
            assert isinstance(claimed, Claimed)
            await player.answer(claimed, outcome)
        return workflow

    def debt(self, state: str) -> float | None:
        return self.telemetry.gauges.get((metrics.DEBT.name, ("payments", state)))


@pytest.fixture
def led() -> Led:
    return Led()


def forget_the_undoing(led: Led, workflow: WorkflowId) -> None:
    """Bring a step to where no transition would have left it: owed, and not begun."""
    row = led.store.tables.rows[workflow]
    step = replace(row.workflow.steps[StepKey("one")], status=StepStatus.SUCCEEDED, due_at=None)
    steps = {**row.workflow.steps, step.key: step}
    led.store.tables.put(replace(row, workflow=replace(row.workflow, steps=steps)))


@pytest.mark.parametrize("mode", ["central", "service"])
async def test_an_open_central_rollback_is_decided_on_again(led: Led, mode: str) -> None:
    epoch = await led.lead()
    workflow = await led.turned_back(mode)
    await led.duties.round(epoch, may_end_leases=False)
    forget_the_undoing(led, workflow)
    await led.duties.round(epoch, may_end_leases=False)  # too early for another look
    assert (await led.see(workflow)).steps[StepKey("one")].status is StepStatus.SUCCEEDED
    led.clock.advance(11)
    await led.duties.round(epoch, may_end_leases=False)
    begun = (await led.see(workflow)).steps[StepKey("one")].status
    assert (begun is StepStatus.COMPENSATING) == (mode == "central")


async def test_a_review_of_many_goes_on_where_the_last_ended(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.engine.overseeing.PAGE", 1)
    monkeypatch.setattr("sidecar.engine.overseeing.MOST_PAGES", 2)
    epoch = await led.lead()
    workflows = [await led.turned_back() for _ in range(3)]
    for workflow in workflows:
        forget_the_undoing(led, workflow)
    for still in (1, 0):
        led.clock.advance(11)
        await led.duties.round(epoch, may_end_leases=False)
        statuses = [(await led.see(one)).steps[StepKey("one")].status for one in workflows]
        assert statuses.count(StepStatus.SUCCEEDED) == still


async def test_debts_are_told_by_the_leader_and_taken_back_when_they_are_paid(led: Led) -> None:
    epoch = await led.lead()
    workflow = await led.turned_back()
    await led.duties.round(epoch, may_end_leases=False)
    assert (led.debt("owed"), led.debt("overdue"), led.debt("failed")) == (1, 0, 0)
    led.clock.advance(2 * 3600)
    await led.duties.round(epoch, may_end_leases=False)
    assert (led.debt("owed"), led.debt("overdue")) == (1, 1)
    player = led.player
    await player.answer(await player.claim_one())
    assert await player.status(workflow) is WorkflowStatus.ROLLED_BACK
    led.clock.advance(31)
    await led.duties.round(epoch, may_end_leases=False)
    assert (led.debt("owed"), led.debt("overdue")) == (0, 0)


async def test_who_leads_no_more_tells_nothing(led: Led) -> None:
    epoch = await led.lead()
    await led.turned_back()
    await led.duties.round(epoch, may_end_leases=False)
    assert led.debt("owed") == 1
    led.duties.stand_down()
    assert led.debt("owed") == 0


async def test_nothing_is_asked_while_there_is_nothing(led: Led) -> None:
    epoch = await led.lead()
    work = await led.store.leader_work("default", timedelta(seconds=20), None)
    assert not work.central_rollbacks
    assert not work.debts
    assert await led.duties.round(epoch, may_end_leases=False) == 0
