"""The store on PostgreSQL when sessions and servers die."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from sidecar.adapters.postgres import commit, connections, locked, reading
from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.postgres.sql import send
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import StoreConflict, StoreUnavailable
from sidecar.ports.store import (
    BatchResult,
    Moved,
    Started,
    Transition,
)
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.adapters.stores.stubborn import JOIN, Stubborn
from tests.conformance.store_play import (
    Player,
    assert_sound,
    call,
    register,
    start_of,
)
from tests.servers.postgres import PostgresServer

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

ROUNDS = 25
TROUBLES_FELT = 25


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


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


@pytest.mark.fault(32)
async def test_a_lost_session_still_at_work_is_ended_before_its_batch_is_repeated(
    store: PostgresStore, backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the repetition could miss what the first try is about to commit."""
    payments, writers = Player(store), watched(store, monkeypatch)
    start = start_of(await register(store, call("charge")))
    batch = payments.batch(starts=[start], due=5)
    async with backend.session() as rival:
        await rival.execute(backend.INSERT_BY_ANOTHER, [start.id])
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


@pytest.mark.fault(69)
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


@pytest.mark.fault(34)
async def test_more_questions_than_connections_hold_up_neither_commits_nor_each_other_for_long(
    backend: PostgresBackend,
) -> None:
    store = await backend.open_store(readers=2)
    payments = Player(store)
    definition = await register(store, call("charge"))
    async with backend.session() as holder:
        await holder.execute(b"LOCK TABLE sidecars IN ACCESS EXCLUSIVE MODE")
        beats = [asyncio.create_task(payments.beat()) for _ in range(50)]
        await backend.until_somebody_waits()
        workflow = (await store.commit(payments.batch(starts=[start_of(definition)]))).starts[0]
        assert (await store.commit(payments.batch(due=5))).claimed[0].workflow == workflow.workflow
        results = await asyncio.gather(*beats, return_exceptions=True)
        assert {type(one) for one in results} <= {StoreUnavailable, StoreConflict}
        await holder.rollback()
    await asyncio.gather(*(payments.beat() for _ in range(50)))


@pytest.mark.fault(34)
async def test_what_keeps_a_sidecar_alive_waits_for_nobody_elses_questions(
    backend: PostgresBackend,
) -> None:
    """Every connection for clients is held up, and more of them wait: nobody falls silent."""
    store = await backend.open_store(readers=2)
    payments = Player(store)
    await payments.start(await register(store, call("charge")))
    async with backend.session() as holder:
        await holder.execute(b"LOCK TABLE definitions IN ACCESS EXCLUSIVE MODE")
        clients = [
            asyncio.create_task(store.list_definitions("default", None, 10)) for _ in range(12)
        ]
        await backend.until_somebody_waits()
        await store.ping()
        await payments.beat()
        epoch = await store.mint_epoch("default", "me")
        assert await store.ended_leases("default", timedelta(seconds=20), 10) == []
        assert await store.overdue_workflows("default", 10) == []
        assert (
            len(await store.ringable_steps("default", timedelta(seconds=20), timedelta(), 10)) == 1
        )
        assert await store.forget_sidecars("default", timedelta(hours=1), epoch) == 0
        await payments.store.leave(payments.incarnation)
        assert not any(one.done() for one in clients)
        await holder.rollback()
    assert [len(found) for found in await asyncio.gather(*clients)] == [1] * 12


@pytest.mark.fault(34)
async def test_a_duty_that_waits_for_a_lock_does_not_silence_its_sidecar(
    backend: PostgresBackend,
) -> None:
    store = await backend.open_store()
    payments = Player(store)
    async with backend.session() as holder:
        await holder.execute(b"LOCK TABLE steps IN ACCESS EXCLUSIVE MODE")
        duty = asyncio.create_task(store.ended_leases("default", timedelta(seconds=20), 10))
        await backend.until_somebody_waits()
        await payments.beat()
        await store.ping()
        assert not duty.done()
        await holder.rollback()
    assert await duty == []


async def test_a_store_that_nobody_asks_anything_keeps_two_connections(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that writes and one that proves that it lives, also where questions meet."""
    monkeypatch.setattr(reading, "PATIENCE_S", 10.0)  # nothing here waits for a lock
    store = await backend.open_store(readers=4)
    payments = Player(store)
    for _ in range(3):
        await asyncio.gather(payments.beat(), store.ping(), store.overdue_workflows("default", 10))
        await store.commit(payments.batch(due=1))
    assert store.vital.pool.get_stats()["pool_size"] == 1
    assert len(await backend.sessions()) == 2


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
@pytest.mark.fault(69)
async def test_a_query_that_is_given_up_stays_given_up_and_costs_no_connection(
    store: PostgresStore, backend: PostgresBackend, turns: int
) -> None:
    """Wherever it is cancelled, also where it has found its connection dead."""
    async with store.vital.pool.connection(), store.vital.pool.connection():
        pass  # both are there
    await backend.end_sessions()
    query = asyncio.create_task(store.ping())
    for _ in range(turns):
        await asyncio.sleep(0)
    too_late = query.done()
    query.cancel()
    await asyncio.wait([query])
    assert query.cancelled() is not too_late
    await asyncio.gather(*(store.ping() for _ in range(2 * store.vital.pool.max_size)))
    assert not store.vital._kept.locked()


@pytest.mark.fault(33)
async def test_sagas_end_while_sessions_are_ended_all_the_time(backend: PostgresBackend) -> None:
    """Nobody ends the next before a commit went through: else, on a slow machine, none would."""
    stores = [await backend.open_store(writers=2) for _ in range(2)]
    definition = await register(stores[0], *JOIN)
    durable, quiet = asyncio.Event(), asyncio.Event()
    players = [Stubborn(store, durable) for store in stores for _ in range(2)]
    ended: list[WorkflowId] = []

    async def disturb() -> None:
        while not quiet.is_set():
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
        group.create_task(disturb())
        await asyncio.gather(*(group.create_task(work(one)) for one in players))
        quiet.set()
        durable.set()
    assert len(ended) >= len(players)
    await assert_all_completed(players[0], ended)


@pytest.mark.slow
@pytest.mark.fault(33)
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


@pytest.mark.fault(6)
@pytest.mark.parametrize("nth", range(1, 8))
async def test_whoever_freezes_in_a_transaction_loses_its_locks_in_time(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """After any of its statements: a cancel decides twice, and locks and reads in between."""
    sent = itertools.count(1)

    async def send_and_freeze(*given: Any, **values: Any) -> Any:
        cursor = await send(*given, **values)
        if next(sent) == nth:
            with psycopg.connect(backend.dsn, autocommit=True) as other:
                while other.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
                ).fetchall():
                    threading.Event().wait(0.05)
        return cursor

    monkeypatch.setattr(connections, "STATEMENT_WITHIN_MS", 1_000)
    payments = Player(await backend.open_store())
    workflow = await payments.start(await register(payments.store, call("charge")))
    for module in (commit, locked):
        monkeypatch.setattr(module, "send", send_and_freeze)
    with pytest.raises(StoreUnavailable):
        await payments.cancel(workflow)
    await payments.cancel(workflow)
    assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
