"""Reading: questions to PostgreSQL on a small pool of connections, answered or given up in time.

Connections are made when they are needed, and kept for a while. A question that finds its
connection dead is asked again on another; one that nobody answers raises `StoreUnavailable` after
`ANSWER_WITHIN_S`, whatever the network makes of the silence: a line may be half open, its bytes
acknowledged by somebody who is not the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool

from sidecar.adapters.postgres.connections import ImpatientConnection, parameters
from sidecar.adapters.postgres.errors import translated
from sidecar.adapters.postgres.sql import Connection, send

T = TypeVar("T")

ANSWER_WITHIN_S = 20.0
"""More than the server gives a statement: it is for those whose answer never comes."""
ACQUIRE_WITHIN_S = 5.0
CLOSE_WITHIN_S = 3.0
IDLE_FOR_S = 20.0
"""A connection beyond `at_least` that was not needed for so long is let go; the pool looks that
often, so it may take twice as long."""
PATIENCE_S = 0.1
"""How long a question waits for one of `at_least` before another connection is made: questions that
meet by chance need none, and one that is held up by a lock must not hold up the next."""
RECONNECT_FOR_S = 3.0
"""How long the pool tries to replace a lost connection by itself: its pauses double, and would be
minutes after a long outage. Then whoever asks next makes it try at once."""

_READING = {"autocommit": True, "prepare_threshold": 2}
"""A query is its own transaction: no BEGIN, no COMMIT."""


class Reading:
    """Between `at_least` and `at_most` connections; opened and closed by its owner.

    For `reconnect_for_s` a lost connection is replaced unasked.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        *,
        at_least: int,
        at_most: int,
        reconnect_for_s: float = RECONNECT_FOR_S,
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._at_least = at_least
        self._at_most = at_most
        self._reconnect_for_s = reconnect_for_s
        self._kept = asyncio.Semaphore(at_least)
        self._pool: AsyncConnectionPool[ImpatientConnection] | None = None

    @property
    def pool(self) -> AsyncConnectionPool[ImpatientConnection]:
        """The connections. Raises `psycopg.InterfaceError` before they were opened."""
        if self._pool is None:
            raise psycopg.InterfaceError("the store is not open")
        return self._pool

    async def open(self) -> None:
        """Connect `at_least` so often. Raises `StoreUnavailable`."""
        self._pool = AsyncConnectionPool(
            kwargs={**parameters(self._dsn, self._schema), **_READING},
            connection_class=ImpatientConnection,
            min_size=self._at_least,
            max_size=self._at_most,
            timeout=ACQUIRE_WITHIN_S,
            max_idle=IDLE_FOR_S,
            reconnect_timeout=self._reconnect_for_s,
            open=False,
        )
        with translated():
            await self._pool.open(wait=True, timeout=ACQUIRE_WITHIN_S)

    async def close(self) -> None:
        """Let go of all connections; harmless when repeated, or before they were opened."""
        if self._pool is not None:
            await self._pool.close(timeout=CLOSE_WITHIN_S)

    async def rows(self, statement: LiteralString, /, **values: Any) -> list[dict[str, Any]]:
        """Run one statement; all that go this way may be run more than once."""

        async def ask_once(connection: Connection) -> list[dict[str, Any]]:
            cursor = await send(connection, statement, **values)
            return await cursor.fetchall() if cursor.description else []

        return await self.on_a_live_connection(ask_once)

    async def on_a_live_connection(self, ask_once: Callable[[Connection], Awaitable[T]]) -> T:
        """Ask, and ask again on another connection while one after the other turns out dead.

        Each dead one leaves the pool by being used. Asking every connection whether it is alive
        before it is used would cost a round trip each time; and the pool's own check of all of
        them takes a cancellation for an answer: a heartbeat or a request that is given up during
        it would go on for ever.
        """
        with translated():
            async with asyncio.timeout(ANSWER_WITHIN_S):
                for _ in range(self._at_most):
                    async with self._connection() as connection:
                        try:
                            return await ask_once(connection)
                        except psycopg.OperationalError:
                            if not connection.closed:
                                raise
                async with self._connection() as connection:
                    return await ask_once(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """One of the kept if one comes free in a moment, else whatever the pool has or makes."""
        kept = bool(self._at_least) and await self._is_free_soon()
        try:
            async with self.pool.connection() as connection:
                yield connection
        finally:
            if kept:
                self._kept.release()

    async def _is_free_soon(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._kept.acquire()
        except TimeoutError:
            return False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, within the same deadline; it is not begun again."""
        with translated():
            async with (
                asyncio.timeout(ANSWER_WITHIN_S),
                self._connection() as connection,
                connection.transaction(),
            ):
                yield connection
