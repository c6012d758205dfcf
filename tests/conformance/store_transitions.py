"""Transitions on the way forward: in order, each alone legal or not, all in one stroke."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.errors import IllegalTransition, StoreDataError
from sidecar.ports.store import Missing, Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import Answered, CancelRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_play import (
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    new_id,
    not_sent,
    register,
    released,
    settle,
    unknown,
)


class TransitionSuite(StoreFixtures):
    """What `Batch.transitions` promises."""

    async def test_a_chain_runs_to_its_end(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await register(store, call("charge"), call("reserve", "inventory"))
        workflow = await payments.start(definition)
        assert await inventory.claim() == []
        assert await payments.answer(await payments.claim_one()) is Verdict.APPLIED
        assert await payments.claim() == []
        claimed = await inventory.claim_one()
        assert (claimed.key, claimed.attempt) == (StepKey("reserve"), 1)
        moved = await inventory.commit(inventory.batch(transitions=[settle(claimed)]))
        (result,) = moved.transitions
        assert isinstance(result, Moved)
        assert result.changes.ended
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.COMPLETED
        assert found.ended_at is not None
        assert [step.output for step in found.steps.values()] == ['{"ok":true}'] * 2

    async def test_an_unknown_workflow_or_step_is_told_and_its_neighbours_are_written(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        claimed = await payments.claim_one()
        stranger = Answered(StepKey("nobody"), Action.EXECUTE, 1, done())
        result = await payments.commit(
            payments.batch(
                transitions=[
                    Transition(new_id(), CancelRequested()),
                    Transition(new_id(), CancelRequested(), wait=True),
                    Transition(workflow, stranger),
                    settle(claimed),
                ]
            )
        )
        assert result.transitions[:3] == (Missing.UNKNOWN,) * 3
        assert isinstance(result.transitions[3], Moved)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_an_illegal_member_fails_alone(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("charge"))
        ended = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        open_one = await payments.start(definition)
        result = await payments.commit(
            payments.batch(
                transitions=[
                    Transition(ended, CancelRequested()),
                    Transition(open_one, CancelRequested()),
                ]
            )
        )
        first, second = result.transitions
        assert isinstance(first, IllegalTransition)
        assert isinstance(second, Moved)
        assert await payments.status(ended) is WorkflowStatus.COMPLETED
        assert await payments.status(open_one) is WorkflowStatus.ROLLED_BACK

    async def test_several_transitions_of_one_workflow_are_decided_in_their_order(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("a"), call("b", after=[]), call("last", after=["a", "b"])
        )
        workflow = await payments.start(definition)
        a, b = sorted(await payments.claim(), key=lambda one: one.key)
        result = await payments.commit(payments.batch(transitions=[settle(a), settle(b)]))
        first, second = result.transitions
        assert isinstance(first, Moved)
        assert isinstance(second, Moved)
        assert first.changes.queued == ()
        assert [step.key.step for step in second.changes.queued] == ["last"]
        assert [str(one.key) for one in await payments.claim()] == ["last"]
        outputs = {
            str(key): one.output for key, one in (await payments.see(workflow)).steps.items()
        }
        assert outputs == {"a": '{"ok":true}', "b": '{"ok":true}', "last": None}

    @pytest.mark.parametrize("cancel_first", [True, False])
    async def test_an_answer_and_a_cancel_in_one_batch_agree_on_who_came_first(
        self, store: Store, payments: Player, cancel_first: bool
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        members = [settle(await payments.claim_one()), Transition(workflow, CancelRequested())]
        if cancel_first:
            members.reverse()
        result = await payments.commit(payments.batch(transitions=members))
        if cancel_first:
            assert await payments.status(workflow) is WorkflowStatus.ROLLING_BACK
            assert await payments.statuses(workflow) == {"charge": StepStatus.COMPENSATING}
        else:
            assert isinstance(result.transitions[1], IllegalTransition)
            assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    @pytest.mark.fault(28)
    async def test_a_join_fires_once_when_its_last_branch_has_passed(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await register(
            store,
            call("a"),
            call("b", "inventory", after=[]),
            call("joined", after=["a", "b"]),
        )
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        assert await payments.claim() == []
        answered = await inventory.claim_one()
        assert await inventory.answer(answered) is Verdict.APPLIED
        assert await inventory.answer(answered) is Verdict.DUPLICATE
        assert (await payments.claim_one()).key == StepKey("joined")
        queued = [
            one
            for one in await payments.events(workflow)
            if one.step == "joined" and one.after == StepStatus.QUEUED
        ]
        assert len(queued) == 1

    async def test_an_input_is_rendered_from_what_is_stored(
        self, store: Store, payments: Player
    ) -> None:
        wanted = {"sum": "${input.amount}", "of": "${steps.charge.output.receipt}"}
        definition = await register(store, call("charge"), call("ship", input=wanted))
        await payments.start(definition, body='{"amount":7}')
        claimed = await payments.claim_one()
        assert claimed.input == '{"amount":7}'
        await payments.answer(claimed, done('{"receipt":"r-1"}'))
        assert (await payments.claim_one()).input == '{"of":"r-1","sum":7}'

    async def test_an_input_that_cannot_be_rendered_turns_the_workflow_back(
        self, store: Store, payments: Player
    ) -> None:
        wanted = {"of": "${steps.charge.output.nothing}"}
        definition = await register(store, call("charge"), call("ship", input=wanted))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        assert await payments.statuses(workflow) == {
            "charge": StepStatus.COMPENSATING,
            "ship": StepStatus.FAILED,
        }
        assert "render_failed" in str((await payments.see_step(workflow, "ship")).error)

    async def test_claim_next_claims_at_most_one_successor_of_the_own_service(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            call("first"),
            call("other", "inventory", after=["first"]),
            call("a", after=["first"]),
            call("b", after=["first"]),
        )
        workflow = await payments.start(definition)
        members = [settle(await payments.claim_one(), claim_next=True)]
        result = await payments.commit(payments.batch(transitions=members))
        (claimed,) = result.claimed
        assert str(claimed.key) in {"a", "b"}
        assert (claimed.workflow, claimed.action, claimed.attempt) == (workflow, Action.EXECUTE, 1)
        assert claimed.input == '{"amount":5}'
        assert timedelta() <= result.now - claimed.claimed_at < timedelta(seconds=1)
        running = (await payments.see(workflow)).steps[claimed.key]
        assert running.status is StepStatus.RUNNING
        assert running.lease_until is not None
        (rest,) = await payments.claim()
        assert {str(rest.key), str(claimed.key)} == {"a", "b"}
        assert await payments.answer(claimed) is Verdict.APPLIED

    async def test_claim_next_takes_nothing_of_a_paused_workflow_or_of_another_service(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        foreign = await register(store, call("a"), call("b", "inventory"), name="foreign")
        paused = await payments.start(definition)
        await payments.start(foreign)
        members = [settle(one, claim_next=True) for one in await payments.claim()]
        await backend.set_paused(paused, True)
        result = await payments.commit(payments.batch(transitions=members))
        assert result.claimed == ()

    async def test_a_released_step_is_due_at_once_and_spends_no_try(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        await payments.start(definition)
        await payments.answer(await payments.claim_one(), released())
        again = await payments.claim_one()
        assert (again.attempt, again.tries) == (2, 0)
        assert await payments.answer(again) is Verdict.APPLIED

    @pytest.mark.fault(19, 20)
    async def test_a_call_that_was_not_sent_comes_back_later_and_spends_no_try(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        for _ in range(4):
            claimed = await payments.claim_one()
            assert claimed.tries == 0
            await payments.answer(claimed, not_sent())
            assert await payments.claim_key(workflow, "charge") is Missing.NOT_DUE
            await backend.pass_time(60)
        step = await payments.see_step(workflow, "charge")
        assert (step.status, step.may_have_effect) == (StepStatus.RETRYING, False)
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_an_unknown_outcome_is_tried_again_and_counted(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        step = await payments.see_step(workflow, "charge")
        assert (step.status, step.may_have_effect) == (StepStatus.RETRYING, True)
        assert "timeout" in str(step.error)
        await backend.pass_time(2)
        again = await payments.claim_one()
        assert (again.attempt, again.tries) == (2, 1)
        await payments.answer(again)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    @pytest.mark.fault(17)
    async def test_a_poisoned_answer_refuses_the_batch_and_writes_nothing(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflows = [await payments.start(definition) for _ in range(2)]
        good, bad = await payments.claim()
        members = [settle(good), settle(bad, done('{"a":"\x00"}'))]
        with pytest.raises(StoreDataError):
            await store.commit(payments.batch(transitions=members))
        for workflow in workflows:
            assert await payments.statuses(workflow) == {"charge": StepStatus.RUNNING}
            assert len(await payments.events(workflow)) == 2
        assert await payments.answer(good) is Verdict.APPLIED
        assert await payments.answer(bad, unknown()) is Verdict.APPLIED
