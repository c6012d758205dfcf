"""Starts: ids, start keys, first steps, and what cannot be stored."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.errors import StoreDataError
from sidecar.ports.store import KeyReused, Outdated, Started, Store
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import NO_INDEX, StepKey
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    assert_sound,
    call,
    new_id,
    register,
    start_of,
)


class StartSuite(StoreFixtures):
    """What `Batch.starts` promises."""

    async def test_a_start_stores_the_workflow_and_queues_its_roots_only(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"), call("ship", "shipping"))
        start = start_of(definition, labels={"shop": "north"}, trace="00-aa-bb-01")
        result = await payments.commit(payments.batch(starts=[start]))
        (started,) = result.starts
        assert isinstance(started, Started)
        assert (started.workflow, started.existed) == (start.id, False)
        assert started.status is WorkflowStatus.IN_PROGRESS
        assert started.changes is not None
        assert [step.key for step in started.changes.queued] == [StepKey("charge", NO_INDEX)]
        found = await payments.see(start.id)
        assert found.status is WorkflowStatus.IN_PROGRESS
        assert found.definition == ("default", "order", 1)
        assert found.input == start.input
        assert found.labels == {"shop": "north"}
        assert found.trace == "00-aa-bb-01"
        assert {str(key): step.status for key, step in found.steps.items()} == {
            "charge": StepStatus.QUEUED
        }

    async def test_the_deadline_counts_from_the_stores_own_clock(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"), timeout="1h")
        result = await payments.commit(payments.batch(starts=[start_of(definition)]))
        found = await payments.see(result.starts[0].workflow)
        assert timedelta() <= result.now - found.created_at < timedelta(seconds=1)
        assert found.deadline_at == found.created_at + timedelta(hours=1)

    async def test_a_start_may_claim_one_root_of_the_own_service(
        self, store: Store, payments: Player
    ) -> None:
        roots = [call("other", "inventory", after=[]), call("a", after=[]), call("b", after=[])]
        definition = await register(store, *roots)
        for _ in range(2):  # a store that keeps states may go another way the second time
            start = replace(start_of(definition, start_key=new_id()), claim_next=True)
            result = await payments.commit(payments.batch(starts=[start]))
            (claimed,) = result.claimed
            assert (claimed.workflow, claimed.attempt, claimed.input) == (start.id, 1, start.input)
            running = await payments.see_step(start.id, claimed.key.step)
            assert running.status is StepStatus.RUNNING
            assert running.lease_until is not None
            (rest,) = await payments.claim()
            assert {rest.key.step, claimed.key.step} == {"a", "b"}
            assert await payments.answer(claimed) is Verdict.APPLIED
            assert await payments.answer(rest) is Verdict.APPLIED
            await assert_sound(store, "default", start.id)

    async def test_a_start_claims_nothing_of_another_service_or_of_a_workflow_that_was_there(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await register(store, call("charge"))
        first = replace(start_of(definition, start_key="order-1"), claim_next=True)
        again = replace(first, id=new_id())
        elsewhere = replace(start_of(definition), claim_next=True)
        result = await inventory.commit(inventory.batch(starts=[first, elsewhere]))
        assert result.claimed == ()
        result = await payments.commit(payments.batch(starts=[again]))
        assert result.claimed == ()
        await register(store, call("charge"), call("ship", "shipping"))
        outdated = replace(start_of(definition), claim_next=True, latest=True)
        result = await payments.commit(payments.batch(starts=[outdated]))
        assert (result.starts, result.claimed) == ((Outdated(),), ())

    async def test_a_start_whose_answer_was_lost_keeps_its_claim(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        start = replace(start_of(definition), claim_next=True)
        batch = payments.batch(starts=[start])
        await backend.lose_answer(store, batch)
        result = await payments.commit(batch)
        assert [(one.workflow, one.attempt) for one in result.claimed] == [(start.id, 1)]
        assert await payments.answer(result.claimed[0]) is Verdict.APPLIED

    async def test_several_parallel_roots_are_all_queued(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b", after=[]), call("c", after=["a"]))
        workflow = await payments.start(definition)
        assert set(await payments.statuses(workflow)) == {"a", "b"}

    @pytest.mark.fault(9, 32)
    async def test_the_same_start_after_a_lost_answer_is_one_workflow(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        batch = payments.batch(starts=[start_of(definition)])
        await backend.lose_answer(store, batch)
        (again,) = (await payments.commit(batch)).starts
        assert again == Started(batch.starts[0].id, WorkflowStatus.IN_PROGRESS)
        assert len(await payments.events(again.workflow)) == 2
        assert len(await payments.claim()) == 1

    @pytest.mark.fault(9)
    async def test_a_start_key_with_the_same_input_is_the_same_workflow(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        first = await payments.start(definition, start_key="order-1")
        second = start_of(definition, start_key="order-1")
        (again,) = (await payments.commit(payments.batch(starts=[second]))).starts
        assert again == Started(first, WorkflowStatus.IN_PROGRESS, existed=True)
        assert await store.get_workflow("default", second.id) is None

    @pytest.mark.fault(9)
    async def test_a_start_key_with_another_input_is_refused_and_writes_nothing(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        first = await payments.start(definition, start_key="order-1")
        other = start_of(definition, start_key="order-1", body='{"amount":6}')
        neighbour = start_of(definition)
        result = await payments.commit(payments.batch(starts=[other, neighbour]))
        assert result.starts[0] == KeyReused(first)
        assert isinstance(result.starts[1], Started)
        assert await store.get_workflow("default", other.id) is None
        assert await payments.status(neighbour.id) is WorkflowStatus.IN_PROGRESS

    async def test_a_start_key_belongs_to_one_definition_and_one_namespace(
        self, store: Store, payments: Player
    ) -> None:
        order = await register(store, call("charge"))
        other = await register(store, call("charge"), name="other")
        elsewhere = await register(store, call("charge"), namespace="elsewhere")
        tenant = Player(store, namespace="elsewhere")
        ids = {
            await payments.start(order, start_key="k"),
            await payments.start(other, start_key="k"),
            await tenant.start(elsewhere, start_key="k"),
        }
        assert len(ids) == 3

    async def test_a_start_key_outlives_a_new_version_of_the_definition(
        self, store: Store, payments: Player
    ) -> None:
        first = await register(store, call("charge"))
        workflow = await payments.start(first, start_key="k")
        second = await register(store, call("charge"), call("ship"))
        assert second.version == 2
        assert await payments.start(second, start_key="k") == workflow

    @pytest.mark.parametrize("key", [None, "key-1"])
    @pytest.mark.parametrize("warm", [False, True])
    async def test_a_start_of_the_latest_version_is_refused_where_a_later_one_exists(
        self, store: Store, payments: Player, key: str | None, warm: bool
    ) -> None:
        old = await register(store, call("charge"))
        if warm:
            await payments.start(old)
        new = await register(store, call("charge"), call("reserve"))
        late = replace(start_of(old, start_key=key), latest=True)
        named = start_of(old, start_key="key-2")
        result = await payments.commit(payments.batch(starts=[late, named]))
        assert isinstance(result.starts[0], Outdated)
        assert isinstance(result.starts[1], Started)
        assert await store.get_workflow("default", late.id) is None
        again = replace(start_of(new, start_key=key), latest=True)
        (started,) = (await payments.commit(payments.batch(starts=[again]))).starts
        assert isinstance(started, Started)
        assert (started.workflow, started.existed) == (again.id, False)

    async def test_a_start_key_taken_under_an_older_version_is_found_all_the_same(
        self, store: Store, payments: Player
    ) -> None:
        old = await register(store, call("charge"))
        first = await payments.start(old, start_key="key-1")
        await register(store, call("charge"), call("reserve"))
        late = replace(start_of(old, start_key="key-1"), latest=True)
        (found,) = (await payments.commit(payments.batch(starts=[late]))).starts
        assert found == Started(first, WorkflowStatus.IN_PROGRESS, existed=True)

    async def test_two_starts_of_one_batch_with_one_key_are_one_workflow(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        starts = [start_of(definition, start_key="k") for _ in range(2)]
        first, second = (await payments.commit(payments.batch(starts=starts))).starts
        assert isinstance(first, Started)
        assert isinstance(second, Started)
        assert (first.workflow, second.workflow) == (starts[0].id, starts[0].id)
        assert (first.existed, second.existed) == (False, True)

    @pytest.mark.fault(9)
    async def test_two_handles_with_one_start_key_at_once_make_one_workflow(
        self, store: Store, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        players = [Player(store), Player(await backend.open_store())]
        ids = await asyncio.gather(*(one.start(definition, start_key="k") for one in players))
        assert ids[0] == ids[1]
        assert len(await players[0].claim()) == 1

    async def test_the_first_step_can_be_claimed_in_the_batch_of_its_start(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        start = start_of(definition)
        result = await payments.commit(payments.batch(starts=[start], due=1))
        taken = list(result.claimed) or await payments.claim()
        assert [one.workflow for one in taken] == [start.id]

    @pytest.mark.parametrize(
        "body",
        ['{"a":"\x00"}', '{"a":"\\u0000"}', '{"a":"\ud800"}'],
        ids=["nul", "escaped nul", "surrogate"],
    )
    async def test_a_body_that_cannot_be_stored_refuses_the_batch_and_writes_nothing(
        self, store: Store, payments: Player, body: str
    ) -> None:
        definition = await register(store, call("charge"))
        good = start_of(definition, start_key="good")
        bad = replace(start_of(definition), input=JsonText(body))
        with pytest.raises(StoreDataError):
            await store.commit(payments.batch(starts=[good, bad]))
        assert await store.get_workflow("default", good.id) is None
        assert await store.get_workflow("default", bad.id) is None
        fresh = start_of(definition, start_key="good")
        (started,) = (await payments.commit(payments.batch(starts=[fresh]))).starts
        assert isinstance(started, Started)
        assert (started.workflow, started.existed) == (fresh.id, False)

    async def test_text_of_all_tongues_comes_back_as_it_was(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        body = '{"name":"Zoë, 東京 🚲 \\"quoted\\" \\\\ 1e400 %s","n":1.10,"n":2}'
        workflow = await payments.start(definition, body=body, labels={"größe": "ü%"})
        found = await payments.see(workflow)
        assert found.input == body
        assert found.labels == {"größe": "ü%"}
        assert (await payments.claim_one()).input == body
