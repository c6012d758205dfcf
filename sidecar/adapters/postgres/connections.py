"""Connections: how every session with PostgreSQL is set up.

The search path is pinned to the product's schema. Time-outs bound every wait on the server's
side, keepalives and `tcp_user_timeout` every silence of the network. Plans must use the indexes
even on tables that were never analysed: a generic plan made on an empty table would scan it for
ever after. A writer's statements are planned once; for a reader's the server decides whether
the values asked for are worth a plan of their own.

A question that is given up is taken back within seconds, also on a line that is half open: the
server is asked to stop, and if it does not hear that soon, the line is cut under the driver.

A pooler that lends one server session to many clients (pgbouncer) is refused: locks, settings
and prepared statements would belong to somebody else.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sidecar.adapters.postgres.sql import Connection, load, send
from sidecar.errors import ConfigError, StoreUnavailable

SQL = load(__file__)

CONNECT_WITHIN_S = 5
TAKE_BACK_WITHIN_S = 1.0
STATEMENT_WITHIN_MS = 15_000
LOCK_WITHIN_MS = 5_000
WRITER_LOCK_WITHIN_MS = 200
"""All that gathers behind a writer waits with it; what it gave up waiting for rides again."""
SESSION_ENDS_WITHIN_S = 5.0
SESSION_LOOK_S = 0.05

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PLANS_NEVER_USED = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")


@dataclass(frozen=True, slots=True)
class Session:
    """A server process, and when it began."""

    pid: int
    began: datetime


class ImpatientConnection(psycopg.AsyncConnection[Any]):
    """A connection whose questions can be given up also where nobody answers.

    The driver, cancelled, asks the server to stop and waits for its word, each for five seconds.
    """

    async def cancel_safe(self, *, timeout: float = TAKE_BACK_WITHIN_S) -> None:
        """Ask the server to stop; hang up if it does not hear that in time."""
        try:
            await super().cancel_safe(timeout=min(timeout, TAKE_BACK_WITHIN_S))
        except BaseException:
            hang_up(self)
            raise


def hang_up(connection: psycopg.AsyncConnection[Any]) -> None:
    """Cut a connection under the driver, which then finds that the server has gone."""
    if not connection.closed:
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def checked_schema(schema: str) -> str:
    """Return `schema` if it is a plain identifier. Raises `ConfigError`."""
    if not _SCHEMA.fullmatch(schema):
        raise ConfigError(f"store.schema: {schema!r} is not a plain lower-case identifier")
    return schema


def parameters(dsn: str, schema: str, *, writer: bool = False) -> dict[str, Any]:
    """Return the arguments of `psycopg.AsyncConnection.connect`. Raises `ConfigError`."""
    checked_schema(schema)
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error as error:
        raise ConfigError(f"store.dsn: not a PostgreSQL address: {error}") from error
    settings = {
        "search_path": schema,
        "statement_timeout": STATEMENT_WITHIN_MS,
        "lock_timeout": LOCK_WITHIN_MS,
        "idle_in_transaction_session_timeout": STATEMENT_WITHIN_MS,
        "timezone": "UTC",
        "jit": "off",
        **dict.fromkeys(_PLANS_NEVER_USED, "off"),
    }
    if writer:
        settings["enable_bitmapscan"] = "off"
        settings["lock_timeout"] = WRITER_LOCK_WITHIN_MS
        settings["plan_cache_mode"] = "force_generic_plan"
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    mine = {
        "options": f"{given.get('options', '')} {options}".strip(),
        "application_name": "goconductor",
        "connect_timeout": CONNECT_WITHIN_S,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "target_session_attrs": "read-write",
    }
    return {**given, **mine}


async def connect(dsn: str, schema: str, *, writer: bool = False) -> Connection:
    """Open one connection. Raises the driver's errors.

    A writer commits by itself: it says where its transactions begin and end.
    """
    connection: Connection = await ImpatientConnection.connect(
        autocommit=writer, **parameters(dsn, schema, writer=writer)
    )
    connection.prepare_threshold = 2
    return connection


async def session_of(connection: Connection) -> Session:
    """Return the session behind a connection. Raises `ConfigError` if it is a pooler's."""
    row = await (await send(connection, SQL["session"])).fetchone()
    if row is None or row["pid"] != connection.info.backend_pid:
        raise ConfigError(
            "store.dsn: a connection pooler (pgbouncer) stands before PostgreSQL; "
            "give the address of PostgreSQL itself"
        )
    return Session(row["pid"], row["began"])


async def end_session(connection: Connection, session: Session) -> None:
    """Make sure that a session has ended. Raises `StoreUnavailable` when it does not."""
    try:
        async with asyncio.timeout(SESSION_ENDS_WITHIN_S):
            while not await _has_ended(connection, session):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(SESSION_LOOK_S)
    except TimeoutError as error:
        raise StoreUnavailable("an earlier session of this sidecar does not end") from error


async def _has_ended(connection: Connection, session: Session) -> bool:
    values = {"pid": session.pid, "began": session.began}
    return await (await send(connection, SQL["end_session"], **values)).fetchone() is None
