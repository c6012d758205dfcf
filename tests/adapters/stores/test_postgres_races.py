"""The store on PostgreSQL when others work at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace

from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import IllegalTransition
from sidecar.ports.store import (
    Claimed,
    Moved,
    Transition,
)
from sidecar.saga.changes import Verdict
from sidecar.saga.events import CancelRequested, DeadlinePassed
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.adapters.stores.racing import ROUNDS, behind, long, neck_and_neck, race
from tests.adapters.stores.stubborn import JOIN, Stubborn
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


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


@pytest.mark.fault(29)
async def test_eight_claimers_share_the_work_and_none_gets_more_than_it_asked_for(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    definition = await register(store, call("a"), call("b", after=[]))
    starts = [start_of(definition) for _ in range(100)]
    await store.commit(payments.batch(starts=starts))
    stores = [await backend.open_store() for _ in range(8)]

    async def work(rival: Player) -> list[Claimed]:
        mine: list[Claimed] = []
        while claimed := (await rival.store.commit(rival.batch(due=7))).claimed:
            assert len(claimed) <= 7
            mine += claimed
        return mine

    shares = await asyncio.gather(*(work(Player(one)) for one in stores))
    taken = Counter((one.workflow, one.key) for share in shares for one in share)
    assert set(taken.values()) == {1}
    left = (await store.commit(payments.batch(due=200))).claimed
    assert len(taken) + len(left) == 200


@long
@pytest.mark.fault(28)
async def test_the_last_two_branches_of_a_join_at_once_fire_it_once(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, *JOIN)
    last = Counter[str | None]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        first, second = await here.claim()
        await neck_and_neck(
            turn,
            store,
            lambda one=first: here.insist(settle(one)),
            rival,
            lambda one=second: there.insist(settle(one)),
        )
        events = await here.events(workflow)
        assert [one.step for one in events if one.after == "queued"].count("c") == 1
        last[[one.step for one in events if one.after == "succeeded"][-1]] += 1
        (claimed,) = await there.claim()
        assert (claimed.key.step, claimed.attempt) == ("c", 1)
        await there.answer(claimed)
        assert await here.status(workflow) is WorkflowStatus.COMPLETED
    assert set(last) == {"a", "b"}


@long
@pytest.mark.fault(24)
async def test_a_cancel_that_races_the_last_answer_has_one_winner(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, call("charge"))
    ends = Counter[WorkflowStatus]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        claimed = await here.claim_one()
        cancelled, _ = await race(
            turn,
            there.insist(Transition(workflow, CancelRequested())),
            behind(store, turn, lambda one=claimed: here.insist(settle(one))),
        )
        status = await here.status(workflow)
        if isinstance(cancelled, IllegalTransition):
            assert status is WorkflowStatus.COMPLETED
        else:
            assert isinstance(cancelled, Moved)
            assert status is WorkflowStatus.ROLLING_BACK
            await here.answer(await here.claim_one())
        await assert_sound(store, "default", workflow)
        ends[await here.status(workflow)] += 1
    assert set(ends) == {WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK}


@long
@pytest.mark.fault(25)
async def test_a_deadline_that_races_the_last_answer_has_one_winner(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, call("charge"), timeout="1m")
    workflows = [await here.start(definition) for _ in range(ROUNDS)]
    held = {one.workflow: one for one in await here.claim(ROUNDS)}
    await backend.pass_time(61)
    ends = Counter[WorkflowStatus]()
    for turn, workflow in enumerate(workflows):
        passed, _ = await race(
            turn,
            there.insist(Transition(workflow, DeadlinePassed())),
            behind(store, turn, lambda one=held[workflow]: here.insist(settle(one))),
        )
        assert isinstance(passed, Moved)
        in_time = passed.changes.verdict is not Verdict.APPLIED
        if not in_time:
            await here.answer(await here.claim_one())
        end = WorkflowStatus.COMPLETED if in_time else WorkflowStatus.ROLLED_BACK
        assert await here.status(workflow) is end
        await assert_sound(store, "default", workflow)
        ends[end] += 1
    assert set(ends) == {WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK}


@pytest.mark.fault(30)
async def test_a_step_that_becomes_visible_late_is_claimed_although_later_ones_were(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    """Its transaction began first and is committed last."""
    here, there = Player(store), Player(await backend.open_store())
    definition = await register(store, call("charge"))
    first, second = start_of(definition), start_of(definition)
    assert first.id < second.id
    async with backend.session() as slow:
        await slow.execute(backend.INSERT_BY_ANOTHER, [first.id])
        held_up = asyncio.create_task(store.commit(here.batch(starts=[first])))
        await backend.until_somebody_waits()
        await there.commit(there.batch(starts=[second]))
        assert (await there.claim_one()).workflow == second.id
        await slow.rollback()
    await held_up
    assert (await there.claim_one()).workflow == first.id


@long
@pytest.mark.fault(24)
async def test_a_cancel_that_races_a_claim_never_leaves_a_call_nobody_answers_for(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, *JOIN)
    early = Counter[int]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        result, moved = await race(
            turn,
            behind(store, turn, lambda: store.commit(here.batch(due=2))),
            there.insist(Transition(workflow, CancelRequested())),
        )
        assert isinstance(moved, Moved)
        held = {one.key for one in result.claimed}
        steps = (await here.see(workflow)).steps
        running = {key for key, step in steps.items() if step.status is StepStatus.RUNNING}
        assert held == running
        for one in result.claimed:
            assert await here.answer(one, refused()) is Verdict.APPLIED
        assert await here.status(workflow) is WorkflowStatus.ROLLED_BACK
        early[len(held)] += 1
    assert len(early) > 1, "one side always won"


@pytest.mark.fault(31)
async def test_batches_that_want_the_same_workflows_and_keys_do_not_deadlock(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    players = [Player(store), *[Player(await backend.open_store()) for _ in range(3)]]
    definition = await register(store, call("charge"))
    starts = [start_of(definition, start_key=f"key-{number}") for number in range(30)]

    async def start_all(player: Player, order: int) -> list[WorkflowId]:
        mine = [replace(one, id=start_of(definition).id) for one in starts[::order]]
        result = await player.store.commit(player.batch(starts=mine))
        return [one.workflow for one in result.starts][::order]

    started = await asyncio.gather(
        *(start_all(player, (-1) ** number) for number, player in enumerate(players))
    )
    assert len({tuple(one) for one in started}) == 1

    async def cancel_all(player: Player, order: int) -> None:
        members = [Transition(one, CancelRequested(), wait=True) for one in started[0][::order]]
        result = await player.store.commit(player.batch(transitions=members))
        assert all(isinstance(one, Moved) for one in result.transitions)

    await asyncio.gather(
        *(cancel_all(player, (-1) ** number) for number, player in enumerate(players))
    )
    for one in started[0]:
        assert await players[0].status(one) is WorkflowStatus.ROLLED_BACK
