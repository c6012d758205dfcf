"""The store on PostgreSQL through a line that takes everything and gives nothing back.

Somebody on the way acknowledges what is sent, so the kernel never finds the line broken: all
that ends a wait is a deadline of our own, and giving up must not be a wait itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.elections.postgres import ElectionTimes, PostgresElection
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.postgres import reading
from sidecar.adapters.stores import postgres as module
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import StoreUnavailable
from sidecar.saga.workflow import WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.chaos.proxy import FaultProxy
from tests.conformance.store_play import Player, call, register
from tests.servers.facts import until
from tests.servers.postgres import PostgresServer

__all__ = ["backend", "migrated"]

pytestmark = [pytest.mark.postgres, pytest.mark.fault(41)]

DEADLINE_S = 1.0
SOON_S = 8.0
"""More than any deadline here and its taking back; less than the driver's own goodbye."""
NOBODY = WorkflowId("00000000-0000-4000-8000-000000000000")


@pytest.fixture
def line(postgres_server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(
    backend: PostgresBackend,
    line: FaultProxy,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> PostgresStore:
    monkeypatch.setattr(reading, "ANSWER_WITHIN_S", DEADLINE_S)
    monkeypatch.setattr(module, "COMMIT_WITHIN_S", DEADLINE_S)
    through = PostgresBackend(backend.dsn.replace(f":{postgres_server.port}/", f":{line.port}/"))
    store = await through.open_store()
    backend.stores.append(store)
    return store


QUESTIONS: dict[str, Callable[[PostgresStore], Awaitable[Any]]] = {
    "get_workflow": lambda store: store.get_workflow("default", NOBODY),
    "list_definitions": lambda store: store.list_definitions("default", None, 10),
    "put_definition": lambda store: register(store, call("charge")),
    "ping": lambda store: store.ping(),
    "mint_epoch": lambda store: store.mint_epoch("default", "me"),
    "overdue_workflows": lambda store: store.overdue_workflows("default", 10),
    "commit": lambda store: store.commit(Player(store).batch(due=1)),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_nothing_waits_for_ever_and_all_is_well_when_the_line_is(
    store: PostgresStore, line: FaultProxy, question: str
) -> None:
    ask = QUESTIONS[question]
    await asyncio.gather(ask(store), ask(store))  # the connections are there, and prepared
    line.swallow()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await ask(store)
    assert time.monotonic() - began < SOON_S
    assert line.counts["swallowed"]
    line.heal()
    await until(lambda: answers(ask, store), within_s=30.0)


async def answers(ask: Callable[[PostgresStore], Awaitable[Any]], store: PostgresStore) -> bool:
    try:
        await ask(store)
    except StoreUnavailable:
        return False
    return True


async def test_whoever_gives_up_has_given_up_soon(
    store: PostgresStore, line: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As readiness does after two seconds, and a sidecar that is told to stop."""
    monkeypatch.setattr(reading, "ANSWER_WITHIN_S", 60.0)
    monkeypatch.setattr(module, "COMMIT_WITHIN_S", 60.0)
    await store.ping()
    line.swallow()
    waits = [
        asyncio.create_task(store.ping()),
        asyncio.create_task(store.commit(Player(store).batch(due=1))),
    ]
    began = time.monotonic()
    await until(lambda: line.counts["swallowed"] >= len(waits))
    for one in waits:
        one.cancel()
    await asyncio.wait(waits)
    assert all(one.cancelled() for one in waits)
    await store.close()
    assert time.monotonic() - began < SOON_S


@pytest.mark.fault(32)
async def test_a_commit_that_nobody_answers_is_in_doubt_and_recognised_when_repeated(
    store: PostgresStore, backend: PostgresBackend, line: FaultProxy
) -> None:
    """The server heard it, and its answer is lost."""
    player = Player(store)
    await player.start(await register(store, call("charge")))
    batch = player.batch(due=5)
    line.swallow(up=False)
    with pytest.raises(StoreUnavailable):
        await store.commit(batch)
    assert await backend.run("SELECT attempt FROM steps") == [(1,)]
    line.heal()
    (claimed,) = (await player.commit(batch)).claimed
    assert claimed.attempt == 1


async def test_a_leader_whose_session_is_silent_soon_leads_no_more(
    migrated: str, line: FaultProxy, postgres_server: PostgresServer
) -> None:
    through = migrated.replace(f":{postgres_server.port}/", f":{line.port}/")
    times = ElectionTimes(beat_s=0.2, answer_s=0.4, ttl_s=2.0, margin_s=0.2, retry_s=0.2)
    election = PostgresElection(
        through, "half-open", clock=SystemClock(), entropy=SystemEntropy(), times=times
    )
    term = await election.campaign()
    assert term.trusted()
    line.swallow()
    began = time.monotonic()
    await term.lost()
    assert not term.trusted()
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await election.campaign()
    await election.close()
    assert time.monotonic() - began < SOON_S
