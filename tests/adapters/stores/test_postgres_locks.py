"""The locks of the store on PostgreSQL, each at the very moment that it is there for.

A session of the test's own holds a row, and so stops a transaction of the store half-way. What
the transaction holds by then, others must respect; what it has read by then, it may not believe.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.ports.store import BatchResult, Claimed, Missing, Moved, Started, Transition
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store_play import (
    Player,
    assert_sound,
    call,
    refused,
    register,
    settle,
    start_of,
)

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

SIBLINGS = (call("a"), call("b", after=[]))
JOIN = (*SIBLINGS, call("c", after=["a", "b"]))


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


async def until_it_waits(
    backend: PostgresBackend, task: asyncio.Task[Any], *, waiting: int = 1
) -> None:
    """Return once so many sessions wait for a lock; fail if `task` does not wait for it."""
    while len(await backend.waiting_sessions()) < waiting:
        assert not task.done(), f"it did not wait for the lock: {task}"


async def claim_unseen(rival: psycopg.AsyncConnection[Any], step: str) -> None:
    """Claim a step as another sidecar does, and leave its commit to be made."""
    await rival.execute(
        b"UPDATE steps SET status = 'running', attempt = 1, owner = 'rival', ticket = 1,"
        b" started_at = clock_timestamp(), claimed_at = clock_timestamp(),"
        b" lease_until = clock_timestamp() + interval '1 minute' WHERE step = %s",
        [step],
    )


async def claim_by_name(player: Player, workflow: WorkflowId, step: str) -> Claimed:
    """Claim one step, which must be there to be claimed."""
    claimed = await player.claim_key(workflow, step)
    assert isinstance(claimed, Claimed)
    return claimed


async def assert_still_called(player: Player, workflow: WorkflowId, step: str) -> None:
    """The workflow turns back, and awaits the answer of a step that is being called."""
    await assert_sound(player.store, "default", workflow)
    assert await player.status(workflow) is WorkflowStatus.ROLLING_BACK
    held = await player.see_step(workflow, step)
    assert (held.status, held.execute.attempt, held.leased) == (StepStatus.RUNNING, 1, True)


async def test_two_settlements_at_once_see_each_other(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    """Else the last two branches of a join both take the other for unfinished."""
    here, there = Player(store), Player(await backend.open_store())
    definition = await register(store, *JOIN)
    await there.start(definition)  # from now on it knows the definition and the time
    workflow = await here.start(definition)
    first = settle(await claim_by_name(here, workflow, "a"))
    second = settle(await claim_by_name(there, workflow, "b"))
    async with backend.session() as rival:
        await rival.execute(b"SELECT 1 FROM steps WHERE step = 'a' FOR UPDATE")
        settling = asyncio.create_task(here.commit(here.batch(transitions=[first])))
        await until_it_waits(backend, settling)
        result = await there.store.commit(there.batch(transitions=[second]))
        assert result.transitions == (Missing.LOCKED,)
        await rival.rollback()
    assert isinstance((await settling).transitions[0], Moved)
    (moved,) = (await there.commit(there.batch(transitions=[second]))).transitions
    assert isinstance(moved, Moved)
    assert [str(step.key) for step in moved.changes.queued] == ["c"]


async def test_whoever_waits_for_a_workflow_decides_on_what_was_written(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge")))
    member = Transition(workflow, CancelRequested(), wait=True)
    async with backend.session() as rival:
        await rival.execute(b"UPDATE workflows SET last_seq = last_seq + 1, revision = 7")
        await rival.execute(
            b"INSERT INTO events (workflow_id, seq, time, kind, cause, actor, idx)"
            b" SELECT id, last_seq, clock_timestamp(), 'workflow', 'a rival', 'test', -1"
            b" FROM workflows"
        )
        cancelling = asyncio.create_task(store.commit(payments.batch(transitions=[member])))
        await until_it_waits(backend, cancelling)
        await rival.commit()
    (moved,) = (await cancelling).transitions
    assert isinstance(moved, Moved)
    assert moved.changes.workflow.revision == 8
    assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK


async def test_a_step_that_is_being_claimed_is_not_taken_away(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, *SIBLINGS))
    cancel = payments.batch(transitions=[Transition(workflow, CancelRequested())])
    async with backend.session() as rival:
        await claim_unseen(rival, "b")
        cancelling = asyncio.create_task(store.commit(cancel))
        await until_it_waits(backend, cancelling)
        await rival.commit()
    await cancelling
    await assert_still_called(payments, workflow, "b")


async def test_a_refusal_does_not_take_away_what_is_being_claimed(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    """What the claim had brought with it says that the sibling waits to be claimed."""
    payments = Player(store)
    workflow = await payments.start(await register(store, *SIBLINGS))
    member = settle(await claim_by_name(payments, workflow, "a"), refused())
    async with backend.session() as rival:
        await claim_unseen(rival, "b")
        refusing = asyncio.create_task(store.commit(payments.batch(transitions=[member])))
        await until_it_waits(backend, refusing)
        await rival.commit()
    await refusing
    await assert_still_called(payments, workflow, "b")


async def test_an_epoch_is_held_until_its_leader_has_written(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    leader, rival = Player(store), await backend.open_store()
    workflow = await leader.start(await register(store, call("charge")))
    epoch = await store.mint_epoch("default", "the first")
    member = Transition(workflow, CancelRequested(), wait=True)
    async with backend.session() as holder:
        await holder.execute(b"SELECT 1 FROM workflows FOR UPDATE")
        writing: asyncio.Task[BatchResult] = asyncio.create_task(
            store.commit(leader.batch(transitions=[member], epoch=epoch))
        )
        await until_it_waits(backend, writing)
        minting = asyncio.create_task(rival.mint_epoch("default", "the second"))
        await until_it_waits(backend, minting, waiting=2)
        await holder.rollback()
    assert isinstance((await writing).transitions[0], Moved)
    assert (await minting).number == epoch.number + 1


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "under locks"])
async def test_start_keys_are_taken_in_one_order(
    store: PostgresStore, backend: PostgresBackend, *, quick: bool
) -> None:
    """Else two batches with the same keys could wait for each other for ever."""
    here, there = Player(store), Player(await backend.open_store())
    definition = await register(store, call("charge"))
    if quick:  # from now on it knows the time
        await here.start(definition)
    batch = here.batch(starts=[start_of(definition, start_key=key) for key in ("last", "first")])
    async with backend.session() as rival:
        await rival.execute(
            b"INSERT INTO start_keys (namespace, definition, start_key, workflow_id, input_hash)"
            b" VALUES ('default', 'order', 'first', gen_random_uuid(), '')"
        )
        starting = asyncio.create_task(store.commit(batch))
        await until_it_waits(backend, starting)
        taken = await there.start(definition, start_key="last")
        await rival.rollback()
    last, first = (await starting).starts
    assert isinstance(last, Started)
    assert isinstance(first, Started)
    assert (last.workflow, last.existed, first.existed) == (taken, True, False)
