"""Notices by LISTEN and NOTIFY.

Promise: a notice is a hint and never holds anybody up. It is said in a transaction of its own,
because NOTIFY takes a lock that serialises commits. While one is under way the next gather
(no timer: a lone one goes at once, after a few turns of the loop). While PostgreSQL is away
they gather too, within bounds.

    announce() ─▶ gathered ─▶ speaker's connection ─▶ NOTIFY ─▶ listener's connection ─▶ hear()

Two connections per sidecar, outside any pool. Each is opened again for ever, with a capped and
jittered back-off. The listener's is proven alive by a round trip every few seconds, since a
half-open connection looks like silence; whenever it was opened, subscribers hear a notice
that names the own service: something may have been said meanwhile.

Channels are per schema and namespace, their names hashed to stay below PostgreSQL's 63 bytes:
one for each service rung (so a sidecar is woken for its own service only) and one for the
workflows ended. A pooler in transaction mode swallows LISTEN: sidecars then only look for
themselves, as they do anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg
import structlog
from psycopg import sql

from sidecar.adapters.postgres.connections import checked_schema, connect, hang_up
from sidecar.adapters.postgres.sql import load, send
from sidecar.ports.notices import Notice
from sidecar.saga.workflow import WorkflowId

SQL = load(__file__)
IDS_PER_PAYLOAD = 200
"""A payload must stay below 8000 bytes; an id and its comma are 37."""
MAX_GATHERED = 20_000
"""Ids kept while PostgreSQL is away; beyond that the oldest are forgotten."""

CHANNELS_KEPT = 1_000
TURNS = 4
"""Turns of the loop in which what is being announced may still come along."""

_FAULTS = (psycopg.Error, OSError, TimeoutError)
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 5.0
_FAREWELL_WITHIN_S = 1.0
_PROVEN_WITHIN_S = 3.0
"""With the time between two proofs, what a listener on a line that is half open may be deaf."""

_log = structlog.get_logger("sidecar.notices")


class PostgresNotices:
    """One sidecar's notices, within `namespace` of the tables in `schema`.

    `prove_every_s` is how often the listening connection must show that it is alive,
    `answer_within_s` the deadline of everything that is asked of PostgreSQL.
    """

    def __init__(
        self,
        dsn: str,
        *,
        namespace: str,
        service: str,
        schema: str = "goconductor",
        prove_every_s: float = 12.0,
        answer_within_s: float = 5.0,
    ) -> None:
        self._dsn = dsn
        self._schema = checked_schema(schema)
        self._namespace = namespace
        self._service = service
        self._prove_every_s = prove_every_s
        self._answer_within_s = answer_within_s
        self._ended_channel = self._channel("ended")
        self._own_channel = self._channel("rung", service)
        self._subscribers: list[Callable[[Notice], None]] = []
        self._services: set[str] = set()
        self._ended: dict[WorkflowId, None] = {}
        self._gathered = asyncio.Event()
        self._said = asyncio.Event()
        self._said.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._asked: set[psycopg.AsyncConnection[Any]] = set()

    async def open(self) -> None:
        """See the port. Subscribers hear of the own service once the first LISTEN took effect."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._for_ever(self._listen), name="notices-listener"),
                asyncio.create_task(self._for_ever(self._speak), name="notices-speaker"),
            ]

    async def close(self) -> None:
        """See the port. What was announced before is still said, if that takes no second."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_WITHIN_S):
                    await self._said.wait()
        finally:
            for connection in self._asked:
                hang_up(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def announce(self, *, services: Iterable[str] = (), ended: Collection[WorkflowId] = ()) -> None:
        """See the port."""
        self._services.update(services)
        self._ended.update(dict.fromkeys(ended))
        if self._services or self._ended:
            self._forget_beyond_bounds()
            self._said.clear()
            self._gathered.set()

    def subscribe(self, hear: Callable[[Notice], None]) -> Callable[[], None]:
        """See the port. Of the services rung, only the own one is heard."""
        self._subscribers.append(hear)

        def unsubscribe() -> None:
            with suppress(ValueError):
                self._subscribers.remove(hear)

        return unsubscribe

    async def _for_ever(self, use: Callable[[psycopg.AsyncConnection[Any]], Any]) -> None:
        """Open a connection and use it until it fails; then again, after a pause."""
        pause = _FIRST_PAUSE_S
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._answer_within_s):
                    connection = await connect(self._dsn, self._schema)
                try:
                    await connection.set_autocommit(True)
                    await use(connection)
                finally:
                    # Not `async with`: its exit would talk to a server that may not answer.
                    await connection.close()
            except _FAULTS as error:
                reason = str(error).strip() or type(error).__name__
                _log.warning("notices_interrupted", part=use.__name__.strip("_"), reason=reason)
            if asyncio.get_running_loop().time() - began > _LAST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LAST_PAUSE_S)

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        for channel in (self._own_channel, self._ended_channel):
            statement = sql.SQL(SQL["listen"]).format(channel=sql.Identifier(channel))
            await self._ask(connection, connection.execute(statement))
        self._tell(Notice(services=frozenset({self._service})))
        while True:
            # The generator itself ends after `timeout`; the deadline around it is for one that
            # does not.
            async with asyncio.timeout(self._prove_every_s + self._answer_within_s):
                async for notify in connection.notifies(timeout=self._prove_every_s):
                    self._hear(notify)
            proven_within = min(_PROVEN_WITHIN_S, self._answer_within_s)
            await self._ask(connection, send(connection, SQL["prove"]), within_s=proven_within)

    async def _speak(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while True:
            await self._gathered.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self._gathered.clear()
            services, ended = frozenset(self._services), tuple(self._ended)
            self._services.clear()
            self._ended.clear()
            try:
                await self._say(connection, services, ended)
            except _FAULTS:
                # Said perhaps, or not: once more then, by the next connection.
                self.announce(services=services, ended=ended)
                raise
            if not self._gathered.is_set():
                self._said.set()

    async def _say(
        self,
        connection: psycopg.AsyncConnection[Any],
        services: frozenset[str],
        ended: tuple[WorkflowId, ...],
    ) -> None:
        lines = [self._channel("rung", service) for service in services]
        for first in range(0, len(ended), IDS_PER_PAYLOAD):
            ids = ",".join(ended[first : first + IDS_PER_PAYLOAD])
            lines.append(f"{self._ended_channel} {ids}")
        await self._ask(connection, send(connection, SQL["notify"], said="\n".join(lines)))

    async def _ask(
        self,
        connection: psycopg.AsyncConnection[Any],
        question: Awaitable[object],
        *,
        within_s: float | None = None,
    ) -> None:
        """Wait for an answer; raise the driver's error if there is none in time.

        The deadline hangs up instead of cancelling: a cancelled driver would first ask the silent
        server to stop.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(within_s or self._answer_within_s, hang_up, connection)
        self._asked.add(connection)
        try:
            await question
        finally:
            self._asked.discard(connection)
            deadline.cancel()

    def _hear(self, notify: psycopg.Notify) -> None:
        if notify.channel == self._own_channel:
            self._tell(Notice(services=frozenset({self._service})))
        elif notify.payload:
            self._tell(Notice(ended=tuple(map(WorkflowId, notify.payload.split(",")))))

    def _tell(self, notice: Notice) -> None:
        for hear in tuple(self._subscribers):
            try:
                hear(notice)
            except Exception:  # noqa: BLE001  (anybody's code: it must not silence the others)
                _log.exception("notices_subscriber_failed")

    def _forget_beyond_bounds(self) -> None:
        surplus = len(self._ended) - MAX_GATHERED
        if surplus > 0:
            for workflow in tuple(self._ended)[:surplus]:
                del self._ended[workflow]
            _log.warning("notices_forgotten", count=surplus)

    def _channel(self, *parts: str) -> str:
        return _channel_of(self._schema, self._namespace, *parts)


@lru_cache(maxsize=CHANNELS_KEPT)
def _channel_of(*parts: str) -> str:
    name = "\0".join(parts).encode()
    return f"goconductor_{hashlib.blake2b(name, digest_size=16).hexdigest()}"
