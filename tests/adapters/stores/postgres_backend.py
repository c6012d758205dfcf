"""A database that is emptied for each test, and what a test can do to it from outside."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psycopg
import pytest

from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.definitions import compile_stored, render
from sidecar.errors import StoreUnavailable
from sidecar.ports.store import Batch, BatchResult, Store
from sidecar.saga.workflow import WorkflowId
from tests.servers.postgres import PostgresServer

MOMENTS = {
    "workflows": ("created_at", "deadline_at", "ended_at", "owes_since"),
    "steps": (
        "due_at",
        "lease_until",
        "doubt_at",
        "started_at",
        "claimed_at",
        "ended_at",
        "comp_started_at",
        "comp_claimed_at",
        "comp_ended_at",
    ),
    "events": ("time",),
    "signals": ("sent_at",),
    "letters": ("sent_at",),
    "turns": ("since",),
    "sidecars": ("started_at", "seen_at"),
    "definitions": ("state_at",),
    "rate_limits": ("promised", "called", "late"),
    "rate_promises": ("moment", "kept_until"),
    "bulk_jobs": ("moved_at", "created_at", "ended_at"),
}


TABLES = (*MOMENTS, "start_keys", "leaders", "items", "keys", "bulk_members")


@dataclass
class PostgresBackend:
    """Handles on one database."""

    INSERT_BY_ANOTHER: ClassVar = (
        b"INSERT INTO workflows (id, namespace, definition, version, status, revision,"
        b" last_seq, created_at, renders, input)"
        b" VALUES (%s, 'default', 'order', 1, 'in_progress', 1, 1, now(), false, '1')"
    )
    """While it is not committed, a start under the same id waits."""

    dsn: str
    stores: list[PostgresStore] = field(default_factory=list)

    def make(self, **more: Any) -> PostgresStore:
        """A handle that is not open yet; the fixture closes it."""
        store = PostgresStore(self.dsn, compile_document=compile_stored, render=render, **more)
        self.stores.append(store)
        return store

    async def open_store(self, **more: Any) -> PostgresStore:
        store = self.make(**more)
        await store.open()
        return store

    async def pass_time(self, seconds: float) -> None:
        async with self.session() as session:
            for table, columns in MOMENTS.items():
                moves = [f"{one} = {one} - make_interval(secs => %(by)s)" for one in columns]
                move = f"UPDATE {table} SET {', '.join(moves)}"  # noqa: S608  (names of our own)
                await session.execute(move.encode(), {"by": seconds})

    async def lose_answer(self, store: Store, batch: Batch) -> None:
        assert isinstance(store, PostgresStore)
        run = store._run

        async def run_and_lose(*arguments: Any) -> BatchResult:
            await run(*arguments)
            raise psycopg.OperationalError("the connection is lost")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_run", run_and_lose)
            with pytest.raises(StoreUnavailable):
                await store.commit(batch)

    async def set_paused(self, workflow: WorkflowId, paused: bool) -> None:
        await self.run(
            "UPDATE workflows SET paused = %(to)s WHERE id = %(id)s", to=paused, id=workflow
        )

    async def run(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of the test's own and return its rows."""
        async with self.session() as session:
            cursor = await session.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def until_somebody_waits(self) -> None:
        """Return once a session of the store waits for a lock."""
        while not await self.waiting_sessions():  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0)

    async def waiting_sessions(self) -> list[int]:
        """The numbers of the server's processes that wait for a lock."""
        rows = await self.run(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return [pid for (pid,) in rows]

    async def sessions(self) -> list[int]:
        """The numbers of the server's processes that serve the store."""
        rows = await self.run(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'goconductor'"
        )
        return [pid for (pid,) in rows]

    async def end_sessions(self, limit: int = 100) -> None:
        """End some of the store's sessions, as an operator or a failing machine does."""
        await self.run(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'goconductor'"
            " ORDER BY random() LIMIT %(limit)s) AS chosen",
            limit=limit,
        )

    async def until_nobody_is_connected(self) -> None:
        """Return once the sessions of the store have ended."""
        there = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        while await self.run(there):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection of the test's own; committed at the end."""
        connection = await psycopg.AsyncConnection.connect(
            self.dsn, options="-c search_path=goconductor"
        )
        async with connection:
            yield connection


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a database with the schema; the tests of a session share it."""
    name = f"store_{uuid.uuid4().hex}"
    dsn = postgres_server.create_database(name)
    asyncio.run(migrate(dsn))
    yield dsn
    if postgres_server.alive:
        postgres_server.drop_database(name)


@pytest.fixture
async def backend(migrated: str) -> AsyncIterator[PostgresBackend]:
    """An empty store."""
    backend = PostgresBackend(migrated)
    await backend.run(f"TRUNCATE {', '.join(TABLES)}")
    yield backend
    for store in backend.stores:
        await store.close()
