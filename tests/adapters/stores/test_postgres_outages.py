"""The store on PostgreSQL when the server is away for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.adapters.postgres.migrate import migrate
from sidecar.errors import StoreUnavailable
from tests.adapters.stores.postgres_backend import PostgresBackend
from tests.servers.facts import until
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    server = await asyncio.to_thread(PostgresServer)
    yield server
    await asyncio.to_thread(server.stop)


async def test_after_a_long_outage_the_next_query_connects_at_once(
    server: PostgresServer,
) -> None:
    """The pool has given up what it was trying, with pauses that grow with the outage."""
    backend = PostgresBackend(server.create_database("away"))
    await migrate(backend.dsn)
    store = await backend.open_store()
    await store.ping()
    await asyncio.to_thread(server.kill)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await until(lambda: store.vital.pool.get_stats()["pool_size"] == 0, within_s=20.0)
    await asyncio.to_thread(server.restart)
    await store.ping()
    await store.close()


@pytest.mark.fault(33)
async def test_what_keeps_a_sidecar_alive_connects_whenever_it_is_asked(
    server: PostgresServer,
) -> None:
    """Not when a pause of the pool is over: by then the sidecar would be taken for dead."""
    backend = PostgresBackend(server.create_database("away"))
    await migrate(backend.dsn)
    store = await backend.open_store()
    await store.ping()
    await asyncio.to_thread(server.kill)
    waiting = asyncio.create_task(store.ping())
    await until(lambda: store.vital.pool.get_stats()["pool_size"] == 0, within_s=2.0)
    assert not waiting.done()
    await asyncio.to_thread(server.restart)
    await store.ping()
    await asyncio.gather(waiting, return_exceptions=True)
    await store.close()
