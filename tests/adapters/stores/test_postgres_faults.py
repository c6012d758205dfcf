"""The store on PostgreSQL when others work at the same time, and when sessions and servers die."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import IllegalTransition, StoreConflict, StoreUnavailable
from sidecar.ports.store import (
    Batch,
    BatchResult,
    Claimed,
    Missing,
    Moved,
    Started,
    Transition,
    TransitionResult,
)
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import Definition
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import WAIT_RETURNS, StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store_play import (
    Player,
    assert_sound,
    call,
    done,
    refused,
    register,
    settle,
    start_of,
)
from tests.servers.postgres import PostgresServer

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

ROUNDS = 25
TROUBLES_FELT = 25
JOIN = (call("a"), call("b", after=[]), call("c", after=["a", "b"]))


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


class Stubborn(Player):
    """A sidecar that does as the engine does: the same batch again, until it is durable."""

    troubles = 0

    def __init__(self, store: PostgresStore, durable: asyncio.Event | None = None) -> None:
        super().__init__(store)
        self.durable = durable or asyncio.Event()

    async def persist(self, batch: Batch) -> BatchResult:
        """Commit a batch, whatever happens to the connections, and tell that it is durable."""
        while True:
            try:
                result = await self.store.commit(batch)
            except (StoreUnavailable, StoreConflict):
                self.troubles += 1
                await asyncio.sleep(0)
            else:
                self.durable.set()
                return result

    async def insist(self, member: Transition) -> TransitionResult:
        """Offer a transition until its workflow is not locked any more."""
        while True:
            result = await self.persist(self.batch(transitions=[member]))
            if result.transitions[0] is not Missing.LOCKED:
                return result.transitions[0]

    async def run_sagas(self, definition: Definition, count: int) -> list[WorkflowId]:
        """Run workflows one after the other to their end."""
        ended = []
        for _ in range(count):
            start = start_of(definition)
            result = await self.persist(self.batch(starts=[start]))
            assert result.starts[0].workflow == start.id
            while await self.status_at_last(start.id) not in WAIT_RETURNS:
                for one in (await self.persist(self.batch(due=2))).claimed:
                    await self.insist(settle(one, done(f'{{"by":"{one.key}"}}')))
            ended.append(start.id)
        return ended

    async def status_at_last(self, workflow: WorkflowId) -> WorkflowStatus:
        """Ask for a status until there is an answer."""
        while True:
            try:
                return (await self.store.statuses([workflow]))[workflow]
            except StoreUnavailable:
                await asyncio.sleep(0)


# -- races ------------------------------------------------------------------------------------


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


async def test_the_last_two_branches_of_a_join_at_once_fire_it_once(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, *JOIN)
    for _ in range(ROUNDS):
        workflow = await here.start(definition)
        first, second = await here.claim()
        await asyncio.gather(here.insist(settle(first)), there.insist(settle(second)))
        queued = [one for one in await here.events(workflow) if one.after == "queued"]
        assert [one.step for one in queued].count("c") == 1
        (claimed,) = await there.claim()
        assert (claimed.key.step, claimed.attempt) == ("c", 1)
        await there.answer(claimed)
        assert await here.status(workflow) is WorkflowStatus.COMPLETED


async def test_a_cancel_that_races_the_last_answer_has_one_winner(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, call("charge"))
    ends = Counter[WorkflowStatus]()
    for _ in range(ROUNDS):
        workflow = await here.start(definition)
        claimed = await here.claim_one()
        cancelled, _ = await asyncio.gather(
            there.insist(Transition(workflow, CancelRequested())),
            here.insist(settle(claimed)),
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
    assert set(ends) <= {WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK}


async def test_a_cancel_that_races_a_claim_never_leaves_a_call_nobody_answers_for(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    rival = await backend.open_store()
    here, there = Stubborn(store), Stubborn(rival)
    definition = await register(store, *JOIN)
    for _ in range(ROUNDS):
        workflow = await here.start(definition)
        result, moved = await asyncio.gather(
            store.commit(here.batch(due=2)),
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


# -- lost connections -------------------------------------------------------------------------


async def test_a_session_that_was_ended_between_commits_costs_one_try(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    definition = await register(store, call("charge"))
    await backend.end_sessions()
    batch = payments.batch(starts=[start_of(definition)])
    with pytest.raises(StoreUnavailable):
        await store.commit(batch)
    (started,) = (await store.commit(batch)).starts
    assert isinstance(started, Started)
    assert await payments.status(started.workflow) is WorkflowStatus.IN_PROGRESS


async def test_a_lost_session_still_at_work_is_ended_before_its_batch_is_repeated(
    store: PostgresStore, backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the repetition could miss what the first try is about to commit."""
    payments, writers = Player(store), watched(store, monkeypatch)
    start = start_of(await register(store, call("charge")))
    batch = payments.batch(starts=[start], due=5)
    async with backend.session() as rival:
        await rival.execute(
            b"INSERT INTO workflows (id, namespace, definition, version, status, revision,"
            b" last_seq, created_at, renders, input)"
            b" VALUES (%s, 'default', 'order', 1, 'in_progress', 1, 1, now(), false, '1')",
            [start.id],
        )
        first_try = asyncio.create_task(store.commit(batch))
        await backend.until_somebody_waits()
        (pid,) = await backend.waiting_sessions()
        cut_the_line(writers[-1])
        with pytest.raises(StoreUnavailable):
            await first_try
        assert await backend.waiting_sessions() == [pid]
        second_try = asyncio.create_task(store.commit(batch))
        while await backend.waiting_sessions() in ([], [pid]):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
        assert pid not in await backend.waiting_sessions()
        await rival.rollback()
    result = await second_try
    (started,) = result.starts
    assert isinstance(started, Started)
    assert (started.workflow, started.existed) == (start.id, False)
    assert result.claimed == ()
    assert (await payments.claim_one()).attempt == 1


async def test_a_commit_that_is_given_up_leaves_the_store_usable(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge")))
    async with backend.session() as holder:
        await holder.execute(b"SELECT 1 FROM workflows FOR UPDATE")
        member = Transition(workflow, CancelRequested(), wait=True)
        batch = payments.batch(transitions=[member])
        commit = asyncio.create_task(store.commit(batch))
        await backend.until_somebody_waits()
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        await holder.rollback()
    assert isinstance((await payments.commit(batch)).transitions[0], Moved)
    assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_query_that_is_given_up_stays_given_up_and_costs_no_connection(
    store: PostgresStore, backend: PostgresBackend, turns: int
) -> None:
    """Wherever it is cancelled, also where it has found its connection dead."""
    await asyncio.gather(store.ping(), store.ping())
    await backend.end_sessions()
    query = asyncio.create_task(store.ping())
    for _ in range(turns):
        await asyncio.sleep(0)
    too_late = query.done()
    query.cancel()
    await asyncio.wait([query])
    assert query.cancelled() is not too_late
    await asyncio.gather(*(store.ping() for _ in range(2 * store.pool.max_size)))


async def test_sagas_end_while_sessions_are_ended_all_the_time(backend: PostgresBackend) -> None:
    """Nobody ends the next before a commit went through: else, on a slow machine, none would."""
    stores = [await backend.open_store(writers=2) for _ in range(2)]
    definition = await register(stores[0], *JOIN)
    durable = asyncio.Event()
    players = [Stubborn(store, durable) for store in stores for _ in range(2)]
    ended: list[WorkflowId] = []

    async def disturb() -> None:
        while True:
            await durable.wait()
            durable.clear()
            try:
                await backend.end_sessions(1)
            except psycopg.OperationalError:
                durable.set()  # the whole server is away: again, once it is back

    async def work(player: Stubborn) -> None:
        while sum(one.troubles for one in players) < TROUBLES_FELT:
            ended.extend(await player.run_sagas(definition, 1))

    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb())
        working = [group.create_task(work(one)) for one in players]
        await asyncio.gather(*working)
        disturbing.cancel()
    assert len(ended) >= len(players)
    await assert_all_completed(players[0], ended)


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_after_the_server_was_killed(
    own_server: PostgresServer,
) -> None:
    backend = PostgresBackend(own_server.create_database("killed"))
    await migrate(backend.dsn)
    store = await backend.open_store()
    definition = await register(store, *JOIN)
    player = Stubborn(store)
    work = asyncio.create_task(player.run_sagas(definition, 40))
    for _ in range(3):
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.restart)
    ended = await work
    assert player.troubles > 0
    await assert_all_completed(player, ended)
    await store.close()


@pytest.fixture
async def own_server() -> AsyncIterator[PostgresServer]:
    server = await asyncio.to_thread(PostgresServer)
    yield server
    await asyncio.to_thread(server.stop)


async def assert_all_completed(player: Player, workflows: list[WorkflowId]) -> None:
    """Each ended well, with one attempt at each step: no claim was ever lost or doubled."""
    for one in workflows:
        found = await player.see(one)
        assert found.status is WorkflowStatus.COMPLETED
        assert [step.execute.attempt for step in found.steps.values()] == [1, 1, 1]
        await assert_sound(player.store, "default", one)


def cut_the_line(writer: Any) -> None:
    """Close a writer's socket without a word, as a network that breaks does."""
    line = socket.socket(fileno=os.dup(writer.connection.fileno()))
    line.shutdown(socket.SHUT_RDWR)
    line.close()


def watched(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The writers that the store uses, as it takes them."""
    run, seen = store._run, list[Any]()

    async def run_and_tell(writer: Any, *more: Any) -> BatchResult:
        seen.append(writer)
        return await run(writer, *more)

    monkeypatch.setattr(store, "_run", run_and_tell)
    return seen
