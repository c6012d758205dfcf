"""Steps in doubt: nobody knows how the execute went, so the service is asked."""

from __future__ import annotations

from datetime import timedelta

from sidecar.ports.store import Claimed, Store
from sidecar.saga.changes import Verdict
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_language import asked, busy, fan, keys_of, lines
from tests.conformance.store_play import (
    MARGIN,
    NAMESPACE,
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    released,
    settle,
    unknown,
)

UNSEEN = timedelta(seconds=20)


class DoubtSuite(StoreFixtures):
    """What a store promises about asking how it went."""

    async def _in_doubt(self, store: Store, payments: Player, budget: str = "60s") -> Claimed:
        await payments.start(await register(store, asked("charge", budget), call("ship")))
        claimed = await payments.claim_one()
        await payments.answer(claimed, unknown())
        return claimed

    async def test_who_is_in_doubt_can_be_claimed_and_asks(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        claimed = await self._in_doubt(store, payments)
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.may_have_effect) == (StepStatus.IN_DOUBT, True)
        assert step.doubt_at is not None
        assert await inventory.claim() == []
        asking = await payments.claim_one()
        assert (asking.key, asking.action, asking.attempt) == (claimed.key, Action.STATUS, 2)
        assert asking.input == claimed.input
        assert (await payments.see_step(claimed.workflow, "charge")).status is StepStatus.IN_DOUBT
        assert await store.is_current(claimed.workflow, claimed.key, Action.STATUS, 2)
        assert not await store.is_current(claimed.workflow, claimed.key, Action.EXECUTE, 2)
        assert await payments.answer(asking, done('"paid"')) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.output, step.doubt_at) == (StepStatus.SUCCEEDED, '"paid"', None)
        # To ask is no try of the execute.
        assert (step.execute.attempt, step.execute.tries) == (2, 1)
        assert (await payments.claim_one()).key == StepKey("ship")

    async def test_it_is_claimed_by_its_name_and_with_the_settlement(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, asked("charge")))
        claimed = await payments.claim_one()
        result = await payments.commit(
            payments.batch(transitions=[settle(claimed, unknown(), claim_next=True)])
        )
        (asking,) = result.claimed
        assert (asking.action, asking.attempt) == (Action.STATUS, 2)
        await payments.answer(asking, released())
        named = await payments.claim_key(workflow, "charge")
        assert isinstance(named, Claimed)
        assert (named.action, named.attempt) == (Action.STATUS, 3)

    async def test_an_answer_that_proves_nothing_is_asked_for_again_within_a_budget(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._in_doubt(store, payments)
        attempts = []
        for _ in range(4):
            asking = await payments.claim_one()
            attempts.append(asking.attempt)
            await payments.answer(asking, busy())
            assert await payments.claim() == []
            await backend.pass_time(10)
        assert attempts == [2, 3, 4, 5]
        await backend.pass_time(30)
        asking = await payments.claim_one()
        assert asking.action is Action.STATUS
        await payments.answer(asking, unknown())
        undo = await payments.claim_one()
        assert (undo.action, undo.succeeded) == (Action.COMPENSATE, False)
        assert (await payments.see_step(claimed.workflow, "charge")).execute.tries == 1

    async def test_a_promise_to_refuse_turns_back_and_is_undone_all_the_same(
        self, store: Store, payments: Player
    ) -> None:
        """Unknown sticks: the answer promises that no later execute has an effect, no more."""
        claimed = await self._in_doubt(store, payments)
        await payments.answer(await payments.claim_one(), refused())
        assert await payments.status(claimed.workflow) is WorkflowStatus.ROLLING_BACK
        undo = await payments.claim_one()
        assert (undo.action, undo.succeeded) == (Action.COMPENSATE, False)
        await payments.answer(undo)
        assert await payments.status(claimed.workflow) is WorkflowStatus.ROLLED_BACK

    async def test_the_lease_of_a_question_is_one_of_its_own(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._in_doubt(store, payments)
        asking = await payments.claim_one()
        await backend.pass_time(31 + MARGIN.total_seconds())
        (lease,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert (lease.key, lease.action, lease.attempt) == (claimed.key, Action.STATUS, 2)
        assert await payments.end_lease(asking) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.execute.tries) == (StepStatus.IN_DOUBT, 1)
        # What was asked may still be heard, until another asks.
        assert await payments.answer(asking, done()) is Verdict.APPLIED
        assert (await payments.see_step(claimed.workflow, "charge")).status is StepStatus.SUCCEEDED

    async def test_a_lease_that_ended_is_asked_about_and_its_call_may_answer_before(
        self, store: Store, payments: Player
    ) -> None:
        await payments.start(await register(store, asked("charge")))
        claimed = await payments.claim_one()
        await payments.end_lease(claimed)
        step = await payments.see_step(claimed.workflow, "charge")
        assert step.status is StepStatus.IN_DOUBT
        assert await payments.answer(claimed, done()) is Verdict.APPLIED
        assert await payments.status(claimed.workflow) is WorkflowStatus.COMPLETED

    async def test_turning_back_asks_nobody(self, store: Store, payments: Player) -> None:
        claimed = await self._in_doubt(store, payments)
        await payments.cancel(claimed.workflow)
        undo = await payments.claim_one()
        assert undo.action is Action.COMPENSATE
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.doubt_at) == (StepStatus.COMPENSATING, None)

    async def test_who_asks_while_the_workflow_turns_back_is_awaited(
        self, store: Store, payments: Player
    ) -> None:
        claimed = await self._in_doubt(store, payments)
        asking = await payments.claim_one()
        await payments.cancel(claimed.workflow)
        assert await payments.claim() == []
        await payments.answer(asking, busy())
        assert (await payments.claim_one()).action is Action.COMPENSATE

    async def test_who_is_in_doubt_is_rung_for_again(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await self._in_doubt(store, payments)
        await backend.pass_time(30)
        await payments.beat()
        (found,) = await store.ringable_steps(NAMESPACE, UNSEEN, timedelta(seconds=10), 10)
        assert found.doorbell.key == StepKey("charge")
        work = await store.leader_work(NAMESPACE, UNSEEN, timedelta(seconds=10))
        assert work.ringable_steps

    async def test_an_item_in_doubt_is_asked_about_too(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", status="/status", retry={"max_attempts": 1})
        workflow = await payments.start(await register(store, each), body=lines(1, 2))
        first, second = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first, unknown())
        await payments.answer(second)
        asking = await payments.claim_one()
        assert keys_of([asking]) == ["each[0]"]
        assert asking.action is Action.STATUS
        await payments.answer(asking, done())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
