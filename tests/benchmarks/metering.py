"""What the transactions of the PostgreSQL store cost: statements, rows read, rows written.

The server counts the rows itself, for each transaction that reads under locks: it is asked after
its BEGIN and before its COMMIT. So it does not matter who else is at work, nor how fast.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import psycopg

from sidecar.adapters.postgres.commit import Transaction

_COUNTED = b"""
    SELECT relname, seq_tup_read + idx_tup_fetch, n_tup_ins + n_tup_upd + n_tup_del
    FROM pg_stat_xact_user_tables WHERE schemaname = 'goconductor'
"""


@dataclass(slots=True)
class Cost:
    """Of one transaction, or of all of a span."""

    statements: int = 0
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """All rows that were read, of all tables."""
        return sum(self.read.values())


async def rows_read(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    """The rows of each table that a session has read, in its transaction and of late."""
    cursor = psycopg.AsyncCursor(connection)
    await cursor.execute(_COUNTED)
    return {table: read or 0 for table, read, _ in await cursor.fetchall()}


@contextmanager
def metered() -> Iterator[Cost]:
    """Count what the store does within, on all of its connections."""
    cost = Cost()
    send, execute = Transaction._send, psycopg.AsyncRawCursor.execute

    async def count(transaction: Transaction, sign: int) -> None:
        # Until it tells others, a session counts on from one transaction to the next.
        cursor = psycopg.AsyncCursor(transaction._connection)
        await cursor.execute(_COUNTED)
        for table, read, written in await cursor.fetchall():
            cost.read[table] = cost.read.get(table, 0) + sign * (read or 0)
            cost.written[table] = cost.written.get(table, 0) + sign * written

    async def counted(self: Transaction, name: str, **values: object) -> Any:
        if name == "commit":
            await count(self, 1)
        sent = await send(self, name, **values)
        if name == "begin":
            await count(self, -1)
        return sent

    async def noted(self: Any, *arguments: Any, **more: Any) -> Any:
        cost.statements += 1
        return await execute(self, *arguments, **more)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Transaction, "_send", counted))
        stack.enter_context(patch.object(psycopg.AsyncRawCursor, "execute", noted))
        began = time.perf_counter()
        yield cost
        cost.seconds = time.perf_counter() - began
