"""The store on PostgreSQL (13 and later).

Batches are committed on writer connections of their own, one batch at a time each; queries use
a small pool. Both are set up in `sidecar.adapters.postgres.connections`.

A batch whose COMMIT is in doubt (the connection was lost, or the caller cancelled) is expected
again. Before it is, the session that may still be at work on it is ended, so that the outcome
is certain; then starts are recognised by their ids, transitions by their attempts, and claims
by the batch's ticket.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import psycopg
from psycopg_pool import AsyncConnectionPool

from sidecar.adapters.postgres.commit import Transaction
from sidecar.adapters.postgres.compiled import Compile, CompiledDefinitions
from sidecar.adapters.postgres.connections import (
    Session,
    connect,
    end_session,
    parameters,
    session_of,
)
from sidecar.adapters.postgres.errors import DRIVER_ERRORS, translate, translated
from sidecar.adapters.postgres.migrate import check_schema
from sidecar.adapters.postgres.queries import PostgresQueries
from sidecar.adapters.postgres.sql import Connection
from sidecar.errors import StoreError, StoreUnavailable
from sidecar.ports.store import Batch, BatchResult
from sidecar.saga.definition import Render

COMMIT_WITHIN_S = 20.0
CLOSE_WITHIN_S = 3.0
ACQUIRE_WITHIN_S = 5.0
DOUBTS_KEPT = 1_000

_READING = {"autocommit": True, "prepare_threshold": 2}
"""A query is its own transaction: no BEGIN, no COMMIT."""

Ticket = tuple[str, int]
Doubted = tuple[Session, ...]
"""The sessions that may have committed a batch, or may still be about to."""


@dataclass(frozen=True, slots=True)
class _Writer:
    """A connection for commits, and the server's process behind it."""

    connection: Connection
    session: Session


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
        self._render = render
        self._definitions = CompiledDefinitions(compile_document)
        self._writers: asyncio.LifoQueue[_Writer | None] = asyncio.LifoQueue()
        self._writer_count = writers
        self._readers = readers
        self._in_doubt: OrderedDict[Ticket, Doubted] = OrderedDict()
        self._open = False

    async def open(self) -> None:
        """Connect, and check the schema. Raises `ConfigError` behind a connection pooler."""
        if self._open:
            return
        writer = await self._new_writer()
        try:
            await check_schema(writer.connection)
            await self._open_pool()
        except BaseException:
            await _drop(writer)
            raise
        for spare in [None] * (self._writer_count - 1):
            self._writers.put_nowait(spare)
        self._writers.put_nowait(writer)
        self._open = True

    async def close(self) -> None:
        """Let go of all connections; a commit under way drops its own when it is done."""
        if not self._open:
            return
        self._open = False
        await self.pool.close(timeout=CLOSE_WITHIN_S)
        while not self._writers.empty():
            writer = self._writers.get_nowait()
            if writer is not None:
                await _drop(writer)

    async def commit(self, batch: Batch) -> BatchResult:
        """Do all of `batch` in one transaction."""
        if not self._open:
            raise StoreUnavailable("the store is not open")
        ticket = (batch.incarnation, batch.ticket)
        writer = await self._writers.get()
        clean = False
        try:
            async with asyncio.timeout(COMMIT_WITHIN_S):
                if writer is None or writer.connection.closed:
                    writer = None
                    writer = await self._new_writer()
                result = await self._run(writer, batch, self._in_doubt.get(ticket, ()))
            clean = True
        except (StoreError, *DRIVER_ERRORS) as error:
            meaning = error if isinstance(error, StoreError) else translate(error)
            if writer is not None and not isinstance(meaning, StoreUnavailable):
                clean = await _rolled_back(writer)
            raise meaning from error
        else:
            self._in_doubt.pop(ticket, None)
            return result
        finally:
            if not clean and writer is not None:
                self._doubt(ticket, writer.session)
                await _drop(writer)
            await self._give_back(writer if clean else None)

    async def _run(self, writer: _Writer, batch: Batch, doubted: Doubted) -> BatchResult:
        for session in doubted:
            await end_session(writer.connection, session)
        work = Transaction(
            writer.connection,
            batch,
            self._definitions,
            self._render,
            repeated=bool(doubted),
        )
        return await work.run()

    async def _new_writer(self) -> _Writer:
        with translated():
            connection = await connect(self._dsn, self._schema, writer=True)
            try:
                return _Writer(connection, await session_of(connection))
            except BaseException:
                await connection.close()
                raise

    async def _open_pool(self) -> None:
        self.pool = AsyncConnectionPool(
            kwargs={**parameters(self._dsn, self._schema), **_READING},
            min_size=1,
            max_size=self._readers,
            timeout=ACQUIRE_WITHIN_S,
            open=False,
        )
        with translated():
            await self.pool.open()

    def _doubt(self, ticket: Ticket, session: Session) -> None:
        self._in_doubt[ticket] = (*self._in_doubt.get(ticket, ()), session)
        if len(self._in_doubt) > DOUBTS_KEPT:
            self._in_doubt.popitem(last=False)

    async def _give_back(self, writer: _Writer | None) -> None:
        if self._open or writer is None:
            self._writers.put_nowait(writer)
        else:
            await _drop(writer)


async def _rolled_back(writer: _Writer) -> bool:
    """Whether the transaction is known to be undone and the connection ready for the next."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await writer.connection.rollback()
    except (psycopg.Error, TimeoutError):
        return False
    return not writer.connection.closed


async def _drop(writer: _Writer) -> None:
    """Close a connection that cannot be used any more."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await writer.connection.close()
    except (psycopg.Error, TimeoutError):
        return
