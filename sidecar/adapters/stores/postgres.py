"""The store on PostgreSQL (13 and later).

Batches are committed on writer connections of their own, one batch at a time each. Queries use
two small pools (`sidecar.adapters.postgres.reading`): one for what clients ask, made when somebody
asks, and one for what keeps the sidecar alive. A connection more than one is for the leader: a
duty that waits for a lock must not silence the heartbeat.

Most members of a batch are decided on what the claims before have brought, and written by one
statement (`sidecar.adapters.postgres.quick`); the others follow in a transaction that reads
under locks (`sidecar.adapters.postgres.commit`).

A batch whose COMMIT is in doubt (the connection was lost, or the caller cancelled) is expected
again. Before it is, the session that may still be at work on it is ended, so that the outcome
is certain; then starts are recognised by their ids, transitions by their attempts, and claims
by the batch's ticket.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

import psycopg
from msgspec.structs import replace

from sidecar.adapters.postgres.commit import Transaction
from sidecar.adapters.postgres.compiled import Compile, CompiledDefinitions
from sidecar.adapters.postgres.connections import (
    Session,
    connect,
    end_session,
    session_of,
)
from sidecar.adapters.postgres.errors import DRIVER_ERRORS, translate, translated
from sidecar.adapters.postgres.kept import KeptStates
from sidecar.adapters.postgres.migrate import check_schema
from sidecar.adapters.postgres.queries import PostgresQueries
from sidecar.adapters.postgres.quick import Quick, QuickDecisions
from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import Connection
from sidecar.adapters.postgres.writing import Answer, write
from sidecar.errors import SchemaMismatch, StoreConflict, StoreError, StoreUnavailable
from sidecar.ports.store import (
    Batch,
    BatchResult,
    Claimed,
    Missing,
    StartResult,
    TransitionResult,
)
from sidecar.saga.definition import Render

COMMIT_WITHIN_S = 20.0
CLOSE_WITHIN_S = 3.0
VITAL = 2
"""How many connections ask what keeps the sidecar alive, at most; one if nothing is slow."""
VITAL_RECONNECT_FOR_S = 0.2
"""Asked every few seconds anyway, each time at once: a pool that pauses between its own tries would
keep a heartbeat silent for seconds after the server has come back."""
DOUBTS_KEPT = 1_000
OWED_GOOD_FOR_S = 1.0
"""Claims that could not be told for longer are left to their leases."""

Ticket = tuple[str, int]
Doubted = tuple[Session, ...]
"""The sessions that may have committed a batch, or may still be about to."""


@dataclass(frozen=True, slots=True)
class _Writer:
    """A connection for commits, and the server's process behind it."""

    connection: Connection
    session: Session


@dataclass(frozen=True, slots=True)
class _Owed:
    """Claims that were made and not told yet, whose they are, and since when."""

    incarnation: str
    since: float
    claimed: tuple[Claimed, ...]


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
        super().__init__(
            readers=Reading(dsn, schema, at_least=0, at_most=readers),
            vital=Reading(
                dsn, schema, at_least=1, at_most=VITAL, reconnect_for_s=VITAL_RECONNECT_FOR_S
            ),
        )
        self._dsn = dsn
        self._schema = schema
        self._render = render
        self._definitions = CompiledDefinitions(compile_document)
        self._kept = KeptStates()
        self._quick = QuickDecisions(self._kept, self._definitions, render)
        self._writers: asyncio.LifoQueue[_Writer | None] = asyncio.LifoQueue()
        self._writer_count = writers
        self._in_doubt: OrderedDict[Ticket, Doubted] = OrderedDict()
        self._owed: _Owed | None = None
        self._open = False

    async def open(self) -> None:
        """Connect, and check the schema. Raises `ConfigError` behind a connection pooler."""
        if self._open:
            return
        writer = await self._new_writer()
        try:
            await check_schema(writer.connection)
            await self.vital.open()
            await self.readers.open()
        except BaseException:
            await self._close_reading()
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
        await self._close_reading()
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
            result = self._with_owed(batch, result)
        except (StoreError, *DRIVER_ERRORS) as error:
            meaning = error if isinstance(error, StoreError) else translate(error)
            if writer is not None and not isinstance(meaning, StoreUnavailable):
                clean = await _rolled_back(writer)
            raise meaning from error
        else:
            self._in_doubt.pop(ticket, None)
            return result
        finally:
            if not clean:
                self._kept.forget_all()
            if not clean and writer is not None:
                self._doubt(ticket, writer.session)
                await _drop(writer)
            await self._give_back(writer if clean else None)

    async def _run(self, writer: _Writer, batch: Batch, doubted: Doubted) -> BatchResult:
        for session in doubted:
            await end_session(writer.connection, session)
        if doubted or (batch.incarnation, batch.ticket) in self._in_doubt:
            return await self._under_locks(writer, batch, repeated=True)
        quick = self._quick.decide(batch)
        decides = bool(batch.starts or batch.transitions or batch.epoch)
        if decides and not quick.written.after:
            return await self._under_locks(writer, batch, repeated=False)
        answer = await write(writer.connection, batch, quick.written)
        self._kept.learn(answer, quick.written)
        rest = _Rest(batch, quick, answer)
        if not rest.batch.starts and not rest.batch.transitions:
            return rest.joined(None)
        # From here on the batch has taken effect in part.
        self._doubt((batch.incarnation, batch.ticket), None)
        try:
            later = await self._under_locks(writer, rest.batch, repeated=False)
        except Exception as error:
            if not _comes_again(error):
                self._owe(batch, answer)
            raise
        return rest.joined(later)

    def _owe(self, batch: Batch, answer: Answer) -> None:
        owed = self._owed
        if owed is None or owed.incarnation != batch.incarnation:
            owed = _Owed(batch.incarnation, time.monotonic(), ())
        self._owed = _Owed(owed.incarnation, owed.since, (*owed.claimed, *answer.claimed))

    def _with_owed(self, batch: Batch, result: BatchResult) -> BatchResult:
        """Add the claims of a batch that took effect in part before one of its members failed.

        Its members come again in other batches, under which these would never be found.
        """
        if self._owed is None or self._owed.incarnation != batch.incarnation:
            return result
        owed, self._owed = self._owed, None
        if time.monotonic() - owed.since > OWED_GOOD_FOR_S:
            return result
        return replace(result, claimed=(*owed.claimed, *result.claimed))

    async def _under_locks(self, writer: _Writer, batch: Batch, *, repeated: bool) -> BatchResult:
        work = Transaction(
            writer.connection, batch, self._definitions, self._render, repeated=repeated
        )
        answer = await work.run()
        self._kept.learn(answer, work.written)
        return BatchResult(
            now=answer.now,
            starts=work.starts,
            transitions=work.transitions,
            claimed=tuple(answer.claimed),
            children=tuple(work.written.children),
            refused_keys=answer.refused,
        )

    async def _new_writer(self) -> _Writer:
        with translated():
            connection = await connect(self._dsn, self._schema, writer=True)
            try:
                return _Writer(connection, await session_of(connection))
            except BaseException:
                await connection.close()
                raise

    async def _close_reading(self) -> None:
        await asyncio.gather(self.readers.close(), self.vital.close())

    def _doubt(self, ticket: Ticket, session: Session | None) -> None:
        """Remember that a batch may have taken effect; `session` if it may still be about to."""
        more = () if session is None else (session,)
        self._in_doubt[ticket] = (*self._in_doubt.get(ticket, ()), *more)
        if len(self._in_doubt) > DOUBTS_KEPT:
            self._in_doubt.popitem(last=False)

    async def _give_back(self, writer: _Writer | None) -> None:
        if self._open or writer is None:
            self._writers.put_nowait(writer)
        else:
            await _drop(writer)


class _Rest:
    """What one quick statement has left of a batch, and how the two results make one."""

    def __init__(self, batch: Batch, quick: Quick, answer: Answer) -> None:
        self._batch = batch
        self._answer = answer
        self._starts: dict[int, StartResult] = {
            at: one for at, one in quick.starts.items() if one.workflow not in answer.lost
        }
        self._transitions: dict[int, TransitionResult] = {
            at: Missing.LOCKED if one.changes.workflow.id in answer.lost else one
            for at, one in quick.transitions.items()
        }
        self.batch = replace(
            batch,
            starts=tuple(one for at, one in enumerate(batch.starts) if at not in self._starts),
            transitions=tuple(
                one for at, one in enumerate(batch.transitions) if at not in self._transitions
            ),
            claim_keys=None,
            claim_due=None,
        )

    def joined(self, later: BatchResult | None) -> BatchResult:
        """The result of the whole batch."""
        starts = iter(later.starts if later else ())
        transitions = iter(later.transitions if later else ())
        return BatchResult(
            now=later.now if later else self._answer.now,
            starts=tuple(
                self._starts.get(at) or next(starts) for at in range(len(self._batch.starts))
            ),
            transitions=tuple(
                self._transitions.get(at) or next(transitions)
                for at in range(len(self._batch.transitions))
            ),
            claimed=(*self._answer.claimed, *(later.claimed if later else ())),
            children=later.children if later else (),
            refused_keys=self._answer.refused,
        )


def _comes_again(error: Exception) -> bool:
    """Whether the same batch is offered again after this error: under its ticket all is found."""
    if isinstance(error, DRIVER_ERRORS):
        error = translate(error)
    return isinstance(error, StoreConflict | StoreUnavailable | SchemaMismatch)


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
