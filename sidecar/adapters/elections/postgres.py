"""The election by PostgreSQL's advisory lock, on a session of its own.

Whoever holds the lock leads. The session is dedicated and never pooled; every `beat_s` it is
asked whether it still holds the lock. The term is trusted until the last good answer was
**asked for**, plus `ttl_s` minus a margin, by the monotonic clock: a slow answer can only
shorten it. A session that the server ends is noticed at once, without being asked.

A candidate keeps its session, too, and asks for the lock now and then:

    no session ──connect──▶ asking ──"no"──▶ waiting ──▶ asking ──"yes"──▶ keeping the lock
        ▲                      │                │                               │
        └────── any error, any doubt, being cancelled, a read-only server ◀─────┘

Two dangers of advisory locks are met here:

- a process that is stopped keeps its session, and with it the lock: the server ends the
  session after `ttl_s` of silence (`idle_session_timeout`, PostgreSQL 14 and later)
- a lock granted to a client that has given up waiting: on any doubt the session is closed

A lock carries no number; the epoch that fences the leader's writes comes from the store.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import psycopg
import structlog

from sidecar.adapters.postgres.connections import ImpatientConnection
from sidecar.adapters.postgres.sql import load
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy

log = structlog.get_logger("sidecar.election")

SQL = load(__file__)
LOCK_CLASS = 0x60C0


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """In seconds: `beat_s` between proofs, `ttl_s` for which a proof is good.

    An answer that takes longer than `answer_s` is none. Two that take almost as long must not cost
    a term: `answer_s` twice and `beat_s` are within `ttl_s` minus `margin_s`. Candidates ask every
    `retry_s`, give or take the part `spread` of it, so that they do not all ask at once.
    """

    beat_s: float = 4.0
    answer_s: float = 2.5
    ttl_s: float = 10.0
    margin_s: float = 1.0
    retry_s: float = 2.25
    spread: float = 0.11


def lock_number(namespace: str) -> int:
    """Return the lock number, 31 bits, of a namespace."""
    digest = hashlib.sha256(f"goconductor/{namespace}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


class PostgresTerm:
    """A term that lasts as long as its session proves that it holds the lock."""

    def __init__(self, clock: Clock, times: ElectionTimes) -> None:
        self._clock = clock
        self._times = times
        self._trusted_until = 0.0
        self.ended = asyncio.Event()

    def extend(self, asked_at: float) -> None:
        """A proof asked for at `asked_at` came back good."""
        self._trusted_until = asked_at + self._times.ttl_s - self._times.margin_s

    def trusted(self) -> bool:
        """Whether the last proof is still good."""
        return not self.ended.is_set() and self._clock.monotonic() < self._trusted_until

    async def lost(self) -> None:
        """Wait for the end of the term."""
        await self.ended.wait()

    async def resign(self) -> None:
        """End the term; the session is closed, which frees the lock."""
        self.ended.set()


class PostgresElection:
    """One candidate. `dsn` must lead to the server itself, not to a pooler."""

    def __init__(
        self,
        dsn: str,
        namespace: str,
        *,
        clock: Clock,
        entropy: Entropy,
        times: ElectionTimes | None = None,
    ) -> None:
        self._dsn = dsn
        self._lock = {"class": LOCK_CLASS, "object": lock_number(namespace)}
        self._clock = clock
        self._entropy = entropy
        self._times = times or ElectionTimes()
        self._keeper: asyncio.Task[None] | None = None
        self._term: PostgresTerm | None = None
        self._session: psycopg.AsyncConnection | None = None

    async def open(self) -> None:
        """Nothing to make ready; `campaign` connects."""

    async def close(self) -> None:
        """Resign if leading, and close the session."""
        if self._term is not None:
            await self._term.resign()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        # The keeper closes it too, unless it was cancelled before it had begun.
        await self._drop_session()

    async def campaign(self) -> PostgresTerm:
        """Wait until the lock is ours."""
        await self.close()
        try:
            while True:
                self._term = await self._try()
                if self._term is not None:
                    return self._term
                await asyncio.sleep(self._pause())
        except BaseException:
            await self._drop_session()  # nobody would use it any more
            raise

    def _pause(self) -> float:
        times = self._times
        return times.retry_s * (1.0 + times.spread * (2.0 * self._entropy.chance() - 1.0))

    async def _try(self) -> PostgresTerm | None:
        """Ask for the lock, on the session of the last attempt if there is one.

        If that one has ended meanwhile, a new one is asked at once, as if it had never been.
        """
        if self._session is not None:
            try:
                return await self._ask(self._times.answer_s)
            except (psycopg.Error, TimeoutError) as error:
                reason = str(error) or "no answer in time"
                log.warning("election_candidate_session_lost", error=reason)
        try:
            return await self._ask(self._times.ttl_s)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("election_unavailable", error=str(error) or "no answer in time")
            return None

    async def _ask(self, within_s: float) -> PostgresTerm | None:
        """Ask once; the session outlives it only if the answer is clear. Raises driver errors."""
        kept = False
        try:
            async with asyncio.timeout(within_s):
                if self._session is None:
                    self._session = await self._connect()
                asked_at = self._clock.monotonic()
                cursor = await self._session.execute(SQL["try_lock"], self._lock)
                row = await cursor.fetchone()
            held = row[0] if row is not None else None
            if held is None:
                log.warning("election_unavailable", error="the server cannot be written any more")
                return None
            kept = True
            return self._begin(self._session, asked_at) if held else None
        finally:
            if not kept:
                await self._drop_session()

    def _begin(self, session: psycopg.AsyncConnection, asked_at: float) -> PostgresTerm:
        term = PostgresTerm(self._clock, self._times)
        term.extend(asked_at)
        self._keeper = asyncio.create_task(self._keep(session, term), name="election")
        return term

    async def _connect(self) -> psycopg.AsyncConnection:
        connection = await ImpatientConnection.connect(
            self._dsn,
            autocommit=True,
            prepare_threshold=None,
            # A standby has locks of its own: one leader there and one here.
            target_session_attrs="read-write",
        )
        try:
            await self._guard(connection)
        except BaseException:
            await _drop(connection)
            raise
        return connection

    async def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await _drop(session)

    async def _guard(self, connection: psycopg.AsyncConnection) -> None:
        milliseconds = int(self._times.ttl_s * 1000)
        settings = {"idle_ms": milliseconds, "statement_ms": milliseconds}
        if connection.info.server_version < 140000:
            log.warning("paused_leader_keeps_lock", server=connection.info.server_version)
            return
        await connection.execute(SQL["guard_session"], settings)

    async def _keep(self, connection: psycopg.AsyncConnection, term: PostgresTerm) -> None:
        proof = {**self._lock, "pid": connection.info.backend_pid}
        try:
            while not term.ended.is_set():
                await self._until_next_beat(connection, term)
                if term.ended.is_set():
                    return
                asked_at = self._clock.monotonic()
                async with asyncio.timeout(self._times.answer_s):
                    cursor = await connection.execute(SQL["still_held"], proof)
                    row = await cursor.fetchone()
                if row is None or not row[0]:
                    log.warning("election_lock_lost")
                    return
                term.extend(asked_at)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("election_session_lost", error=str(error) or "no answer in time")
        finally:
            term.ended.set()
            await _drop(connection)

    async def _until_next_beat(
        self, connection: psycopg.AsyncConnection, term: PostgresTerm
    ) -> None:
        """Wait for the time of the next proof, the end of the term, or a word of the server.

        Unasked it says something when it ends the session; whatever it is, the proof will show.
        """
        loop, line = asyncio.get_running_loop(), connection.fileno()

        def hurry() -> None:
            loop.remove_reader(line)
            if not beat.expired():
                beat.reschedule(loop.time())

        try:
            async with asyncio.timeout(self._times.beat_s) as beat:
                loop.add_reader(line, hurry)
                await term.ended.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(line)


async def _drop(connection: psycopg.AsyncConnection) -> None:
    """Close a session, answering or not: closing is what frees the lock."""
    try:
        async with asyncio.timeout(2):
            await connection.close()
    except (psycopg.Error, TimeoutError) as error:
        log.warning("election_session_not_closed", error=str(error))
