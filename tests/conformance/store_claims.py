"""Claims: exclusive, bounded, in order of due time, and only of what may be claimed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from sidecar.ports.store import Missing, Store, Transition
from sidecar.saga.events import CancelRequested, TerminateRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, StepKey
from tests.conformance.store_play import (
    MARGIN,
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    call,
    new_id,
    refused,
    register,
    settle,
    start_of,
    unknown,
)


class ClaimSuite(StoreFixtures):
    """What `Batch.claim_keys` and `Batch.claim_due` promise."""

    async def test_a_claim_says_all_that_a_call_needs_and_writes_the_step_alone(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge", timeout="10s"))
        workflow = await payments.start(definition, trace="00-aa-bb-01")
        before = await payments.see(workflow)
        claimed = await payments.claim_one()
        assert claimed.workflow == workflow
        assert claimed.definition == DefinitionRef("default", "order", 1)
        assert claimed.key == StepKey("charge")
        assert (claimed.action, claimed.attempt, claimed.tries) == (Action.EXECUTE, 1, 0)
        assert (claimed.call_ms, claimed.input) == (10_000, '{"amount":5}')
        assert (claimed.output, claimed.succeeded, claimed.reason) == (None, False, None)
        assert claimed.trace == "00-aa-bb-01"
        after = await payments.see(workflow)
        assert (after.revision, after.last_seq) == (before.revision, before.last_seq)
        step = after.steps[StepKey("charge")]
        assert step.status is StepStatus.RUNNING
        assert step.execute.started_at == step.execute.claimed_at == claimed.claimed_at
        assert step.lease_until is not None
        lease = step.lease_until - claimed.claimed_at
        assert abs(lease - timedelta(seconds=10) - MARGIN) < timedelta(seconds=1)

    @pytest.mark.fault(3, 51)
    async def test_a_step_can_be_claimed_by_one_handle_only(
        self, store: Store, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        players = [Player(store), Player(await backend.open_store())]
        starts = [start_of(definition) for _ in range(20)]
        await players[0].commit(players[0].batch(starts=starts))
        claims = await asyncio.gather(*(one.claim(20) for one in players for _ in range(2)))
        taken = [claimed.workflow for some in claims for claimed in some]
        taken += [claimed.workflow for claimed in await players[1].claim()]
        assert sorted(taken) == sorted(one.id for one in starts)

    async def test_a_key_is_claimed_by_one_of_many_who_ask(
        self, store: Store, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        players = [Player(store), Player(await backend.open_store())]
        workflow = await players[0].start(definition)
        answers = await asyncio.gather(*(one.claim_key(workflow, "charge") for one in players))
        refusals = [one for one in answers if isinstance(one, Missing)]
        assert len(refusals) == 1
        assert refusals[0] in (Missing.LOCKED, Missing.NOT_CLAIMABLE)

    @pytest.mark.fault(29)
    async def test_the_limit_is_kept_and_the_longest_due_come_first(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        workflows = []
        for _ in range(4):
            workflows.append(await payments.start(definition))
            await backend.pass_time(1)
        assert [one.workflow for one in await payments.claim(1)] == workflows[:1]
        assert {one.workflow for one in await payments.claim(2)} == set(workflows[1:3])
        assert [one.workflow for one in await payments.claim(5)] == workflows[3:]

    async def test_only_steps_of_the_own_service_and_namespace_are_claimed(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await register(store, call("charge"))
        await register(store, call("charge"), namespace="elsewhere")
        workflow = await payments.start(definition)
        tenant = Player(store, namespace="elsewhere")
        for stranger in (inventory, tenant):
            assert await stranger.claim() == []
            assert await stranger.claim_key(workflow, "charge") is Missing.NOT_CLAIMABLE
        assert (await payments.claim_one()).workflow == workflow

    async def test_each_key_that_is_not_claimed_says_why(
        self, store: Store, payments: Player
    ) -> None:
        retry = {**RETRY_ONCE, "initial_interval": "1h", "max_interval": "1h"}
        definition = await register(store, call("charge", retry={**retry, "total_budget": "1d"}))
        charge = StepKey("charge")
        late = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        running = await payments.start(definition)
        await payments.claim_one()
        ended = await payments.start(definition)
        await payments.commit(payments.batch(transitions=[Transition(ended, CancelRequested())]))
        free = await payments.start(definition)
        nowhere = new_id()
        wanted = [(one, charge) for one in (late, running, ended, free, nowhere)]
        wanted += [(free, StepKey("nothing")), (free, StepKey("charge", 3))]
        result = await payments.commit(payments.batch(keys=wanted))
        assert [one.workflow for one in result.claimed] == [free]
        assert result.refused_keys == {
            (late, charge): Missing.NOT_DUE,
            (running, charge): Missing.NOT_CLAIMABLE,
            (ended, charge): Missing.NOT_CLAIMABLE,
            (nowhere, charge): Missing.UNKNOWN,
            (free, StepKey("nothing")): Missing.UNKNOWN,
            (free, StepKey("charge", 3)): Missing.UNKNOWN,
        }

    @pytest.mark.parametrize("named", [False, True], ids=["due", "named"])
    async def test_a_batch_does_not_claim_what_it_takes_away(
        self, store: Store, payments: Player, named: bool
    ) -> None:
        """Or a workflow would be told to have ended while a step of it is called."""
        charge = StepKey("charge")
        gone = await payments.start(await register(store, call("charge")))
        claims: dict[str, Any] = {"keys": [(gone, charge)]} if named else {"due": 10}
        cancel = [Transition(gone, CancelRequested())]
        result = await payments.commit(payments.batch(transitions=cancel, **claims))
        assert result.claimed == ()
        assert await payments.status(gone) is WorkflowStatus.ROLLED_BACK
        assert (await payments.see_step(gone, "charge")).status is StepStatus.CANCELLED
        if named:
            assert result.refused_keys[gone, charge] in (Missing.LOCKED, Missing.NOT_CLAIMABLE)

    async def test_a_batch_does_not_claim_again_what_it_settles_late(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """The lease had ended, and the step is claimable, when its answer comes after all."""
        workflow = await payments.start(await register(store, call("charge", retry=RETRY_ONCE)))
        claimed = await payments.claim_one()
        await payments.end_lease(claimed)
        await backend.pass_time(5)
        late = [settle(claimed)]
        result = await payments.commit(payments.batch(transitions=late, due=10))
        assert result.claimed == ()
        assert (await payments.see_step(workflow, "charge")).status is StepStatus.SUCCEEDED
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_nothing_is_claimed_before_it_is_due(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "charge") is Missing.NOT_DUE
        await backend.pass_time(2)
        assert (await payments.claim_one()).attempt == 2

    async def test_nothing_of_a_paused_workflow_is_claimed_forward_or_back(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        await backend.set_paused(workflow, True)
        assert (await payments.see(workflow)).paused
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "a") is Missing.NOT_CLAIMABLE
        await backend.set_paused(workflow, False)
        await payments.answer(await payments.claim_one())
        called = await payments.claim_one()
        await backend.set_paused(workflow, True)
        await payments.answer(called, refused())
        assert (await payments.see(workflow)).paused
        assert await payments.claim() == []
        await backend.set_paused(workflow, False)
        assert (await payments.claim_one()).action is Action.COMPENSATE

    async def test_one_batch_claims_by_key_and_by_time_and_no_step_twice(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflows = [await payments.start(definition) for _ in range(3)]
        key = (workflows[2], StepKey("charge"))
        result = await payments.commit(payments.batch(keys=[key], due=5))
        assert sorted(one.workflow for one in result.claimed) == workflows
        assert result.refused_keys == {}

    async def test_claims_ride_with_transitions_and_see_what_they_freed(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        members = [settle(await payments.claim_one())]
        result = await payments.commit(payments.batch(transitions=members, due=5))
        taken = [*result.claimed, *await payments.claim()]
        assert [(one.workflow, one.key.step) for one in taken] == [(workflow, "b")]

    @pytest.mark.parametrize("by", ["due", "keys"])
    @pytest.mark.fault(32)
    async def test_a_batch_whose_answer_was_lost_gets_its_claims_again(
        self, store: Store, payments: Player, backend: Backend, by: str
    ) -> None:
        definition = await register(store, call("charge"))
        workflows = [await payments.start(definition) for _ in range(3)]
        keys = [(one, StepKey("charge")) for one in workflows[:2]]
        batch = payments.batch(due=2) if by == "due" else payments.batch(keys=keys)
        await backend.lose_answer(store, batch)
        again = await payments.commit(batch)
        assert sorted(one.workflow for one in again.claimed) == workflows[:2]
        assert {one.attempt for one in again.claimed} == {1}
        assert again.refused_keys == {}
        assert [one.workflow for one in await payments.claim()] == workflows[2:]

    @pytest.mark.fault(32)
    async def test_a_transition_whose_answer_was_lost_is_a_duplicate_and_keeps_its_claim(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        workflow = await payments.start(definition)
        members = [settle(await payments.claim_one(), claim_next=True)]
        batch = payments.batch(transitions=members)
        await backend.lose_answer(store, batch)
        before = await payments.see(workflow)
        result = await payments.commit(batch)
        assert [(one.key.step, one.attempt) for one in result.claimed] == [("b", 1)]
        assert result.claimed[0].input == '{"amount":5}'
        assert await payments.see(workflow) == before

    async def test_claims_of_another_ticket_are_not_handed_out_again(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        workflow = await payments.start(definition)
        await payments.claim_one()
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "charge") is Missing.NOT_CLAIMABLE

    async def test_whoever_ends_a_claim_writes_its_line_first(
        self, store: Store, payments: Player
    ) -> None:
        """The claim wrote nothing but the step; if a person ends it, it was made all the same."""
        definition = await register(store, call("a"), call("b"), call("c"))
        workflow = await payments.start(definition)
        for outcome in (None, None, refused()):
            await payments.answer(await payments.claim_one(), outcome)
        await payments.claim_one()
        other = await payments.start(definition)
        await payments.claim_one()
        for one in (workflow, other):
            await payments.apply(one, TerminateRequested("out of business"))
        lines = [*await payments.events(workflow), *await payments.events(other)]
        ends = [at for at, one in enumerate(lines) if one.step and one.cause == "terminated"]
        told = [
            [(line.before, line.cause, line.attempt) for line in lines[at - 1 : at + 1]]
            for at in ends
            if lines[at].attempt
        ]
        assert told == [
            [("compensating", "claimed", 1), ("compensating", "terminated", 1)],
            [("queued", "claimed", 1), ("running", "terminated", 1)],
        ]
