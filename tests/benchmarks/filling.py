"""Fills a database with workflows of the past and of the future, cloned from one that really ran.

They are what the tables would hold after so many runs: rows, steps and history of the same shape.
Their ids are older than any new one. Whoever waits does so for a time that is not reached.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

AT_ONCE = 100_000
ENDED, WAITING = 0, 1
"""The two kinds have ids of their own."""
TABLES = {"workflows": "id", "steps": "workflow_id", "events": "workflow_id"}
_FAR = "now() + interval '30 days'"
_WAITS: Mapping[str, Mapping[str, str]] = {
    "workflows": {
        "status": "'in_progress'", "ended_at": "NULL", "output": "NULL", "deadline_at": _FAR,
    },
    "steps": {
        "status": "'retrying'", "due_at": _FAR, "ended_at": "NULL", "succeeded": "false",
        "output": "NULL", "lease_until": "NULL", "owner": "NULL", "ticket": "NULL",
    },
    "events": {},
}  # fmt: skip


def add_ended(dsn: str, first: int, count: int) -> None:
    """Add workflows that have ended, with all their steps and history."""
    _add(dsn, ENDED, first, count, {table: {} for table in TABLES}, steps="true")


def add_waiting(dsn: str, first: int, count: int) -> None:
    """Add open workflows whose first step waits to be tried again, and whose deadline is far."""
    _add(dsn, WAITING, first, count, _WAITS, steps="t.step = 'charge'")


def _add(
    dsn: str,
    kind: int,
    first: int,
    count: int,
    other: Mapping[str, Mapping[str, str]],
    *,
    steps: str,
) -> None:
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=goconductor") as connection:
        row = connection.execute(
            "SELECT id FROM workflows WHERE status = 'completed' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            raise ValueError("no workflow has completed yet: there is nothing to clone")
        for begin in range(first, first + count, AT_ONCE):
            end = min(begin + AT_ONCE, first + count) - 1
            for table, key in TABLES.items():
                which = steps if table == "steps" else "true"
                statement = _clone(connection, table, key, other[table], which)
                connection.execute(
                    statement, {"like": row[0], "kind": kind, "from": begin, "to": end}
                )
        for table in TABLES:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
        connection.execute("CHECKPOINT")


def _clone(
    connection: psycopg.Connection, table: str, key: str, other: Mapping[str, str], which: str
) -> sql.Composed:
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'goconductor' AND table_name = %s ORDER BY ordinal_position",
        [table],
    )
    columns = [name for (name,) in found]
    made = {
        key: "('0000' || %(kind)s || '000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
        **other,
    }
    values = [
        sql.SQL(made[name]) if name in made else sql.SQL("t.{}").format(sql.Identifier(name))
        for name in columns
    ]
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values}"
        " FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS n, {table} t"
        " WHERE t.{key} = %(like)s AND {which}"
    ).format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
        key=sql.Identifier(key),
        which=sql.SQL(which),
    )
