"""Transitions on the way back: who is undone, in which order, with what in hand."""

from __future__ import annotations

import pytest

from sidecar.ports.store import Missing, Moved, Store
from sidecar.saga.changes import Verdict
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from tests.conformance.store_play import (
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    unknown,
)


class RollbackSuite(StoreFixtures):
    """What `Batch.transitions` promises about a workflow that has turned back."""

    @pytest.mark.fault(23)
    async def test_a_refusal_undoes_what_was_done_in_reverse_order(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b"), call("c"))
        workflow = await payments.start(definition)
        for name in ("a", "b"):
            await payments.answer(await payments.claim_one(), done(f'"{name}"'))
        await payments.answer(await payments.claim_one(), refused())
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.ROLLING_BACK, Reason.FAILED)
        undone = []
        while claims := await payments.claim():
            (claimed,) = claims
            assert claimed.action is Action.COMPENSATE
            assert (claimed.succeeded, claimed.reason) == (True, Reason.FAILED)
            assert (claimed.input, claimed.output) == ('{"amount":5}', f'"{claimed.key}"')
            undone.append(str(claimed.key))
            await payments.answer(claimed, done(None))
        assert undone == ["b", "a"]
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.ROLLED_BACK, Reason.FAILED)
        assert found.ended_at is not None
        assert "no stock" in str(found.error)
        assert await payments.statuses(workflow) == {
            "a": StepStatus.COMPENSATED,
            "b": StepStatus.COMPENSATED,
            "c": StepStatus.FAILED,
        }

    async def test_a_compensation_that_renders_its_own_input_gets_it(
        self, store: Store, payments: Player
    ) -> None:
        undo = {"path": "/undo/a", "input": {"id": "${steps.a.output.id}"}}
        definition = await register(store, call("a", compensate=undo), call("b"))
        await payments.start(definition)
        await payments.answer(await payments.claim_one(), done('{"id":9}'))
        await payments.answer(await payments.claim_one(), refused())
        assert (await payments.claim_one()).compensation_input == '{"id":9}'

    @pytest.mark.fault(11)
    async def test_an_unknown_outcome_is_tried_again_and_then_compensated(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await backend.pass_time(2)
        await payments.answer(await payments.claim_one(), unknown())
        claimed = await payments.claim_one()
        assert (claimed.action, claimed.attempt) == (Action.COMPENSATE, 1)
        assert (claimed.succeeded, claimed.output) == (False, None)
        await payments.answer(claimed)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_unknown_sticks_when_a_later_attempt_is_refused(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await backend.pass_time(2)
        await payments.answer(await payments.claim_one(), refused())
        assert await payments.statuses(workflow) == {"charge": StepStatus.COMPENSATING}

    async def test_a_compensation_is_tried_until_it_is_done(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), done('"out"'))
        await payments.answer(await payments.claim_one(), refused())
        for attempt in range(1, 4):
            claimed = await payments.claim_one()
            assert (claimed.attempt, claimed.tries) == (attempt, attempt - 1)
            assert (claimed.output, claimed.succeeded) == ('"out"', True)
            await payments.answer(claimed, unknown())
            assert await payments.claim_key(workflow, "a") is Missing.NOT_DUE
            await backend.pass_time(600)
        await payments.answer(await payments.claim_one(), done('"undone"'))
        step = await payments.see_step(workflow, "a")
        assert step.status is StepStatus.COMPENSATED
        assert (step.execute.attempt, step.compensate.attempt) == (1, 4)
        assert (step.output, step.compensation_output) == ('"out"', '"undone"')
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    @pytest.mark.fault(22)
    async def test_a_compensation_that_is_refused_is_an_error_for_a_person(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await payments.answer(await payments.claim_one(), refused())
        found = await payments.see(workflow)
        assert (found.status, found.ended_at) == (WorkflowStatus.ERROR, None)
        assert await payments.statuses(workflow) == {
            "a": StepStatus.COMPENSATION_FAILED,
            "b": StepStatus.FAILED,
        }
        assert await payments.claim() == []

    @pytest.mark.fault(24, 26)
    async def test_a_cancel_takes_waiting_steps_away_and_awaits_those_being_called(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await register(store, call("a"), call("b", "inventory", after=[]))
        workflow = await payments.start(definition)
        called = await payments.claim_one()
        moved = await payments.cancel(workflow)
        assert isinstance(moved, Moved)
        assert moved.changes.takes_away
        assert await inventory.claim_key(workflow, "b") is Missing.NOT_CLAIMABLE
        assert await payments.statuses(workflow) == {
            "a": StepStatus.RUNNING,
            "b": StepStatus.CANCELLED,
        }
        assert await payments.answer(called, done('"late"')) is Verdict.APPLIED
        claimed = await payments.claim_one()
        assert (claimed.action, claimed.succeeded) == (Action.COMPENSATE, True)
        assert (claimed.output, claimed.reason) == ('"late"', Reason.CANCELLED)
        await payments.answer(claimed)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_cancelling_again_changes_nothing(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("a"))
        workflow = await payments.start(definition)
        await payments.cancel(workflow)
        before = await payments.see(workflow)
        moved = await payments.cancel(workflow)
        assert isinstance(moved, Moved)
        assert moved.changes.verdict is Verdict.IGNORED
        assert await payments.see(workflow) == before
