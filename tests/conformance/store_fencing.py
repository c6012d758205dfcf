"""Fencing: attempts that are no longer current, leases that ended, epochs that are void."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.errors import IllegalTransition, StaleEpoch
from sidecar.ports.store import Claimed, Epoch, Missing, Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import Answered, CancelRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    settle,
    start_of,
)


class FencingSuite(StoreFixtures):
    """Who may write, and who no longer may."""

    async def claim_twice(
        self, store: Store, payments: Player, backend: Backend
    ) -> tuple[WorkflowId, Claimed, Claimed]:
        """A step whose first lease ended, and that has been claimed again."""
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        first = await payments.claim_one()
        await backend.pass_time(60)
        assert await payments.end_lease(first) is Verdict.APPLIED
        await backend.pass_time(60)
        return workflow, first, await payments.claim_one()

    @pytest.mark.fault(6)
    async def test_the_attempt_rises_with_every_claim_and_fences_the_older_answer(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow, first, second = await self.claim_twice(store, payments, backend)
        assert (first.attempt, second.attempt) == (1, 2)
        before = await payments.see(workflow)
        assert await payments.answer(first, refused()) is Verdict.LATE
        after = await payments.see(workflow)
        assert (after.status, after.steps) == (before.status, before.steps)
        told = (await payments.events(workflow))[-1]
        assert (told.kind, told.step, told.attempt) == ("late_answer", "charge", 1)
        assert await payments.answer(second) is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    @pytest.mark.fault(50)
    async def test_the_same_answer_again_is_a_duplicate_and_writes_nothing(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        claimed = await payments.claim_one()
        assert await payments.answer(claimed) is Verdict.APPLIED
        before = await payments.see(workflow), await payments.events(workflow)
        assert await payments.answer(claimed, done('"other"')) is Verdict.DUPLICATE
        assert (await payments.see(workflow), await payments.events(workflow)) == before

    async def test_twice_the_same_answer_in_one_batch_counts_once(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        await payments.start(definition)
        member = settle(await payments.claim_one())
        result = await payments.commit(payments.batch(transitions=[member, member]))
        verdicts = [one.changes.verdict for one in result.transitions if isinstance(one, Moved)]
        assert verdicts == [Verdict.APPLIED, Verdict.DUPLICATE]

    async def test_an_answer_to_an_attempt_that_never_was_is_illegal(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        claimed = await payments.claim_one()
        forged = Answered(claimed.key, Action.EXECUTE, 2, done())
        assert isinstance(await payments.apply(workflow, forged), IllegalTransition)
        assert await payments.statuses(workflow) == {"charge": StepStatus.RUNNING}

    async def test_after_its_lease_ended_an_answer_counts_until_the_next_claim(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        claimed = await payments.claim_one()
        await backend.pass_time(60)
        assert await payments.end_lease(claimed) is Verdict.APPLIED
        step = await payments.see_step(workflow, "charge")
        assert (step.status, step.may_have_effect) == (StepStatus.RETRYING, True)
        assert await payments.answer(claimed) is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    @pytest.mark.fault(6, 51)
    async def test_a_late_answer_and_a_new_claim_at_once_leave_one_truth(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        first = await payments.claim_one()
        await backend.pass_time(60)
        await payments.end_lease(first)
        await backend.pass_time(60)
        rival = Player(await backend.open_store())
        verdict, claims = await asyncio.gather(payments.answer(first), rival.claim())
        if claims:
            assert verdict is Verdict.LATE
            assert await rival.answer(claims[0]) is Verdict.APPLIED
        else:
            assert verdict is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_ending_a_lease_after_the_answer_or_twice_changes_nothing(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow, first, second = await self.claim_twice(store, payments, backend)
        assert await payments.end_lease(first) is Verdict.IGNORED
        assert await payments.answer(second) is Verdict.APPLIED
        before = await payments.see(workflow)
        assert await payments.end_lease(second) is Verdict.IGNORED
        assert await payments.see(workflow) == before

    async def test_a_step_stays_with_its_claimer_until_the_machine_ends_the_lease(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        claimed = await payments.claim_one()
        assert claimed.action is Action.COMPENSATE
        await backend.pass_time(3600)
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "a") is Missing.NOT_CLAIMABLE
        await payments.end_lease(claimed)
        await backend.pass_time(3600)
        assert (await payments.claim_one()).attempt == 2

    @pytest.mark.fault(42)
    async def test_a_void_epoch_is_refused_and_nothing_is_written(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        old = await store.mint_epoch("default", "one")
        new = await store.mint_epoch("default", "two")
        assert new.number > old.number
        fresh = start_of(definition)
        cancel = [Transition(workflow, CancelRequested())]
        for epoch in (old, Epoch(new.number + 1)):
            for batch in (
                payments.batch(starts=[fresh], transitions=cancel, epoch=epoch),
                payments.batch(starts=[fresh], epoch=epoch),
                payments.batch(due=5, epoch=epoch),
            ):
                with pytest.raises(StaleEpoch):
                    await store.commit(batch)
        assert await store.get_workflow("default", fresh.id) is None
        assert await payments.statuses(workflow) == {"charge": StepStatus.QUEUED}
        result = await payments.commit(payments.batch(transitions=cancel, epoch=new))
        assert isinstance(result.transitions[0], Moved)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_an_epoch_holds_in_its_own_namespace_only(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        epoch = await store.mint_epoch("default", "one")
        for _ in range(3):
            await store.mint_epoch("elsewhere", "two")
        cancel = [Transition(workflow, CancelRequested())]
        result = await payments.commit(payments.batch(transitions=cancel, epoch=epoch))
        assert isinstance(result.transitions[0], Moved)
