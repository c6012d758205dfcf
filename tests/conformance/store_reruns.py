"""Workflows that are run again: told in both histories, or in none."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.ports.store import KeyReused, Outdated, Rerun, Retired, Start, Started, Store
from sidecar.ports.versions import VersionState
from sidecar.saga.events import TerminateRequested
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import (
    Player,
    StoreFixtures,
    call,
    new_id,
    refused,
    register,
    start_of,
)


def again(start: Start, old: WorkflowId, reason: str = "once more") -> Start:
    """A start that runs a workflow again."""
    return replace(start, rerun=Rerun(old, reason))


class RerunSuite(StoreFixtures):
    """What a store promises of `Start.rerun`."""

    @pytest.mark.parametrize("end", [WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK])
    async def test_both_histories_tell_of_it(
        self, store: Store, payments: Player, end: WorkflowStatus
    ) -> None:
        definition = await register(store, call("charge"))
        old = await payments.start(definition)
        failed = end is WorkflowStatus.ROLLED_BACK
        await payments.answer(await payments.claim_one(), refused() if failed else None)
        assert await payments.status(old) is end
        before = await payments.see(old)
        start = again(start_of(definition, start_key="k"), old)
        for existed in (False, False):  # repeated, as after a commit in doubt
            result = await payments.commit(payments.batch(starts=[start]))
            (started,) = result.starts
            assert isinstance(started, Started)
            assert (started.workflow, started.existed) == (start.id, existed)
        other = replace(start, id=new_id())
        result = await payments.commit(payments.batch(starts=[other]))
        assert result.starts == (Started(start.id, WorkflowStatus.IN_PROGRESS, existed=True),)
        told = (await payments.events(old))[-1]
        assert (told.kind, told.cause) == ("operator", "rerun")
        assert json.loads(told.details or "") == {"rerun": start.id, "reason": "once more"}
        begun = (await payments.events(start.id))[0]
        assert json.loads(begun.details or "") == {"rerun_of": old}
        after = await payments.see(old)
        assert (after.status, after.ended_at) == (before.status, before.ended_at)
        assert after.revision == before.revision + 1
        claimed = await payments.claim_one()
        assert (claimed.workflow, claimed.attempt) == (start.id, 1)

    async def test_one_that_goes_on_is_not_run_again(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("one"), call("two"))
        running = await payments.start(definition)
        start = again(start_of(definition, start_key="k"), running)
        result = await payments.commit(payments.batch(starts=[start]))
        (answer,) = result.starts
        assert isinstance(answer, IllegalTransition)
        assert answer.state == "in_progress"
        assert await store.get_workflow("default", start.id) is None
        # The key is free: nothing was begun under it.
        result = await payments.commit(payments.batch(starts=[start_of(definition, start_key="k")]))
        assert all(isinstance(one, Started) and not one.existed for one in result.starts)
        assert not any(one.cause == "rerun" for one in await payments.events(running))

    async def test_one_that_was_terminated_and_owes_nothing_is(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("one"))
        old = await payments.start(definition)
        await payments.apply(old, TerminateRequested("enough"))
        start = again(start_of(definition), old)
        result = await payments.commit(payments.batch(starts=[start]))
        assert isinstance(result.starts[0], Started)

    async def test_two_reruns_of_one_workflow_in_one_batch_are_both_told(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        old = await payments.start(definition)
        await payments.cancel(old)
        starts = [again(start_of(definition), old) for _ in range(2)]
        plain = start_of(definition)
        result = await payments.commit(payments.batch(starts=[*starts, plain]))
        assert all(isinstance(one, Started) for one in result.starts)
        told = [one for one in await payments.events(old) if one.cause == "rerun"]
        assert len(told) == 2

    async def test_what_is_not_started_is_not_told(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("charge"))
        old = await payments.start(definition, start_key="k")
        await payments.cancel(old)
        newer = await register(store, call("pay"))
        await store.set_version_state("default", "order", 1, VersionState.RETIRED)
        retired = again(start_of(definition), old)
        outdated = replace(retired, id=new_id(), latest=True)
        reused = again(start_of(newer, start_key="k", body="7"), old)
        result = await payments.commit(payments.batch(starts=[retired, outdated, reused]))
        assert result.starts == (Retired(), Outdated(), KeyReused(old))
        assert not any(one.cause == "rerun" for one in await payments.events(old))
        latest = again(replace(start_of(newer), latest=True), old)
        result = await payments.commit(payments.batch(starts=[latest]))
        assert isinstance(result.starts[0], Started)
        assert (await payments.see(latest.id)).definition.version == 2
