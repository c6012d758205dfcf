"""Connections: how every session with PostgreSQL is set up.

The search path is pinned to the product's schema. Time-outs bound every wait on the server's
side, keepalives and `tcp_user_timeout` every silence of the network. A writer's plans must use
the indexes even on tables that were never analysed: a generic plan made on an empty table
would scan it for ever after.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sidecar.errors import ConfigError

CONNECT_WITHIN_S = 5
STATEMENT_WITHIN_MS = 15_000
LOCK_WITHIN_MS = 5_000

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_WRITER_PLANS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")


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
    }
    if writer:
        settings |= dict.fromkeys(_WRITER_PLANS, "off")
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


async def connect(dsn: str, schema: str, *, writer: bool = False) -> psycopg.AsyncConnection[Any]:
    """Open one connection. Raises the driver's errors."""
    connection: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
        **parameters(dsn, schema, writer=writer)
    )
    connection.prepare_threshold = 2
    return connection
