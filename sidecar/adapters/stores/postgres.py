"""The store on PostgreSQL (13 and later).

Batches are committed on writer connections of their own, one batch at a time each; queries use
a small pool. Both are set up in `sidecar.adapters.postgres.connections`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from sidecar.adapters.postgres.commit import Transaction
from sidecar.adapters.postgres.connections import connect, parameters
from sidecar.adapters.postgres.errors import translate, translated
from sidecar.adapters.postgres.migrate import check_schema
from sidecar.adapters.postgres.queries import SQL, PostgresQueries
from sidecar.errors import StoreError, StoreUnavailable
from sidecar.ports.store import Batch, BatchResult
from sidecar.saga.definition import Definition, JsonText, Render
from sidecar.saga.workflow import DefinitionRef

COMMIT_WITHIN_S = 20.0
CLOSE_WITHIN_S = 3.0
ACQUIRE_WITHIN_S = 5.0
DEFINITIONS_KEPT = 1_000

_READING = {"autocommit": True, "prepare_threshold": 2}
"""A query is its own transaction: no BEGIN, no COMMIT."""

Compile = Callable[[JsonText, str, str, int], Definition]


class PostgresStore(PostgresQueries):
    """See `sidecar.ports.store.Store`."""

    def __init__(
        self,
        dsn: str,
        *,
        compile_document: Compile,
        render: Render,
        schema: str = "goconductor",
        writers: int = 1,
        readers: int = 2,
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._compile = compile_document
        self._render = render
        self._writers: asyncio.LifoQueue[psycopg.AsyncConnection[Any] | None]
        self._writers = asyncio.LifoQueue()
        self._writer_count = writers
        self._readers = readers
        self._definitions: dict[DefinitionRef, Definition] = {}
        self._in_doubt: set[tuple[str, int]] = set()
        self._open = False

    async def open(self) -> None:
        """Connect, and check the schema."""
        if self._open:
            return
        with translated():
            writer = await connect(self._dsn, self._schema, writer=True)
        try:
            await check_schema(writer)
            with translated():
                await writer.rollback()
        except BaseException:
            await writer.close()
            raise
        for spare in [None] * (self._writer_count - 1):
            self._writers.put_nowait(spare)
        self._writers.put_nowait(writer)
        self.pool = AsyncConnectionPool(
            kwargs={**parameters(self._dsn, self._schema), **_READING},
            min_size=1,
            max_size=self._readers,
            timeout=ACQUIRE_WITHIN_S,
            open=False,
        )
        with translated():
            await self.pool.open()
        self._open = True

    async def close(self) -> None:
        """Let go of all connections."""
        if not self._open:
            return
        self._open = False
        await self.pool.close(timeout=CLOSE_WITHIN_S)
        while not self._writers.empty():
            writer = self._writers.get_nowait()
            if writer is not None:
                await writer.close()

    async def commit(self, batch: Batch) -> BatchResult:
        """Do all of `batch` in one transaction."""
        ticket = (batch.incarnation, batch.ticket)
        writer = await self._writers.get()
        healthy = False
        try:
            if writer is None or writer.closed:
                writer = await connect(self._dsn, self._schema, writer=True)
            work = Transaction(
                writer,
                batch,
                self._definitions,
                self._render,
                self._definition,
                repeated=ticket in self._in_doubt,
            )
            async with asyncio.timeout(COMMIT_WITHIN_S):
                result = await work.run()
            healthy = True
        except StoreError:
            healthy = writer is not None and await _rolled_back(writer)
            raise
        except (psycopg.Error, TimeoutError, OSError) as error:
            meaning = translate(error)
            if isinstance(meaning, StoreUnavailable):
                self._in_doubt.add(ticket)
            else:
                healthy = writer is not None and await _rolled_back(writer)
            raise meaning from error
        else:
            self._in_doubt.discard(ticket)
            return result
        finally:
            if not healthy and writer is not None:
                await _drop(writer)
            self._writers.put_nowait(writer if healthy else None)

    async def _definition(
        self, connection: psycopg.AsyncConnection[Any], ref: DefinitionRef
    ) -> Definition:
        """Return a version of a definition that a transition needs, read on its connection."""
        cursor = await connection.execute(
            SQL["definition_by_version"],
            {"namespace": ref.namespace, "name": ref.name, "version": ref.version},
        )
        row = await cursor.fetchone()
        if row is None:
            raise StoreError(f"definition {ref.name} version {ref.version} is missing")
        if len(self._definitions) >= DEFINITIONS_KEPT:
            self._definitions.clear()
        return self._compile(JsonText(row[4]), *ref)


async def _rolled_back(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the connection could be made ready for the next batch."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await connection.rollback()
    except (psycopg.Error, TimeoutError):
        return False
    return not connection.closed


async def _drop(connection: psycopg.AsyncConnection[Any]) -> None:
    """Close a connection that cannot be used any more."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await connection.close()
    except (psycopg.Error, TimeoutError):
        return
